-- What is granted on objects that a role will make: ALTER DEFAULT PRIVILEGES. Those that are not of
-- one schema stand in the place of what everybody is given, so they begin by taking that away.
WITH given AS (
    SELECT d.oid, d.defaclnamespace, n.nspname, k.word,
           concat('for ', quote_ident(pg_get_userbyid(d.defaclrole)),
                  ' in ' || quote_ident(n.nspname), ' on ', lower(k.word)) AS name,
           concat('ALTER DEFAULT PRIVILEGES FOR ROLE ', quote_ident(pg_get_userbyid(d.defaclrole)),
                  ' IN SCHEMA ' || quote_ident(n.nspname)) AS alter,
           CASE WHEN n.oid IS NULL AND k.word IN ('FUNCTIONS', 'TYPES') THEN k.word END AS everybody,
           d.defaclacl, d.defaclrole
    FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
    JOIN (VALUES ('r', 'TABLES'), ('S', 'SEQUENCES'), ('f', 'FUNCTIONS'), ('T', 'TYPES'),
                 ('n', 'SCHEMAS'), ('L', 'LARGE OBJECTS')) k(code, word)
        ON k.code = d.defaclobjtype::text
    WHERE n.nspname IS DISTINCT FROM 'cdc_migrator'
)
SELECT 'default privileges', 'pg_default_acl'::regclass::oid::int8, g.oid::int8, 0, g.name,
       NULL::text, g.nspname::text, g.name,
       concat_ws('; ', r.text, g.alter || ' GRANT ALL ON ' || g.everybody || ' TO PUBLIC'),
       ARRAY(SELECT format('%s REVOKE ALL ON %s FROM PUBLIC', g.alter, g.everybody)
             WHERE g.everybody IS NOT NULL),
       '{}'::jsonb, jsonb_build_object('alter', g.alter, 'word', g.word)
FROM given g CROSS JOIN LATERAL (
    SELECT string_agg(DISTINCT format(
               '%s REVOKE ALL ON %s FROM %s', g.alter, g.word,
               CASE p.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(p.grantee)) END),
               '; ') AS text
    FROM aclexplode(g.defaclacl) p WHERE p.grantee <> g.defaclrole) r
