-- The outbound engine: who sends next, how fast, and why something waits.

SET search_path = public;

-- What a message is for. Marketing is what quiet hours, the frequency cap and a marketing opt-out are about.
ALTER TABLE messages ADD COLUMN IF NOT EXISTS category text NOT NULL DEFAULT 'service'
    CHECK (category IN ('service', 'utility', 'marketing', 'authentication'));
-- The bulk job, or the row of notification_queue, that asked for it.
ALTER TABLE messages ADD COLUMN IF NOT EXISTS bulk_job_id uuid;
ALTER TABLE messages ADD COLUMN IF NOT EXISTS notification_id uuid;
CREATE INDEX IF NOT EXISTS messages_bulk_job ON messages (org_id, bulk_job_id) WHERE bulk_job_id IS NOT NULL;

-- Ready rows have no due_at. One with a due_at waits, and becomes ready then.
ALTER TABLE outbox ALTER COLUMN due_at DROP NOT NULL, ALTER COLUMN due_at DROP DEFAULT;
-- Within a channel each bulk job has a lane of its own; everything else shares the nil one. Lanes take turns.
ALTER TABLE outbox ADD COLUMN IF NOT EXISTS lane uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000';
-- Leaves after the earlier ordered messages of its conversation. Bulk messages and held ones do not queue for each other.
ALTER TABLE outbox ADD COLUMN IF NOT EXISTS ordered boolean NOT NULL DEFAULT true;
-- Why it waits until due_at: `order`, `retry`, `unknown`, or a rule of the governor.
ALTER TABLE outbox ADD COLUMN IF NOT EXISTS hold_reason text;
ALTER TABLE outbox ADD COLUMN IF NOT EXISTS claimed_at timestamptz;
ALTER TABLE outbox SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

DROP INDEX IF EXISTS outbox_ready;
CREATE INDEX IF NOT EXISTS outbox_lanes ON outbox (org_id, channel_id, lane, priority, message_id)
    WHERE due_at IS NULL AND leased_until IS NULL;
CREATE INDEX IF NOT EXISTS outbox_waiting ON outbox (due_at) WHERE due_at IS NOT NULL AND leased_until IS NULL;

-- A callback may come before its send is written down, and name only the attempt.
CREATE INDEX IF NOT EXISTS outbox_attempts ON outbox (org_id, attempt_id) WHERE leased_until IS NOT NULL;
CREATE INDEX IF NOT EXISTS pending_statuses_attempt ON pending_statuses (org_id, attempt_id) WHERE attempt_id IS NOT NULL;

-- How far each channel has used its rate, for all nodes together.
CREATE TABLE IF NOT EXISTS channel_pace (
    org_id      uuid        NOT NULL,
    channel_id  uuid        NOT NULL,
    -- When the next message may leave (the theoretical arrival time of the generic cell rate algorithm).
    next_at     timestamptz NOT NULL DEFAULT now(),
    -- Of the channel's rate; a provider that throttles us halves it, and it recovers.
    rate_factor real        NOT NULL DEFAULT 1 CHECK (rate_factor > 0 AND rate_factor <= 1),
    -- The circuit breaker: nothing leaves until then, and then one message as a probe.
    hold_until  timestamptz,
    hold_reason text,
    strikes     int         NOT NULL DEFAULT 0,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, channel_id),
    FOREIGN KEY (org_id, channel_id) REFERENCES channels (org_id, id) ON DELETE CASCADE
);
CALL wasel.protect('channel_pace', '{}', 'channel_id');

-- {messages_per_second?, daily_reach?, warm_up?}: wasel_domain::limits::ChannelLimits.
ALTER TABLE channels ADD COLUMN IF NOT EXISTS limits jsonb NOT NULL DEFAULT '{}';
-- {quiet_hours?, frequency_cap?}: wasel_domain::limits::SendingPolicy.
ALTER TABLE organizations ADD COLUMN IF NOT EXISTS sending_policy jsonb NOT NULL DEFAULT '{}';
-- An IANA name; where it is NULL the number's country decides, else the organisation's zone.
ALTER TABLE contacts ADD COLUMN IF NOT EXISTS timezone text;

-- Applies what providers said about messages, in any order and number; one array element per event. An event is first
-- written to the timeline, where a repetition falls out; only what is new there touches the attempt and the message,
-- and both take the higher rank. `details` is JSON text: {provider_message_id, error_code?, error_message?, provider?}.
-- Answers which events told something new (`fresh`) and which name a message that is not known (`unknown`).
CREATE OR REPLACE FUNCTION wasel.advance_status(
    ids uuid[], orgs uuid[], channels uuid[], provider_ids text[], attempt_ids uuid[], statuses text[],
    times timestamptz[], details text[])
RETURNS TABLE (update_id uuid, outcome text)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    -- A message without an attempt of ours (imported, logged by somebody's SQL) gets one when it is first spoken of.
    -- Whoever logged it may not have known which of several numbers sent it: any channel of the same kind will do.
    INSERT INTO message_attempts (org_id, id, message_id, channel_id, provider_message_id, status, created_at, accepted_at)
    SELECT DISTINCT e.org_id, m.id, m.id, e.channel_id, e.provider_message_id, m.status, m.created_at, m.created_at
    FROM unnest(orgs, channels, provider_ids) AS e(org_id, channel_id, provider_message_id)
    CROSS JOIN LATERAL (
        SELECT m.id, m.status, m.created_at
        FROM channels here
        JOIN channels c ON c.org_id = here.org_id AND c.kind = here.kind
        JOIN messages m ON m.org_id = c.org_id AND m.channel_id = c.id AND m.provider_message_id = e.provider_message_id
        WHERE here.org_id = e.org_id AND here.id = e.channel_id AND m.direction = 'outbound' AND NOT EXISTS (
            SELECT FROM message_attempts t WHERE t.org_id = m.org_id AND t.message_id = m.id)
        ORDER BY c.id = e.channel_id DESC LIMIT 1) m
    WHERE NOT EXISTS (
        SELECT FROM message_attempts t WHERE t.org_id = e.org_id AND t.channel_id = e.channel_id
            AND t.provider_message_id = e.provider_message_id)
    ON CONFLICT DO NOTHING;
    -- In one order, and before the look for newer attempts: a retry that is being claimed this moment is seen then.
    PERFORM FROM messages m
    WHERE (m.org_id, m.id) IN (
        SELECT t.org_id, t.message_id FROM unnest(orgs, channels, provider_ids) AS e(org_id, channel_id, provider_message_id)
        JOIN message_attempts t ON t.org_id = e.org_id AND t.channel_id = e.channel_id
            AND t.provider_message_id = e.provider_message_id
        UNION
        SELECT t.org_id, t.message_id FROM unnest(orgs, attempt_ids) AS e(org_id, id)
        JOIN message_attempts t ON t.org_id = e.org_id AND t.id = e.id
        UNION
        SELECT o.org_id, o.message_id FROM unnest(orgs, attempt_ids) AS e(org_id, attempt_id)
        JOIN outbox o ON o.org_id = e.org_id AND o.attempt_id = e.attempt_id WHERE o.leased_until IS NOT NULL)
    ORDER BY m.org_id, m.id FOR NO KEY UPDATE;
    -- An attempt is written down when it ends; a callback may come sooner.
    INSERT INTO message_attempts (org_id, id, message_id, channel_id, status, created_at)
    SELECT o.org_id, o.attempt_id, o.message_id, o.channel_id, 'sending', coalesce(o.claimed_at, now())
    FROM unnest(orgs, channels, attempt_ids) AS e(org_id, channel_id, attempt_id)
    JOIN outbox o ON o.org_id = e.org_id AND o.attempt_id = e.attempt_id AND o.channel_id = e.channel_id
    WHERE o.leased_until IS NOT NULL
    ON CONFLICT DO NOTHING;
    RETURN QUERY
    WITH event AS (
        SELECT e.*, a.attempt, a.message_id
        FROM unnest(ids, orgs, channels, provider_ids, attempt_ids, statuses, times, details)
            AS e(id, org_id, channel_id, provider_message_id, attempt_hint, status, at, detail)
        LEFT JOIN LATERAL (
            -- Attempts at one e-mail share its Message-ID: the newest counts.
            (SELECT t.id AS attempt, t.message_id FROM message_attempts t
             WHERE t.org_id = e.org_id AND t.channel_id = e.channel_id AND t.provider_message_id = e.provider_message_id
             ORDER BY t.id DESC LIMIT 1)
            UNION ALL
            -- The answer to the request was lost, and the callback is the proof that it was taken; or a mail relay
            -- gave the message an id of its own.
            SELECT t.id, t.message_id FROM message_attempts t
            WHERE t.org_id = e.org_id AND t.id = e.attempt_hint AND t.channel_id = e.channel_id
            LIMIT 1) a ON true
    ), fresh AS (
        INSERT INTO message_events (org_id, id, message_id, attempt_id, event, at, detail)
        SELECT org_id, id, message_id, attempt, status, at, detail::jsonb FROM event WHERE attempt IS NOT NULL
        ON CONFLICT (org_id, message_id, attempt_id, event) WHERE attempt_id IS NOT NULL DO NOTHING
        RETURNING org_id, id, message_id, attempt_id, event, at, detail
    ), attempt AS (
        SELECT org_id, attempt_id, (array_agg(event ORDER BY wasel.status_rank(event) DESC))[1] AS status,
            min(nullif(detail ->> 'provider_message_id', '')) AS provider_message_id,
            min(detail ->> 'error_code') AS error_code, min(detail ->> 'error_message') AS error_message,
            min(at) AS at
        FROM fresh GROUP BY org_id, attempt_id
    ), attempts_moved AS (
        UPDATE message_attempts t SET
            status = CASE WHEN wasel.status_rank(a.status) > wasel.status_rank(t.status) THEN a.status ELSE t.status END,
            provider_message_id = coalesce(t.provider_message_id, a.provider_message_id),
            accepted_at = coalesce(t.accepted_at, a.at),
            error_code = coalesce(a.error_code, t.error_code),
            error_message = coalesce(a.error_message, t.error_message)
        FROM attempt a WHERE t.org_id = a.org_id AND t.id = a.attempt_id
    ), message AS (
        SELECT f.org_id, f.message_id, (array_agg(f.event ORDER BY wasel.status_rank(f.event) DESC))[1] AS status,
            min(nullif(f.detail ->> 'provider_message_id', '')) AS provider_message_id,
            min(f.detail ->> 'error_code') AS error_code, min(f.detail ->> 'error_message') AS error_message,
            (array_agg(f.detail #> '{provider,pricing}' ORDER BY f.at DESC)
                FILTER (WHERE f.detail #> '{provider,pricing}' IS NOT NULL))[1] AS pricing,
            min(f.at) FILTER (WHERE f.event IN ('sent', 'delivered', 'read')) AS sent_at,
            -- A provider may leave `delivered` out: `read` implies it.
            min(f.at) FILTER (WHERE f.event IN ('delivered', 'read')) AS delivered_at,
            min(f.at) FILTER (WHERE f.event = 'read') AS read_at,
            min(f.at) FILTER (WHERE f.event = 'failed') AS failed_at
        FROM fresh f
        -- The failure of an attempt that has been replaced by a newer one is not the message's.
        WHERE f.event NOT IN ('failed', 'cancelled') OR NOT EXISTS (
            SELECT FROM message_attempts newer
            WHERE newer.org_id = f.org_id AND newer.message_id = f.message_id AND newer.id > f.attempt_id)
        GROUP BY f.org_id, f.message_id
    ), moved AS (
        UPDATE messages m SET
            status = CASE WHEN wasel.status_rank(n.status) > wasel.status_rank(m.status) THEN n.status ELSE m.status END,
            provider_message_id = coalesce(m.provider_message_id, n.provider_message_id),
            sent_at = least(m.sent_at, n.sent_at),
            delivered_at = least(m.delivered_at, n.delivered_at),
            read_at = least(m.read_at, n.read_at),
            failed_at = least(m.failed_at, n.failed_at),
            error_code = coalesce(n.error_code, m.error_code),
            error_message = coalesce(n.error_message, m.error_message),
            pricing = CASE WHEN n.pricing IS NULL THEN m.pricing ELSE coalesce(m.pricing, '{}') || n.pricing END,
            updated_at = now()
        FROM message n WHERE m.org_id = n.org_id AND m.id = n.message_id
    ), settled AS (
        -- The provider has it: nothing is left to send or to find out.
        DELETE FROM outbox o USING fresh f
        WHERE o.org_id = f.org_id AND o.message_id = f.message_id AND o.attempt_id = f.attempt_id
    )
    SELECT f.id, 'fresh' FROM fresh f UNION ALL SELECT e.id, 'unknown' FROM event e WHERE e.attempt IS NULL;
END $$;
