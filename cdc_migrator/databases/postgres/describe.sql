-- What a table is, as one JSON document: for the event trigger on the source, which writes it down at
-- the position of a change, and for sessions of ours. Completed by a query of the tables' oids. The
-- search_path must be pg_catalog, so that types and expressions are spelled with their schemas.
SELECT c.oid, jsonb_build_object(
    'oid', c.oid::int8, 'schema', n.nspname, 'name', c.relname,
    'replica_identity', c.relreplident, 'root_schema', rn.nspname, 'root', r.relname,
    'rows', greatest(c.reltuples, 0)::int8, 'bytes', c.relpages::int8 * 8192,
    'file', pg_relation_filenode(c.oid)::int8,
    'bound', pg_get_expr(c.relpartbound, c.oid),
    'ancestors', coalesce((
        SELECT jsonb_agg(jsonb_build_array(p.oid::int8, pn.nspname, p.relname,
                                           pg_get_expr(p.relpartbound, p.oid)) ORDER BY a.place)
        FROM pg_partition_ancestors(c.oid) WITH ORDINALITY AS a(relid, place)
        JOIN pg_class p ON p.oid = a.relid AND p.oid <> c.oid
        JOIN pg_namespace pn ON pn.oid = p.relnamespace), '[]'),
    -- Of a partition: its bounds and those above it, however a session would spell them.
    'bounds', (SELECT md5(string_agg(regexp_replace(k.relpartbound::text, ':location [0-9-]+', '',
                                                    'g'), '' ORDER BY up.depth))
               FROM pg_partition_ancestors(c.oid) WITH ORDINALITY AS up(relid, depth)
               JOIN pg_class k ON k.oid = up.relid),
    'key', coalesce((
        SELECT jsonb_agg(a.attname ORDER BY k.place)
        FROM (SELECT i.indkey, i.indnkeyatts FROM pg_index i WHERE i.indrelid = c.oid
              AND (i.indisprimary OR (i.indisreplident AND c.relreplident = 'i'))
              AND i.indimmediate
              ORDER BY i.indisprimary DESC LIMIT 1) i,
             unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
        WHERE k.place <= i.indnkeyatts), '[]'),
    'columns', coalesce((
        WITH RECURSIVE resolved AS (
            SELECT a.attnum, a.atttypid AS type, a.atttypmod AS modifier FROM pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            UNION ALL
            SELECT q.attnum, t.typbasetype,
                   CASE WHEN t.typtypmod = -1 THEN q.modifier ELSE t.typtypmod END
            FROM resolved q JOIN pg_type t ON t.oid = q.type WHERE t.typtype = 'd'
        )
        SELECT jsonb_agg(jsonb_build_object(
            'number', a.attnum, 'name', a.attname,
            'type_text', format_type(a.atttypid, a.atttypmod),
            'base_type', bn.nspname || '.' || b.typname, 'category', b.typtype,
            'element', en.nspname || '.' || e.typname, 'element_category', e.typtype,
            'not_null', a.attnotnull, 'generated', a.attgenerated <> '',
            'identity', a.attidentity,
            'length', CASE WHEN b.oid = 'bit'::regtype AND q.modifier > 0 THEN q.modifier END,
            'collation', CASE WHEN a.attcollation <> t.typcollation AND a.attcollation <> 0
                              THEN format('%I.%I', ln.nspname, l.collname) END,
            'expression', pg_get_expr(d.adbin, d.adrelid),
            'labels', (SELECT jsonb_agg(jsonb_build_array(m.oid::int8, m.enumlabel)
                                        ORDER BY m.enumsortorder)
                       FROM pg_enum m WHERE m.enumtypid IN (b.oid, e.oid)),
            'enumeration', CASE WHEN b.typtype = 'e' THEN format_type(b.oid, NULL)
                                WHEN e.typtype = 'e' THEN format_type(e.oid, NULL) END
            ) ORDER BY a.attnum)
        FROM pg_attribute a
        JOIN resolved q ON q.attnum = a.attnum
        JOIN pg_type t ON t.oid = a.atttypid
        JOIN pg_type b ON b.oid = q.type AND b.typtype <> 'd'
        JOIN pg_namespace bn ON bn.oid = b.typnamespace
        LEFT JOIN pg_type e ON e.oid = b.typelem
             AND b.typsubscript = 'array_subscript_handler'::regproc
        LEFT JOIN pg_namespace en ON en.oid = e.typnamespace
        LEFT JOIN pg_collation l ON l.oid = a.attcollation
        LEFT JOIN pg_namespace ln ON ln.oid = l.collnamespace
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = c.oid), '[]'),
    'constraints', coalesce((
        SELECT jsonb_object_agg(k.conname, pg_get_constraintdef(k.oid)) FROM pg_constraint k
        WHERE k.conrelid = c.oid AND k.contype IN ('p', 'u', 'c', 'x')), '{{}}'),
    'indexes', coalesce((
        SELECT jsonb_object_agg(x.relname, pg_get_indexdef(i.indexrelid))
        FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
        WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND NOT EXISTS (
            SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid
            AND k.contype IN ('p', 'u', 'x'))), '{{}}'))
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
-- One that is being detached concurrently is its own root already.
LEFT JOIN pg_class r ON c.relispartition AND r.oid = pg_partition_root(c.oid) AND r.oid <> c.oid
LEFT JOIN pg_namespace rn ON rn.oid = r.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.oid IN ({tables})
