-- The one log: every message, inbound and outbound, every channel, every provider.

SET search_path = public;

CREATE TABLE IF NOT EXISTS messages (
    org_id              uuid        NOT NULL,
    id                  uuid        NOT NULL,
    conversation_id     uuid        NOT NULL,
    channel_id          uuid        NOT NULL,
    contact_id          uuid        NOT NULL,
    direction           text        NOT NULL CHECK (direction IN ('inbound', 'outbound')),
    message_type        text        NOT NULL,
    status              text        NOT NULL CHECK (status IN ('pending', 'queued', 'sending', 'unknown',
                            'cancelled', 'sent', 'failed', 'delivered', 'read', 'received')),
    -- What a list shows and a search finds: text, caption, chosen button, place.
    body                text,
    -- Outbound: the content as it is sent. Inbound: what the text does not carry.
    content             jsonb,
    -- Files, in order: {provider_id?, url?, mime_type?, filename?, media_id?}.
    media               jsonb,
    -- The customer's address: E.164 where there is a number, else the provider's id for them.
    address             text,
    customer_name       text,
    -- The provider's id of the best attempt; unique per channel.
    provider_message_id text,
    -- The provider's id of the message this one answers.
    quoted_message_id   text,
    -- The user who sent it; NULL for API keys, jobs and customers.
    sender_id           uuid,
    -- The caller's own id for it.
    request_id          text,
    trigger_type        text        NOT NULL DEFAULT 'manual',
    related_entity_id   text,
    -- What to do when it is unknown whether the provider took it: send again, or never twice.
    delivery_policy     text        NOT NULL DEFAULT 'at_least_once' CHECK (delivery_policy IN ('at_least_once', 'at_most_once')),
    error_code          text,
    error_message       text,
    referral            jsonb,
    metadata            jsonb       NOT NULL DEFAULT '{}',
    retry_count         int         NOT NULL DEFAULT 0,
    -- Inbound: when the customer sent it. Outbound: when it was asked for.
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    scheduled_at        timestamptz,
    sent_at             timestamptz,
    delivered_at        timestamptz,
    read_at             timestamptz,
    failed_at           timestamptz,
    edited_at           timestamptz,
    revoked_at          timestamptz,
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, conversation_id) REFERENCES conversations (org_id, id) ON DELETE CASCADE
);
-- One message per provider id and channel: a second delivery changes nothing.
CREATE UNIQUE INDEX IF NOT EXISTS messages_provider_id
    ON messages (org_id, channel_id, provider_message_id) WHERE provider_message_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS messages_thread ON messages (org_id, conversation_id, created_at DESC, id DESC);

-- One try to send. A late callback of an earlier try still finds its message.
CREATE TABLE IF NOT EXISTS message_attempts (
    org_id              uuid        NOT NULL,
    id                  uuid        NOT NULL,
    message_id          uuid        NOT NULL,
    channel_id          uuid        NOT NULL,
    provider_message_id text,
    status              text        NOT NULL CHECK (status IN ('pending', 'queued', 'sending', 'unknown',
                            'cancelled', 'sent', 'failed', 'delivered', 'read', 'received')),
    error_code          text,
    error_message       text,
    created_at          timestamptz NOT NULL DEFAULT now(),
    accepted_at         timestamptz,
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, message_id) REFERENCES messages (org_id, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS message_attempts_message ON message_attempts (org_id, message_id);
CREATE INDEX IF NOT EXISTS message_attempts_provider_id
    ON message_attempts (org_id, channel_id, provider_message_id) WHERE provider_message_id IS NOT NULL;

-- What happened to a message, for people: `GET /v1/messages/{id}` shows it as a timeline.
CREATE TABLE IF NOT EXISTS message_events (
    org_id      uuid        NOT NULL,
    id          uuid        NOT NULL,
    message_id  uuid        NOT NULL,
    attempt_id  uuid,
    -- A message status, or `attempt_failed`, `edited`, `revoked`.
    event       text        NOT NULL,
    -- The provider's time where it gives one.
    at          timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    detail      jsonb,
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, message_id) REFERENCES messages (org_id, id) ON DELETE CASCADE
);
-- A status told twice is one event. (An attempt is written to at most once per status; retries are new attempts.)
CREATE UNIQUE INDEX IF NOT EXISTS message_events_once
    ON message_events (org_id, message_id, attempt_id, event) WHERE attempt_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS message_events_message ON message_events (org_id, message_id, at);

-- Statuses that came before their message is known; applied when it is.
CREATE TABLE IF NOT EXISTS pending_statuses (
    org_id              uuid        NOT NULL,
    channel_id          uuid        NOT NULL,
    provider_message_id text        NOT NULL,
    status              text        NOT NULL,
    id                  uuid        NOT NULL,
    attempt_id          uuid,
    at                  timestamptz NOT NULL,
    detail              jsonb       NOT NULL,
    received_at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, channel_id, provider_message_id, status),
    FOREIGN KEY (org_id, channel_id) REFERENCES channels (org_id, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS pending_statuses_age ON pending_statuses (received_at);

CREATE TABLE IF NOT EXISTS message_reactions (
    org_id                     uuid        NOT NULL,
    id                         uuid        NOT NULL,
    channel_id                 uuid        NOT NULL,
    -- The provider's id of the message reacted to; it may be one we do not have.
    target_provider_message_id text        NOT NULL,
    -- `us`, or the customer's identity.
    actor                      text        NOT NULL,
    emoji                      text        NOT NULL,
    at                         timestamptz NOT NULL,
    PRIMARY KEY (org_id, id),
    UNIQUE (org_id, channel_id, target_provider_message_id, actor),
    FOREIGN KEY (org_id, channel_id) REFERENCES channels (org_id, id) ON DELETE CASCADE
);

-- What is to be sent: small and hot, deleted when done.
CREATE TABLE IF NOT EXISTS outbox (
    org_id          uuid        NOT NULL,
    message_id      uuid        NOT NULL,
    channel_id      uuid        NOT NULL,
    conversation_id uuid        NOT NULL,
    -- 1 (first) to 10.
    priority        smallint    NOT NULL DEFAULT 5 CHECK (priority BETWEEN 1 AND 10),
    due_at          timestamptz NOT NULL DEFAULT now(),
    attempts        int         NOT NULL DEFAULT 0,
    -- The attempt under way. A row with one whose lease ran out is ambiguous: it may have been sent.
    attempt_id      uuid,
    lease_owner     uuid,
    leased_until    timestamptz,
    -- Set while it is unknown whether the provider took the last attempt.
    unknown_since   timestamptz,
    -- The message's policy, copied so that a claim needs no join.
    at_most_once    boolean     NOT NULL DEFAULT false,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, message_id),
    FOREIGN KEY (org_id, message_id) REFERENCES messages (org_id, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS outbox_ready ON outbox (priority, due_at) WHERE leased_until IS NULL;
CREATE INDEX IF NOT EXISTS outbox_leased ON outbox (leased_until) WHERE leased_until IS NOT NULL;
CREATE INDEX IF NOT EXISTS outbox_order ON outbox (org_id, conversation_id, message_id);

-- Answers already given, by the caller's Idempotency-Key; kept 24 hours.
CREATE TABLE IF NOT EXISTS idempotency_keys (
    org_id       uuid        NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    -- The user or credential the key belongs to.
    scope        text        NOT NULL,
    key          text        NOT NULL,
    request_hash bytea       NOT NULL,
    message_id   uuid        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, scope, key)
);
CREATE INDEX IF NOT EXISTS idempotency_keys_age ON idempotency_keys (created_at);

-- Files customers sent: fetched from the provider by a job, then kept in media storage.
CREATE TABLE IF NOT EXISTS media (
    org_id      uuid        NOT NULL,
    id          uuid        NOT NULL,
    message_id  uuid        NOT NULL,
    channel_id  uuid        NOT NULL,
    -- What the provider said of it: wasel_domain::MediaRef.
    source      jsonb       NOT NULL,
    status      text        NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'stored', 'failed')),
    mime_type   text,
    filename    text,
    size_bytes  bigint,
    sha256      text,
    storage_key text,
    error       text,
    attempts    int         NOT NULL DEFAULT 0,
    due_at      timestamptz NOT NULL DEFAULT now(),
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, message_id) REFERENCES messages (org_id, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS media_message ON media (org_id, message_id);
CREATE INDEX IF NOT EXISTS media_pending ON media (due_at) WHERE status = 'pending';
CREATE OR REPLACE TRIGGER touch BEFORE UPDATE ON media FOR EACH ROW EXECUTE FUNCTION wasel.touch_updated_at();

CALL wasel.protect('messages', ARRAY['owner', 'admin', 'agent'], 'channel_id');
CALL wasel.protect('message_attempts', ARRAY['owner', 'admin', 'agent'], 'channel_id');
-- Whoever may read a message may read its timeline. Its channel is the message's, so the look-up goes there; an insert
-- beside its message, in one statement, cannot see that row yet and is checked by tenant and role.
CALL wasel.protect('message_events', '{}');
DROP POLICY IF EXISTS members_read ON message_events;
CREATE POLICY members_read ON message_events FOR SELECT TO authenticated USING (
    org_id = (SELECT wasel.org_id()) AND ((SELECT wasel.channel_scope()) IS NULL OR EXISTS (
        SELECT FROM messages m WHERE m.org_id = message_events.org_id AND m.id = message_events.message_id)));
CREATE POLICY members_write ON message_events FOR INSERT TO authenticated WITH CHECK (
    org_id = (SELECT wasel.org_id()) AND (SELECT wasel.org_role()) IN ('owner', 'admin', 'agent'));
GRANT INSERT ON message_events TO authenticated;
CALL wasel.protect('pending_statuses', '{}', 'channel_id');
CALL wasel.protect('message_reactions', ARRAY['owner', 'admin', 'agent'], 'channel_id');
CALL wasel.protect('outbox', ARRAY['owner', 'admin', 'agent'], 'channel_id');
CALL wasel.protect('idempotency_keys', ARRAY['owner', 'admin', 'agent']);
CALL wasel.protect('media', '{}', 'channel_id');
CALL wasel.stream('messages');
CALL wasel.stream('message_reactions');
CALL wasel.stream('media');
