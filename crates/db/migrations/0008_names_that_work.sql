-- The documents' own names over the one schema. Each shape is one function from a row of ours to a row of
-- theirs: the view applies it to the table, the change feed to a logged row, so both always agree.

SET search_path = public;

CREATE OR REPLACE FUNCTION wasel.document_status(status text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE status WHEN 'received' THEN 'delivered' WHEN 'unknown' THEN 'sending' ELSE status END
$$;

-- S0
CREATE OR REPLACE FUNCTION wasel.whatsapp_conversations(c conversations) RETURNS TABLE (
    id uuid, org_id uuid, phone_number text, customer_name text, status text, last_message_at timestamptz,
    last_message text, unread_count int, assigned_to uuid, notes text, tags text[], patient_id text,
    channel_id uuid, created_at timestamptz, updated_at timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT (c).id, (c).org_id, (c).phone_number, (c).customer_name, (c).status, (c).last_message_at,
           (c).last_message, (c).unread_count, (c).assigned_to, (c).notes, (c).tags, (c).patient_id,
           (c).channel_id, (c).created_at, (c).updated_at
$$;

-- S1.1
CREATE OR REPLACE FUNCTION wasel.chat_conversations(c conversations) RETURNS TABLE (
    id uuid, org_id uuid, user_id uuid, waba_id text, phone_number_id text, customer_phone text,
    customer_name text, customer_profile_pic text, last_message text, last_message_time timestamptz,
    unread_count int, status text, created_at timestamptz, updated_at timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT (c).id, (c).org_id, (c).assigned_to,
           (SELECT ch.settings ->> 'waba_id' FROM channels ch WHERE ch.org_id = (c).org_id AND ch.id = (c).channel_id),
           (SELECT ch.settings ->> 'phone_number_id' FROM channels ch WHERE ch.org_id = (c).org_id AND ch.id = (c).channel_id),
           (c).phone_number, (c).customer_name,
           (SELECT ct.avatar_url FROM contacts ct WHERE ct.org_id = (c).org_id AND ct.id = (c).contact_id),
           (c).last_message, (c).last_message_at, (c).unread_count, (c).status, (c).created_at, (c).updated_at
$$;

-- S0, S2.6 and S4.3 each have a table of this name; this is their union.
CREATE OR REPLACE FUNCTION wasel.whatsapp_messages(m messages) RETURNS TABLE (
    id uuid, org_id uuid, conversation_id uuid, session_id uuid, content text, message_content text, message_body text,
    message_type text, direction text, status text, sender_id uuid, sent_by uuid, recipient_phone text,
    recipient_name text, message_sid text, whatsapp_message_id text, template_name text, template_params jsonb,
    media_url text, request_id text, error_code text, error_message text, retry_count int, trigger_type text,
    related_entity_id text, metadata jsonb, scheduled_at timestamptz, sent_at timestamptz, delivered_at timestamptz,
    read_at timestamptz, failed_at timestamptz, created_at timestamptz, updated_at timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT (m).id, (m).org_id, (m).conversation_id, (m).channel_id, (m).body, (m).body, (m).body,
           (m).message_type, (m).direction, wasel.document_status((m).status), (m).sender_id, (m).sender_id,
           (m).address, (m).customer_name, (m).provider_message_id, (m).provider_message_id,
           (m).content ->> 'name', (m).content -> 'variables', (m).media -> 0 ->> 'url', (m).request_id, (m).error_code,
           (m).error_message, (m).retry_count, (m).trigger_type, (m).related_entity_id, (m).metadata,
           (m).scheduled_at, (m).sent_at, (m).delivered_at, (m).read_at, (m).failed_at, (m).created_at, (m).updated_at
$$;

-- S1.1
CREATE OR REPLACE FUNCTION wasel.chat_messages(m messages) RETURNS TABLE (
    id uuid, org_id uuid, conversation_id uuid, message_id text, wa_message_id text, content text, message_type text,
    media_url text, media_caption text, sender text, status text, "timestamp" timestamptz, metadata jsonb,
    created_at timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT (m).id, (m).org_id, (m).conversation_id, coalesce((m).provider_message_id, (m).id::text),
           (m).provider_message_id, (m).body, (m).message_type, (m).media -> 0 ->> 'url',
           CASE WHEN (m).media IS NOT NULL THEN (m).body END,
           CASE (m).direction WHEN 'inbound' THEN 'customer' ELSE 'user' END,
           wasel.document_status((m).status), (m).created_at, (m).metadata, (m).created_at
$$;

-- S2.5: the log of what was sent.
CREATE OR REPLACE FUNCTION wasel.message_logs(m messages) RETURNS TABLE (
    id uuid, org_id uuid, request_id text, recipient text, message_type text, message_content text, provider text,
    status text, external_id text, metadata jsonb, sender_id uuid, media_url text, sent_at timestamptz,
    delivered_at timestamptz, read_at timestamptz, failed_at timestamptz, error_code text, error_message text,
    created_at timestamptz, updated_at timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT (m).id, (m).org_id, (m).request_id, (m).address,
           CASE WHEN ch.kind LIKE '%\_sms' THEN 'sms' WHEN ch.kind = 'email' THEN 'email' ELSE 'whatsapp' END,
           (m).body, CASE WHEN ch.kind LIKE 'twilio\_%' THEN 'twilio' WHEN ch.kind = 'whatsapp_cloud' THEN 'meta' ELSE ch.kind END,
           wasel.document_status((m).status), (m).provider_message_id, (m).metadata, (m).sender_id,
           (m).media -> 0 ->> 'url', (m).sent_at, (m).delivered_at, (m).read_at, (m).failed_at, (m).error_code,
           (m).error_message, (m).created_at, (m).updated_at
    FROM (SELECT (SELECT c.kind FROM channels c WHERE c.org_id = (m).org_id AND c.id = (m).channel_id) AS kind) ch
    WHERE (m).direction = 'outbound'
$$;

CREATE OR REPLACE VIEW whatsapp_conversations WITH (security_invoker = true) AS
    SELECT s.* FROM conversations c CROSS JOIN LATERAL wasel.whatsapp_conversations(c) s;
CREATE OR REPLACE VIEW chat_conversations WITH (security_invoker = true) AS
    SELECT s.* FROM conversations c CROSS JOIN LATERAL wasel.chat_conversations(c) s;
CREATE OR REPLACE VIEW whatsapp_messages WITH (security_invoker = true) AS
    SELECT s.* FROM messages m CROSS JOIN LATERAL wasel.whatsapp_messages(m) s;
CREATE OR REPLACE VIEW chat_messages WITH (security_invoker = true) AS
    SELECT s.* FROM messages m CROSS JOIN LATERAL wasel.chat_messages(m) s;
CREATE OR REPLACE VIEW message_logs WITH (security_invoker = true) AS
    SELECT s.* FROM messages m CROSS JOIN LATERAL wasel.message_logs(m) s;

CREATE OR REPLACE VIEW waba_accounts WITH (security_invoker = true) AS
    SELECT c.org_id, c.settings ->> 'waba_id' AS waba_id, NULL::uuid AS user_id,
           c.settings ->> 'owner_business_id' AS owner_business_id,
           -- Sealed in channel_secrets; never readable here.
           NULL::text AS access_token, min(c.created_at) AS created_at
    FROM channels c WHERE c.kind = 'whatsapp_cloud'
    GROUP BY c.org_id, c.settings ->> 'waba_id', c.settings ->> 'owner_business_id';
CREATE OR REPLACE VIEW phone_numbers WITH (security_invoker = true) AS
    SELECT c.org_id, c.id, c.settings ->> 'waba_id' AS waba_id, c.settings ->> 'phone_number_id' AS phone_number_id,
           c.settings ->> 'display_phone_number' AS display_phone_number, c.name AS verified_name,
           c.status = 'active' AS is_registered
    FROM channels c WHERE c.kind = 'whatsapp_cloud';

GRANT SELECT ON whatsapp_conversations, chat_conversations, whatsapp_messages, chat_messages, message_logs,
    waba_accounts, phone_numbers TO authenticated, service_role;
