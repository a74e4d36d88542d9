-- The notification queue at work: who is next, who wakes the processor, and how a row ends when its message does.

SET search_path = public;

-- Per tenant and priority, the next one due: a claim looks at the front of these only, however many wait behind.
CREATE INDEX IF NOT EXISTS notification_queue_next ON notification_queue (org_id, priority, scheduled_for, id)
    WHERE status = 'pending';
-- Postgres knows `-infinity`, which no clock of ours can read.
ALTER TABLE notification_queue DROP CONSTRAINT IF EXISTS notification_queue_times;
ALTER TABLE notification_queue ADD CONSTRAINT notification_queue_times
    CHECK (scheduled_for BETWEEN '1970-01-01' AND '2200-01-01') NOT VALID;
CREATE INDEX IF NOT EXISTS notification_queue_recent ON notification_queue (org_id, created_at DESC, id DESC);
-- Normally empty: our own rows become `processing` together with their message.
CREATE INDEX IF NOT EXISTS notification_queue_stray ON notification_queue (org_id, id)
    WHERE status = 'processing' AND whatsapp_message_id IS NULL;
CREATE INDEX IF NOT EXISTS messages_notification ON messages (org_id, notification_id, id) WHERE notification_id IS NOT NULL;
ALTER TABLE notification_queue SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

-- Wakes the processors of all nodes when rows became ready, whoever's statement made them so.
-- NOTIFY makes the commits that use it queue up (hence it stays off the hot paths: docs/decisions/0001). Here it is one
-- empty word per statement, by rows that come at the pace of sign-ups and cron jobs; the same word twice in a transaction
-- is sent once, and our own updates of the queue never say it. A row that is due within ten seconds counts as ready: the
-- processor then sets its clock by it, and for later ones its poll of every few seconds comes in time.
CREATE OR REPLACE FUNCTION wasel.wake_queue() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF current_setting('wasel.importing', true) = 'on' AND current_setting('role') NOT IN ('authenticated', 'anon') THEN
        RETURN NULL;
    END IF;
    IF EXISTS (SELECT FROM new_rows WHERE status = 'pending' AND scheduled_for <= clock_timestamp() + interval '10 seconds') THEN
        PERFORM pg_notify('wasel_queue', '');
    END IF;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER wake_insert AFTER INSERT ON notification_queue REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION wasel.wake_queue();
CREATE OR REPLACE TRIGGER wake_update AFTER UPDATE ON notification_queue REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION wasel.wake_queue();

-- Takes a message back that has not left. `false` where it is too late, or somebody has the message in hand this moment:
-- neither row is waited for, so that nobody who sends or records can wait for us in turn.
CREATE OR REPLACE FUNCTION wasel.cancel_message(tenant uuid, message uuid) RETURNS boolean
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM FROM outbox o WHERE o.org_id = tenant AND o.message_id = message
        AND o.leased_until IS NULL AND o.unknown_since IS NULL FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM FROM messages m WHERE m.org_id = tenant AND m.id = message AND m.status IN ('pending', 'queued')
        FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM outbox o WHERE o.org_id = tenant AND o.message_id = message;
    UPDATE messages m SET status = 'cancelled', updated_at = now() WHERE m.org_id = tenant AND m.id = message;
    INSERT INTO message_events (org_id, id, message_id, event, at) VALUES (tenant, wasel.uuid7(), message, 'cancelled', now());
    RETURN true;
END $$;
REVOKE ALL ON FUNCTION wasel.cancel_message(uuid, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION wasel.cancel_message(uuid, uuid) TO authenticated, service_role;

-- A queue row that is cancelled takes its message back. Where that is too late the row says so by going on: it is
-- `cancelled` only if nothing was sent.
CREATE OR REPLACE FUNCTION wasel.cancel_notification() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    m record;
BEGIN
    SELECT id, status INTO m FROM messages
    WHERE org_id = NEW.org_id AND id = NEW.whatsapp_message_id AND notification_id = NEW.id;
    IF NOT FOUND OR m.status IN ('failed', 'cancelled') OR wasel.cancel_message(NEW.org_id, m.id) THEN
        RETURN NULL;
    END IF;
    UPDATE notification_queue SET status = CASE WHEN m.status IN ('sent', 'delivered', 'read') THEN 'completed' ELSE 'processing' END,
        completed_at = CASE WHEN m.status IN ('sent', 'delivered', 'read') THEN now() END
    WHERE org_id = NEW.org_id AND id = NEW.id;
    RETURN NULL;
END $$;
ALTER FUNCTION wasel.cancel_notification() OWNER TO service_role;
CREATE OR REPLACE TRIGGER cancel_message AFTER UPDATE ON notification_queue FOR EACH ROW
    WHEN (OLD.status = 'processing' AND NEW.status = 'cancelled' AND NEW.whatsapp_message_id IS NOT NULL)
    EXECUTE FUNCTION wasel.cancel_notification();

-- A queue row ends when its message does. A failure is not decided here: whether it can pass is the providers' knowledge,
-- and the job that follows failures up has it.
CREATE OR REPLACE FUNCTION wasel.follow_notification() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    later uuid;
BEGIN
    IF NEW.status IN ('sent', 'delivered', 'read') THEN
        -- Also after its failure was reported: then a second attempt may be waiting, and is not needed any more.
        SELECT whatsapp_message_id INTO later FROM notification_queue
        WHERE org_id = NEW.org_id AND id = NEW.notification_id AND status IN ('pending', 'processing', 'failed') FOR UPDATE;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
        UPDATE notification_queue SET status = 'completed', completed_at = now(), error_message = NULL, whatsapp_message_id = NEW.id
        WHERE org_id = NEW.org_id AND id = NEW.notification_id;
        IF later <> NEW.id THEN
            PERFORM wasel.cancel_message(NEW.org_id, later);
        END IF;
    ELSIF NEW.status = 'cancelled' THEN
        UPDATE notification_queue SET status = 'cancelled'
        WHERE org_id = NEW.org_id AND id = NEW.notification_id AND whatsapp_message_id = NEW.id AND status = 'processing';
    ELSIF NEW.status = 'unknown' AND NEW.error_code = 'unknown_outcome' THEN
        UPDATE notification_queue SET status = 'failed', error_message = NEW.error_message
        WHERE org_id = NEW.org_id AND id = NEW.notification_id AND whatsapp_message_id = NEW.id AND status = 'processing';
    END IF;
    RETURN NULL;
END $$;
ALTER FUNCTION wasel.follow_notification() OWNER TO service_role;
CREATE OR REPLACE TRIGGER follow_notification AFTER UPDATE ON messages FOR EACH ROW
    WHEN (NEW.notification_id IS NOT NULL AND (NEW.status IS DISTINCT FROM OLD.status OR NEW.error_code IS DISTINCT FROM OLD.error_code))
    EXECUTE FUNCTION wasel.follow_notification();
