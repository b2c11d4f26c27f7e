"""The target's fence: only sessions of this migration change rows of its tables, until cutover.

Their token stays on the server: a session takes it over from the control schema, which only its
owner reads, when it is opened. The tables that were fenced are remembered, so that a fence that
somebody has taken off is told from one that was never up.

Any process may be killed at any time: what is missing is put up by whoever comes next.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

import psycopg
from psycopg import sql

from cdc_migrator.control import journal, load, locks
from cdc_migrator.databases.postgres import fence
from cdc_migrator.databases.postgres.brief import briefly
from cdc_migrator.databases.postgres.fence import Fenceable, State
from cdc_migrator.faultpoints import reach
from cdc_migrator.model.tables import TableName

PATIENCE = 120.0
# Longer than the usual deadlock_timeout, after which PostgreSQL ends an autovacuum in the way.
# Here nobody but us writes, so nobody else waits behind it.
_LOCK_MS = 2500
_AT_ONCE = 50

_HINT = (
    "Write to the source: the change comes over by itself. To open the target before the cutover, "
    "set target.fence: false in migration.yaml and start cdc-migrator run again."
)


class Fencing(StrEnum):
    """How much of the target is fenced."""

    UP = "up"
    PARTIAL = "partial"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Fence:
    """The fence as it is: which tables of the migration lack it, and which of them once had it."""

    state: Fencing
    lacking: tuple[TableName, ...]
    taken_off: tuple[TableName, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    tables: list[Fenceable]
    body: str
    defined: bool

    @property
    def lacking(self) -> list[Fenceable]:
        # With another function behind it no trigger refuses anything for certain.
        return [one for one in self.tables if not self.defined or one.state is not State.UP]


def present(conn: psycopg.Connection) -> None:
    """Let this session of ours pass the fence, for as long as it lasts."""
    if not _present(conn):
        have_token(conn)
        _present(conn)


def have_token(conn: psycopg.Connection) -> None:
    """Have a token there."""
    conn.execute(
        "INSERT INTO cdc_migrator.fence (token) VALUES (%s) ON CONFLICT DO NOTHING",
        (secrets.token_urlsafe(32),),
    )


def _present(conn: psycopg.Connection) -> bool:
    # Nobody is shown the token, neither in the statement nor in its result.
    row = conn.execute(
        "SELECT set_config(%s, token, false) IS NOT NULL FROM cdc_migrator.fence",
        (fence.SETTING,),
    ).fetchone()
    return row is not None


def digest(conn: psycopg.Connection) -> str:
    """What stands for the token in a fence's function, on either side; empty without a token.

    Who may not read the token is told what the function here says.
    """
    may = conn.execute("SELECT has_table_privilege('cdc_migrator.fence', 'SELECT')").fetchone()
    if may != (True,):
        return fence.digest(conn)
    row = conn.execute(
        "SELECT encode(sha256(convert_to(token, 'UTF8')), 'hex') FROM cdc_migrator.fence"
    ).fetchone()
    return str(row[0]) if row else ""


def open_all(conn: psycopg.Connection, migration: str) -> None:
    """Let everybody write to every table at once, in the caller's transaction.

    It is the function that is replaced, not a trigger disabled: no table is locked, so nobody (an
    autovacuum, say) can be in the way. The triggers stay, for the way back.
    """
    conn.execute(fence.define(fence.pass_all(migration)))
    # On purpose: nobody took it off.
    conn.execute("DELETE FROM cdc_migrator.fenced_table")


def look(conn: psycopg.Connection, migration: str) -> Fence:
    """What is fenced now. Changes nothing."""
    found = _look(conn, migration)
    lacking = tuple(one.table for one in found.lacking)
    if not lacking and found.tables:
        state = Fencing.UP
    else:
        state = Fencing.PARTIAL if len(lacking) < len(found.tables) else Fencing.OFF
    return Fence(state, lacking, _remembered(conn, lacking))


def keep(
    conn: psycopg.Connection, migration: str, wanted: bool, patience: float = PATIENCE
) -> tuple[TableName, ...]:
    """Have the fence up around every table of the migration, or nowhere. Can be repeated.

    Args:
        conn: an autocommit session without an open transaction.
        patience: seconds to wait for locks on the tables.

    Returns:
        The tables that were fenced before and were found without: somebody took it off.

    Raises:
        Refused: CDCM-FENCE-OWNER. Failed: CDCM-FENCE-LOCKED.
    """
    with _alone(conn):
        if wanted:
            return _put_up(conn, migration, patience)
        if fence.fenced(conn) or _remembered(conn):
            journal.write(conn, "fence-removed", why="the settings say so")
            remove(conn, patience)
            conn.execute("DELETE FROM cdc_migrator.fenced_table")
    return ()


def remove(conn: psycopg.Connection, patience: float = PATIENCE) -> int:
    """Take every trigger and the function away; the number of tables that had one.

    Raises Failed: CDCM-FENCE-LOCKED.
    """
    fenced = fence.fenced(conn)
    mine = [one for one in fenced if one.owned]
    for group in _groups(mine):
        _locked(conn, [fence.drop(one.table) for one in group], group, patience)
    # Those of others go with the function, which is ours.
    _locked(conn, [fence.drop_function()], fenced, patience)
    return len(fenced)


def _put_up(conn: psycopg.Connection, migration: str, patience: float) -> tuple[TableName, ...]:
    # The body is made of the token, so that has to be there.
    present(conn)
    found = _look(conn, migration)
    lacking = found.lacking
    if not lacking:
        return ()
    if foreign := [one.table for one in lacking if not one.owned]:
        let = ", or let the tables be unfenced with `target.fence: false`"
        raise fence.not_owned("target", foreign, "other writers", let)
    taken_off = _remembered(conn, [one.table for one in lacking])
    journal.write(
        conn,
        "fence-raised",
        tables=[str(one.table) for one in lacking],
        taken_off=[str(table) for table in taken_off],
    )
    if not found.defined:
        _locked(conn, [fence.define(found.body)], lacking, patience)
        reach("fence.defined")
    for group in _groups([one for one in lacking if one.state is not State.UP]):
        statements = [statement for one in group for statement in _fencing(one)]
        _locked(conn, statements, group, patience)
        reach("fence.raised")
    return taken_off


def _fencing(one: Fenceable) -> Iterator[sql.Composed]:
    """Fence a table and remember it, in one transaction."""
    yield from fence.ready(one)
    yield fence.enable(one.table)
    yield sql.SQL(
        "INSERT INTO cdc_migrator.fenced_table (target_schema, target_table) VALUES ({}, {}) "
        "ON CONFLICT DO NOTHING"
    ).format(one.table.schema, one.table.name)


def _look(conn: psycopg.Connection, migration: str) -> _Found:
    body = fence.body(migration, digest(conn), _HINT)
    tables = [one.target for one in load.read_tables(conn)]
    return _Found(fence.read(conn, tables), body, fence.defined(conn, body))


def _remembered(
    conn: psycopg.Connection, among: Sequence[TableName] | None = None
) -> tuple[TableName, ...]:
    rows = conn.execute(
        "SELECT target_schema, target_table FROM cdc_migrator.fenced_table ORDER BY 1, 2"
    )
    known = [TableName(*row) for row in rows]
    return tuple(known if among is None else (one for one in known if one in set(among)))


@contextmanager
def _alone(conn: psycopg.Connection) -> Iterator[None]:
    """`run` and a load beside it would get into each other's way."""
    locks.wait_lock(conn, locks.Role.FENCE)
    try:
        yield
    finally:
        if not conn.closed and not conn.broken:
            locks.unlock(conn, locks.Role.FENCE)


def _groups(tables: Sequence[Fenceable]) -> Iterator[Sequence[Fenceable]]:
    for first in range(0, len(tables), _AT_ONCE):
        yield tables[first : first + _AT_ONCE]


def _locked(
    conn: psycopg.Connection,
    statements: Sequence[sql.Composed],
    tables: Sequence[Fenceable],
    patience: float,
) -> None:
    if not briefly(conn, statements, _LOCK_MS, patience):
        raise fence.busy("target", [one.table for one in tables], patience)
