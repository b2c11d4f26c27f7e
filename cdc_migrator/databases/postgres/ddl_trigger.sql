-- The event triggers' function: a change of the schema tells of itself, in its own transaction.
-- Nothing that goes wrong here may reach the application, whose change it is.
CREATE OR REPLACE FUNCTION cdc_migrator.ddl_told() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $told$
DECLARE
    touched oid[];
BEGIN
    -- Our own, which fence tables and never change what they are: they must be quick.
    IF current_setting('application_name') ~ '^cdcm-.*-(cutover|fence|abort|capture)$' THEN
        RETURN;
    END IF;
    IF tg_event = 'table_rewrite' THEN
        INSERT INTO cdc_migrator.marker (migration, kind, token, details)
        SELECT k.migration, 'ddl', gen_random_uuid()::text, jsonb_build_object(
            'event', 'rewrite', 'tag', tg_tag, 'oid', k.relation::int8,
            'reason', pg_event_trigger_table_rewrite_reason(),
            'plain', current_query() ~* 'alter\s+(table|type|domain)'
                     AND current_query() !~* '\musing\M')
        FROM cdc_migrator.ddl_captured() k
        WHERE k.relation = pg_event_trigger_table_rewrite_oid();
        RETURN;
    END IF;
    IF tg_event = 'sql_drop' THEN
        INSERT INTO cdc_migrator.marker (migration, kind, token, details)
        SELECT DISTINCT ON (k.name, t.objid) k.name, 'ddl', gen_random_uuid()::text,
               jsonb_build_object('event', 'drop', 'tag', tg_tag, 'oid', t.objid::int8)
        FROM pg_event_trigger_dropped_objects() t
        JOIN pg_event_trigger_dropped_objects() o
          ON (o.object_type = 'publication relation'
              AND o.address_names = ARRAY[t.schema_name, t.object_name])
          OR (o.object_type = 'trigger' AND o.address_names[3] LIKE 'cdc\_migrator\_side\_%'
              AND o.address_names[1:2] = ARRAY[t.schema_name, t.object_name])
        JOIN cdc_migrator.captured k
          ON o.object_type = 'trigger' OR 'cdcm_' || k.name = o.address_args[1]
        WHERE t.object_type = 'table' AND NOT t.is_temporary AND t.schema_name <> 'cdc_migrator';
        SELECT array_agg(DISTINCT t.objid) INTO touched
        FROM pg_event_trigger_dropped_objects() t WHERE t.object_type = 'table column';
    ELSE
        WITH RECURSIVE command AS (
            SELECT DISTINCT d.classid, d.objid FROM pg_event_trigger_ddl_commands() d
        ), type AS (
            SELECT c.objid AS oid FROM command c WHERE c.classid = 'pg_type'::regclass
            UNION
            SELECT k.reltype FROM command c JOIN pg_class k ON k.oid = c.objid
            WHERE c.classid = 'pg_class'::regclass AND k.relkind = 'c'
            UNION
            SELECT t.oid FROM type JOIN pg_type t
                ON type.oid <> 0 AND (t.typbasetype = type.oid OR t.typelem = type.oid)
        ), relation AS (
            SELECT c.objid AS oid FROM command c WHERE c.classid = 'pg_class'::regclass
            UNION
            SELECT i.indrelid FROM command c JOIN pg_index i ON i.indexrelid = c.objid
            WHERE c.classid = 'pg_class'::regclass
            UNION
            SELECT k.conrelid FROM command c JOIN pg_constraint k ON k.oid = c.objid
            WHERE c.classid = 'pg_constraint'::regclass
            UNION
            SELECT k.oid FROM command c JOIN pg_class k ON k.relnamespace = c.objid
            WHERE c.classid = 'pg_namespace'::regclass AND k.relkind = 'r'
            UNION
            -- What was detached from a partitioned table: nothing names it but its own new row.
            SELECT k.oid FROM pg_class k
            WHERE k.relkind IN ('r', 'p') AND NOT k.relispartition AND age(k.xmin) <= 0
            AND EXISTS (SELECT FROM command c JOIN pg_class p ON p.oid = c.objid
                        WHERE c.classid = 'pg_class'::regclass AND p.relkind = 'p')
            UNION
            SELECT a.attrelid FROM type JOIN pg_attribute a ON a.atttypid = type.oid
            WHERE EXISTS (SELECT FROM type) AND NOT a.attisdropped
            UNION
            SELECT h.inhrelid FROM relation JOIN pg_inherits h ON h.inhparent = relation.oid
        )
        SELECT array_agg(oid) INTO touched FROM relation;
    END IF;
    IF touched IS NOT NULL THEN
        INSERT INTO cdc_migrator.marker (migration, kind, token, details)
        SELECT k.migration, 'ddl', gen_random_uuid()::text, jsonb_build_object(
            'event', 'change', 'tag', tg_tag, 'oid', k.relation::int8,
            'table', cdc_migrator.ddl_described(k.relation))
        FROM cdc_migrator.ddl_captured() k WHERE k.relation = ANY (touched);
    END IF;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'cdc-migrator was not told of this change of the schema (SQLSTATE %)', SQLSTATE
        USING HINT = 'The change itself is not affected. The migration has to find it by looking.';
END
$told$;

-- The tables that each migration captures, by their publications and triggers: names may change.
CREATE OR REPLACE FUNCTION cdc_migrator.ddl_captured()
RETURNS TABLE (migration text, relation oid)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $captured$
    SELECT k.name, r.prrelid FROM cdc_migrator.captured k
    JOIN pg_publication p ON p.pubname = 'cdcm_' || k.name
    JOIN pg_publication_rel r ON r.prpubid = p.oid
    JOIN pg_class c ON c.oid = r.prrelid
    WHERE c.relnamespace <> 'cdc_migrator'::regnamespace
    UNION
    SELECT s.migration, g.tgrelid FROM cdc_migrator.side s
    JOIN pg_trigger g ON g.tgname = 'cdc_migrator_' || s.name
$captured$;

CREATE OR REPLACE FUNCTION cdc_migrator.ddl_described(relation oid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $described$
    SELECT d.document FROM ({described}) AS d(oid, document)
$described$;
