-- `message_logs` and `whatsapp_messages` can be written: what a document's own code logs joins the one log, and the
-- status webhook finds it there. A row written so is a record of a message; it is never sent.

SET search_path = public;

-- A document's or a provider's word for a status, in ours; NULL where it is none.
CREATE OR REPLACE FUNCTION wasel.message_status(word text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE lower(word)
        WHEN 'accepted' THEN 'queued' WHEN 'scheduled' THEN 'pending' WHEN 'undelivered' THEN 'failed'
        WHEN 'canceled' THEN 'cancelled'
        ELSE (SELECT s FROM unnest(ARRAY['pending', 'queued', 'sending', 'sent', 'delivered', 'read', 'failed',
            'cancelled']) s WHERE s = lower(word)) END
$$;

-- Mexico dropped the 1 after its country code, Brazil put a 9 before its mobiles; ids of older WhatsApp accounts keep the
-- old form. The same rule as wasel_domain::phone.
CREATE OR REPLACE FUNCTION wasel.as_dialled_today(number text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN number ~ '^\+521\d{10}$' THEN '+52' || substr(number, 5)
        WHEN number ~ '^\+55\d{2}[6-9]\d{7}$' THEN substr(number, 1, 5) || '9' || substr(number, 6)
        ELSE number END
$$;

-- A number as SQL callers spell it, in E.164; NULL where it cannot be told. The API reads numbers with the phone
-- library, which SQL has not: this knows `+`, `00`, and the national form of the countries listed.
CREATE OR REPLACE FUNCTION wasel.e164(spelling text, region text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    plain  text := replace(regexp_replace(translate(spelling, '٠١٢٣٤٥٦٧٨٩۰۱۲۳۴۵۶۷۸۹', '01234567890123456789'),
                       '^\s*whatsapp:', ''), '(0)', '');
    digits text := regexp_replace(plain, '\D', '', 'g');
    code   text := CASE region WHEN 'EG' THEN '20' WHEN 'SA' THEN '966' WHEN 'AE' THEN '971' WHEN 'JO' THEN '962'
                       WHEN 'KW' THEN '965' WHEN 'QA' THEN '974' WHEN 'BH' THEN '973' WHEN 'OM' THEN '968'
                       WHEN 'IQ' THEN '964' WHEN 'LB' THEN '961' WHEN 'SY' THEN '963' WHEN 'YE' THEN '967'
                       WHEN 'LY' THEN '218' WHEN 'TN' THEN '216' WHEN 'DZ' THEN '213' WHEN 'MA' THEN '212'
                       WHEN 'SD' THEN '249' WHEN 'GB' THEN '44' END;
    found  text;
BEGIN
    -- The forms of WhatsApp ids older than Mexico's and Brazil's renumbering are today's numbers, as in the API.
    found := CASE
        WHEN plain ~ '^[^0-9]*\+' THEN '+' || digits
        WHEN digits LIKE '00%' THEN '+' || substr(digits, 3)
        WHEN code IS NULL THEN NULL
        WHEN digits LIKE code || '%' AND length(digits) > 10 THEN '+' || digits
        WHEN digits LIKE '0%' THEN '+' || code || substr(digits, 2)
        WHEN length(digits) BETWEEN 8 AND 10 THEN '+' || code || digits
    END;
    RETURN CASE WHEN found ~ '^\+[1-9]\d{6,14}$' THEN wasel.as_dialled_today(found) END;
END $$;

-- Numbers kept in an old form find their person by the new one. Where both are known, a person has to merge them.
SET ROLE service_role;
UPDATE contact_identities i SET value = wasel.as_dialled_today(i.value)
WHERE i.kind = 'phone' AND i.value <> wasel.as_dialled_today(i.value) AND NOT EXISTS (
    SELECT FROM contact_identities o WHERE o.org_id = i.org_id AND o.kind = 'phone' AND o.value = wasel.as_dialled_today(i.value));
RESET ROLE;

-- The tenant of a row whose writer named none: the caller's, else the only one there is.
CREATE OR REPLACE FUNCTION wasel.default_org() RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT coalesce(wasel.org_id(), (
        SELECT (array_agg(id))[1] FROM organizations WHERE id <> '00000000-0000-0000-0000-000000000000'
        HAVING count(*) = 1))
$$;
ALTER FUNCTION wasel.default_org() OWNER TO service_role;

-- The customer of that address and the conversation with them on that channel; made where they are not there.
CREATE OR REPLACE FUNCTION wasel.conversation_with(
    tenant uuid, channel uuid, kind_of_address text, address text, OUT contact uuid, OUT conversation uuid)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    SELECT i.contact_id INTO contact FROM contact_identities i
    WHERE i.org_id = tenant AND i.kind = kind_of_address AND i.value = address;
    IF contact IS NULL THEN
        contact := wasel.uuid7();
        INSERT INTO contacts (org_id, id, phone_number, email)
        VALUES (tenant, contact, CASE kind_of_address WHEN 'phone' THEN address END,
            CASE kind_of_address WHEN 'email' THEN address END);
        INSERT INTO contact_identities (org_id, kind, value, contact_id)
        VALUES (tenant, kind_of_address, address, contact) ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            -- Somebody else made this contact a moment ago.
            DELETE FROM contacts c WHERE c.org_id = tenant AND c.id = contact;
            SELECT i.contact_id INTO STRICT contact FROM contact_identities i
            WHERE i.org_id = tenant AND i.kind = kind_of_address AND i.value = address;
        END IF;
    END IF;
    INSERT INTO conversations (org_id, id, channel_id, contact_id, phone_number, customer_name)
    SELECT tenant, wasel.uuid7(), channel, contact, coalesce(c.phone_number, CASE kind_of_address WHEN 'phone' THEN address END), c.name
    FROM contacts c WHERE c.org_id = tenant AND c.id = contact AND NOT EXISTS (
        SELECT FROM conversations v WHERE v.org_id = tenant AND v.contact_id = contact AND v.channel_id = channel
            AND v.group_id IS NULL)
    ON CONFLICT DO NOTHING;
    SELECT v.id INTO STRICT conversation FROM conversations v
    WHERE v.org_id = tenant AND v.contact_id = contact AND v.channel_id = channel AND v.group_id IS NULL;
END $$;

-- INSERT into either name. The columns are looked up by all the names the documents have for one thing.
CREATE OR REPLACE FUNCTION wasel.insert_message_row() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    f          jsonb := jsonb_strip_nulls(to_jsonb(NEW));
    tenant     uuid := coalesce((f ->> 'org_id')::uuid, wasel.default_org());
    row_id     uuid := coalesce((f ->> 'id')::uuid, wasel.uuid7());
    way        text := coalesce(f ->> 'direction', 'outbound');
    medium     text := CASE TG_TABLE_NAME WHEN 'message_logs' THEN coalesce(f ->> 'message_type', 'sms') ELSE 'whatsapp' END;
    kinds      text[];
    channel    uuid;
    person     uuid;
    thread     uuid := (f ->> 'conversation_id')::uuid;
    recipient  text := coalesce(f ->> 'recipient', f ->> 'recipient_phone');
    goes_to    text;
    body_text  text := coalesce(f ->> 'message_content', f ->> 'content', f ->> 'message_body');
    file_url   text := f ->> 'media_url';
    type_word  text := CASE TG_TABLE_NAME WHEN 'message_logs' THEN NULL ELSE f ->> 'message_type' END;
    state      text;
    happened   timestamptz := coalesce((f ->> 'created_at')::timestamptz, (f ->> 'sent_at')::timestamptz, now());
    shape      jsonb;
BEGIN
    IF tenant IS NULL THEN
        RAISE EXCEPTION 'org_id: is missing' USING ERRCODE = 'not_null_violation';
    END IF;
    IF way NOT IN ('inbound', 'outbound') THEN
        RAISE EXCEPTION 'direction: must be inbound or outbound' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    state := CASE way WHEN 'inbound' THEN 'received' ELSE wasel.message_status(coalesce(f ->> 'status', 'queued')) END;
    IF state IS NULL THEN
        RAISE EXCEPTION 'status: % is no status of a message', f ->> 'status' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF type_word IS NULL THEN
        type_word := CASE WHEN file_url IS NULL THEN 'text'
            WHEN file_url ~* '\.(jpe?g|png|webp)([?#]|$)' THEN 'image' ELSE 'document' END;
    ELSIF type_word NOT IN ('text', 'image', 'video', 'audio', 'document', 'sticker', 'location', 'contacts',
            'interactive', 'button', 'order', 'template', 'reaction', 'system', 'unsupported') THEN
        RAISE EXCEPTION 'message_type: % is no type of a message', type_word USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF thread IS NOT NULL THEN
        SELECT v.channel_id, v.contact_id, coalesce(v.phone_number, c.email) INTO channel, person, goes_to
        FROM conversations v JOIN contacts c ON c.org_id = v.org_id AND c.id = v.contact_id
        WHERE v.org_id = tenant AND v.id = thread;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'conversation_id: there is no such conversation' USING ERRCODE = 'foreign_key_violation';
        END IF;
    ELSE
        kinds := CASE medium WHEN 'sms' THEN ARRAY['twilio_sms'] WHEN 'email' THEN ARRAY['email']
            WHEN 'whatsapp' THEN CASE WHEN f ->> 'provider' IN ('meta', 'whatsapp_cloud')
                THEN ARRAY['whatsapp_cloud', 'twilio_whatsapp', 'whatsapp_web']
                ELSE ARRAY['twilio_whatsapp', 'whatsapp_cloud', 'whatsapp_web'] END END;
        IF kinds IS NULL THEN
            RAISE EXCEPTION 'message_type: must be sms, whatsapp or email' USING ERRCODE = 'invalid_parameter_value';
        END IF;
        SELECT c.id INTO channel FROM channels c
        WHERE c.org_id = tenant AND (c.id = (f ->> 'session_id')::uuid OR NOT f ? 'session_id' AND c.kind = ANY (kinds))
        ORDER BY array_position(kinds, c.kind), c.status = 'active' DESC, c.created_at, c.id LIMIT 1;
        IF channel IS NULL THEN
            RAISE EXCEPTION 'message_type: this organisation has no % channel', medium USING ERRCODE = 'foreign_key_violation';
        END IF;
        IF medium = 'email' THEN
            -- As strict as wasel_domain::email.
            goes_to := substring(lower(btrim(recipient)) FROM '^[^[:space:][:cntrl:]<>(),;:\\"\[\]@]{1,64}@[^[:space:][:cntrl:]<>(),;:\\"\[\]@.-][^[:space:][:cntrl:]<>(),;:\\"\[\]@]*\.[^[:space:][:cntrl:]<>(),;:\\"\[\]@.-]+$');
        ELSE
            SELECT wasel.e164(recipient, o.region) INTO goes_to FROM organizations o WHERE o.id = tenant;
        END IF;
        IF goes_to IS NULL THEN
            RAISE EXCEPTION 'recipient: must be a phone number with its country code, such as +201012345678, or an e-mail address for e-mail'
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        SELECT w.contact, w.conversation INTO person, thread
        FROM wasel.conversation_with(tenant, channel, CASE medium WHEN 'email' THEN 'email' ELSE 'phone' END, goes_to) w;
    END IF;
    INSERT INTO messages (org_id, id, conversation_id, channel_id, contact_id, direction, message_type, status, body,
        content, media, address, customer_name, provider_message_id, sender_id, request_id, trigger_type,
        related_entity_id, error_code, error_message, metadata, retry_count, created_at, scheduled_at, sent_at,
        delivered_at, read_at, failed_at)
    VALUES (tenant, row_id, thread, channel, person, way, type_word, state, body_text,
        CASE WHEN f ? 'template_name' THEN jsonb_build_object('type', 'template', 'name', f -> 'template_name',
            'variables', coalesce(f -> 'template_params', '{}')) END,
        CASE WHEN file_url IS NOT NULL THEN jsonb_build_array(jsonb_build_object('url', file_url)) END,
        goes_to, f ->> 'recipient_name',
        coalesce(f ->> 'external_id', f ->> 'message_sid', f ->> 'whatsapp_message_id'),
        coalesce(f ->> 'sender_id', f ->> 'sent_by')::uuid, f ->> 'request_id', coalesce(f ->> 'trigger_type', 'manual'),
        f ->> 'related_entity_id', f ->> 'error_code', f ->> 'error_message', coalesce(f -> 'metadata', '{}'),
        coalesce((f ->> 'retry_count')::int, 0), happened, (f ->> 'scheduled_at')::timestamptz,
        coalesce((f ->> 'sent_at')::timestamptz, CASE WHEN state IN ('sent', 'delivered', 'read', 'received') THEN happened END),
        (f ->> 'delivered_at')::timestamptz, (f ->> 'read_at')::timestamptz,
        coalesce((f ->> 'failed_at')::timestamptz, CASE state WHEN 'failed' THEN happened END));
    UPDATE conversations v SET
        last_message = CASE WHEN newest THEN left(coalesce(body_text, '[' || type_word || ']'), 200) ELSE v.last_message END,
        last_message_at = greatest(v.last_message_at, happened),
        last_direction = CASE WHEN newest THEN way ELSE v.last_direction END,
        unread_count = v.unread_count + CASE way WHEN 'inbound' THEN 1 ELSE 0 END,
        last_inbound_at = CASE way WHEN 'inbound' THEN greatest(v.last_inbound_at, happened) ELSE v.last_inbound_at END,
        updated_at = now()
    FROM (SELECT coalesce(o.last_message_at, '-infinity') <= happened AS newest FROM conversations o
          WHERE o.org_id = tenant AND o.id = thread) n
    WHERE v.org_id = tenant AND v.id = thread;
    EXECUTE format('SELECT to_jsonb(s) FROM messages m CROSS JOIN LATERAL wasel.%I(m) s WHERE m.org_id = $1 AND m.id = $2',
        TG_TABLE_NAME) INTO shape USING tenant, row_id;
    RETURN jsonb_populate_record(NEW, shape);
END $$;

-- UPDATE of either name. A status moves as a provider's word would move it: forward only.
CREATE OR REPLACE FUNCTION wasel.update_message_row() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    f       jsonb := to_jsonb(NEW);
    changed jsonb;
    fixed   text;
    m       messages;
    sid     text;
    state   text;
    happened timestamptz;
    told    text;
    waiting outbox;
    shape   jsonb;
BEGIN
    SELECT coalesce(jsonb_object_agg(n.key, n.value), '{}') INTO changed
    FROM jsonb_each(f) n WHERE n.value IS DISTINCT FROM to_jsonb(OLD) -> n.key AND n.key <> 'updated_at';
    IF changed = '{}' THEN
        RETURN NEW;
    END IF;
    SELECT k INTO fixed FROM jsonb_object_keys(changed) k
    WHERE k <> ALL (ARRAY['status', 'external_id', 'message_sid', 'whatsapp_message_id', 'error_code', 'error_message',
        'sent_at', 'delivered_at', 'read_at', 'failed_at', 'metadata', 'request_id', 'sender_id', 'sent_by', 'content',
        'message_content', 'message_body', 'retry_count', 'related_entity_id', 'recipient_name']) LIMIT 1;
    IF fixed IS NOT NULL THEN
        RAISE EXCEPTION '%: cannot be changed', fixed USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT * INTO m FROM messages WHERE org_id = OLD.org_id AND id = OLD.id FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'your role may not change messages' USING ERRCODE = 'insufficient_privilege';
    END IF;
    sid := coalesce(changed ->> 'external_id', changed ->> 'message_sid', changed ->> 'whatsapp_message_id');
    IF sid IS NOT NULL AND m.provider_message_id IS NOT NULL THEN
        RAISE EXCEPTION 'external_id: cannot be changed once it is known' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF changed ? 'status' AND m.direction = 'outbound' THEN
        state := wasel.message_status(changed ->> 'status');
        IF state IS NULL THEN
            RAISE EXCEPTION 'status: % is no status of a message', changed ->> 'status' USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END IF;
    IF sid IS NOT NULL OR wasel.status_rank(state) > wasel.status_rank('unknown') THEN
        -- Whoever says how it ended has sent it, or does not want it sent.
        SELECT * INTO waiting FROM outbox o WHERE o.org_id = m.org_id AND o.message_id = m.id FOR UPDATE;
        IF waiting.leased_until IS NOT NULL THEN
            RAISE EXCEPTION 'status: the message is being sent this moment' USING ERRCODE = 'object_in_use';
        END IF;
        DELETE FROM outbox o WHERE o.org_id = m.org_id AND o.message_id = m.id;
        UPDATE message_attempts t SET provider_message_id = sid WHERE sid IS NOT NULL AND t.org_id = m.org_id AND t.id = (
            SELECT a.id FROM message_attempts a WHERE a.org_id = m.org_id AND a.message_id = m.id
                AND a.provider_message_id IS NULL ORDER BY a.id DESC LIMIT 1);
    END IF;
    UPDATE messages SET
        provider_message_id = coalesce(provider_message_id, sid),
        body = CASE WHEN changed ?| ARRAY['content', 'message_content', 'message_body']
            THEN coalesce(changed ->> 'message_content', changed ->> 'content', changed ->> 'message_body') ELSE body END,
        metadata = CASE WHEN changed ? 'metadata' THEN coalesce(nullif(changed -> 'metadata', 'null'), '{}') ELSE metadata END,
        request_id = CASE WHEN changed ? 'request_id' THEN changed ->> 'request_id' ELSE request_id END,
        sender_id = CASE WHEN changed ?| ARRAY['sender_id', 'sent_by']
            THEN coalesce(changed ->> 'sender_id', changed ->> 'sent_by')::uuid ELSE sender_id END,
        customer_name = CASE WHEN changed ? 'recipient_name' THEN changed ->> 'recipient_name' ELSE customer_name END,
        related_entity_id = CASE WHEN changed ? 'related_entity_id' THEN changed ->> 'related_entity_id' ELSE related_entity_id END,
        retry_count = coalesce((changed ->> 'retry_count')::int, retry_count),
        sent_at = least(sent_at, (changed ->> 'sent_at')::timestamptz),
        delivered_at = least(delivered_at, (changed ->> 'delivered_at')::timestamptz),
        read_at = least(read_at, (changed ->> 'read_at')::timestamptz),
        failed_at = least(failed_at, (changed ->> 'failed_at')::timestamptz),
        error_code = CASE WHEN changed ? 'error_code' THEN changed ->> 'error_code' ELSE error_code END,
        error_message = CASE WHEN changed ? 'error_message' THEN changed ->> 'error_message' ELSE error_message END,
        updated_at = now()
    WHERE org_id = m.org_id AND id = m.id RETURNING provider_message_id INTO sid;
    IF state IS NOT NULL THEN
        happened := coalesce((f ->> (CASE state WHEN 'sent' THEN 'sent_at' WHEN 'delivered' THEN 'delivered_at'
            WHEN 'read' THEN 'read_at' WHEN 'failed' THEN 'failed_at' END))::timestamptz, now());
        IF sid IS NOT NULL THEN
            SELECT s.outcome INTO told FROM wasel.advance_status(ARRAY[wasel.uuid7()], ARRAY[m.org_id], ARRAY[m.channel_id], ARRAY[sid],
                ARRAY[NULL::uuid], ARRAY[state], ARRAY[happened], ARRAY[jsonb_strip_nulls(jsonb_build_object(
                    'provider_message_id', sid, 'error_code', f -> 'error_code', 'error_message', f -> 'error_message'))::text]) s;
            IF told = 'unknown' THEN
                RAISE EXCEPTION 'external_id: another attempt at this message has a different one' USING ERRCODE = 'invalid_parameter_value';
            END IF;
        ELSE
            -- The provider has not named it, so no callback can speak of it either.
            UPDATE messages SET status = state,
                sent_at = CASE WHEN state IN ('sent', 'delivered', 'read') THEN least(sent_at, happened) ELSE sent_at END,
                delivered_at = CASE WHEN state IN ('delivered', 'read') THEN least(delivered_at, happened) ELSE delivered_at END,
                read_at = CASE state WHEN 'read' THEN least(read_at, happened) ELSE read_at END,
                failed_at = CASE state WHEN 'failed' THEN least(failed_at, happened) ELSE failed_at END
            WHERE org_id = m.org_id AND id = m.id AND wasel.status_rank(state) > wasel.status_rank(status);
        END IF;
    END IF;
    EXECUTE format('SELECT to_jsonb(s) FROM messages m CROSS JOIN LATERAL wasel.%I(m) s WHERE m.org_id = $1 AND m.id = $2',
        TG_TABLE_NAME) INTO shape USING m.org_id, m.id;
    RETURN jsonb_populate_record(NEW, shape);
END $$;

CREATE OR REPLACE FUNCTION wasel.delete_message_row() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    DELETE FROM messages WHERE org_id = OLD.org_id AND id = OLD.id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'your role may not delete messages' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN OLD;
END $$;

CREATE OR REPLACE TRIGGER write_insert INSTEAD OF INSERT ON message_logs FOR EACH ROW EXECUTE FUNCTION wasel.insert_message_row();
CREATE OR REPLACE TRIGGER write_update INSTEAD OF UPDATE ON message_logs FOR EACH ROW EXECUTE FUNCTION wasel.update_message_row();
CREATE OR REPLACE TRIGGER write_delete INSTEAD OF DELETE ON message_logs FOR EACH ROW EXECUTE FUNCTION wasel.delete_message_row();
CREATE OR REPLACE TRIGGER write_insert INSTEAD OF INSERT ON whatsapp_messages FOR EACH ROW EXECUTE FUNCTION wasel.insert_message_row();
CREATE OR REPLACE TRIGGER write_update INSTEAD OF UPDATE ON whatsapp_messages FOR EACH ROW EXECUTE FUNCTION wasel.update_message_row();
CREATE OR REPLACE TRIGGER write_delete INSTEAD OF DELETE ON whatsapp_messages FOR EACH ROW EXECUTE FUNCTION wasel.delete_message_row();
GRANT INSERT, UPDATE, DELETE ON message_logs, whatsapp_messages TO authenticated, service_role;

-- Templates by the document's name (S4.4). A row without org_id is the caller's own; the policies refuse other tenants'.
CREATE OR REPLACE FUNCTION wasel.write_template_row() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    saved templates;
    shape jsonb;
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO templates (org_id, id, name, description, category, message_template, variables, media_type, media_url,
            is_active, created_by)
        VALUES (coalesce(NEW.org_id, wasel.default_org()), coalesce(NEW.id, wasel.uuid7()), NEW.name, NEW.description,
            coalesce(NEW.category, 'custom'), NEW.message_template, coalesce(NEW.variables, '[]'), NEW.media_type,
            NEW.media_url, coalesce(NEW.is_active, true), coalesce(NEW.created_by, auth.uid()))
        RETURNING * INTO saved;
    ELSE
        IF NEW.id IS DISTINCT FROM OLD.id OR NEW.org_id IS DISTINCT FROM OLD.org_id THEN
            RAISE EXCEPTION 'id and org_id: cannot be changed' USING ERRCODE = 'invalid_parameter_value';
        END IF;
        UPDATE templates SET usage_count = NEW.usage_count, last_used_at = NEW.last_used_at, name = NEW.name, description = NEW.description, category = NEW.category,
            message_template = NEW.message_template, variables = NEW.variables, media_type = NEW.media_type,
            media_url = NEW.media_url, is_active = NEW.is_active
        WHERE org_id = OLD.org_id AND id = OLD.id RETURNING * INTO saved;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'a system template cannot be changed, and only owners and admins change the others'
                USING ERRCODE = 'insufficient_privilege';
        END IF;
    END IF;
    SELECT to_jsonb(s) INTO shape FROM wasel.whatsapp_templates(saved) s;
    RETURN jsonb_populate_record(NEW, shape);
END $$;
CREATE OR REPLACE FUNCTION wasel.delete_template_row() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    DELETE FROM templates WHERE org_id = OLD.org_id AND id = OLD.id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'a system template cannot be deleted, and only owners and admins delete the others'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN OLD;
END $$;
CREATE OR REPLACE TRIGGER write_insert INSTEAD OF INSERT ON whatsapp_templates FOR EACH ROW EXECUTE FUNCTION wasel.write_template_row();
CREATE OR REPLACE TRIGGER write_update INSTEAD OF UPDATE ON whatsapp_templates FOR EACH ROW EXECUTE FUNCTION wasel.write_template_row();
CREATE OR REPLACE TRIGGER write_delete INSTEAD OF DELETE ON whatsapp_templates FOR EACH ROW EXECUTE FUNCTION wasel.delete_template_row();
GRANT INSERT, UPDATE, DELETE ON whatsapp_templates TO authenticated, service_role;
