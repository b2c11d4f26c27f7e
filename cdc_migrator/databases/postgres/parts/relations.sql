-- Tables, partitioned tables, views, materialized views and sequences of their own.
-- How a table is made is put together from its columns.
WITH relation AS (
    SELECT c.*, n.nspname, format('%I.%I', n.nspname, c.relname) AS name,
           nullif(array_to_string(ARRAY(SELECT o FROM unnest(c.reloptions) o ORDER BY o), ', '), '')
               AS options,
           obj_description(c.oid, 'pg_class') AS comment
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S') AND c.relpersistence <> 't'
      AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'cdc_migrator')
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                      AND d.objid = c.oid AND d.deptype = 'e')
      AND NOT (c.relkind = 'S' AND EXISTS (
          SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
          AND d.deptype = 'i'))
), parents AS (
    SELECT i.inhrelid AS oid,
           string_agg(format('%I.%I', n.nspname, p.relname), ', ' ORDER BY i.inhseqno) AS names
    FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent
    JOIN pg_namespace n ON n.oid = p.relnamespace GROUP BY 1
)
SELECT 'table', 'pg_class'::regclass::oid::int8, r.oid::int8, 0, r.name, NULL::text, r.nspname::text,
       'TABLE ' || r.name, 'DROP TABLE IF EXISTS ' || r.name, '{}'::text[],
       jsonb_build_object(
           'form', CASE r.relkind WHEN 'p' THEN 'partitioned' ELSE 'plain' END,
           'persistence', CASE r.relpersistence WHEN 'u' THEN 'unlogged' ELSE 'logged' END,
           'partition key', pg_get_partkeydef(r.oid),
           'parent', p.names,
           'partition bound', pg_get_expr(r.relpartbound, r.oid),
           'row security', CASE WHEN r.relrowsecurity THEN 'enabled' END,
           'row security for owner', CASE WHEN r.relforcerowsecurity THEN 'forced' END,
           'options', r.options, 'comment', r.comment),
       jsonb_build_object('partition', r.relispartition, 'relation', r.relname)
FROM relation r LEFT JOIN parents p USING (oid) WHERE r.relkind IN ('r', 'p')
UNION ALL
SELECT k.kind, 'pg_class'::regclass::oid::int8, r.oid::int8, 0, r.name, NULL, r.nspname,
       upper(k.kind) || ' ' || r.name, format('DROP %s IF EXISTS %s', upper(k.kind), r.name),
       ARRAY[format('CREATE %s %s%s AS%s%s', upper(k.kind), r.name, ' WITH (' || r.options || ')',
                    E'\n', rtrim(pg_get_viewdef(r.oid), ';'))],
       jsonb_build_object(
           'definition', pg_get_viewdef(r.oid), 'options', r.options, 'comment', r.comment,
           'populated', CASE WHEN r.relkind = 'm' THEN
               CASE WHEN r.relispopulated THEN 'yes' ELSE 'no' END END),
       -- What a dump puts in the place of a view until the keys that it needs are there.
       jsonb_build_object('placeholder', r.relkind = 'v' AND NOT EXISTS (
           SELECT FROM pg_rewrite w JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass
               AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass
           WHERE w.ev_class = r.oid AND w.rulename = '_RETURN' AND d.refobjid <> r.oid))
FROM relation r
CROSS JOIN LATERAL (
    SELECT CASE r.relkind WHEN 'm' THEN 'materialized view' ELSE 'view' END AS kind) k
WHERE r.relkind IN ('v', 'm')
UNION ALL
SELECT 'sequence', 'pg_class'::regclass::oid::int8, r.oid::int8, 0, r.name, NULL, r.nspname,
       'SEQUENCE ' || r.name, 'DROP SEQUENCE IF EXISTS ' || r.name,
       ARRAY[format('CREATE SEQUENCE %s AS %s START WITH %s INCREMENT BY %s MINVALUE %s '
                    'MAXVALUE %s CACHE %s %s', r.name, s.seqtypid::regtype, s.seqstart,
                    s.seqincrement, s.seqmin, s.seqmax, s.seqcache,
                    CASE WHEN s.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END)],
       jsonb_build_object(
           'type', s.seqtypid::regtype::text, 'start', s.seqstart::text,
           'increment', s.seqincrement::text, 'minimum', s.seqmin::text,
           'maximum', s.seqmax::text, 'cache', s.seqcache::text,
           'cycle', CASE WHEN s.seqcycle THEN 'yes' ELSE 'no' END,
           'owned by', o.name, 'comment', r.comment),
       '{}'::jsonb
FROM relation r JOIN pg_sequence s ON s.seqrelid = r.oid
LEFT JOIN LATERAL (
    SELECT format('%I.%I.%I', n.nspname, c.relname, a.attname) AS name
    FROM pg_depend d JOIN pg_class c ON c.oid = d.refobjid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    WHERE d.classid = 'pg_class'::regclass AND d.objid = r.oid
      AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'a') o ON true
