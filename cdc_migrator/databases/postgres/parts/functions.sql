-- Functions, procedures and aggregates; told apart by their input types.
WITH routine AS (
    SELECT p.*, n.nspname,
           format('%I.%I(%s)', n.nspname, p.proname, oidvectortypes(p.proargtypes)) AS name,
           CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END
               AS kind,
           format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid))
               AS called,
           obj_description(p.oid, 'pg_proc') AS comment
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'cdc_migrator')
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass
                      AND d.objid = p.oid AND d.deptype IN ('e', 'i'))
)
SELECT r.kind, 'pg_proc'::regclass::oid::int8, r.oid::int8, 0, r.name, NULL::text,
       r.nspname::text, upper(r.kind) || ' ' || r.called,
       format('DROP %s IF EXISTS %s', upper(r.kind), r.called),
       ARRAY[d.text],
       jsonb_build_object(
           'signature', concat(pg_get_function_arguments(r.oid),
                               ' returns ' || pg_get_function_result(r.oid)),
           'definition', d.text, 'comment', r.comment),
       '{}'::jsonb
FROM routine r LEFT JOIN pg_aggregate a ON a.aggfnoid = r.oid
CROSS JOIN LATERAL (SELECT CASE WHEN r.prokind <> 'a' THEN pg_get_functiondef(r.oid) ELSE concat(
    'CREATE AGGREGATE ', r.called, ' (SFUNC = ', a.aggtransfn::regproc,
    ', STYPE = ', format_type(a.aggtranstype, NULL),
    CASE WHEN a.aggtransspace <> 0 THEN format(', SSPACE = %s', a.aggtransspace) END,
    CASE WHEN a.aggfinalfn <> 0 THEN ', FINALFUNC = ' || a.aggfinalfn::regproc END,
    CASE WHEN a.aggfinalextra THEN ', FINALFUNC_EXTRA' END,
    CASE WHEN a.aggcombinefn <> 0 THEN ', COMBINEFUNC = ' || a.aggcombinefn::regproc END,
    CASE WHEN a.aggserialfn <> 0 THEN ', SERIALFUNC = ' || a.aggserialfn::regproc END,
    CASE WHEN a.aggdeserialfn <> 0 THEN ', DESERIALFUNC = ' || a.aggdeserialfn::regproc END,
    ', INITCOND = ' || quote_literal(a.agginitval),
    CASE WHEN a.aggmtransfn <> 0 THEN
        ', MSFUNC = ' || a.aggmtransfn::regproc || ', MINVFUNC = ' || a.aggminvtransfn::regproc
        || ', MSTYPE = ' || format_type(a.aggmtranstype, NULL) END,
    ', MINITCOND = ' || quote_literal(a.aggminitval),
    CASE WHEN a.aggsortop <> 0 THEN ', SORTOP = ' || a.aggsortop::regoperator END,
    CASE r.proparallel WHEN 's' THEN ', PARALLEL = SAFE' WHEN 'r' THEN ', PARALLEL = RESTRICTED'
    END,
    CASE WHEN a.aggkind = 'h' THEN ', HYPOTHETICAL' END, ')') END AS text) d
