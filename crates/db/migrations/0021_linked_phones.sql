-- Linked phones: which channel a session serves, who runs it, and its sealed state.

SET search_path = public;

ALTER TABLE whatsapp_sessions
    ADD COLUMN IF NOT EXISTS channel_id      uuid,
    -- Somebody asked for it to run, and nothing has ended it since.
    ADD COLUMN IF NOT EXISTS should_run      boolean NOT NULL DEFAULT false,
    -- The phone accepted us; set until it is unlinked.
    ADD COLUMN IF NOT EXISTS linked_at       timestamptz,
    -- The hidden-number address.
    ADD COLUMN IF NOT EXISTS whatsapp_lid    text,
    -- Linking by code on this phone instead of by QR; E.164.
    ADD COLUMN IF NOT EXISTS pair_with_phone text,
    -- Shown until qr_expires_at, as the QR code is.
    ADD COLUMN IF NOT EXISTS pairing_code    text,
    -- The options for navigator.credentials.get, where WhatsApp asks for a passkey, and the code to compare afterwards.
    ADD COLUMN IF NOT EXISTS passkey_request jsonb,
    ADD COLUMN IF NOT EXISTS passkey_code    text,
    -- Why it does not run until somebody does something.
    ADD COLUMN IF NOT EXISTS stop_reason     text,
    -- How many days of old messages are taken over when the phone is linked.
    ADD COLUMN IF NOT EXISTS history_days    smallint NOT NULL DEFAULT 0,
    -- The documents keep the state here. Ours is sealed in whatsapp_session_keys and never readable in this table.
    ADD COLUMN IF NOT EXISTS auth_state      text;
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'whatsapp_sessions_channel' AND conrelid = 'whatsapp_sessions'::regclass) THEN
        ALTER TABLE whatsapp_sessions
            ADD CONSTRAINT whatsapp_sessions_channel FOREIGN KEY (org_id, channel_id) REFERENCES channels (org_id, id) ON DELETE CASCADE,
            ADD CONSTRAINT whatsapp_sessions_one_per_channel UNIQUE (org_id, channel_id),
            ADD CONSTRAINT whatsapp_sessions_history_days CHECK (history_days BETWEEN 0 AND 365),
            ADD CONSTRAINT whatsapp_sessions_auth_state_is_elsewhere CHECK (auth_state IS NULL);
    END IF;
END $$;

-- Leases, states and commands are found by the session alone: no tenant may take another's id.
CREATE UNIQUE INDEX IF NOT EXISTS whatsapp_sessions_id ON whatsapp_sessions (id);

-- Which node runs a session. A row of its own, for it is renewed every few seconds and the session's row is streamed.
CREATE TABLE IF NOT EXISTS whatsapp_session_leases (
    org_id     uuid        NOT NULL,
    session_id uuid        NOT NULL,
    node       uuid        NOT NULL,
    -- The fencing token: higher with each new owner. The state is written under the newest one only.
    token      bigint      NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, session_id),
    FOREIGN KEY (org_id, session_id) REFERENCES whatsapp_sessions (org_id, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS whatsapp_session_leases_node ON whatsapp_session_leases (node);

-- Keys and protocol state. `key` is a keyed hash, for keys hold phone numbers; `sealed` holds key and value.
CREATE TABLE IF NOT EXISTS whatsapp_session_keys (
    org_id     uuid     NOT NULL,
    session_id uuid     NOT NULL,
    kind       smallint NOT NULL,
    key        bytea    NOT NULL,
    sealed     bytea    NOT NULL,
    -- When it was last of use (Unix seconds), for kinds whose old rows are deleted.
    touched    bigint,
    PRIMARY KEY (org_id, session_id, kind, key),
    FOREIGN KEY (org_id, session_id) REFERENCES whatsapp_sessions (org_id, id) ON DELETE CASCADE
);

-- What a person asks of a session, for the node that runs it; any node takes the request and hands on the answer.
CREATE TABLE IF NOT EXISTS whatsapp_session_commands (
    org_id      uuid        NOT NULL,
    id          uuid        NOT NULL DEFAULT wasel.uuid7(),
    session_id  uuid        NOT NULL,
    command     jsonb       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    -- Not carried out after that.
    expires_at  timestamptz NOT NULL,
    taken_at    timestamptz,
    answered_at timestamptz,
    -- {ok: …} or {error: {code, message}}.
    answer      jsonb,
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, session_id) REFERENCES whatsapp_sessions (org_id, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS whatsapp_session_commands_waiting ON whatsapp_session_commands (session_id, id)
    WHERE taken_at IS NULL;
CREATE INDEX IF NOT EXISTS whatsapp_session_commands_old ON whatsapp_session_commands (expires_at);

-- As the other tables of channels: an agent limited to some channels sees those phones.
CALL wasel.protect('whatsapp_sessions', ARRAY['owner', 'admin'], 'channel_id');
CALL wasel.protect('whatsapp_session_leases', '{}');
CALL wasel.protect('whatsapp_session_keys', '{}');
CALL wasel.protect('whatsapp_session_commands', '{}');
REVOKE ALL ON whatsapp_session_leases, whatsapp_session_keys, whatsapp_session_commands FROM authenticated;
