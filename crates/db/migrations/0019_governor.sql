-- The governor: whom each channel or business portfolio has reached, and what a frequency cap counts.

SET search_path = public;

-- People written to outside their 24-hour window, and when last. Kept for as long as they count: 24 hours.
CREATE TABLE IF NOT EXISTS channel_reach (
    org_id      uuid        NOT NULL,
    -- Who shares the limit: `waba:<id>` or `channel:<id>`.
    reach_group text        NOT NULL,
    contact_id  uuid        NOT NULL,
    at          timestamptz NOT NULL,
    PRIMARY KEY (org_id, reach_group, contact_id),
    FOREIGN KEY (org_id, contact_id) REFERENCES contacts (org_id, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS channel_reach_recent ON channel_reach (org_id, reach_group, at);
CALL wasel.protect('channel_reach', '{}');

-- What a frequency cap may count: never answers in a conversation or one-time passwords.
CREATE INDEX IF NOT EXISTS messages_capped ON messages (org_id, contact_id, created_at)
    WHERE direction = 'outbound' AND category IN ('marketing', 'utility');
