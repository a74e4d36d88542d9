-- Tenants, their people, and the rules that keep them apart.

SET search_path = public;

CREATE TABLE IF NOT EXISTS organizations (
    id         uuid        PRIMARY KEY,
    -- Every table has org_id, so that one policy and one trigger fit all.
    org_id     uuid        NOT NULL GENERATED ALWAYS AS (id) STORED,
    slug       text        NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    name       text        NOT NULL,
    -- IANA name, for quiet hours, schedules and reports.
    timezone   text        NOT NULL DEFAULT 'UTC',
    -- BCP 47.
    locale     text        NOT NULL DEFAULT 'en',
    -- ISO 3166-1 alpha-2: the country of numbers written without one.
    region     text        CHECK (region ~ '^[A-Z]{2}$'),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- Owner of authentic webhook events that no channel claims; nobody belongs to it.
INSERT INTO organizations (id, slug, name)
VALUES ('00000000-0000-0000-0000-000000000000', 'system', 'System') ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS profiles (
    org_id     uuid        NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    -- The user at the identity provider (auth.uid()).
    id         uuid        NOT NULL,
    email      text,
    full_name  text,
    phone      text,
    role       text        NOT NULL CHECK (role IN ('owner', 'admin', 'agent', 'viewer', 'super_admin')),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id)
);
CREATE INDEX IF NOT EXISTS profiles_user ON profiles (id);

-- The built-in identity, for installs without Supabase Auth. Not tenant data: a person may belong to several.
CREATE TABLE IF NOT EXISTS wasel.users (
    id              uuid        PRIMARY KEY,
    email           text        NOT NULL,
    -- argon2id, PHC string.
    password_hash   text        NOT NULL,
    full_name       text,
    phone           text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    last_sign_in_at timestamptz
);
CREATE UNIQUE INDEX IF NOT EXISTS users_email ON wasel.users (lower(email));

-- A sign-in. Its refresh tokens form a chain: each is used once.
CREATE TABLE IF NOT EXISTS wasel.auth_sessions (
    id         uuid        PRIMARY KEY,
    user_id    uuid        NOT NULL REFERENCES wasel.users (id) ON DELETE CASCADE,
    -- The tenant chosen at sign-in.
    org_id     uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at   timestamptz
);
CREATE INDEX IF NOT EXISTS auth_sessions_user ON wasel.auth_sessions (user_id);

CREATE TABLE IF NOT EXISTS wasel.refresh_tokens (
    -- SHA-256 of the token: a leaked table signs nobody in.
    token_hash bytea       PRIMARY KEY,
    session_id uuid        NOT NULL REFERENCES wasel.auth_sessions (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    used_at    timestamptz
);
CREATE INDEX IF NOT EXISTS refresh_tokens_session ON wasel.refresh_tokens (session_id);

-- The tenant of the current request: what our server resolved (`wasel_org_id`, which no user can put into a token),
-- else the token's app_metadata.org_id, else the user's first membership. Never user_metadata.
CREATE OR REPLACE FUNCTION wasel.org_id() RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT coalesce(
        nullif(c.claims ->> 'wasel_org_id', '')::uuid,
        nullif(c.claims #>> '{app_metadata,org_id}', '')::uuid,
        (SELECT p.org_id FROM profiles p WHERE p.id = nullif(c.claims ->> 'sub', '')::uuid
         ORDER BY p.created_at, p.org_id LIMIT 1))
    FROM (SELECT coalesce(nullif(current_setting('request.jwt.claims', true), ''), '{}')::jsonb AS claims) c
$$;
ALTER FUNCTION wasel.org_id() OWNER TO service_role;

-- The caller's role in that tenant; NULL for a stranger.
CREATE OR REPLACE FUNCTION wasel.org_role() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT coalesce(
        nullif(c.claims ->> 'wasel_role', ''),
        (SELECT p.role FROM profiles p
         WHERE p.org_id = wasel.org_id() AND p.id = nullif(c.claims ->> 'sub', '')::uuid))
    FROM (SELECT coalesce(nullif(current_setting('request.jwt.claims', true), ''), '{}')::jsonb AS claims) c
$$;
ALTER FUNCTION wasel.org_role() OWNER TO service_role;

-- Tenant rules for one table. Readers: every member. Writers: the roles given.
-- The comparisons are with scalars computed once per statement; a sub-select per row costs eighty times as much.
CREATE OR REPLACE PROCEDURE wasel.protect(target regclass, writers text[], channel_column text DEFAULT NULL)
LANGUAGE plpgsql AS $$
DECLARE
    visible text := 'org_id = (SELECT wasel.org_id())';
BEGIN
    IF channel_column IS NOT NULL THEN
        visible := visible || format(
            ' AND ((SELECT wasel.channel_scope()) IS NULL OR %I = ANY ((SELECT wasel.channel_scope())::uuid[]))', channel_column);
    END IF;
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', target);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', target);
    EXECUTE format('DROP POLICY IF EXISTS system ON %s', target);
    EXECUTE format('CREATE POLICY system ON %s TO service_role USING (true) WITH CHECK (true)', target);
    EXECUTE format('DROP POLICY IF EXISTS members_read ON %s', target);
    EXECUTE format('CREATE POLICY members_read ON %s FOR SELECT TO authenticated USING (%s)', target, visible);
    -- A Supabase project grants everything on new tables to everybody by default.
    EXECUTE format('REVOKE ALL ON %s FROM anon, authenticated', target);
    EXECUTE format('GRANT ALL ON %s TO service_role', target);
    EXECUTE format('GRANT SELECT ON %s TO authenticated', target);
    EXECUTE format('DROP POLICY IF EXISTS members_write ON %s', target);
    IF cardinality(writers) > 0 THEN
        EXECUTE format(
            'CREATE POLICY members_write ON %s TO authenticated USING (%s AND (SELECT wasel.org_role()) = ANY (%L)) WITH CHECK (%s AND (SELECT wasel.org_role()) = ANY (%L))',
            target, visible, writers, visible, writers);
        EXECUTE format('GRANT INSERT, UPDATE, DELETE ON %s TO authenticated', target);
    END IF;
END $$;

CREATE OR REPLACE TRIGGER touch BEFORE UPDATE ON organizations FOR EACH ROW EXECUTE FUNCTION wasel.touch_updated_at();
CREATE OR REPLACE TRIGGER touch BEFORE UPDATE ON profiles FOR EACH ROW EXECUTE FUNCTION wasel.touch_updated_at();

CALL wasel.protect('organizations', '{}');
CALL wasel.protect('profiles', '{}');
CALL wasel.protect('change_log', '{}');
CALL wasel.protect('change_log_default', '{}');
-- Read through the API, which knows an agent's channels; never straight.
REVOKE SELECT ON change_log, change_log_default FROM authenticated;
GRANT USAGE ON SEQUENCE wasel.change_seq TO service_role;
GRANT SELECT ON wasel.change_seq TO service_role;
GRANT SELECT, INSERT, UPDATE, DELETE ON wasel.users, wasel.auth_sessions, wasel.refresh_tokens TO service_role;
CALL wasel.stream('organizations');
CALL wasel.stream('profiles');
