-- The change feed. Statement-level triggers copy every change of a streamed table here, whoever's SQL made it.
-- How the reader stays gap-free without a lock: docs/decisions/0001-gap-free-change-feed.md.

SET search_path = public;

CREATE SEQUENCE IF NOT EXISTS wasel.change_seq AS bigint CACHE 1;

CREATE TABLE IF NOT EXISTS change_log (
    org_id       uuid        NOT NULL,
    seq          bigint      NOT NULL DEFAULT nextval('wasel.change_seq'),
    committed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    table_name   text        NOT NULL,
    op           text        NOT NULL CHECK (op IN ('INSERT', 'UPDATE', 'DELETE')),
    -- The row after the change (INSERT, UPDATE).
    record       jsonb,
    -- The whole row that went away (DELETE). An UPDATE repeats nothing: its key is in the record.
    old_record   jsonb,
    PRIMARY KEY (org_id, seq, committed_at)
) PARTITION BY RANGE (committed_at);

CREATE INDEX IF NOT EXISTS change_log_seq ON change_log (seq);

-- Rows always find a place, even where the job that makes the daily partitions did not run.
CREATE TABLE IF NOT EXISTS change_log_default PARTITION OF change_log DEFAULT;

-- Makes the partitions for the given days ahead, drops those wholly older than the retention.
-- Returns how many were dropped.
CREATE OR REPLACE FUNCTION wasel.maintain_change_log(days_ahead int, retention interval) RETURNS int
-- Making and dropping a partition locks the log for a moment; behind a long transaction it must not queue up and hold
-- every writer: it gives up and the next run tries again.
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '500ms' AS $$
DECLARE
    day        date;
    name       text;
    partition  record;
    dropped    int := 0;
BEGIN
    FOR day IN SELECT d::date FROM generate_series(current_date, current_date + days_ahead, interval '1 day') d LOOP
        name := 'change_log_' || to_char(day, 'YYYYMMDD');
        IF to_regclass('public.' || name) IS NULL THEN
            BEGIN
                EXECUTE format(
                    'CREATE TABLE public.%I PARTITION OF public.change_log FOR VALUES FROM (%L) TO (%L)',
                    name, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
                EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', name);
                EXECUTE format('ALTER TABLE public.%I FORCE ROW LEVEL SECURITY', name);
            EXCEPTION WHEN duplicate_table OR check_violation OR lock_not_available THEN
                -- Another node made it, or the default partition already holds rows of that day: they stay there.
                NULL;
            END;
        END IF;
    END LOOP;
    FOR partition IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'public.change_log'::regclass AND c.relname ~ '^change_log_\d{8}$'
          AND (to_date(right(c.relname, 8), 'YYYYMMDD') + 1)::timestamp AT TIME ZONE 'UTC' < now() - retention
    LOOP
        BEGIN
            EXECUTE format('DROP TABLE IF EXISTS public.%I', partition.relname);
            dropped := dropped + 1;
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END LOOP;
    RETURN dropped;
END $$;
REVOKE ALL ON FUNCTION wasel.maintain_change_log(int, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION wasel.maintain_change_log(int, interval) TO service_role;

-- One trigger function for all tables. It runs as service_role, so that a tenant's own statement may write the log.
-- Every name in it is qualified, so that it needs no SET search_path, which would cost each statement some 20 µs.
CREATE OR REPLACE FUNCTION wasel.log_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
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

-- Streams a table: three triggers, because transition tables cannot be shared between operations.
CREATE OR REPLACE PROCEDURE wasel.stream(target regclass) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE OR REPLACE TRIGGER log_insert AFTER INSERT ON %s REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION wasel.log_change()', target);
    EXECUTE format('CREATE OR REPLACE TRIGGER log_update AFTER UPDATE ON %s REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION wasel.log_change()', target);
    EXECUTE format('CREATE OR REPLACE TRIGGER log_delete AFTER DELETE ON %s REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION wasel.log_change()', target);
END $$;

-- How far the log can be read without missing a row that commits late: every sequence number up to `upto` was
-- taken either by a transaction that has ended or by one of `writers` (virtual transaction ids that hold a write
-- lock on change_log). A writer takes that lock before it takes a number and keeps it until its commit is visible.
CREATE OR REPLACE FUNCTION wasel.change_horizon(OUT upto bigint, OUT writers text[])
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    SELECT CASE WHEN is_called THEN last_value ELSE 0 END INTO upto FROM wasel.change_seq;
    SELECT coalesce(array_agg(DISTINCT virtualtransaction), '{}') INTO writers
    FROM pg_locks
    WHERE locktype = 'relation' AND relation = 'public.change_log'::regclass
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND mode = 'RowExclusiveLock' AND granted AND pid <> pg_backend_pid();
END $$;
