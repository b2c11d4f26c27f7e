"""Gather what is known of a migration, from wherever it answers. Changes nothing.

Each side is asked under one snapshot; a question that fails becomes a note, the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

import psycopg

from cdc_migrator.control import backups, cutover, load, migration, proofs, reconcile, schema
from cdc_migrator.control.migration import Phase
from cdc_migrator.databases.postgres.coded import coded
from cdc_migrator.databases.postgres.connect import connect, describe_dsn
from cdc_migrator.errors import MigratorError, Refused
from cdc_migrator.model.logins import Role, login
from cdc_migrator.model.tables import TableName
from cdc_migrator.monitor.gates import gates
from cdc_migrator.monitor.limits import Limits
from cdc_migrator.monitor.sample import Note
from cdc_migrator.monitor.sampler import Sampler
from cdc_migrator.service import journal
from cdc_migrator.service.evidence import Back, Counted, Evidence, Said, Side
from cdc_migrator.service.inspection import InspectOptions, inspect
from cdc_migrator.service.journal import Journals

_SETTINGS = {"statement_timeout": "20s", "lock_timeout": "2s"}
_RUNS = 20

_DIFFERENCES = """
SELECT source_schema, source_table, state, count(*), max(last_seen)
FROM cdc_migrator.difference GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
_REPAIRS = """
SELECT source_schema, source_table, action, count(*), max(at)
FROM cdc_migrator.repair GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""

T = TypeVar("T")


def gather(
    where: Journals, said: Said, sampler: Sampler, limits: Limits, looking: InspectOptions
) -> Evidence:
    """Ask everybody; who does not answer becomes a note.

    Raises:
        Refused: CDCM-MIGRATION-MISSING, CDCM-TARGET-TAKEN.
    """
    notes: list[Note] = []
    sample = sampler.sample()
    if sample.phase is Phase.STREAM:
        try:
            parts = inspect(looking)
            sample = replace(sample, inspection={**(sample.inspection or {}), **parts})
        except MigratorError as error:
            notes.append(Note("inspection", error.code, error.cause))
    found = Evidence(
        at=datetime.now(UTC),
        name=where.name,
        said=said,
        source=Side("source", describe_dsn(where.source_dsn)),
        target=Side("target", describe_dsn(where.target_dsn)),
        sample=sample,
        gates=tuple(gates(sample, limits)),
    )
    found = _with_target(where, found, notes)
    found = _with_source(where, found, notes)
    return replace(found, notes=(*sample.notes, *notes))


class _Asking:
    """Questions to one side."""

    def __init__(self, conn: psycopg.Connection, side: str, notes: list[Note]) -> None:
        self.conn = conn
        self._side = side
        self._notes = notes

    def ask(self, what: str, question: Callable[[psycopg.Connection], T]) -> T | None:
        """The answer; None, with a note, where the server reports an error."""
        try:
            with self.conn.transaction():
                return question(self.conn)
        except psycopg.Error as error:
            told = coded(error, self._side, f"reading {what}")
            self._notes.append(Note(what, told.code, told.cause))
            return None

    def rows(
        self, what: str, table: str, question: Callable[[psycopg.Connection], Sequence[T]]
    ) -> tuple[T, ...] | None:
        """The same for rows; none where an earlier release has not made the table yet."""
        return self.ask(what, lambda c: tuple(question(c)) if schema.has(c, table) else ())

    def about(self, side: Side) -> Side:
        """What the server says of itself."""
        facts = self.ask("the server's version", _facts)
        if facts is not None:
            side = replace(side, version=facts[0], bytes=facts[1])
        route = self.ask("the route", _route)
        return replace(side, route=route)


@contextmanager
def _asking(where: Journals, side: str, notes: list[Note]) -> Iterator[_Asking]:
    called = f"cdcm-{where.name}-report"
    with connect(
        login(where.dsn(side), Role.MONITOR),
        application_name=called,
        side=side,
        read_only=True,
        settings=_SETTINGS,
    ) as conn:
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        try:
            with conn.transaction():
                yield _Asking(conn, side, notes)
        except psycopg.Error as error:
            raise coded(error, side, "reading what is known of the migration") from error


def _with_target(where: Journals, known: Evidence, notes: list[Note]) -> Evidence:
    try:
        with _asking(where, "target", notes) as asking:
            there = migration.require(asking.conn, where.name)
            history = asking.ask("the journal", lambda c: journal.of_side(c, where.name, "target"))
            return replace(
                known,
                migration=there,
                target=asking.about(known.target),
                tables=asking.rows("the tables", "table_progress", _tables),
                attempts=asking.rows("the cutovers", "cutover", cutover.every),
                journals=(history,) if history else (),
                unread=() if history else ("target",),
                proofs=asking.rows("what was proven", "reconcile_map", proofs.tables),
                differences=asking.rows(
                    "the differences", "difference", lambda c: _counted(c, _DIFFERENCES)
                ),
                repairs=asking.rows("the repairs", "repair", lambda c: _counted(c, _REPAIRS)),
                runs=asking.rows(
                    "the comparisons", "reconcile_run", lambda c: reconcile.runs(c, _RUNS)
                ),
                backups=asking.rows("the backups", "backup", backups.all),
            )
    except Refused as error:
        if error.code in ("CDCM-MIGRATION-MISSING", "CDCM-TARGET-TAKEN"):
            raise
        return _silent(known, "target", error, notes)
    except MigratorError as error:
        return _silent(known, "target", error, notes)


def _with_source(where: Journals, known: Evidence, notes: list[Note]) -> Evidence:
    try:
        with _asking(where, "source", notes) as asking:
            history = asking.ask(
                "the way back's journal", lambda c: (journal.of_side(c, where.name, "source"),)
            )
            known = replace(known, source=asking.about(known.source))
            if history is None:
                return replace(known, unread=(*known.unread, "source"))
            if history[0] is None:
                copy = asking.ask("the source's own state", lambda c: _copied(c, where.name))
                return replace(known, back=Back(False), copied=copy)
            attempts = asking.rows("the rollbacks", "cutover", cutover.every)
            return replace(
                known,
                journals=(*known.journals, history[0]),
                back=None if attempts is None else Back(True, attempts),
            )
    except MigratorError as error:
        return _silent(known, "source", error, notes)


def _silent(known: Evidence, side: str, error: MigratorError, notes: list[Note]) -> Evidence:
    notes.append(Note(side, error.code, error.cause))
    unread = (*known.unread, side)
    if side == "target":
        return replace(known, target=replace(known.target, silent=error.cause), unread=unread)
    return replace(known, source=replace(known.source, silent=error.cause), unread=unread)


def _facts(conn: psycopg.Connection) -> tuple[str, int]:
    row = conn.execute(
        "SELECT split_part(current_setting('server_version'), ' ', 1), "
        "pg_database_size(current_database())"
    ).fetchone()
    assert row is not None
    return str(row[0]), int(row[1])


def _tables(conn: psycopg.Connection) -> list[tuple[TableName, TableName]]:
    return [(one.source, one.target) for one in load.read_tables(conn)]


def _route(conn: psycopg.Connection) -> str | None:
    if not schema.has(conn, "route"):
        return None
    row = conn.execute("SELECT side FROM cdc_migrator.route LIMIT 1").fetchone()
    return str(row[0]) if row else None


def _copied(conn: psycopg.Connection, name: str) -> cutover.Copied | None:
    copy = cutover.read_copy(conn, name)
    return copy.state if copy else None


def _counted(conn: psycopg.Connection, query: str) -> list[Counted]:
    return [
        Counted(TableName(space, name), kind, count, at)
        for space, name, kind, count, at in conn.execute(query.encode())
    ]
