-- Triggers, rules, policies and extended statistics of tables and views.
WITH relation AS (
    SELECT c.oid, n.nspname, format('%I.%I', n.nspname, c.relname) AS owner
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm') AND c.relpersistence <> 't'
      AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'cdc_migrator')
), fires(code, word, clause) AS (
    VALUES ('O', 'origin', 'ENABLE'), ('D', 'disabled', 'DISABLE'),
           ('R', 'replica', 'ENABLE REPLICA'), ('A', 'always', 'ENABLE ALWAYS')
)
SELECT 'trigger', 'pg_trigger'::regclass::oid::int8, t.oid::int8, 0,
       format('%I on %s', t.tgname, r.owner), r.owner, r.nspname::text,
       format('TRIGGER %I ON %s', t.tgname, r.owner),
       format('DROP TRIGGER IF EXISTS %I ON %s', t.tgname, r.owner),
       ARRAY[pg_get_triggerdef(t.oid)] || CASE WHEN t.tgenabled = 'O' THEN '{}'::text[]
           ELSE ARRAY[format('ALTER TABLE %s %s TRIGGER %I', r.owner, f.clause, t.tgname)] END,
       jsonb_build_object('definition', pg_get_triggerdef(t.oid), 'fires', f.word,
                          'comment', obj_description(t.oid, 'pg_trigger')),
       jsonb_build_object(
           'fire', format('ALTER TABLE %s %s TRIGGER %I', r.owner, f.clause, t.tgname),
           'after rows', true)
FROM pg_trigger t JOIN relation r ON r.oid = t.tgrelid JOIN fires f ON f.code = t.tgenabled::text
WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgname !~ '^cdc_migrator_'
UNION ALL
SELECT 'rule', 'pg_rewrite'::regclass::oid::int8, w.oid::int8, 0,
       format('%I on %s', w.rulename, r.owner), r.owner, r.nspname::text,
       format('RULE %I ON %s', w.rulename, r.owner),
       format('DROP RULE IF EXISTS %I ON %s', w.rulename, r.owner),
       ARRAY[rtrim(pg_get_ruledef(w.oid), ';')] || CASE WHEN w.ev_enabled = 'O' THEN '{}'::text[]
           ELSE ARRAY[format('ALTER TABLE %s %s RULE %I', r.owner, f.clause, w.rulename)] END,
       jsonb_build_object('definition', pg_get_ruledef(w.oid), 'fires', f.word,
                          'comment', obj_description(w.oid, 'pg_rewrite')),
       jsonb_build_object(
           'fire', format('ALTER TABLE %s %s RULE %I', r.owner, f.clause, w.rulename),
           'after rows', true)
FROM pg_rewrite w JOIN relation r ON r.oid = w.ev_class JOIN fires f ON f.code = w.ev_enabled::text
WHERE w.rulename <> '_RETURN'
UNION ALL
SELECT 'policy', 'pg_policy'::regclass::oid::int8, p.oid::int8, 0,
       format('%I on %s', p.polname, r.owner), r.owner, r.nspname::text,
       format('POLICY %I ON %s', p.polname, r.owner),
       format('DROP POLICY IF EXISTS %I ON %s', p.polname, r.owner),
       ARRAY[format('CREATE POLICY %I ON %s %s', p.polname, r.owner, d.text)],
       jsonb_build_object('definition', d.text, 'comment', obj_description(p.oid, 'pg_policy')),
       jsonb_build_object('after rows', true)
FROM pg_policy p JOIN relation r ON r.oid = p.polrelid
CROSS JOIN LATERAL (SELECT concat(
    CASE WHEN p.polpermissive THEN 'AS PERMISSIVE' ELSE 'AS RESTRICTIVE' END,
    ' FOR ', CASE p.polcmd WHEN '*' THEN 'ALL' WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT'
             WHEN 'w' THEN 'UPDATE' ELSE 'DELETE' END,
    ' TO ', (SELECT string_agg(CASE WHEN o.role = 0 THEN 'PUBLIC'
                               ELSE quote_ident(pg_get_userbyid(o.role)) END, ', ' ORDER BY 1)
             FROM unnest(p.polroles) AS o(role)),
    ' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')',
    ' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')') AS text) d
UNION ALL
SELECT 'statistics', 'pg_statistic_ext'::regclass::oid::int8, s.oid::int8, 0, o.name, r.owner,
       n.nspname::text, 'STATISTICS ' || o.name, 'DROP STATISTICS IF EXISTS ' || o.name,
       ARRAY[pg_get_statisticsobjdef(s.oid)],
       jsonb_build_object('definition', pg_get_statisticsobjdef(s.oid),
                          'comment', obj_description(s.oid, 'pg_statistic_ext')),
       jsonb_build_object('after rows', true)
FROM pg_statistic_ext s JOIN relation r ON r.oid = s.stxrelid
JOIN pg_namespace n ON n.oid = s.stxnamespace
CROSS JOIN LATERAL (SELECT format('%I.%I', n.nspname, s.stxname) AS name) o
