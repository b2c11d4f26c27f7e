"""What acts on the rows of a table beside whoever writes them: triggers, rules, row security.

Reads only; what follows is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping

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
