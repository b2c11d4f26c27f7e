-- Objects of the source that do not go to the target: tables that are not migrated, with all that
-- belongs to them, and whatever else depends on them. `own` tells the two apart: what is reached
-- by automatic dependencies alone is part of such a table; the rest is worth telling about.
-- Parameters: schemas and names of the tables that are migrated.
WITH RECURSIVE included AS (
    SELECT c.oid FROM unnest(%(schemas)s::text[], %(names)s::text[]) AS i(schema, name)
    JOIN pg_namespace n ON n.nspname = i.schema
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = i.name
), needed AS (
    SELECT oid FROM included
    UNION
    SELECT a.relid FROM included, pg_partition_ancestors(included.oid) a
), seed AS (
    SELECT 'pg_class'::regclass::oid AS class, c.oid AS object
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE (c.relkind IN ('p', 'f') OR (c.relkind = 'r' AND c.relpersistence = 'p'))
      AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND c.oid NOT IN (SELECT oid FROM needed)
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                      AND d.objid = c.oid AND d.deptype = 'e')
    UNION ALL
    SELECT 'pg_namespace'::regclass::oid, oid FROM pg_namespace WHERE nspname = 'cdc_migrator'
), gone AS (
    SELECT class, object, true AS own FROM seed
    UNION
    SELECT next.class, next.object, gone.own AND next.own
    FROM gone CROSS JOIN LATERAL (
        SELECT d.classid AS class, d.objid AS object, d.deptype <> 'n'
               OR gone.class = 'pg_namespace'::regclass AS own
        FROM pg_depend d
        WHERE d.refclassid = gone.class AND d.refobjid = gone.object AND d.deptype <> 'e'
        UNION ALL
        -- A view lives in its rule: without the rule there is no view.
        SELECT 'pg_class'::regclass, r.ev_class, false
        FROM pg_rewrite r JOIN pg_class v ON v.oid = r.ev_class
        WHERE gone.class = 'pg_rewrite'::regclass AND r.oid = gone.object
          AND v.relkind IN ('v', 'm')
    ) next
)
SELECT class::int8, object::int8, bool_or(own),
       (class = 'pg_class'::regclass AND object IN (SELECT oid FROM needed)),
       (pg_identify_object(class, object, 0)).type,
       (pg_identify_object(class, object, 0)).identity
FROM gone GROUP BY class, object
