-- What the rules for sending go by is not a tenant's to write by SQL or REST: when the customer wrote last opens the
-- 24-hour window. The server and the service-role key write it.

SET search_path = public;

CREATE OR REPLACE FUNCTION wasel.keep_last_inbound() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    -- Logging a customer's message through a document's view changes the conversation as well: the rest of that holds.
    IF pg_trigger_depth() = 1 THEN
        RAISE EXCEPTION 'last_inbound_at: is written when a customer''s message comes in, not by hand'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    NEW.last_inbound_at := CASE TG_OP WHEN 'UPDATE' THEN OLD.last_inbound_at END;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER keep_last_inbound_on_update BEFORE UPDATE OF last_inbound_at ON conversations FOR EACH ROW
    WHEN (current_user = 'authenticated' AND NEW.last_inbound_at IS DISTINCT FROM OLD.last_inbound_at)
    EXECUTE FUNCTION wasel.keep_last_inbound();
CREATE OR REPLACE TRIGGER keep_last_inbound_on_insert BEFORE INSERT ON conversations FOR EACH ROW
    WHEN (current_user = 'authenticated' AND NEW.last_inbound_at IS NOT NULL)
    EXECUTE FUNCTION wasel.keep_last_inbound();
