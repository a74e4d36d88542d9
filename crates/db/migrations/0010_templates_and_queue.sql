-- Message templates, the notification queue and linked phones, with the documents' own columns (S4.2, S4.4, S4.5).

SET search_path = public;

CREATE TABLE IF NOT EXISTS templates (
    -- The system organisation's templates are everybody's to use and nobody's to change.
    org_id             uuid        NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    id                 uuid        NOT NULL,
    name               text        NOT NULL,
    description        text,
    category           text        NOT NULL DEFAULT 'custom' CHECK (category IN ('trial_welcome',
                           'subscription_expiring', 'subscription_activated', 'payment_reminder', 'custom')),
    -- With {{variables}}.
    message_template   text        NOT NULL,
    -- The names of the variables, a JSON list.
    variables          jsonb       NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(variables) = 'array'),
    media_type         text        CHECK (media_type IN ('image', 'document')),
    media_url          text,
    -- By e-mail: the subject line, and an HTML part beside the text.
    email_subject      text,
    email_html         text,
    -- At Twilio: the approved content (HX…) that says the same; it takes the same variables.
    twilio_content_sid text,
    is_active          boolean     NOT NULL DEFAULT true,
    is_system          boolean     NOT NULL GENERATED ALWAYS AS (org_id = '00000000-0000-0000-0000-000000000000') STORED,
    usage_count        bigint      NOT NULL DEFAULT 0,
    last_used_at       timestamptz,
    created_by         uuid,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    UNIQUE (org_id, name)
);
CREATE OR REPLACE TRIGGER touch BEFORE UPDATE ON templates FOR EACH ROW EXECUTE FUNCTION wasel.touch_updated_at();
CALL wasel.protect('templates', ARRAY['owner', 'admin']);
DROP POLICY IF EXISTS members_read_system ON templates;
CREATE POLICY members_read_system ON templates FOR SELECT TO authenticated
    USING (org_id = '00000000-0000-0000-0000-000000000000' AND (SELECT wasel.org_role()) IS NOT NULL);
CALL wasel.stream('templates');

CREATE TABLE IF NOT EXISTS notification_queue (
    org_id              uuid        NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    id                  uuid        NOT NULL DEFAULT wasel.uuid7(),
    notification_type   text        NOT NULL DEFAULT 'whatsapp' CHECK (notification_type IN ('whatsapp', 'email', 'sms')),
    recipient_id        uuid,
    recipient_phone     text,
    recipient_email     text,
    template_id         uuid,
    message_data        jsonb       NOT NULL DEFAULT '{}',
    -- 1 (highest) to 10.
    priority            smallint    NOT NULL DEFAULT 5 CHECK (priority BETWEEN 1 AND 10),
    scheduled_for       timestamptz NOT NULL DEFAULT now(),
    status              text        NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'processing', 'completed',
                            'failed', 'cancelled')),
    attempts            int         NOT NULL DEFAULT 0,
    max_attempts        int         NOT NULL DEFAULT 3,
    last_attempt_at     timestamptz,
    error_message       text,
    whatsapp_message_id uuid,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    completed_at        timestamptz,
    PRIMARY KEY (org_id, id)
);
CREATE INDEX IF NOT EXISTS notification_queue_due ON notification_queue (scheduled_for, priority) WHERE status = 'pending';
CREATE OR REPLACE TRIGGER touch BEFORE UPDATE ON notification_queue FOR EACH ROW EXECUTE FUNCTION wasel.touch_updated_at();
CALL wasel.protect('notification_queue', ARRAY['owner', 'admin']);
CALL wasel.stream('notification_queue');

-- Linked phones. Their keys are not here: they are sealed in a table of their own.
CREATE TABLE IF NOT EXISTS whatsapp_sessions (
    org_id               uuid        NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    id                   uuid        NOT NULL DEFAULT wasel.uuid7(),
    status               text        NOT NULL DEFAULT 'disconnected' CHECK (status IN ('disconnected', 'connecting',
                             'qr_pending', 'connected', 'error')),
    phone_number         text,
    -- The JID.
    whatsapp_id          text,
    display_name         text,
    qr_code              text,
    qr_expires_at        timestamptz,
    last_connected_at    timestamptz,
    last_disconnected_at timestamptz,
    connection_error     text,
    retry_count          int         NOT NULL DEFAULT 0,
    auto_reconnect       boolean     NOT NULL DEFAULT true,
    enabled              boolean     NOT NULL DEFAULT true,
    created_at           timestamptz NOT NULL DEFAULT now(),
    updated_at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id)
);
CREATE OR REPLACE TRIGGER touch BEFORE UPDATE ON whatsapp_sessions FOR EACH ROW EXECUTE FUNCTION wasel.touch_updated_at();
CALL wasel.protect('whatsapp_sessions', ARRAY['owner', 'admin']);
CALL wasel.stream('whatsapp_sessions');

CREATE OR REPLACE FUNCTION wasel.whatsapp_templates(t templates) RETURNS TABLE (
    id uuid, org_id uuid, name text, description text, category text, message_template text, variables jsonb,
    media_type text, media_url text, is_active boolean, is_system boolean, usage_count bigint,
    last_used_at timestamptz, created_by uuid, created_at timestamptz, updated_at timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT (t).id, CASE WHEN NOT (t).is_system THEN (t).org_id END, (t).name, (t).description, (t).category,
           (t).message_template, (t).variables, (t).media_type, (t).media_url, (t).is_active, (t).is_system,
           (t).usage_count, (t).last_used_at, (t).created_by, (t).created_at, (t).updated_at
$$;
CREATE OR REPLACE VIEW whatsapp_templates WITH (security_invoker = true) AS
    SELECT s.* FROM templates t CROSS JOIN LATERAL wasel.whatsapp_templates(t) s;
GRANT SELECT ON whatsapp_templates TO authenticated, service_role;
