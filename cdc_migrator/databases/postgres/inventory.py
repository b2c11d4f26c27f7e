"""What a database holds beside its tables that neither its schema's dump nor its log bring over.

Reads only, as far as the role may look; what to do about it is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import psycopg

from cdc_migrator.databases.postgres.catalog import chosen


class Kind(StrEnum):
    """A kind of thing that stays behind."""

    LARGE_OBJECT = "large object"
    UNLOGGED = "unlogged table"
    FOREIGN_TABLE = "foreign table"
    SUBSCRIPTION = "subscription"
    EVENT_TRIGGER = "event trigger"
    JOB = "job of pg_cron"
    SEQUENCE = "sequence"
    PUBLICATION = "publication"
    TABLESPACE = "tablespace"
    ROLE = "role"
    SETTING = "setting of the database"


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """Things of one kind: how many, and the first names of them (none for large objects)."""

    kind: Kind
    count: int
    names: tuple[str, ...]


_MANY = 20
_TABLES = """
SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE {} AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                AND d.objid = c.oid AND d.deptype = 'e') ORDER BY 1
"""
_NAMES = {
    Kind.UNLOGGED: _TABLES.format("c.relkind = 'r' AND c.relpersistence = 'u'"),
    Kind.FOREIGN_TABLE: _TABLES.format("c.relkind = 'f'"),
    # pg_subscription itself is not for everybody's eyes, its names and databases are.
    Kind.SUBSCRIPTION: "SELECT subname::text FROM pg_subscription WHERE subdbid = "
    "(SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1",
    Kind.EVENT_TRIGGER: "SELECT evtname::text FROM pg_event_trigger e WHERE NOT EXISTS "
    "(SELECT FROM pg_depend d WHERE d.classid = 'pg_event_trigger'::regclass "
    "AND d.objid = e.oid AND d.deptype = 'e') AND evtname !~ '^cdc_migrator_ddl_' ORDER BY 1",
    Kind.PUBLICATION: r"SELECT pubname::text FROM pg_publication WHERE pubname !~ '^cdcm_' "
    "ORDER BY 1",
    Kind.TABLESPACE: "SELECT DISTINCT t.spcname::text FROM pg_class c "
    "JOIN pg_tablespace t ON t.oid = c.reltablespace WHERE t.spcname <> 'pg_global' ORDER BY 1",
    # Names only: an application may keep a secret in a setting of its own.
    Kind.SETTING: "SELECT DISTINCT split_part(s.one, '=', 1) || coalesce(' for ' || r.rolname, '') "
    "FROM pg_db_role_setting d CROSS JOIN unnest(d.setconfig) AS s(one) "
    "LEFT JOIN pg_roles r ON r.oid = d.setrole WHERE d.setdatabase = "
    "(SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1",
    # Those that own something here or that a privilege here names.
    Kind.ROLE: "SELECT DISTINCT r.rolname::text FROM pg_shdepend d "
    "JOIN pg_roles r ON r.oid = d.refobjid WHERE d.refclassid = 'pg_authid'::regclass "
    "AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND r.rolname !~ '^pg_' AND r.rolname <> current_user ORDER BY 1",
}


# Sequences that belong to one table (itself and its whole) and feed a default of another one.
_BORROWED = """
SELECT format('%s.%s for %s.%s', sn.nspname, s.relname, tn.nspname, t.relname),
       on_.nspname || '.' || o.relname, pn.nspname || '.' || p.relname,
       tn.nspname || '.' || t.relname, rn.nspname || '.' || r.relname
FROM pg_depend owned
JOIN pg_class s ON s.oid = owned.objid AND s.relkind = 'S'
JOIN pg_namespace sn ON sn.oid = s.relnamespace
JOIN pg_class o ON o.oid = owned.refobjid AND o.relkind IN ('r', 'p') AND o.relpersistence = 'p'
JOIN pg_namespace on_ ON on_.oid = o.relnamespace
LEFT JOIN pg_class p ON o.relispartition AND p.oid = pg_partition_root(o.oid)
LEFT JOIN pg_namespace pn ON pn.oid = p.relnamespace
JOIN pg_depend used ON used.refclassid = 'pg_class'::regclass AND used.refobjid = s.oid
    AND used.classid = 'pg_attrdef'::regclass
JOIN pg_attrdef d ON d.oid = used.objid AND d.adrelid <> o.oid
JOIN pg_class t ON t.oid = d.adrelid AND t.relpersistence = 'p'
JOIN pg_namespace tn ON tn.oid = t.relnamespace
LEFT JOIN pg_class r ON t.relispartition AND r.oid = pg_partition_root(t.oid)
LEFT JOIN pg_namespace rn ON rn.oid = r.relnamespace
WHERE owned.classid = 'pg_class'::regclass AND owned.refclassid = 'pg_class'::regclass
  AND owned.refobjsubid > 0 AND owned.deptype IN ('a', 'i')
ORDER BY 1
"""


def _borrowed(
    conn: psycopg.Connection, include: Sequence[str] | None, exclude: Sequence[str]
) -> list[str]:
    """Sequences that stay with their table, though a table that moves takes values from them."""
    found = []
    for told, owner, whole, table, root in conn.execute(_BORROWED):
        owners = [name for name in (owner, whole) if name]
        users = [name for name in (table, root) if name]
        moves = chosen(users, include, exclude)
        if moves and not chosen(owners, include, exclude) and not {*owners} & {*users}:
            found.append(str(told))
    return found


def left_behind(
    conn: psycopg.Connection, include: Sequence[str] | None, exclude: Sequence[str]
) -> list[LeftBehind]:
    """What there is of each kind that has something; tables as the patterns choose them."""
    found = []
    row = conn.execute("SELECT count(*) FROM pg_largeobject_metadata").fetchone()
    if row is not None and row[0]:
        found.append(LeftBehind(Kind.LARGE_OBJECT, row[0], ()))
    for kind, query in _NAMES.items():
        names = [str(row[0]) for row in conn.execute(query.encode())]
        if kind in (Kind.UNLOGGED, Kind.FOREIGN_TABLE):
            names = [name for name in names if chosen([name], include, exclude)]
        if names:
            found.append(LeftBehind(kind, len(names), tuple(names[:_MANY])))
    borrowed = _borrowed(conn, include, exclude)
    if borrowed:
        found.append(LeftBehind(Kind.SEQUENCE, len(borrowed), tuple(borrowed[:_MANY])))
    if conn.execute("SELECT to_regclass('cron.job')").fetchone() != (None,):
        jobs = conn.execute(
            "SELECT coalesce(jobname, jobid::text) FROM cron.job "
            "WHERE database = current_database() ORDER BY 1"
        ).fetchall()
        if jobs:
            names = [str(row[0]) for row in jobs]
            found.append(LeftBehind(Kind.JOB, len(names), tuple(names[:_MANY])))
    return found
