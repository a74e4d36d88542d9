-- Files that come inside a webhook request, reading messages by day, and asking providers how messages fared.

SET search_path = public;

-- The ledger row whose body holds the file; NULL where the provider keeps it.
ALTER TABLE media ADD COLUMN IF NOT EXISTS webhook_event_id uuid;

-- Reports go by day. Rows come nearly in time order, so a BRIN index costs next to nothing to keep.
CREATE INDEX IF NOT EXISTS messages_by_time ON messages USING brin (created_at) WITH (pages_per_range = 32);

-- Messages whose provider is to be asked: its callbacks may have been lost while we were down, and some tell the price
-- only when asked.
CREATE TABLE IF NOT EXISTS message_checks (
    org_id     uuid        NOT NULL,
    message_id uuid        NOT NULL,
    due_at     timestamptz NOT NULL,
    checks     int         NOT NULL DEFAULT 0,
    PRIMARY KEY (org_id, message_id),
    FOREIGN KEY (org_id, message_id) REFERENCES messages (org_id, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS message_checks_due ON message_checks (due_at);
CALL wasel.protect('message_checks', '{}');
REVOKE ALL ON message_checks FROM authenticated;
