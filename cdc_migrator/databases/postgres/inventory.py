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
    PUBLICATION = "publication"
    TABLESPACE = "tablespace"
    ROLE = "role"


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
    "AND d.objid = e.oid AND d.deptype = 'e') ORDER BY 1",
    Kind.PUBLICATION: r"SELECT pubname::text FROM pg_publication WHERE pubname !~ '^cdcm_' "
    "ORDER BY 1",
    Kind.TABLESPACE: "SELECT DISTINCT t.spcname::text FROM pg_class c "
    "JOIN pg_tablespace t ON t.oid = c.reltablespace WHERE t.spcname <> 'pg_global' ORDER BY 1",
    # Those that own something here or that a privilege here names.
    Kind.ROLE: "SELECT DISTINCT r.rolname::text FROM pg_shdepend d "
    "JOIN pg_roles r ON r.oid = d.refobjid WHERE d.refclassid = 'pg_authid'::regclass "
    "AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND r.rolname !~ '^pg_' AND r.rolname <> current_user ORDER BY 1",
}


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
    if conn.execute("SELECT to_regclass('cron.job')").fetchone() != (None,):
        jobs = conn.execute(
            "SELECT coalesce(jobname, jobid::text) FROM cron.job "
            "WHERE database = current_database() ORDER BY 1"
        ).fetchall()
        if jobs:
            names = [str(row[0]) for row in jobs]
            found.append(LeftBehind(Kind.JOB, len(names), tuple(names[:_MANY])))
    return found
