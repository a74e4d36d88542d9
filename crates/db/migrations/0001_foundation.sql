-- Roles, claims and helper functions. Everything here is created only where missing, so that the same file runs
-- on plain Postgres, on a Supabase project (which has the roles and auth.* already), and twice.

SET search_path = public;

DO $$
BEGIN
    IF current_setting('server_version_num')::int < 150000 THEN
        RAISE EXCEPTION 'Wasel needs PostgreSQL 15 or newer; this server is %', current_setting('server_version');
    END IF;
END $$;

DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['anon', 'authenticated', 'service_role'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT', role_name);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL; -- made by a migration of another database of this cluster at the same moment
            END;
        END IF;
        IF NOT pg_has_role(current_user, role_name, 'MEMBER') THEN
            EXECUTE format('GRANT %I TO %I', role_name, current_user);
        END IF;
    END LOOP;
END $$;

CREATE SCHEMA IF NOT EXISTS auth;
CREATE SCHEMA IF NOT EXISTS wasel;

-- auth.uid(), auth.jwt(), auth.role() as Supabase defines them.
DO $$
BEGIN
    IF to_regprocedure('auth.jwt()') IS NULL THEN
        CREATE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE AS
            $f$ SELECT coalesce(nullif(current_setting('request.jwt.claims', true), ''), '{}')::jsonb $f$;
    END IF;
    IF to_regprocedure('auth.uid()') IS NULL THEN
        CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS
            $f$ SELECT nullif(coalesce(nullif(current_setting('request.jwt.claims', true), ''), '{}')::jsonb ->> 'sub', '')::uuid $f$;
    END IF;
    IF to_regprocedure('auth.role()') IS NULL THEN
        CREATE FUNCTION auth.role() RETURNS text LANGUAGE sql STABLE AS
            $f$ SELECT coalesce(nullif(current_setting('request.jwt.claims', true), ''), '{}')::jsonb ->> 'role' $f$;
    END IF;
    IF NOT has_schema_privilege('authenticated', 'auth', 'USAGE') THEN
        GRANT USAGE ON SCHEMA auth TO anon, authenticated, service_role;
    END IF;
END $$;

GRANT USAGE ON SCHEMA public TO anon, authenticated, service_role;
GRANT USAGE ON SCHEMA wasel TO authenticated, service_role;
-- service_role owns the functions that must see every tenant (the change-log trigger, the claim look-ups).
GRANT CREATE ON SCHEMA wasel TO service_role;

-- The order of progress; the same numbers as wasel_domain::MessageStatus::rank (a test compares them).
CREATE OR REPLACE FUNCTION wasel.status_rank(status text) RETURNS smallint
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT AS $$
    SELECT CASE status
        WHEN 'pending' THEN 0 WHEN 'queued' THEN 10 WHEN 'sending' THEN 20 WHEN 'unknown' THEN 30
        WHEN 'cancelled' THEN 40 WHEN 'sent' THEN 50 WHEN 'failed' THEN 60 WHEN 'delivered' THEN 70
        WHEN 'read' THEN 80 WHEN 'received' THEN 90 END::smallint
$$;

CREATE OR REPLACE FUNCTION wasel.touch_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END $$;
