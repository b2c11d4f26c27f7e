-- Which object cannot be without which, seen from the objects that are parts: what stands for
-- another (a rule for its view, a row type for its table) is named by that one.
WITH stands AS (
    SELECT 'pg_rewrite'::regclass::oid AS class, oid AS object, 'pg_class'::regclass::oid AS for_class,
           ev_class AS for_object, 0 AS for_sub
    FROM pg_rewrite WHERE rulename = '_RETURN'
    UNION ALL
    SELECT 'pg_attrdef'::regclass, oid, 'pg_class'::regclass, adrelid, adnum FROM pg_attrdef
    UNION ALL
    SELECT 'pg_type'::regclass, t.oid, 'pg_class'::regclass, t.typrelid, 0
    FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid AND c.relkind <> 'c'
    UNION ALL
    SELECT 'pg_class'::regclass, t.typrelid, 'pg_type'::regclass, t.oid, 0
    FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid AND c.relkind = 'c'
    UNION ALL
    SELECT 'pg_type'::regclass, a.oid,
           CASE WHEN c.oid IS NULL THEN 'pg_type'::regclass ELSE 'pg_class'::regclass END,
           coalesce(c.oid, e.oid), 0
    FROM pg_type a JOIN pg_type e ON e.oid = a.typelem AND e.typarray = a.oid
    LEFT JOIN pg_class c ON c.oid = e.typrelid AND c.relkind <> 'c'
    UNION ALL
    SELECT 'pg_type'::regclass, rngmultitypid, 'pg_type'::regclass, rngtypid, 0 FROM pg_range
    UNION ALL
    SELECT 'pg_class'::regclass, conindid, 'pg_constraint'::regclass, oid, 0
    FROM pg_constraint WHERE contype IN ('p', 'u', 'x')
    UNION ALL
    SELECT classid, objid, refclassid, refobjid, 0 FROM pg_depend WHERE deptype = 'e'
)
SELECT DISTINCT coalesce(f.for_class, d.classid)::int8, coalesce(f.for_object, d.objid)::int8,
       coalesce(f.for_sub, d.objsubid)::int4,
       coalesce(t.for_class, d.refclassid)::int8, coalesce(t.for_object, d.refobjid)::int8,
       coalesce(t.for_sub, d.refobjsubid)::int4
FROM pg_depend d
LEFT JOIN stands f ON f.class = d.classid AND f.object = d.objid
LEFT JOIN stands t ON t.class = d.refclassid AND t.object = d.refobjid
WHERE d.deptype IN ('n', 'a', 'i', 'P', 'S') AND d.refobjid >= 2200
