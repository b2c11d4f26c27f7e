-- Who may do what with which object, one row a privilege: what the server gives everybody with a
-- new object counts, too. `unlike` tells that the owner has not all that an owner has by itself.
WITH acl AS (
    SELECT 'pg_class'::regclass AS class, oid AS object, 0 AS sub, relowner AS owner, relacl AS given,
           acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner) AS usual
    FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'S')
    UNION ALL
    SELECT 'pg_class'::regclass, a.attrelid, a.attnum, c.relowner, a.attacl, '{}'
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE a.attacl IS NOT NULL
    UNION ALL
    SELECT 'pg_proc'::regclass, oid, 0, proowner, proacl, acldefault('f', proowner) FROM pg_proc
    UNION ALL
    SELECT 'pg_type'::regclass, oid, 0, typowner, typacl, acldefault('T', typowner)
    FROM pg_type WHERE typtype IN ('e', 'd', 'c', 'r')
    UNION ALL
    SELECT 'pg_namespace'::regclass, oid, 0, nspowner, nspacl, acldefault('n', nspowner)
    FROM pg_namespace
    UNION ALL
    SELECT 'pg_default_acl'::regclass, oid, 0, defaclrole, defaclacl, '{}' FROM pg_default_acl
)
SELECT acl.class::oid::int8, acl.object::int8, acl.sub::int4,
       quote_ident(pg_get_userbyid(acl.owner)),
       CASE p.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(p.grantee)) END,
       p.privilege_type, p.is_grantable, quote_ident(pg_get_userbyid(p.grantor)),
       acl.given IS NOT NULL AND acl.usual <> '{}'
       AND (SELECT count(*) FROM aclexplode(acl.given) g WHERE g.grantee = acl.owner)
           <> (SELECT count(*) FROM aclexplode(acl.usual) u WHERE u.grantee = acl.owner)
FROM acl CROSS JOIN LATERAL aclexplode(coalesce(acl.given, acl.usual)) p
WHERE acl.object >= 2200
-- Roles that work for a migration have their rights from it, on either side others. They are let into
-- our schema; what is in it, default privileges may open to anybody.
AND NOT EXISTS (
    SELECT FROM pg_namespace s CROSS JOIN LATERAL aclexplode(s.nspacl) w
    WHERE s.nspname = 'cdc_migrator'
    AND w.grantee = p.grantee AND w.grantee NOT IN (0, s.nspowner)
)
ORDER BY 1, 2, 3, 5, 6
