-- Moving old data in.

SET search_path = public;

-- What a moved row was called where it came from: `source` is one import ("twilio-2024"), `kind` its table.
CREATE TABLE IF NOT EXISTS external_refs (
    -- No foreign key, which would be checked for each of a million rows: the trigger below deletes instead.
    org_id      uuid NOT NULL,
    source      text NOT NULL,
    kind        text NOT NULL,
    external_id text NOT NULL,
    -- Our row's id.
    row_id      uuid NOT NULL,
    PRIMARY KEY (org_id, source, kind, external_id)
);
CALL wasel.protect('external_refs', '{}');

CREATE OR REPLACE FUNCTION wasel.forget_external_refs() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    DELETE FROM external_refs WHERE org_id = OLD.id;
    RETURN NULL;
END $$;
ALTER FUNCTION wasel.forget_external_refs() OWNER TO service_role;
CREATE OR REPLACE TRIGGER forget_external_refs AFTER DELETE ON organizations FOR EACH ROW
    EXECUTE FUNCTION wasel.forget_external_refs();

-- As before, and quiet during an import: a million old rows are no news. Only the server may be quiet, never a tenant.
CREATE OR REPLACE FUNCTION wasel.log_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF pg_catalog.current_setting('wasel.importing', true) = 'on'
       AND pg_catalog.current_setting('role') NOT IN ('authenticated', 'anon') THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'DELETE' THEN
        INSERT INTO public.change_log (org_id, table_name, op, old_record)
        SELECT o.org_id, TG_TABLE_NAME, TG_OP, pg_catalog.to_jsonb(o) FROM old_rows o;
    ELSE
        INSERT INTO public.change_log (org_id, table_name, op, record)
        SELECT n.org_id, TG_TABLE_NAME, TG_OP, pg_catalog.to_jsonb(n) FROM new_rows n;
    END IF;
    RETURN NULL;
END $$;
ALTER FUNCTION wasel.log_change() OWNER TO service_role;
