-- Automations: rules that fill notification_queue when a row comes (event) or when it is time (cron). Who may read what
-- through them, and why: docs/automations.md.

SET search_path = public;

CREATE TABLE IF NOT EXISTS automations (
    org_id            uuid        NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    id                uuid        NOT NULL DEFAULT wasel.uuid7(),
    name              text        NOT NULL,
    description       text,
    kind              text        NOT NULL CHECK (kind IN ('event', 'cron')),
    enabled           boolean     NOT NULL DEFAULT true,
    -- The tenant's own template, or one of the system's.
    template_id       uuid        NOT NULL,
    notification_type text        NOT NULL DEFAULT 'whatsapp' CHECK (notification_type IN ('whatsapp', 'email', 'sms')),
    priority          smallint    NOT NULL DEFAULT 5 CHECK (priority BETWEEN 1 AND 10),
    -- The table or view whose rows it is about.
    source_schema     text        NOT NULL DEFAULT 'public',
    source_table      text        NOT NULL,
    operation         text        CHECK (operation IN ('insert', 'update')),
    -- [{column, op, value}]: all of them hold.
    filters           jsonb       NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(filters) = 'array'),
    -- This date column lies within so many days from today; a negative number looks back.
    window_column     text,
    window_days       int,
    -- {recipient, recipient_phone, recipient_email, recipient_id, related_entity_id, variables}.
    mapping           jsonb       NOT NULL CHECK (jsonb_typeof(mapping) = 'object'),
    -- How often the same entity is written to: once ever, once a day, once a tick.
    repeat            text        NOT NULL DEFAULT 'day' CHECK (repeat IN ('once', 'day', 'tick')),
    cron_expression   text,
    -- IANA; NULL: the organisation's.
    timezone          text,
    -- NULL: to be computed.
    next_run_at       timestamptz CHECK (next_run_at BETWEEN '2000-01-01' AND '2200-01-01'),
    last_run_at       timestamptz,
    last_run_status   text        CHECK (last_run_status IN ('ok', 'error')),
    last_error        text,
    -- Rows that the last run put into the queue.
    last_count        int,
    created_by        uuid,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, id),
    UNIQUE (org_id, name),
    CHECK ((window_column IS NULL) = (window_days IS NULL)),
    CHECK (CASE kind WHEN 'cron' THEN cron_expression IS NOT NULL AND operation IS NULL
                     ELSE operation IS NOT NULL AND cron_expression IS NULL AND window_column IS NULL AND repeat <> 'tick' END)
);
CREATE INDEX IF NOT EXISTS automations_due ON automations (next_run_at NULLS FIRST) WHERE kind = 'cron' AND enabled;
CREATE INDEX IF NOT EXISTS automations_events ON automations (org_id, source_schema, source_table, operation)
    WHERE kind = 'event' AND enabled;
CREATE OR REPLACE TRIGGER touch BEFORE UPDATE ON automations FOR EACH ROW EXECUTE FUNCTION wasel.touch_updated_at();
CALL wasel.protect('automations', ARRAY['owner', 'admin']);
CALL wasel.stream('automations');

CREATE TABLE IF NOT EXISTS automation_runs (
    org_id         uuid        NOT NULL,
    id             uuid        NOT NULL DEFAULT wasel.uuid7(),
    automation_id  uuid        NOT NULL,
    cause          text        NOT NULL CHECK (cause IN ('tick', 'manual', 'event')),
    -- The time it was due, for a tick.
    tick           timestamptz,
    started_at     timestamptz NOT NULL DEFAULT now(),
    queued_count   int         NOT NULL DEFAULT 0,
    -- Rows that matched and could not be written to, and the first reason.
    skipped_count  int         NOT NULL DEFAULT 0,
    skipped_reason text,
    error          text,
    PRIMARY KEY (org_id, id),
    FOREIGN KEY (org_id, automation_id) REFERENCES automations (org_id, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS automation_runs_of ON automation_runs (org_id, automation_id, id);
CALL wasel.protect('automation_runs', ARRAY['owner', 'admin']);

-- Who was written to by which rule: the key is what keeps a second one out.
CREATE TABLE IF NOT EXISTS automation_deliveries (
    org_id          uuid        NOT NULL,
    automation_id   uuid        NOT NULL,
    -- The entity, with the day or the tick where the rule repeats.
    dedupe_key      text        NOT NULL,
    entity_id       text        NOT NULL,
    -- The row of notification_queue.
    notification_id uuid        NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, automation_id, dedupe_key),
    FOREIGN KEY (org_id, automation_id) REFERENCES automations (org_id, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS automation_deliveries_notification ON automation_deliveries (org_id, notification_id);
CALL wasel.protect('automation_deliveries', ARRAY['owner', 'admin']);

-- The relations that automations may read; filled by the operator with wasel.allow_source and wasel.watch.
CREATE TABLE IF NOT EXISTS wasel.automation_sources (
    schema_name   text        NOT NULL,
    relation_name text        NOT NULL,
    -- Says whose a row is; NULL: all are only_org's.
    org_column    text,
    -- The one tenant that may use it; NULL: every tenant, each its own rows.
    only_org      uuid        REFERENCES organizations (id) ON DELETE CASCADE,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (schema_name, relation_name),
    CHECK (org_column IS NOT NULL OR only_org IS NOT NULL)
);
GRANT SELECT ON wasel.automation_sources TO service_role;

-- A change of the schedule by anybody's SQL leaves the next run to be computed.
CREATE OR REPLACE FUNCTION wasel.automation_rescheduled() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.next_run_at IS NOT DISTINCT FROM OLD.next_run_at
       AND (NEW.kind, NEW.enabled, NEW.cron_expression, NEW.timezone)
           IS DISTINCT FROM (OLD.kind, OLD.enabled, OLD.cron_expression, OLD.timezone) THEN
        NEW.next_run_at := NULL;
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER rescheduled BEFORE UPDATE ON automations
    FOR EACH ROW EXECUTE FUNCTION wasel.automation_rescheduled();

-- As service_role: an organisation's row is changed by the system, whose own statement this is part of.
CREATE OR REPLACE FUNCTION wasel.automation_zone_moved() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE public.automations SET next_run_at = NULL WHERE org_id = NEW.id AND kind = 'cron' AND timezone IS NULL;
    RETURN NULL;
END $$;
ALTER FUNCTION wasel.automation_zone_moved() OWNER TO service_role;
CREATE OR REPLACE TRIGGER automation_zone_moved AFTER UPDATE OF timezone ON organizations
    FOR EACH ROW WHEN (NEW.timezone <> OLD.timezone) EXECUTE FUNCTION wasel.automation_zone_moved();

-- ---------------------------------------------------------------------------------------------------------------
-- What a rule may read.

-- The relation, if the operator allows it to this tenant and the tenant's own role may see its schema; else NULLs.
CREATE OR REPLACE FUNCTION wasel.automation_source(
    tenant uuid, in_schema text, named text, OUT relation oid, OUT org_column text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.oid, s.org_column
    FROM wasel.automation_sources s
    JOIN pg_namespace n ON n.nspname = s.schema_name
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = s.relation_name
    WHERE s.schema_name = in_schema AND s.relation_name = named AND (s.only_org IS NULL OR s.only_org = tenant)
      AND has_schema_privilege('authenticated', n.oid, 'USAGE')
$$;
ALTER FUNCTION wasel.automation_source(uuid, text, text) OWNER TO service_role;

-- The SQL type of a column; NULL where there is none that the tenants' role may read.
CREATE OR REPLACE FUNCTION wasel.automation_column(relation oid, named text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
    WHERE a.attrelid = relation AND a.attname = named AND a.attnum > 0 AND NOT a.attisdropped
      AND has_column_privilege('authenticated', a.attrelid, a.attnum, 'SELECT')
$$;

-- Every column that a mapping names, with its place in the mapping. `kind`: what the column has to be.
CREATE OR REPLACE FUNCTION wasel.automation_columns(mapping jsonb) RETURNS TABLE (field text, named text, kind text)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'mapping.' || k, mapping ->> k, CASE k WHEN 'recipient_id' THEN 'uuid' ELSE 'any' END
    FROM unnest(ARRAY['recipient_phone', 'recipient_email', 'recipient_id', 'related_entity_id']) k
    WHERE mapping ->> k IS NOT NULL
    UNION ALL
    SELECT 'mapping.variables.' || v.key,
           CASE jsonb_typeof(v.value) WHEN 'string' THEN v.value #>> '{}'
                ELSE coalesce(v.value ->> 'days_until', v.value ->> 'column') END,
           CASE WHEN v.value ->> 'days_until' IS NOT NULL OR v.value ->> 'format' = 'date' THEN 'date' ELSE 'any' END
    FROM jsonb_each(coalesce(mapping -> 'variables', '{}')) v
    WHERE jsonb_typeof(v.value) = 'string' OR v.value ->> 'days_until' IS NOT NULL OR v.value ->> 'column' IS NOT NULL
$$;

-- The comparison of a filter; NULL for a word that is none.
CREATE OR REPLACE FUNCTION wasel.automation_operator(word text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE word WHEN 'eq' THEN '=' WHEN 'neq' THEN '<>' WHEN 'lt' THEN '<' WHEN 'lte' THEN '<=' WHEN 'gt' THEN '>'
        WHEN 'gte' THEN '>=' WHEN 'in' THEN '= ANY' WHEN 'is_null' THEN 'IS NULL' WHEN 'is_not_null' THEN 'IS NOT NULL' END
$$;

-- The filters as SQL about a row `r`. Names are quoted, and are columns that exist; the values stay in $2, which is the
-- filters again, and are cast to the column's type.
CREATE OR REPLACE FUNCTION wasel.automation_condition(relation oid, filters jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    f         record;
    type_name text;
    operator  text;
    parts     text[] := '{}';
BEGIN
    FOR f IN SELECT (place - 1)::int AS n, filter ->> 'column' AS named, filter ->> 'op' AS word
             FROM jsonb_array_elements(filters) WITH ORDINALITY e (filter, place) LOOP
        type_name := wasel.automation_column(relation, f.named);
        operator := wasel.automation_operator(f.word);
        IF type_name IS NULL THEN
            RAISE EXCEPTION 'filters[%].column: there is no column % to read', f.n, f.named;
        ELSIF operator IS NULL THEN
            RAISE EXCEPTION 'filters[%].op: is none', f.n;
        END IF;
        parts := parts || CASE
            WHEN f.word IN ('is_null', 'is_not_null') THEN format('r.%I %s', f.named, operator)
            WHEN f.word = 'in' THEN format('r.%I = ANY (ARRAY(SELECT jsonb_array_elements_text($2 -> %s -> ''value''))::%s[])',
                f.named, f.n, type_name)
            ELSE format('r.%I %s ($2 -> %s ->> ''value'')::%s', f.named, operator, f.n, type_name) END;
    END LOOP;
    RETURN coalesce(nullif(array_to_string(parts, ' AND '), ''), 'true');
END $$;

-- ---------------------------------------------------------------------------------------------------------------
-- What a row becomes.

-- The day of a date or a point in time, as JSON has it.
CREATE OR REPLACE FUNCTION wasel.automation_day(written text, zone text) RETURNS date LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN written ~ '^\d{4,}-\d\d-\d\dT.*([+-]\d\d:\d\d|Z)$' THEN (written::timestamptz AT TIME ZONE zone)::date
        WHEN written ~ '^\d{4,}-\d\d-\d\dT' THEN written::timestamp::date
        WHEN written ~ '^\d{4,}-\d\d-\d\d$' THEN written::date END
$$;

-- A row of the source (its mapped columns as JSON) as the queue gets it, or `problem`: why it cannot be written to.
-- `tenant_owner` is {id, phone, email} of the organisation's owner.
CREATE OR REPLACE FUNCTION wasel.automation_note(
    rule public.automations, fields jsonb, moment timestamptz, tick timestamptz, zone text, tenant_owner jsonb,
    OUT recipient_id uuid, OUT recipient_phone text, OUT recipient_email text, OUT entity text, OUT dedupe_key text,
    OUT message_data jsonb, OUT problem text)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_variable
DECLARE
    mapping  jsonb := rule.mapping;
    whom     text := coalesce(rule.mapping ->> 'recipient', 'row');
    today    date := (moment AT TIME ZONE zone)::date;
    problems text[] := '{}';
    v        record;
    got      jsonb;
BEGIN
    entity := fields ->> (mapping ->> 'related_entity_id');
    IF entity IS NULL THEN
        problem := 'related_entity_id: is missing';
        RETURN;
    END IF;
    dedupe_key := entity || CASE rule.repeat
        WHEN 'once' THEN ''
        WHEN 'day' THEN '@' || to_char(today, 'YYYY-MM-DD')
        ELSE '@' || to_char(tick AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') END;
    IF whom <> 'owner' THEN
        recipient_id := (fields ->> (mapping ->> 'recipient_id'))::uuid;
        recipient_phone := nullif(btrim(fields ->> (mapping ->> 'recipient_phone')), '');
        recipient_email := nullif(btrim(fields ->> (mapping ->> 'recipient_email')), '');
    END IF;
    IF whom <> 'row' AND (CASE rule.notification_type WHEN 'email' THEN recipient_email ELSE recipient_phone END) IS NULL THEN
        recipient_id := (tenant_owner ->> 'id')::uuid;
        recipient_phone := nullif(btrim(tenant_owner ->> 'phone'), '');
        recipient_email := nullif(btrim(tenant_owner ->> 'email'), '');
    END IF;
    IF rule.notification_type = 'email' AND recipient_email IS NULL THEN
        problems := problems || 'recipient_email: is missing'::text;
    ELSIF rule.notification_type <> 'email' AND recipient_phone IS NULL THEN
        problems := problems || 'recipient_phone: is missing'::text;
    END IF;
    message_data := '{}';
    FOR v IN SELECT key AS named, value AS spec FROM jsonb_each(coalesce(mapping -> 'variables', '{}')) LOOP
        got := CASE
            WHEN jsonb_typeof(v.spec) = 'string' THEN fields -> (v.spec #>> '{}')
            WHEN v.spec ? 'value' THEN v.spec -> 'value'
            WHEN v.spec ? 'days_until' THEN
                to_jsonb(wasel.automation_day(fields ->> (v.spec ->> 'days_until'), zone) - today)
            WHEN v.spec ->> 'format' = 'date' THEN
                to_jsonb(to_char(wasel.automation_day(fields ->> (v.spec ->> 'column'), zone), 'YYYY-MM-DD'))
            ELSE fields -> (v.spec ->> 'column') END;
        IF got IS NULL OR jsonb_typeof(got) = 'null' THEN
            got := v.spec -> 'default';
        END IF;
        IF got IS NULL OR jsonb_typeof(got) = 'null' THEN
            problems := problems || format('variables.%s: is missing', v.named);
        ELSIF jsonb_typeof(got) IN ('array', 'object') THEN
            problems := problems || format('variables.%s: must be text, a number, true or false', v.named);
        ELSE
            message_data := message_data || jsonb_build_object(v.named, got);
        END IF;
    END LOOP;
    problem := nullif(array_to_string(problems, '; '), '');
END $$;

CREATE OR REPLACE FUNCTION wasel.automation_zone(rule public.automations) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(rule.timezone, o.timezone) FROM public.organizations o WHERE o.id = rule.org_id
$$;

CREATE OR REPLACE FUNCTION wasel.automation_owner(tenant uuid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('id', p.id, 'phone', p.phone, 'email', p.email) FROM public.profiles p
    WHERE p.org_id = tenant AND p.role = 'owner' ORDER BY p.phone IS NULL, p.created_at, p.id LIMIT 1
$$;

CREATE OR REPLACE FUNCTION wasel.automation_template_fits(rule public.automations) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM public.templates t
        WHERE t.org_id IN (rule.org_id, '00000000-0000-0000-0000-000000000000') AND t.id = rule.template_id AND t.is_active)
$$;

-- The rule's audience as a query of automation_note's columns. Its parameters: $1 the rule, $2 the filters, $3 the
-- moment, $4 the tick, $5 the zone, $6 the owner. It reads as whoever runs it, and only rows of the rule's tenant.
CREATE OR REPLACE FUNCTION wasel.automation_query(rule public.automations) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    source      record;
    c           record;
    wanted      text;
    type_name   text;
    columns     text;
    first_day   text := '($3 AT TIME ZONE $5)::date + ' || least(0, rule.window_days);
    day_after   text := '($3 AT TIME ZONE $5)::date + ' || greatest(0, rule.window_days) + 1;
BEGIN
    SELECT * INTO source FROM wasel.automation_source(rule.org_id, rule.source_schema, rule.source_table);
    IF source.relation IS NULL THEN
        RAISE EXCEPTION 'source.table: automations may not read %.%', rule.source_schema, rule.source_table;
    END IF;
    wanted := wasel.automation_condition(source.relation, rule.filters);
    IF source.org_column IS NOT NULL THEN
        wanted := format('r.%I = %L::uuid AND ', source.org_column, rule.org_id) || wanted;
    END IF;
    IF rule.window_column IS NOT NULL THEN
        type_name := wasel.automation_column(source.relation, rule.window_column);
        IF type_name IS NULL OR type_name !~ '^(date|timestamp)' THEN
            RAISE EXCEPTION 'window.column: there is no date column % to read', rule.window_column;
        END IF;
        wanted := wanted || CASE WHEN type_name ~ 'with time zone'
            THEN format(' AND r.%1$I >= (%2$s)::timestamp AT TIME ZONE $5 AND r.%1$I < (%3$s)::timestamp AT TIME ZONE $5',
                rule.window_column, first_day, day_after)
            ELSE format(' AND r.%1$I >= %2$s AND r.%1$I < %3$s', rule.window_column, first_day, day_after) END;
    END IF;
    FOR c IN SELECT * FROM wasel.automation_columns(rule.mapping) LOOP
        IF wasel.automation_column(source.relation, c.named) IS NULL THEN
            RAISE EXCEPTION '%: there is no column % to read', c.field, c.named;
        END IF;
    END LOOP;
    SELECT string_agg(format('%L, r.%I', d.named, d.named), ', ') INTO columns
    FROM (SELECT DISTINCT named FROM wasel.automation_columns(rule.mapping)) d;
    RETURN format(
        'SELECT n.* FROM %I.%I r CROSS JOIN LATERAL wasel.automation_note($1, jsonb_build_object(%s), $3, $4, $5, $6) n WHERE %s',
        rule.source_schema, rule.source_table, coalesce(columns, ''), wanted);
END $$;

-- ---------------------------------------------------------------------------------------------------------------
-- Running.

-- Queues a message for everybody in the audience who was not written to yet: once per entity, day or tick. It runs with
-- the rights of whoever calls it: the server calls it as the tenant.
CREATE OR REPLACE FUNCTION wasel.run_automation(
    tenant uuid, automation uuid, moment timestamptz, tick timestamptz,
    OUT queued int, OUT skipped int, OUT skipped_reason text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    rule public.automations;
BEGIN
    SELECT * INTO STRICT rule FROM public.automations a WHERE a.org_id = tenant AND a.id = automation;
    IF NOT wasel.automation_template_fits(rule) THEN
        RAISE EXCEPTION 'template_id: there is no such template, or it is switched off';
    END IF;
    EXECUTE format(
        'WITH audience AS MATERIALIZED (%s),
         fit AS (SELECT DISTINCT ON (dedupe_key) * FROM audience WHERE problem IS NULL ORDER BY dedupe_key),
         fresh AS (
             INSERT INTO public.automation_deliveries (org_id, automation_id, dedupe_key, entity_id, notification_id)
             SELECT ($1).org_id, ($1).id, dedupe_key, entity, wasel.uuid7() FROM fit
             ON CONFLICT DO NOTHING RETURNING dedupe_key, notification_id),
         queued AS (
             INSERT INTO public.notification_queue (org_id, id, notification_type, recipient_id, recipient_phone,
                 recipient_email, template_id, message_data, priority)
             SELECT ($1).org_id, fresh.notification_id, ($1).notification_type, fit.recipient_id, fit.recipient_phone,
                 fit.recipient_email, ($1).template_id, fit.message_data, ($1).priority
             FROM fresh JOIN fit USING (dedupe_key) RETURNING 1)
         SELECT (SELECT count(*) FROM queued), count(problem), min(problem) FROM audience',
        wasel.automation_query(rule))
    INTO queued, skipped, skipped_reason
    USING rule, rule.filters, moment, tick, wasel.automation_zone(rule), wasel.automation_owner(tenant);
END $$;

-- Whom a run at this moment would write to, and with what. `total` is the whole audience.
CREATE OR REPLACE FUNCTION wasel.preview_automation(tenant uuid, automation uuid, moment timestamptz, at_most int)
RETURNS TABLE (recipient_id uuid, recipient_phone text, recipient_email text, entity text, dedupe_key text,
    message_data jsonb, problem text, already_sent boolean, total bigint)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    rule public.automations;
BEGIN
    SELECT * INTO STRICT rule FROM public.automations a WHERE a.org_id = tenant AND a.id = automation;
    RETURN QUERY EXECUTE format(
        'SELECT n.*, EXISTS (SELECT FROM public.automation_deliveries d WHERE d.org_id = ($1).org_id
                AND d.automation_id = ($1).id AND d.dedupe_key = n.dedupe_key), count(*) OVER ()
         FROM (%s) n ORDER BY n.entity LIMIT %s', wasel.automation_query(rule), at_most)
    USING rule, rule.filters, moment, moment, wasel.automation_zone(rule), wasel.automation_owner(tenant);
END $$;

-- What is wrong with a rule: the field, and the reason to be read after its name.
CREATE OR REPLACE FUNCTION wasel.automation_problems(tenant uuid, automation uuid)
RETURNS TABLE (field text, problem text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    rule      public.automations;
    source    record;
    f         record;
    type_name text;
    operand   text;
BEGIN
    SELECT * INTO STRICT rule FROM public.automations a WHERE a.org_id = tenant AND a.id = automation;
    SELECT * INTO source FROM wasel.automation_source(rule.org_id, rule.source_schema, rule.source_table);
    IF source.relation IS NULL THEN
        RETURN QUERY SELECT 'source.table'::text, format(
            'there is no table or view %s.%s that automations may read', rule.source_schema, rule.source_table);
        RETURN;
    END IF;
    IF rule.kind = 'event' AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = source.relation
            AND t.tgfoid = 'wasel.run_automations()'::regprocedure AND t.tgenabled <> 'D') THEN
        RETURN QUERY SELECT 'source.table'::text, 'is not watched: its owner runs SELECT wasel.watch(…) on it first'::text;
        RETURN;
    END IF;
    FOR f IN SELECT format('filters[%s]', place - 1) AS at_place, filter ->> 'column' AS named, filter ->> 'op' AS word,
                    filter -> 'value' AS given
             FROM jsonb_array_elements(rule.filters) WITH ORDINALITY e (filter, place) LOOP
        type_name := wasel.automation_column(source.relation, f.named);
        IF type_name IS NULL THEN
            RETURN QUERY SELECT f.at_place || '.column', format('there is no column %s to read', f.named);
            CONTINUE;
        END IF;
        FOR operand IN SELECT o FROM jsonb_array_elements_text(
                CASE WHEN jsonb_typeof(f.given) = 'array' THEN f.given ELSE jsonb_build_array(f.given) END) o LOOP
            BEGIN
                EXECUTE format('SELECT ($1)::%s', type_name) USING operand;
            EXCEPTION WHEN OTHERS THEN
                RETURN QUERY SELECT f.at_place || '.value', format('is no %s', type_name);
            END;
        END LOOP;
    END LOOP;
    IF rule.window_column IS NOT NULL THEN
        type_name := wasel.automation_column(source.relation, rule.window_column);
        IF type_name IS NULL OR type_name !~ '^(date|timestamp)' THEN
            RETURN QUERY SELECT 'window.column'::text, format('there is no date column %s to read', rule.window_column);
        END IF;
    END IF;
    RETURN QUERY SELECT c.field, CASE
            WHEN k.type_name IS NULL THEN format('there is no column %s to read', c.named)
            WHEN c.kind = 'uuid' THEN format('%s is no uuid column', c.named)
            ELSE format('%s is no date column', c.named) END
        FROM wasel.automation_columns(rule.mapping) c
        CROSS JOIN LATERAL (SELECT wasel.automation_column(source.relation, c.named) AS type_name) k
        WHERE k.type_name IS NULL OR (c.kind = 'uuid' AND k.type_name <> 'uuid')
           OR (c.kind = 'date' AND k.type_name !~ '^(date|timestamp)');
END $$;

-- ---------------------------------------------------------------------------------------------------------------
-- Rows that come.

-- Notes down a run that an event brought about. The history has every run; where another transaction has the rule's row
-- it is not waited for to note the same there. (A rule being deleted is waited for: the history refers to it.)
CREATE OR REPLACE FUNCTION wasel.note_event_run(rule public.automations, queued int, reason text, failure text)
RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO public.automation_runs (org_id, automation_id, cause, queued_count, skipped_count, skipped_reason, error)
    VALUES (rule.org_id, rule.id, 'event', queued, CASE WHEN reason IS NULL THEN 0 ELSE 1 END, reason, failure);
    UPDATE public.automations a SET last_run_at = clock_timestamp(), last_count = queued, last_error = failure,
        last_run_status = CASE WHEN failure IS NULL THEN 'ok' ELSE 'error' END
    FROM (SELECT x.org_id, x.id FROM public.automations x WHERE x.org_id = rule.org_id AND x.id = rule.id
          FOR NO KEY UPDATE SKIP LOCKED) free
    WHERE a.org_id = free.org_id AND a.id = free.id
      AND (a.last_run_at IS NULL OR a.last_run_at < clock_timestamp() - interval '1 minute'
           OR a.last_error IS DISTINCT FROM failure)
$$;

-- The trigger of a watched table. As service_role, because whoever writes the row (a sign-up form, another program)
-- need not be able to see the rules; it uses nothing but the row itself and the rules of the row's own tenant.
-- Whatever goes wrong in here, the writer's statement succeeds.
CREATE OR REPLACE FUNCTION wasel.run_automations() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    relation  oid := coalesce(pg_partition_root(TG_RELID), TG_RELID);
    source    record;
    tenant    uuid;
    rule      public.automations;
    c         record;
    condition text;
    holds     boolean;
    note      record;
    message   uuid;
    failure   text;
BEGIN
    SELECT s.schema_name, s.relation_name, s.org_column, s.only_org INTO source
    FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace
    JOIN wasel.automation_sources s ON s.schema_name = n.nspname AND s.relation_name = t.relname
    WHERE t.oid = relation;
    tenant := CASE WHEN source.org_column IS NULL THEN source.only_org
                   ELSE (to_jsonb(NEW) ->> source.org_column)::uuid END;
    FOR rule IN SELECT * FROM public.automations a
                WHERE a.org_id = tenant AND a.kind = 'event' AND a.enabled AND a.operation = lower(TG_OP)
                  AND a.source_schema = source.schema_name AND a.source_table = source.relation_name
                  AND (source.only_org IS NULL OR source.only_org = tenant)
                ORDER BY a.id LOOP
        BEGIN
            condition := wasel.automation_condition(relation, rule.filters);
            EXECUTE format('SELECT %s FROM (SELECT ($1).*) r', condition) INTO holds USING NEW, rule.filters;
            CONTINUE WHEN holds IS NOT TRUE;
            -- An update counts when the row comes to match: one that matched before is no news.
            IF TG_OP = 'UPDATE' AND rule.filters <> '[]' THEN
                EXECUTE format('SELECT %s FROM (SELECT ($1).*) r', condition) INTO holds USING OLD, rule.filters;
                CONTINUE WHEN holds;
            END IF;
            FOR c IN SELECT * FROM wasel.automation_columns(rule.mapping) LOOP
                IF wasel.automation_column(relation, c.named) IS NULL THEN
                    RAISE EXCEPTION '%: there is no column % to read', c.field, c.named;
                END IF;
            END LOOP;
            IF NOT wasel.automation_template_fits(rule) THEN
                RAISE EXCEPTION 'template_id: there is no such template, or it is switched off';
            END IF;
            SELECT * INTO note FROM wasel.automation_note(rule, to_jsonb(NEW), clock_timestamp(), clock_timestamp(),
                wasel.automation_zone(rule), wasel.automation_owner(tenant));
            IF note.problem IS NOT NULL THEN
                PERFORM wasel.note_event_run(rule, 0, note.problem, NULL);
                CONTINUE;
            END IF;
            INSERT INTO public.automation_deliveries (org_id, automation_id, dedupe_key, entity_id, notification_id)
            VALUES (tenant, rule.id, note.dedupe_key, note.entity, wasel.uuid7())
            ON CONFLICT DO NOTHING RETURNING notification_id INTO message;
            CONTINUE WHEN NOT FOUND;
            INSERT INTO public.notification_queue (org_id, id, notification_type, recipient_id, recipient_phone,
                recipient_email, template_id, message_data, priority)
            VALUES (tenant, message, rule.notification_type, note.recipient_id, note.recipient_phone,
                note.recipient_email, rule.template_id, note.message_data, rule.priority);
            PERFORM wasel.note_event_run(rule, 1, NULL, NULL);
        EXCEPTION WHEN OTHERS THEN
            failure := SQLERRM;
            -- The rule may be going this moment; what the other rules did must stay.
            BEGIN
                PERFORM wasel.note_event_run(rule, 0, NULL, failure);
            EXCEPTION WHEN OTHERS THEN
                RAISE WARNING 'automation % on % did not run: %', rule.id, TG_RELID::regclass, failure;
            END;
        END;
    END LOOP;
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'automations on % did not run: %', TG_RELID::regclass, SQLERRM;
    RETURN NULL;
END $$;
ALTER FUNCTION wasel.run_automations() OWNER TO service_role;

-- ---------------------------------------------------------------------------------------------------------------
-- For the operator.

-- Lets automations read a table or a view: each tenant the rows with its id in `org_column`, or, without such a
-- column, one tenant all rows. What they see of it is what role `authenticated` is granted.
CREATE OR REPLACE FUNCTION wasel.allow_source(target regclass, org_column text DEFAULT 'org_id', only_org uuid DEFAULT NULL)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    org_type text;
BEGIN
    IF org_column IS NOT NULL THEN
        SELECT format_type(a.atttypid, NULL) INTO org_type FROM pg_attribute a
        WHERE a.attrelid = target AND a.attname = org_column AND a.attnum > 0 AND NOT a.attisdropped;
        IF org_type IS DISTINCT FROM 'uuid' THEN
            RAISE EXCEPTION '% has no uuid column %', target, org_column
                USING HINT = 'Name the column that holds the organisation''s id, or give org_column => NULL and only_org.';
        END IF;
    ELSIF only_org IS NULL THEN
        RAISE EXCEPTION 'without an org_column the rows are one organisation''s: give only_org';
    END IF;
    INSERT INTO wasel.automation_sources AS s (schema_name, relation_name, org_column, only_org)
    SELECT n.nspname, c.relname, allow_source.org_column, allow_source.only_org
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = target
    ON CONFLICT (schema_name, relation_name) DO UPDATE SET org_column = excluded.org_column, only_org = excluded.only_org;
END $$;

-- The same, and event automations run when its rows come or change. Safe to repeat.
CREATE OR REPLACE FUNCTION wasel.watch(target regclass, org_column text DEFAULT 'org_id', only_org uuid DEFAULT NULL)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM wasel.allow_source(target, org_column, only_org);
    EXECUTE format('CREATE OR REPLACE TRIGGER run_automations AFTER INSERT OR UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION wasel.run_automations()', target);
END $$;

-- Takes both back.
CREATE OR REPLACE FUNCTION wasel.unwatch(target regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('DROP TRIGGER IF EXISTS run_automations ON %s', target);
    DELETE FROM wasel.automation_sources s USING pg_class c, pg_namespace n
    WHERE c.oid = target AND n.oid = c.relnamespace AND s.schema_name = n.nspname AND s.relation_name = c.relname;
END $$;
REVOKE ALL ON FUNCTION wasel.allow_source(regclass, text, uuid), wasel.watch(regclass, text, uuid), wasel.unwatch(regclass) FROM PUBLIC;

-- The documents' subscriptions (S4.10). Where the application has a table of that name already, it stays as it is, and
-- its owner decides about wasel.watch.
DO $$
BEGIN
    IF to_regclass('public.subscriptions') IS NULL THEN
        CREATE TABLE public.subscriptions (
            org_id         uuid        NOT NULL REFERENCES public.organizations (id) ON DELETE CASCADE,
            id             uuid        NOT NULL DEFAULT wasel.uuid7(),
            customer_name  text        NOT NULL,
            customer_phone text,
            customer_email text,
            plan           text        NOT NULL DEFAULT 'basic',
            status         text        NOT NULL DEFAULT 'trial' CHECK (status IN ('trial', 'active', 'expired', 'cancelled')),
            start_date     date        NOT NULL DEFAULT current_date,
            end_date       date        NOT NULL DEFAULT current_date + 14,
            created_at     timestamptz NOT NULL DEFAULT now(),
            updated_at     timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (org_id, id)
        );
        CREATE INDEX subscriptions_end ON public.subscriptions (org_id, end_date);
        CREATE TRIGGER touch BEFORE UPDATE ON public.subscriptions FOR EACH ROW EXECUTE FUNCTION wasel.touch_updated_at();
        CALL wasel.protect('public.subscriptions', ARRAY['owner', 'admin']);
        CALL wasel.stream('public.subscriptions');
        PERFORM wasel.watch('public.subscriptions');
    END IF;
END $$;
