"""The fence: a statement trigger that refuses every write but those of sessions with the token.

Statements and a look at what is there; who is fenced when, is decided elsewhere.

* A statement trigger fires for the table that the statement names, so partitioned parents and
  each of their partitions have one of their own.
* It fires ALWAYS where the fence is up: `session_replication_role` does not pass it.
* The function's body is there for everybody to read; so it holds the token's digest.
* Triggers need no right on their function or its schema: whoever may write meets the fence.
* A side is opened by another body of its function. So where one database is both sides of a
  migration, the tables that are left have a function of their own (`Guard`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import psycopg
from psycopg import sql

from cdc_migrator.databases.postgres import names as quoted
from cdc_migrator.errors import Failed, Refused
from cdc_migrator.model.tables import TableName
from cdc_migrator.model.wording import few

TRIGGER = "cdc_migrator_fence"
SETTING = "cdc_migrator.token"

_SEARCH_PATH = "pg_catalog, pg_temp"
# BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE, for each statement, as pg_trigger.tgtype.
_TYPE = 2 | 4 | 8 | 16 | 32
_NAME = sql.Identifier(TRIGGER)

# Every name is qualified: it runs in sessions of anybody, with their settings and their rights.
_BODY = """
BEGIN
    IF pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(
        COALESCE(pg_catalog.current_setting('{setting}', true), ''), 'UTF8')), 'hex')
        OPERATOR(pg_catalog.=) '{digest}'
    THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION USING
        ERRCODE = '25006',
        MESSAGE = pg_catalog.format('%s on %I.%I is refused: cdc-migrator has fenced this table',
                                    TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME),
        DETAIL = 'Its rows belong to the migration "{migration}", which alone may change them.',
        HINT = '{hint}',
        SCHEMA = TG_TABLE_SCHEMA,
        TABLE = TG_TABLE_NAME;
END
"""


class Guard(StrEnum):
    """The function that the triggers of a fence call.

    Attributes:
        OWN: of a database that is one side of a migration, whether left or entered; and of the
            tables that are entered where it is both.
        LEFT: of the tables that are left in a database that is both.
    """

    OWN = "cdc_migrator.fence()"
    LEFT = "cdc_migrator.fence_left()"


class State(StrEnum):
    """What a table has of the fence. OTHER: a trigger of its name that is not ours."""

    UP = "up"
    DOWN = "down"
    OTHER = "other"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Fenceable:
    """A table, and whether this session's role may fence it, which only owners may."""

    table: TableName
    state: State
    owned: bool


def body(migration: str, digest: str, hint: str) -> str:
    """The function's body. `hint` says to whoever meets it what to do."""
    return _BODY.format(
        setting=SETTING, migration=migration, digest=digest, hint=hint.replace("'", "''")
    )


def pass_all(migration: str) -> str:
    """A body that refuses nobody: the migration is over for who writes here."""
    return f"\nBEGIN\n    RETURN NULL; -- opened by the migration {migration}\nEND\n"


def define(body: str, guard: Guard = Guard.OWN) -> sql.Composed:
    """Make the function, or give it this body."""
    return sql.SQL(
        "CREATE OR REPLACE FUNCTION {} RETURNS trigger LANGUAGE plpgsql "
        "SECURITY INVOKER SET search_path = {} AS {}"
    ).format(sql.SQL(guard), sql.SQL(_SEARCH_PATH), sql.Literal(body))


def defined(conn: psycopg.Connection, body: str, guard: Guard = Guard.OWN) -> bool:
    """Whether the function is there with this body and nothing else about it was changed."""
    row = conn.execute(
        "SELECT prosrc = %s AND proconfig = ARRAY[%s] AND NOT prosecdef "
        "FROM pg_proc WHERE oid = to_regprocedure(%s)",
        (body, f"search_path={_SEARCH_PATH}", guard),
    ).fetchone()
    return row == (True,)


def digest(conn: psycopg.Connection) -> str:
    """The digest of the token that passes the function here; empty where there is none."""
    row = conn.execute(
        "SELECT substring(prosrc FROM '''([0-9a-f]{64})''') FROM pg_proc "
        "WHERE oid = to_regprocedure(%s)",
        (Guard.OWN,),
    ).fetchone()
    return str(row[0]) if row and row[0] else ""


def refuses(conn: psycopg.Connection, guard: Guard = Guard.OWN) -> bool:
    """Whether the function is one that refuses: not that of a side that was opened."""
    row = conn.execute(
        "SELECT strpos(prosrc, 'RAISE EXCEPTION') > 0 FROM pg_proc WHERE oid = to_regprocedure(%s)",
        (guard,),
    ).fetchone()
    return row == (True,)


def create(table: TableName, guard: Guard = Guard.OWN) -> list[sql.Composed]:
    """Make the trigger, disabled: run both in one transaction."""
    return [
        sql.SQL(
            "CREATE TRIGGER {} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {} "
            "FOR EACH STATEMENT EXECUTE FUNCTION {}"
        ).format(_NAME, quoted.table(table), sql.SQL(guard)),
        disable(table),
    ]


def ready(one: Fenceable, guard: Guard = Guard.OWN) -> list[sql.Composed]:
    """Let a table have the trigger, whatever it has of it; where it is ours it stays as it is."""
    if one.state in (State.UP, State.DOWN):
        return []
    return [*([drop(one.table)] if one.state is State.OTHER else []), *create(one.table, guard)]


def not_owned(side: str, tables: Sequence[TableName], writers: str, otherwise: str = "") -> Refused:
    """The error where the role may not fence these tables of `side` against `writers`."""
    return Refused(
        "CDCM-FENCE-OWNER",
        f"the role of the {side} does not own {few(tables)}, and only owners can fence a table "
        f"against {writers}",
        f"GRANT the owner's role to the role of the {side}'s connection string{otherwise}.",
    )


def busy(side: str, tables: Sequence[TableName], patience: float) -> Failed:
    """The error where these tables of `side` were never free for a moment."""
    return Failed(
        "CDCM-FENCE-LOCKED",
        f"the fence of {few(tables)} needs these tables free of writers and of index builds for a "
        f"moment, which they were not within {patience:.0f} s",
        f"See what uses them (pg_locks and pg_stat_activity on the {side}), then run the same "
        "command again.",
    )


def enable(table: TableName) -> sql.Composed:
    """From the commit on, every write without the token is refused."""
    return sql.SQL("ALTER TABLE ONLY {} ENABLE ALWAYS TRIGGER {}").format(
        quoted.table(table), _NAME
    )


def disable(table: TableName) -> sql.Composed:
    """Let everybody write again; the trigger stays."""
    return sql.SQL("ALTER TABLE ONLY {} DISABLE TRIGGER {}").format(quoted.table(table), _NAME)


def drop(table: TableName) -> sql.Composed:
    """Remove the trigger, if there is one."""
    return sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(_NAME, quoted.table(table))


def drop_function() -> sql.Composed:
    """Remove the function of the side that is entered, and all triggers that call it."""
    return sql.SQL("DROP FUNCTION IF EXISTS {} CASCADE").format(sql.SQL(Guard.OWN))


def fenced(conn: psycopg.Connection) -> list[Fenceable]:
    """The tables of the side that is entered that have a trigger of ours, enabled or not."""
    return _read(conn, _OURS, (), Guard.OWN)


def read(
    conn: psycopg.Connection, tables: Sequence[TableName], guard: Guard = Guard.OWN
) -> list[Fenceable]:
    """Those of `tables` that are there, and all that their partitioned tables consist of."""
    return _read(conn, _WHOLE, tables, guard)


_OURS = sql.SQL("SELECT tgrelid FROM pg_trigger WHERE tgfoid = to_regprocedure(%(function)s)")
_WHOLE = sql.SQL(
    "SELECT oid FROM named UNION SELECT t.relid FROM named, "
    "pg_partition_tree(coalesce(pg_partition_root(named.oid), named.oid)) t"
)
_STATES = sql.SQL(
    "WITH named AS (SELECT c.oid FROM unnest(%(schemas)s::text[], %(names)s::text[]) "
    "AS w(schema, name) JOIN pg_namespace n ON n.nspname = w.schema "
    "JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name) "
    "SELECT n.nspname, c.relname, pg_has_role(c.relowner, 'USAGE'), CASE "
    "WHEN t.oid IS NULL THEN 'none' "
    "WHEN t.tgfoid IS DISTINCT FROM to_regprocedure(%(function)s) OR t.tgtype <> %(type)s "
    "OR t.tgqual IS NOT NULL OR t.tgattr::text <> '' THEN 'other' "
    "WHEN t.tgenabled = 'A' THEN 'up' ELSE 'down' END "
    "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "LEFT JOIN pg_trigger t ON t.tgrelid = c.oid AND t.tgname = %(trigger)s "
    "WHERE c.relkind IN ('r', 'p') AND c.oid IN ({chosen}) ORDER BY 1, 2"
)


def _read(
    conn: psycopg.Connection, chosen: sql.SQL, tables: Sequence[TableName], guard: Guard
) -> list[Fenceable]:
    rows = conn.execute(
        _STATES.format(chosen=chosen),
        {
            "schemas": [table.schema for table in tables],
            "names": [table.name for table in tables],
            "function": guard,
            "type": _TYPE,
            "trigger": TRIGGER,
        },
    )
    return [
        Fenceable(TableName(schema, name), State(state), owned)
        for schema, name, owned, state in rows
    ]
