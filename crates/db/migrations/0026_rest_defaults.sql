-- Rows written over REST: a caller who names no tenant means their own, and need not make ids up.

SET search_path = public;

DO $$
DECLARE
    target text;
BEGIN
    FOREACH target IN ARRAY ARRAY['contacts', 'contact_identities', 'conversations', 'consents', 'messages',
            'message_reactions', 'templates', 'notification_queue', 'whatsapp_sessions', 'notifications', 'bulk_jobs',
            'bulk_recipients', 'scheduled_messages', 'automations'] LOOP
        EXECUTE format('ALTER TABLE %I ALTER org_id SET DEFAULT wasel.default_org()', target);
    END LOOP;
    FOREACH target IN ARRAY ARRAY['contacts', 'conversations', 'consents', 'messages', 'message_reactions', 'templates',
            'bulk_jobs'] LOOP
        EXECUTE format('ALTER TABLE %I ALTER id SET DEFAULT wasel.uuid7()', target);
    END LOOP;
END $$;
