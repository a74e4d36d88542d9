-- One message to many people, and messages for later.

SET search_path = public;

CREATE TABLE IF NOT EXISTS bulk_jobs (
    org_id        uuid        NOT NULL,
    -- Also the lane of its messages in the outbox: the sender takes from a lane only while its job is `running`.
    id            uuid        NOT NULL,
    name          text        NOT NULL,
    channel_id    uuid        NOT NULL,
    -- What it says: one of the three, or each recipient has content of their own. Kept to show; what goes out is frozen
    -- in bulk_recipients.content.
    template_id   uuid,
    message       text,
    content       jsonb,
    -- For all recipients.
    variables     jsonb       NOT NULL DEFAULT '{}',
    category      text        NOT NULL DEFAULT 'marketing' CHECK (category IN ('service', 'utility', 'marketing', 'authentication')),
    -- 1 (first) to 10.
    priority      smallint    NOT NULL DEFAULT 7 CHECK (priority BETWEEN 1 AND 10),
    status        text        NOT NULL DEFAULT 'draft' CHECK (status IN ('draft', 'running', 'paused', 'completed', 'cancelled', 'failed')),
    -- A running job sends nothing before.
    scheduled_for timestamptz CHECK (scheduled_for BETWEEN '2000-01-01' AND '2200-01-01'),
    -- As the list of recipients was read.
    total         int         NOT NULL DEFAULT 0,
    valid         int         NOT NULL DEFAULT 0,
    invalid       int         NOT NULL DEFAULT 0,
    duplicates    int         NOT NULL DEFAULT 0,
    paused_reason text,
    created_by    uuid,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    -- When its first message was queued.
    started_at    timestamptz,
    -- When nothing was left to send.
    finished_at   timestamptz,
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, channel_id) REFERENCES channels (org_id, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS bulk_jobs_under_way ON bulk_jobs (org_id, id) WHERE finished_at IS NULL AND status IN ('running', 'cancelled');

CREATE TABLE IF NOT EXISTS bulk_recipients (
    org_id     uuid     NOT NULL,
    job_id     uuid     NOT NULL,
    -- The place in the list as it was given, from 1.
    position   int      NOT NULL,
    channel_id uuid     NOT NULL,
    -- As the channel writes to it; as it was given where it cannot be read.
    address    text     NOT NULL,
    name       text,
    variables  jsonb    NOT NULL DEFAULT '{}',
    -- wasel_domain::OutboundContent, rendered when the job was made and never again.
    content    jsonb,
    state      text     NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'queued', 'skipped')),
    -- Once queued: the message has the rest of the story.
    message_id uuid,
    error_code text,
    error      text,
    -- How often queueing it failed through no fault of the recipient's.
    tries      smallint NOT NULL DEFAULT 0,
    PRIMARY KEY (org_id, job_id, position),
    FOREIGN KEY (org_id, job_id) REFERENCES bulk_jobs (org_id, id) ON DELETE CASCADE,
    CHECK (state <> 'pending' OR content IS NOT NULL)
);
CREATE INDEX IF NOT EXISTS bulk_recipients_pending ON bulk_recipients (org_id, job_id, position) WHERE state = 'pending';
ALTER TABLE bulk_recipients SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

-- How much of a job waits in the outbox. One-offs do not pay for it.
CREATE INDEX IF NOT EXISTS outbox_of_job ON outbox (org_id, lane) WHERE lane <> '00000000-0000-0000-0000-000000000000';

-- A job shows its failures itself: ten thousand notifications would help nobody.
CREATE OR REPLACE TRIGGER note_failure AFTER UPDATE ON messages FOR EACH ROW
    WHEN (NEW.status = 'failed' AND OLD.status <> 'failed' AND NEW.direction = 'outbound' AND NEW.bulk_job_id IS NULL)
    EXECUTE FUNCTION wasel.note_failure();

CREATE OR REPLACE TRIGGER touch BEFORE UPDATE ON bulk_jobs FOR EACH ROW EXECUTE FUNCTION wasel.touch_updated_at();
CALL wasel.protect('bulk_jobs', ARRAY['owner', 'admin'], 'channel_id');
CALL wasel.protect('bulk_recipients', ARRAY['owner', 'admin'], 'channel_id');
CALL wasel.stream('bulk_jobs');

CREATE TABLE IF NOT EXISTS scheduled_messages (
    org_id          uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT wasel.uuid7(),
    channel_id      uuid        NOT NULL,
    -- To the customer of this conversation, or to `address` on the channel.
    conversation_id uuid,
    address         text,
    recipient_name  text,
    -- wasel_domain::OutboundContent as it will go; or a template, filled in when its time has come.
    content         jsonb,
    template_id     uuid,
    variables       jsonb       NOT NULL DEFAULT '{}',
    category        text        NOT NULL DEFAULT 'service' CHECK (category IN ('service', 'utility', 'marketing', 'authentication')),
    priority        smallint    NOT NULL DEFAULT 5 CHECK (priority BETWEEN 1 AND 10),
    -- The next time it goes.
    scheduled_for   timestamptz NOT NULL CHECK (scheduled_for BETWEEN '2000-01-01' AND '2200-01-01'),
    -- IANA name; recurrence is by its clock.
    timezone        text        NOT NULL DEFAULT 'UTC',
    -- A cron expression of five fields; NULL: once.
    recurrence      text,
    ends_at         timestamptz CHECK (ends_at BETWEEN '2000-01-01' AND '2200-01-01'),
    max_runs        int         CHECK (max_runs > 0),
    -- Later than this it is not sent any more.
    late_limit      interval    NOT NULL DEFAULT '24 hours' CHECK (late_limit >= interval '0'),
    status          text        NOT NULL DEFAULT 'scheduled' CHECK (status IN ('scheduled', 'sent', 'cancelled', 'failed')),
    -- Of the last run.
    message_id      uuid,
    last_run_at     timestamptz,
    run_count       int         NOT NULL DEFAULT 0,
    error_code      text,
    error           text,
    created_by      uuid,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, channel_id) REFERENCES channels (org_id, id) ON DELETE CASCADE,
    FOREIGN KEY (org_id, conversation_id) REFERENCES conversations (org_id, id) ON DELETE CASCADE,
    CHECK (conversation_id IS NOT NULL OR address IS NOT NULL),
    CHECK (content IS NOT NULL OR template_id IS NOT NULL)
);
CREATE INDEX IF NOT EXISTS scheduled_messages_due ON scheduled_messages (scheduled_for) WHERE status = 'scheduled';
CREATE INDEX IF NOT EXISTS scheduled_messages_conversation ON scheduled_messages (org_id, conversation_id) WHERE conversation_id IS NOT NULL;
CREATE OR REPLACE TRIGGER touch BEFORE UPDATE ON scheduled_messages FOR EACH ROW EXECUTE FUNCTION wasel.touch_updated_at();
CALL wasel.protect('scheduled_messages', ARRAY['owner', 'admin', 'agent'], 'channel_id');
CALL wasel.stream('scheduled_messages');

-- S0.1: the document names the table and what happens to its rows (scheduled, sent, cancelled), not its columns.
CREATE OR REPLACE FUNCTION wasel.whatsapp_scheduled_messages(s scheduled_messages) RETURNS TABLE (
    id uuid, org_id uuid, conversation_id uuid, channel_id uuid, phone_number text, recipient_name text,
    message_content text, message_type text, media_url text, template_id uuid, variables jsonb, scheduled_at timestamptz,
    timezone text, recurrence text, status text, message_id uuid, error_message text, sent_at timestamptz,
    created_by uuid, created_at timestamptz, updated_at timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT (s).id, (s).org_id, (s).conversation_id, (s).channel_id,
           coalesce((s).address, (SELECT c.phone_number FROM conversations c WHERE c.org_id = (s).org_id AND c.id = (s).conversation_id)),
           (s).recipient_name, coalesce((s).content ->> 'body', (s).content ->> 'caption', (s).content ->> 'text'),
           coalesce((s).content ->> 'type', 'template'), (s).content ->> 'link', (s).template_id, (s).variables,
           (s).scheduled_for, (s).timezone, (s).recurrence, (s).status, (s).message_id, (s).error,
           CASE WHEN (s).message_id IS NOT NULL THEN (s).last_run_at END, (s).created_by, (s).created_at, (s).updated_at
    -- By WhatsApp only: the document knows no other way.
    WHERE EXISTS (SELECT FROM channels c WHERE c.org_id = (s).org_id AND c.id = (s).channel_id
        AND c.kind IN ('whatsapp_cloud', 'twilio_whatsapp', 'whatsapp_web'))
$$;
CREATE OR REPLACE VIEW whatsapp_scheduled_messages WITH (security_invoker = true) AS
    SELECT v.* FROM scheduled_messages s CROSS JOIN LATERAL wasel.whatsapp_scheduled_messages(s) v;

-- INSERT of {phone_number or conversation_id, message_content or template_id, scheduled_at}, and UPDATE of what has not
-- gone out yet. A row in any other status than `scheduled` is a record and is not sent.
CREATE OR REPLACE FUNCTION wasel.write_scheduled_row() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    tenant  uuid := coalesce(NEW.org_id, wasel.default_org());
    kinds   text[] := ARRAY['twilio_whatsapp', 'whatsapp_cloud', 'whatsapp_web'];
    channel uuid := NEW.channel_id;
    word    text := CASE lower(coalesce(NEW.status, 'scheduled')) WHEN 'pending' THEN 'scheduled' WHEN 'canceled' THEN 'cancelled'
                    ELSE lower(coalesce(NEW.status, 'scheduled')) END;
    said    jsonb;
    saved   scheduled_messages;
    shape   jsonb;
BEGIN
    IF word NOT IN ('scheduled', 'sent', 'cancelled', 'failed') THEN
        RAISE EXCEPTION 'status: must be scheduled, sent, cancelled or failed' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NEW.template_id IS NULL AND (TG_OP = 'INSERT' OR
            (NEW.message_content, NEW.media_url, NEW.template_id) IS DISTINCT FROM (OLD.message_content, OLD.media_url, OLD.template_id)) THEN
        IF coalesce(btrim(NEW.message_content), '') = '' AND NEW.media_url IS NULL THEN
            RAISE EXCEPTION 'message_content: is missing' USING ERRCODE = 'not_null_violation';
        END IF;
        said := CASE WHEN NEW.media_url IS NULL THEN jsonb_build_object('type', 'text', 'body', NEW.message_content, 'preview_url', true)
            ELSE jsonb_strip_nulls(jsonb_build_object('type', CASE WHEN NEW.media_url ~* '\.(jpe?g|png|webp)([?#]|$)' THEN 'image' ELSE 'document' END,
                'link', NEW.media_url, 'caption', NEW.message_content)) END;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_timezone_names WHERE name = coalesce(NEW.timezone, 'UTC')) THEN
        RAISE EXCEPTION 'timezone: must be the IANA name of a time zone' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF TG_OP = 'INSERT' THEN
        IF tenant IS NULL THEN
            RAISE EXCEPTION 'org_id: is missing' USING ERRCODE = 'not_null_violation';
        END IF;
        IF NEW.scheduled_at IS NULL THEN
            RAISE EXCEPTION 'scheduled_at: is missing' USING ERRCODE = 'not_null_violation';
        END IF;
        IF NEW.conversation_id IS NOT NULL THEN
            SELECT v.channel_id INTO channel FROM conversations v WHERE v.org_id = tenant AND v.id = NEW.conversation_id;
            IF NOT FOUND THEN
                RAISE EXCEPTION 'conversation_id: there is no such conversation' USING ERRCODE = 'foreign_key_violation';
            END IF;
        ELSIF coalesce(btrim(NEW.phone_number), '') = '' THEN
            RAISE EXCEPTION 'phone_number: is missing' USING ERRCODE = 'not_null_violation';
        END IF;
        SELECT c.id INTO channel FROM channels c
        WHERE c.org_id = tenant AND (channel IS NULL OR c.id = channel) AND c.kind = ANY (kinds)
        ORDER BY array_position(kinds, c.kind), c.status = 'active' DESC, c.created_at, c.id LIMIT 1;
        IF channel IS NULL THEN
            RAISE EXCEPTION 'channel_id: this organisation has no such WhatsApp channel' USING ERRCODE = 'foreign_key_violation';
        END IF;
        INSERT INTO scheduled_messages (org_id, id, channel_id, conversation_id, address, recipient_name, content, template_id,
            variables, scheduled_for, timezone, recurrence, status, error, created_by)
        SELECT tenant, coalesce(NEW.id, wasel.uuid7()), channel, NEW.conversation_id,
            -- A spelling that SQL cannot read may be one that the server can.
            CASE WHEN NEW.conversation_id IS NULL THEN coalesce(wasel.e164(NEW.phone_number, o.region), btrim(NEW.phone_number)) END,
            NEW.recipient_name, said, NEW.template_id, coalesce(NEW.variables, '{}'), NEW.scheduled_at,
            coalesce(NEW.timezone, o.timezone), NEW.recurrence, word, NEW.error_message, coalesce(NEW.created_by, auth.uid())
        FROM organizations o WHERE o.id = tenant
        RETURNING * INTO saved;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'org_id: there is no such organisation' USING ERRCODE = 'foreign_key_violation';
        END IF;
    ELSE
        IF (NEW.id, NEW.org_id, NEW.channel_id) IS DISTINCT FROM (OLD.id, OLD.org_id, OLD.channel_id) THEN
            RAISE EXCEPTION 'id, org_id and channel_id: cannot be changed' USING ERRCODE = 'invalid_parameter_value';
        END IF;
        SELECT * INTO saved FROM scheduled_messages s WHERE s.org_id = OLD.org_id AND s.id = OLD.id FOR UPDATE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'your role may not change scheduled messages' USING ERRCODE = 'insufficient_privilege';
        END IF;
        IF saved.status IN ('sent', 'failed') AND word = 'scheduled' THEN
            RAISE EXCEPTION 'status: it has gone out; make a new one' USING ERRCODE = 'invalid_parameter_value';
        END IF;
        UPDATE scheduled_messages SET
            content = CASE WHEN (NEW.message_content, NEW.media_url, NEW.template_id) IS DISTINCT FROM (OLD.message_content, OLD.media_url, OLD.template_id)
                THEN said ELSE content END,
            template_id = NEW.template_id, variables = coalesce(NEW.variables, '{}'),
            address = CASE WHEN NEW.phone_number IS DISTINCT FROM OLD.phone_number AND conversation_id IS NULL THEN btrim(NEW.phone_number) ELSE address END,
            recipient_name = NEW.recipient_name, scheduled_for = NEW.scheduled_at, timezone = coalesce(NEW.timezone, timezone),
            recurrence = NEW.recurrence, status = word, error = NEW.error_message
        WHERE org_id = OLD.org_id AND id = OLD.id RETURNING * INTO saved;
    END IF;
    SELECT to_jsonb(v) INTO shape FROM wasel.whatsapp_scheduled_messages(saved) v;
    RETURN jsonb_populate_record(NEW, shape);
END $$;
CREATE OR REPLACE FUNCTION wasel.delete_scheduled_row() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    DELETE FROM scheduled_messages WHERE org_id = OLD.org_id AND id = OLD.id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'your role may not delete scheduled messages' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN OLD;
END $$;
CREATE OR REPLACE TRIGGER write_insert INSTEAD OF INSERT ON whatsapp_scheduled_messages FOR EACH ROW EXECUTE FUNCTION wasel.write_scheduled_row();
CREATE OR REPLACE TRIGGER write_update INSTEAD OF UPDATE ON whatsapp_scheduled_messages FOR EACH ROW EXECUTE FUNCTION wasel.write_scheduled_row();
CREATE OR REPLACE TRIGGER write_delete INSTEAD OF DELETE ON whatsapp_scheduled_messages FOR EACH ROW EXECUTE FUNCTION wasel.delete_scheduled_row();
GRANT SELECT, INSERT, UPDATE, DELETE ON whatsapp_scheduled_messages TO authenticated, service_role;
