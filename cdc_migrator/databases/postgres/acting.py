"""What acts on the rows of a table beside whoever writes them: triggers, rules, row security.

Reads only; what follows is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import psycopg

from cdc_migrator.model.tables import TableName

# Those that fire under session_replication_role = replica, which holds off all others. This
# service's own, on either side, have their functions in its schema.
_FIRING = """
SELECT n.nspname, c.relname, format('trigger %s', t.tgname)
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_proc p ON p.oid = t.tgfoid
WHERE NOT t.tgisinternal AND t.tgenabled IN ('A', 'R')
  AND p.pronamespace IS DISTINCT FROM to_regnamespace('cdc_migrator')
UNION ALL
SELECT n.nspname, c.relname, format('rule %s', r.rulename)
FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE r.ev_type <> '1' AND r.ev_enabled IN ('A', 'R')
ORDER BY 1, 2, 3
"""


def firing(conn: psycopg.Connection) -> Mapping[TableName, tuple[str, ...]]:
    """Triggers and rules that act although the session replicates, by table."""
    found: dict[TableName, tuple[str, ...]] = {}
    for schema, table, what in conn.execute(_FIRING):
        name = TableName(schema, table)
        found[name] = (*found.get(name, ()), what)
    return found


# What acts on whatever an ordinary session writes, but for this service's own.
_ALWAYS = """
SELECT what FROM (
    SELECT c.oid, format('the trigger %%s on %%s.%%s', t.tgname, n.nspname, c.relname) AS what
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgparentid = 0
      AND p.pronamespace IS DISTINCT FROM to_regnamespace('cdc_migrator')
    UNION ALL
    SELECT c.oid, format('the rule %%s on %%s.%%s', r.rulename, n.nspname, c.relname)
    FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE r.ev_type <> '1' AND r.ev_enabled <> 'D'
    UNION ALL
    SELECT u.oid, format('the foreign key %%s on %%s.%%s', k.conname, n.nspname, c.relname)
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL (VALUES (k.conrelid), (k.confrelid)) AS u(oid)
    WHERE k.contype = 'f' AND k.conparentid = 0
) AS a
WHERE oid IN (
    SELECT c.oid FROM unnest(%s::text[], %s::text[]) AS w(schema, name)
    JOIN pg_namespace n ON n.nspname = w.schema
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
    UNION SELECT above.relid FROM unnest(%s::text[], %s::text[]) AS w(schema, name)
    JOIN pg_namespace n ON n.nspname = w.schema
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
    CROSS JOIN LATERAL pg_partition_ancestors(c.oid) AS above(relid)
)
GROUP BY 1 ORDER BY 1
"""


def always(conn: psycopg.Connection, tables: Sequence[TableName]) -> list[str]:
    """Foreign keys, triggers and rules, in words, that act on what any session writes to these."""
    named = ([one.schema for one in tables], [one.name for one in tables])
    return [str(what) for (what,) in conn.execute(_ALWAYS, (*named, *named))]


_SECURED = """
SELECT n.nspname, c.relname, c.relforcerowsecurity, row_security_active(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relrowsecurity ORDER BY 1, 2
"""


def secured(conn: psycopg.Connection) -> tuple[frozenset[TableName], frozenset[TableName]]:
    """Tables whose policies apply to this session's role, and those where they do to the owner."""
    active, forced = set(), set()
    for schema, table, is_forced, is_active in conn.execute(_SECURED):
        name = TableName(schema, table)
        if is_active:
            active.add(name)
        if is_forced:
            forced.add(name)
    return frozenset(active), frozenset(forced)


def bypasses(conn: psycopg.Connection) -> bool:
    """Whether no policy of any table applies to this session's role."""
    row = conn.execute(
        "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
    ).fetchone()
    return row == (True,)


_KEY_UPDATED = """
SELECT DISTINCT n.nspname, c.relname
FROM pg_constraint f JOIN pg_class c ON c.oid = f.confrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
WHERE f.contype = 'f' AND f.confupdtype IN ('c', 'n', 'd') AND c.reltoastrelid <> 0
  AND f.confkey && i.indkey::int2[]
"""


def keys_meant_to_change(conn: psycopg.Connection) -> frozenset[TableName]:
    """Tables with values stored out of line, whose key others follow (ON UPDATE CASCADE, …)."""
    return frozenset(TableName(*row) for row in conn.execute(_KEY_UPDATED))
