-- Enumerations, domains, composite and range types; then schemas and extensions.
WITH type AS (
    SELECT t.*, n.nspname, format('%I.%I', n.nspname, t.typname) AS name,
           obj_description(t.oid, 'pg_type') AS comment,
           CASE WHEN t.typcollation <> b.typcollation AND t.typcollation <> 0
                THEN format('%I.%I', cn.nspname, l.collname) END AS collation
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
    LEFT JOIN pg_type b ON b.oid = t.typbasetype
    LEFT JOIN pg_collation l ON l.oid = t.typcollation
    LEFT JOIN pg_namespace cn ON cn.oid = l.collnamespace
    WHERE t.typtype IN ('e', 'd', 'c', 'r')
      AND (t.typrelid = 0 OR EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid
                                     AND c.relkind = 'c'))
      AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'cdc_migrator')
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_type'::regclass
                      AND d.objid = t.oid AND d.deptype = 'e')
)
SELECT 'enumeration', 'pg_type'::regclass::oid::int8, t.oid::int8, 0, t.name, NULL::text,
       t.nspname::text, 'TYPE ' || t.name, 'DROP TYPE IF EXISTS ' || t.name,
       ARRAY[format('CREATE TYPE %s AS ENUM (%s)', t.name, e.text)],
       jsonb_build_object('labels', e.text, 'comment', t.comment),
       jsonb_build_object('labels', e.labels)
FROM type t
CROSS JOIN LATERAL (
    SELECT coalesce(string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder), '') AS text,
           coalesce(jsonb_agg(enumlabel ORDER BY enumsortorder), '[]') AS labels
    FROM pg_enum WHERE enumtypid = t.oid) e
WHERE t.typtype = 'e'
UNION ALL
SELECT 'domain', 'pg_type'::regclass::oid::int8, t.oid::int8, 0, t.name, NULL, t.nspname,
       'DOMAIN ' || t.name, 'DROP DOMAIN IF EXISTS ' || t.name,
       ARRAY[concat('CREATE DOMAIN ', t.name, ' AS ', format_type(t.typbasetype, t.typtypmod),
                    ' COLLATE ' || t.collation, ' DEFAULT ' || t.typdefault,
                    CASE WHEN t.typnotnull THEN ' NOT NULL' END)],
       jsonb_build_object('type', format_type(t.typbasetype, t.typtypmod),
                          'collation', t.collation, 'default', t.typdefault,
                          'not null', CASE WHEN t.typnotnull THEN 'yes' ELSE 'no' END,
                          'comment', t.comment), '{}'
FROM type t WHERE t.typtype = 'd'
UNION ALL
SELECT 'composite type', 'pg_type'::regclass::oid::int8, t.oid::int8, 0, t.name, NULL, t.nspname,
       'TYPE ' || t.name, 'DROP TYPE IF EXISTS ' || t.name,
       ARRAY[format('CREATE TYPE %s AS (%s)', t.name, (
           SELECT string_agg(concat(quote_ident(a.attname), ' ',
                                    format_type(a.atttypid, a.atttypmod),
                                    CASE WHEN a.attcollation <> b.typcollation
                                         THEN format(' COLLATE %I.%I', ln.nspname, l.collname) END),
                             ', ' ORDER BY a.attnum)
           FROM pg_attribute a JOIN pg_type b ON b.oid = a.atttypid
           LEFT JOIN pg_collation l ON l.oid = a.attcollation
           LEFT JOIN pg_namespace ln ON ln.oid = l.collnamespace
           WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped))],
       jsonb_build_object('comment', t.comment), '{}'
FROM type t WHERE t.typtype = 'c'
UNION ALL
SELECT 'range type', 'pg_type'::regclass::oid::int8, t.oid::int8, 0, t.name, NULL, t.nspname,
       'TYPE ' || t.name, 'DROP TYPE IF EXISTS ' || t.name,
       ARRAY[format('CREATE TYPE %s AS RANGE (%s)', t.name, d.text)],
       jsonb_build_object('definition', d.text, 'comment', t.comment), '{}'
FROM type t JOIN pg_range r ON r.rngtypid = t.oid
JOIN pg_opclass o ON o.oid = r.rngsubopc JOIN pg_namespace oc ON oc.oid = o.opcnamespace
JOIN pg_type m ON m.oid = r.rngmultitypid JOIN pg_namespace mn ON mn.oid = m.typnamespace
LEFT JOIN pg_collation l ON l.oid = r.rngcollation
LEFT JOIN pg_namespace ln ON ln.oid = l.collnamespace
CROSS JOIN LATERAL (SELECT concat(
    'SUBTYPE = ', format_type(r.rngsubtype, NULL),
    format(', SUBTYPE_OPCLASS = %I.%I', oc.nspname, o.opcname),
    CASE WHEN l.oid IS NOT NULL THEN format(', COLLATION = %I.%I', ln.nspname, l.collname) END,
    CASE WHEN r.rngsubdiff <> 0 THEN ', SUBTYPE_DIFF = ' || r.rngsubdiff::regproc END,
    format(', MULTIRANGE_TYPE_NAME = %I.%I', mn.nspname, m.typname)) AS text) d
UNION ALL
SELECT 'schema', 'pg_namespace'::regclass::oid::int8, n.oid::int8, 0, quote_ident(n.nspname), NULL,
       NULL, 'SCHEMA ' || quote_ident(n.nspname), 'DROP SCHEMA IF EXISTS ' || quote_ident(n.nspname),
       ARRAY['CREATE SCHEMA ' || quote_ident(n.nspname)],
       jsonb_build_object('comment', obj_description(n.oid, 'pg_namespace')),
       jsonb_build_object('schema', n.nspname)
FROM pg_namespace n
WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'cdc_migrator')
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_namespace'::regclass
                  AND d.objid = n.oid AND d.deptype = 'e')
UNION ALL
SELECT 'extension', 'pg_extension'::regclass::oid::int8, e.oid::int8, 0, quote_ident(e.extname),
       NULL, NULL, 'EXTENSION ' || quote_ident(e.extname),
       'DROP EXTENSION IF EXISTS ' || quote_ident(e.extname),
       ARRAY[format('CREATE EXTENSION %I WITH SCHEMA %I', e.extname, n.nspname)],
       jsonb_build_object('version', e.extversion), '{}'
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
