-- The inbound ledger: every authentic webhook request, committed before it is acknowledged.

SET search_path = public;

CREATE TABLE IF NOT EXISTS webhook_events (
    org_id      uuid        NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    id          uuid        NOT NULL,
    -- NULL where no channel claims it.
    channel_id  uuid,
    -- A channel kind: which parser reads it.
    kind        text        NOT NULL,
    method      text        NOT NULL,
    -- Path and query as received.
    url         text        NOT NULL,
    content_type text,
    body        bytea       NOT NULL,
    -- `stored`: something new came of it. `duplicate`: nothing new. `dead_letter`: `reason` says why not.
    outcome     text        NOT NULL CHECK (outcome IN ('stored', 'duplicate', 'dead_letter')),
    reason      text,
    received_at timestamptz NOT NULL DEFAULT now(),
    replayed_at timestamptz,
    PRIMARY KEY (org_id, id)
);
CREATE INDEX IF NOT EXISTS webhook_events_dead ON webhook_events (org_id, received_at) WHERE outcome = 'dead_letter';

-- News about an account (template decisions, quality, restrictions), for the tenant's admin.
CREATE TABLE IF NOT EXISTS channel_notices (
    org_id     uuid        NOT NULL,
    id         uuid        NOT NULL,
    channel_id uuid        NOT NULL,
    topic      text        NOT NULL,
    detail     jsonb       NOT NULL,
    at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, channel_id) REFERENCES channels (org_id, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS channel_notices_recent ON channel_notices (org_id, at DESC);

-- The last calls under one limit: an exact sliding window that holds across server processes.
CREATE TABLE IF NOT EXISTS rate_limits (
    org_id uuid          NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    key    text          NOT NULL,
    hits   timestamptz[] NOT NULL,
    PRIMARY KEY (org_id, key)
);

-- Counts one call under `key`: NULL when it is within `allowed` calls per `span`, else how long to wait.
CREATE OR REPLACE FUNCTION wasel.take_rate(tenant uuid, limit_key text, allowed int, span interval) RETURNS interval
LANGUAGE plpgsql AS $$
DECLARE
    now_at timestamptz := clock_timestamp();
    recent timestamptz[];
BEGIN
    INSERT INTO rate_limits (org_id, key, hits) VALUES (tenant, limit_key, '{}') ON CONFLICT DO NOTHING;
    SELECT hits INTO recent FROM rate_limits WHERE org_id = tenant AND key = limit_key FOR UPDATE;
    recent := ARRAY(SELECT hit FROM unnest(recent) hit WHERE hit > now_at - span ORDER BY hit);
    IF cardinality(recent) >= allowed THEN
        RETURN recent[cardinality(recent) - allowed + 1] + span - now_at;
    END IF;
    UPDATE rate_limits SET hits = recent || now_at WHERE org_id = tenant AND key = limit_key;
    RETURN NULL;
END $$;

CALL wasel.protect('webhook_events', '{}');
CALL wasel.protect('channel_notices', '{}', 'channel_id');
CALL wasel.protect('rate_limits', '{}');
REVOKE ALL ON webhook_events, rate_limits FROM authenticated;
CALL wasel.stream('channel_notices');
