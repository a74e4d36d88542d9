-- Connected accounts at providers, and who may see which.

SET search_path = public;

CREATE TABLE IF NOT EXISTS channels (
    org_id        uuid        NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    id            uuid        NOT NULL,
    kind          text        NOT NULL,
    name          text        NOT NULL,
    -- `paused`: a person stopped it. `blocked`: the provider refuses it until somebody acts; status_reason says why.
    status        text        NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'paused', 'blocked')),
    status_reason text,
    -- Nothing secret: ids and numbers, by kind.
    settings      jsonb       NOT NULL DEFAULT '{}',
    -- How webhooks name this channel.
    routing_keys  text[]      NOT NULL DEFAULT '{}',
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    UNIQUE (org_id, kind, name)
);
CREATE INDEX IF NOT EXISTS channels_routing ON channels USING gin (routing_keys);

-- Tokens and secrets, sealed with ENCRYPTION_KEY. A table of its own so that `select *` on channels is safe.
CREATE TABLE IF NOT EXISTS channel_secrets (
    org_id     uuid        NOT NULL,
    channel_id uuid        NOT NULL,
    sealed     bytea       NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, channel_id),
    FOREIGN KEY (org_id, channel_id) REFERENCES channels (org_id, id) ON DELETE CASCADE
);

-- Limits an agent to some channels. An agent with no row here sees all.
CREATE TABLE IF NOT EXISTS channel_members (
    org_id     uuid        NOT NULL,
    channel_id uuid        NOT NULL,
    user_id    uuid        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, channel_id, user_id),
    FOREIGN KEY (org_id, channel_id) REFERENCES channels (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, user_id) REFERENCES profiles (org_id, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS channel_members_user ON channel_members (org_id, user_id);

-- The channels the caller is limited to; NULL means all.
CREATE OR REPLACE FUNCTION wasel.channel_scope() RETURNS uuid[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT CASE WHEN wasel.org_role() = 'agent' THEN
        (SELECT array_agg(m.channel_id) FROM channel_members m
         WHERE m.org_id = wasel.org_id() AND m.user_id = auth.uid()) END
$$;
ALTER FUNCTION wasel.channel_scope() OWNER TO service_role;

CREATE OR REPLACE TRIGGER touch BEFORE UPDATE ON channels FOR EACH ROW EXECUTE FUNCTION wasel.touch_updated_at();

CALL wasel.protect('channels', '{}', 'id');
CALL wasel.protect('channel_members', '{}');
CALL wasel.protect('channel_secrets', '{}');
REVOKE ALL ON channel_secrets FROM authenticated;
CALL wasel.stream('channels');
CALL wasel.stream('channel_members');
