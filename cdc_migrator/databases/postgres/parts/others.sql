-- Objects of rarer kinds, which are only seen to be there: the dump makes them. A cast lives where
-- its function does, or else the type that it casts.
WITH other AS (
    SELECT 'pg_collation'::regclass AS class, oid, collnamespace AS namespace FROM pg_collation
    UNION ALL SELECT 'pg_conversion'::regclass, oid, connamespace FROM pg_conversion
    UNION ALL SELECT 'pg_operator'::regclass, oid, oprnamespace FROM pg_operator
    UNION ALL SELECT 'pg_opclass'::regclass, oid, opcnamespace FROM pg_opclass
    UNION ALL SELECT 'pg_opfamily'::regclass, oid, opfnamespace FROM pg_opfamily
    UNION ALL SELECT 'pg_ts_config'::regclass, oid, cfgnamespace FROM pg_ts_config
    UNION ALL SELECT 'pg_ts_dict'::regclass, oid, dictnamespace FROM pg_ts_dict
    UNION ALL SELECT 'pg_ts_parser'::regclass, oid, prsnamespace FROM pg_ts_parser
    UNION ALL SELECT 'pg_ts_template'::regclass, oid, tmplnamespace FROM pg_ts_template
    UNION ALL
    SELECT 'pg_cast'::regclass, c.oid, coalesce(p.pronamespace, t.typnamespace)
    FROM pg_cast c JOIN pg_type t ON t.oid = c.castsource LEFT JOIN pg_proc p ON p.oid = c.castfunc
)
SELECT i.type, o.class::oid::int8, o.oid::int8, 0, i.identity, NULL::text, n.nspname::text,
       upper(i.type) || ' ' || i.identity,
       format('DROP %s IF EXISTS %s', upper(i.type), i.identity), '{}'::text[], '{}'::jsonb,
       '{}'::jsonb
FROM other o JOIN pg_namespace n ON n.oid = o.namespace
CROSS JOIN LATERAL pg_identify_object(o.class, o.oid, 0) i
WHERE o.oid >= 16384 AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'cdc_migrator')
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = o.class AND d.objid = o.oid
                  AND d.deptype = 'e')
