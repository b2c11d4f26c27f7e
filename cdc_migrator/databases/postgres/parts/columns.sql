-- Columns of tables, attributes of composite types, and comments on columns of views.
WITH attribute AS (
    SELECT a.*, c.relkind, n.nspname, format('%I.%I', n.nspname, c.relname) AS owner,
           format('%I.%I.%I', n.nspname, c.relname, a.attname) AS name,
           format_type(a.atttypid, a.atttypmod) AS type,
           CASE WHEN a.attcollation <> t.typcollation AND a.attcollation <> 0
                THEN format('%I.%I', cn.nspname, l.collname) END AS coll,
           pg_get_expr(d.adbin, d.adrelid) AS expression,
           s.options, col_description(c.oid, a.attnum) AS comment
    FROM pg_attribute a
    JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_collation l ON l.oid = a.attcollation
    LEFT JOIN pg_namespace cn ON cn.oid = l.collnamespace
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    LEFT JOIN LATERAL (
        SELECT format('START WITH %s INCREMENT BY %s MINVALUE %s MAXVALUE %s CACHE %s %s',
                      q.seqstart, q.seqincrement, q.seqmin, q.seqmax, q.seqcache,
                      CASE WHEN q.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END) AS options
        FROM pg_depend i JOIN pg_sequence q ON q.seqrelid = i.objid
        WHERE i.refclassid = 'pg_class'::regclass AND i.refobjid = a.attrelid
          AND i.refobjsubid = a.attnum AND i.classid = 'pg_class'::regclass AND i.deptype = 'i'
    ) s ON a.attidentity <> ''
    WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'c')
      AND c.relpersistence <> 't'
      AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'cdc_migrator')
), told AS (
    SELECT a.*,
           CASE a.attidentity WHEN 'a' THEN 'always' WHEN 'd' THEN 'by default' END AS identity,
           CASE a.attgenerated WHEN 's' THEN 'stored' WHEN 'v' THEN 'virtual' END AS generated
    FROM attribute a
)
SELECT 'column', 'pg_class'::regclass::oid::int8, attrelid::int8, attnum::int4, name, owner,
       nspname::text, 'COLUMN ' || name,
       format('ALTER TABLE IF EXISTS %s DROP COLUMN IF EXISTS %I', owner, attname),
       '{}'::text[],
       jsonb_build_object(
           'type', type, 'collation', coll,
           'not null', CASE WHEN attnotnull THEN 'yes' ELSE 'no' END,
           'default', CASE WHEN generated IS NULL THEN expression END,
           'identity', identity, 'identity options', options,
           'generated', CASE WHEN generated IS NOT NULL THEN expression END,
           'generated kind', generated, 'comment', comment),
       jsonb_build_object(
           'column', quote_ident(attname), 'place', attnum, 'inherited', attinhcount > 0,
           'local', attislocal,
           'definition', concat(
               quote_ident(attname), ' ', type, ' COLLATE ' || coll,
               CASE WHEN generated IS NOT NULL
                    THEN format(' GENERATED ALWAYS AS (%s) %s', expression, upper(generated))
                    WHEN identity IS NOT NULL
                    THEN format(' GENERATED %s AS IDENTITY (%s)', upper(identity), options)
                    ELSE ' DEFAULT ' || expression END,
               CASE WHEN attnotnull THEN ' NOT NULL' END))
FROM told WHERE relkind IN ('r', 'p')
UNION ALL
SELECT 'attribute', 'pg_class'::regclass::oid::int8, attrelid::int8, attnum::int4, name, owner,
       nspname::text, 'COLUMN ' || name,
       format('ALTER TYPE %s DROP ATTRIBUTE IF EXISTS %I CASCADE', owner, attname),
       ARRAY[format('ALTER TYPE %s ADD ATTRIBUTE %I %s%s', owner, attname, type,
                    ' COLLATE ' || coll)],
       jsonb_build_object('type', type, 'collation', coll, 'comment', comment),
       jsonb_build_object('column', quote_ident(attname), 'place', attnum)
FROM told WHERE relkind = 'c'
UNION ALL
SELECT 'view column', 'pg_class'::regclass::oid::int8, attrelid::int8, attnum::int4, name, owner,
       nspname::text, 'COLUMN ' || name, '', '{}', jsonb_build_object('comment', comment),
       jsonb_build_object('column', quote_ident(attname))
FROM told WHERE relkind IN ('v', 'm')
