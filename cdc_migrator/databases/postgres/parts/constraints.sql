-- Keys, checks and exclusions of tables and domains. NOT NULL is the column's own: from version 18
-- on it is stored as a constraint, too. What comes from a parent is compared at the parent.
WITH body AS (
    SELECT i.indexrelid, i.indrelid,
           substr(pg_get_indexdef(i.indexrelid),
                  1 + length(format('CREATE %sINDEX %I ON %s%I.%I ',
                                    CASE WHEN i.indisunique THEN 'UNIQUE ' END, x.relname,
                                    CASE WHEN x.relkind = 'I' THEN 'ONLY ' END,
                                    n.nspname, c.relname))) AS text
    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
    JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
)
SELECT 'constraint', 'pg_constraint'::regclass::oid::int8, k.oid::int8, 0,
       format('%I on %s', k.conname, o.owner), o.owner, n.nspname::text,
       format('CONSTRAINT %I ON %s', k.conname, o.address),
       format('ALTER %s DROP CONSTRAINT IF EXISTS %I', o.altered, k.conname),
       ARRAY[format('ALTER %s ADD CONSTRAINT %I %s', o.altering, k.conname, d.text)],
       jsonb_build_object('definition', d.text,
                          'comment', obj_description(k.oid, 'pg_constraint')),
       jsonb_build_object(
           'type', k.contype, 'local name', quote_ident(k.conname), 'altering', o.altering,
           'unique', CASE WHEN k.contype IN ('p', 'u') THEN b.text END,
           'after rows', k.contypid = 0 AND (k.contype <> 'c' OR NOT k.convalidated))
FROM pg_constraint k
LEFT JOIN pg_class c ON c.oid = k.conrelid LEFT JOIN pg_type t ON t.oid = k.contypid
JOIN pg_namespace n ON n.oid = coalesce(c.relnamespace, t.typnamespace)
LEFT JOIN body b ON b.indexrelid = k.conindid
CROSS JOIN LATERAL (SELECT pg_get_constraintdef(k.oid) AS text) d
CROSS JOIN LATERAL (
    SELECT format('%I.%I', n.nspname, coalesce(c.relname, t.typname)) AS owner) w
CROSS JOIN LATERAL (
    SELECT w.owner,
           CASE WHEN k.contypid <> 0 THEN 'DOMAIN ' ELSE '' END || w.owner AS address,
           CASE WHEN k.contypid <> 0 THEN 'DOMAIN ' ELSE 'TABLE ' END || w.owner AS altering,
           CASE WHEN k.contypid <> 0 THEN 'DOMAIN ' ELSE 'TABLE IF EXISTS ' END || w.owner AS altered
) o
WHERE k.contype IN ('p', 'u', 'f', 'c', 'x') AND k.conparentid = 0 AND k.coninhcount = 0
  AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'cdc_migrator')
UNION ALL
-- Indexes that are no constraint's.
SELECT 'index', 'pg_class'::regclass::oid::int8, x.oid::int8, 0,
       format('%I.%I', n.nspname, x.relname), format('%I.%I', n.nspname, c.relname),
       n.nspname::text, format('INDEX %I.%I', n.nspname, x.relname),
       format('DROP INDEX IF EXISTS %I.%I', n.nspname, x.relname),
       ARRAY[format('CREATE %sINDEX %I ON %I.%I %s', u.word, x.relname, n.nspname, c.relname,
                    b.text)],
       jsonb_build_object('definition', u.word || b.text,
                          'valid', CASE WHEN i.indisvalid THEN 'yes' ELSE 'no' END,
                          'comment', obj_description(x.oid, 'pg_class')),
       jsonb_build_object('unique', CASE WHEN i.indisunique THEN b.text END,
                          'local name', quote_ident(x.relname), 'after rows', true)
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid AND NOT x.relispartition
JOIN body b USING (indexrelid)
JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (SELECT CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END AS word) u
WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = x.oid
                  AND k.contype IN ('p', 'u', 'x'))
  AND c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'cdc_migrator')
