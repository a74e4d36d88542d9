-- The one place where a provider's word moves a message, for our server and for rows written by SQL alike.

SET search_path = public;

-- What the provider says it charges: Meta's `pricing` ({billable, type, category, …}) as it stands in statuses;
-- {price, currency, segments} where a provider tells them.
ALTER TABLE messages ADD COLUMN IF NOT EXISTS pricing jsonb;

-- A UUIDv7, for rows written by SQL: ids sort by time.
CREATE OR REPLACE FUNCTION wasel.uuid7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
        PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
        52, 1), 53, 1), 'hex')::uuid
$$;

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
        JOIN message_attempts t ON t.org_id = e.org_id AND t.id = e.id)
    ORDER BY m.org_id, m.id FOR NO KEY UPDATE;
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
REVOKE ALL ON FUNCTION wasel.advance_status(uuid[], uuid[], uuid[], text[], uuid[], text[], timestamptz[], text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION wasel.advance_status(uuid[], uuid[], uuid[], text[], uuid[], text[], timestamptz[], text[])
    TO authenticated, service_role;
