-- The last two of the clinic's six tables (S0.1), and its check that they stream (S0.4).

SET search_path = public;

-- What an organisation keeps for its own front end: any JSON under a name.
CREATE TABLE IF NOT EXISTS settings (
    org_id      uuid        NOT NULL DEFAULT wasel.default_org() REFERENCES organizations (id) ON DELETE CASCADE,
    id          uuid        NOT NULL DEFAULT wasel.uuid7(),
    key         text        NOT NULL CHECK (key ~ '^[A-Za-z0-9_.:-]{1,128}$'),
    value       jsonb       NOT NULL DEFAULT 'null' CHECK (octet_length(value::text) <= 65536),
    description text        CHECK (length(description) <= 1000),
    -- Set by a trigger; NULL for the server and for keys.
    updated_by  uuid,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    UNIQUE (org_id, key)
);
CREATE OR REPLACE TRIGGER touch BEFORE UPDATE ON settings FOR EACH ROW EXECUTE FUNCTION wasel.touch_updated_at();
CREATE OR REPLACE FUNCTION wasel.sign_setting() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    NEW.updated_by := nullif(auth.uid(), '00000000-0000-0000-0000-000000000000');
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER sign BEFORE INSERT OR UPDATE ON settings FOR EACH ROW EXECUTE FUNCTION wasel.sign_setting();
CALL wasel.protect('settings', ARRAY['owner', 'admin']);
CALL wasel.stream('settings');

CREATE OR REPLACE FUNCTION wasel.whatsapp_settings(s settings) RETURNS TABLE (
    id uuid, org_id uuid, key text, value jsonb, description text, updated_by uuid, created_at timestamptz,
    updated_at timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT (s).id, (s).org_id, (s).key, (s).value, (s).description, (s).updated_by, (s).created_at, (s).updated_at
$$;
-- Spelt out, not by the function: so Postgres itself carries writes to it through to the table.
CREATE OR REPLACE VIEW whatsapp_settings WITH (security_invoker = true) AS
    SELECT id, org_id, key, value, description, updated_by, created_at, updated_at FROM settings;
REVOKE ALL ON whatsapp_settings FROM anon, authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON whatsapp_settings TO authenticated, service_role;

-- How the messages of a day fared, by channel and template. A message that was read counts as sent and delivered too. The
-- day is the organisation's, and that of the message's creation, whenever its statuses came.
CREATE TABLE IF NOT EXISTS analytics_daily (
    org_id        uuid        NOT NULL,
    id            uuid        NOT NULL DEFAULT wasel.uuid7(),
    day           date        NOT NULL,
    channel_id    uuid        NOT NULL,
    -- Empty: no template.
    template_name text        NOT NULL DEFAULT '',
    received      int         NOT NULL DEFAULT 0,
    sent          int         NOT NULL DEFAULT 0,
    delivered     int         NOT NULL DEFAULT 0,
    read          int         NOT NULL DEFAULT 0,
    failed        int         NOT NULL DEFAULT 0,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    UNIQUE (org_id, day, channel_id, template_name),
    FOREIGN KEY (org_id, channel_id) REFERENCES channels (org_id, id) ON DELETE CASCADE
);
CREATE OR REPLACE TRIGGER touch BEFORE UPDATE ON analytics_daily FOR EACH ROW EXECUTE FUNCTION wasel.touch_updated_at();
CALL wasel.protect('analytics_daily', '{}', 'channel_id');
CALL wasel.stream('analytics_daily');

-- How far the change log has been counted into analytics_daily. One row.
CREATE TABLE IF NOT EXISTS wasel.analytics_position (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    seq       bigint  NOT NULL
);
GRANT SELECT, INSERT, UPDATE ON wasel.analytics_position TO service_role;

CREATE OR REPLACE FUNCTION wasel.whatsapp_analytics(a analytics_daily) RETURNS TABLE (
    id uuid, org_id uuid, date date, channel_id uuid, template_name text, messages_received int, messages_sent int,
    messages_delivered int, messages_read int, messages_failed int, created_at timestamptz, updated_at timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT (a).id, (a).org_id, (a).day, (a).channel_id, nullif((a).template_name, ''), (a).received, (a).sent, (a).delivered,
           (a).read, (a).failed, (a).created_at, (a).updated_at
    -- By WhatsApp only: the document knows no other way.
    WHERE EXISTS (SELECT FROM channels c WHERE c.org_id = (a).org_id AND c.id = (a).channel_id
        AND c.kind IN ('whatsapp_cloud', 'twilio_whatsapp', 'whatsapp_web'))
$$;
CREATE OR REPLACE VIEW whatsapp_analytics WITH (security_invoker = true) AS
    SELECT v.* FROM analytics_daily a CROSS JOIN LATERAL wasel.whatsapp_analytics(a) v;
REVOKE ALL ON whatsapp_analytics FROM anon, authenticated;
GRANT SELECT ON whatsapp_analytics TO authenticated, service_role;

-- `SELECT tablename FROM pg_publication_tables WHERE pubname = 'supabase_realtime'` is how Supabase's users ask what
-- streams. A publication takes no views, so each view that streams has an empty table here that stands for it; changes
-- come from change_log, never from the publication. Beside a Supabase project its publication is used as it is.
CREATE SCHEMA IF NOT EXISTS wasel_streamed;
REVOKE ALL ON SCHEMA wasel_streamed FROM PUBLIC;
DO $$
DECLARE
    name text;
BEGIN
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = 'supabase_realtime') THEN
            CREATE PUBLICATION supabase_realtime;
        END IF;
        FOREACH name IN ARRAY ARRAY['whatsapp_conversations', 'whatsapp_messages', 'whatsapp_settings', 'whatsapp_templates',
                'whatsapp_scheduled_messages', 'whatsapp_analytics', 'chat_conversations', 'chat_messages',
                'message_logs'] LOOP
            EXECUTE format('CREATE TABLE IF NOT EXISTS wasel_streamed.%I (id uuid PRIMARY KEY)', name);
            EXECUTE format('ALTER TABLE wasel_streamed.%I ENABLE ROW LEVEL SECURITY', name);
            IF NOT EXISTS (SELECT FROM pg_publication_tables
                    WHERE pubname = 'supabase_realtime' AND schemaname = 'wasel_streamed' AND tablename = name) THEN
                EXECUTE format('ALTER PUBLICATION supabase_realtime ADD TABLE wasel_streamed.%I', name);
            END IF;
        END LOOP;
    EXCEPTION WHEN insufficient_privilege THEN
        RAISE NOTICE 'supabase_realtime belongs to somebody else: what streams is not listed there';
    END;
END $$;
