"""The attempts to leave the source: one row each on the target, and the source's own copy.

The row's state is written, with its journal entry, before what it stands for is begun. The copy
says on the source, in the very transaction that raises or lifts its fence, how far things are;
who lifts the fence and who is about to open the target compare and set it, so only one of them can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from cdc_migrator.control import journal, schema, within
from cdc_migrator.errors import Failed, Refused
from cdc_migrator.model.tables import TableName


@dataclass(frozen=True, slots=True)
class Attempt:
    """One row of ``cutover``.

    Attributes:
        leg: the way between the two sides that it ends, from 1.
        marker: token of its fence's marker; the one of lifting it ends in ``-lifted``.
        options: what it was asked for; `abort` in it: somebody asks it to stop.
        details: what it found and did, and the seconds of each step.
        error: what it was undone for.
    """

    attempt: int
    leg: int
    rehearsal: bool
    state: str
    marker: str
    options: dict[str, Any]
    details: dict[str, Any]
    error: dict[str, Any] | None
    actor: str
    started_at: datetime
    fenced_at: datetime | None
    opened_at: datetime | None
    ended_at: datetime | None

    @property
    def lifted_marker(self) -> str:
        return f"{self.marker}-lifted"

    @property
    def start_marker(self) -> str:
        """Token of what tells the other way that it counts from here on."""
        return f"{self.marker}-start"

    def facts(self) -> dict[str, Any]:
        """What every document says of an attempt first."""
        return {
            "attempt": self.attempt,
            "leg": self.leg,
            "rehearsal": self.rehearsal,
            "state": self.state,
            "by": self.actor,
            "started_at": self.started_at,
            "fenced_at": self.fenced_at,
            "opened_at": self.opened_at,
            "ended_at": self.ended_at,
        }


_COLUMNS = (
    "attempt, leg, rehearsal, state, marker, options, details, error, actor, started_at, "
    "fenced_at, opened_at, ended_at"
)


TAKEN = "CDCM-CUTOVER-TAKEN"


def taken() -> Failed:
    """What a process is told that was held up while another one went on."""
    return Failed(
        "CDCM-CUTOVER-TAKEN",
        "another process has gone on with this cutover",
        "See `cdc-migrator cutover status`.",
    )


def begin(
    conn: psycopg.Connection, state: str, marker: str, rehearsal: bool, options: dict[str, Any]
) -> Attempt:
    """Make the row of a new attempt, where none is open."""
    with conn.transaction():
        row = conn.execute(
            "INSERT INTO cdc_migrator.cutover (leg, rehearsal, state, marker, options, actor) "
            "SELECT leg, %s, %s, %s, %s, %s FROM cdc_migrator.stream_progress "
            "WHERE stream = 'forward' RETURNING attempt",
            (rehearsal, state, marker, Jsonb(options), journal.actor()),
        ).fetchone()
        assert row is not None
        journal.write(conn, "cutover-begun", attempt=row[0], rehearsal=rehearsal, **options)
    attempt = read(conn, int(row[0]))
    assert attempt is not None
    return attempt


def read(conn: psycopg.Connection, attempt: int) -> Attempt | None:
    """One attempt."""
    return _one(conn, "WHERE attempt = %s", attempt)


def every(conn: psycopg.Connection) -> list[Attempt]:
    """All attempts, in their order."""
    with conn.cursor(row_factory=class_row(Attempt)) as cursor:
        return cursor.execute(
            f"SELECT {_COLUMNS} FROM cdc_migrator.cutover ORDER BY attempt"  # noqa: S608
        ).fetchall()


def unfinished(conn: psycopg.Connection) -> Attempt | None:
    """The attempt that has not ended, if there is one."""
    return _one(conn, "WHERE ended_at IS NULL")


def latest(conn: psycopg.Connection) -> Attempt | None:
    """The last attempt, whatever became of it."""
    return _one(conn, "ORDER BY attempt DESC LIMIT 1")


def opened(conn: psycopg.Connection) -> bool:
    """Whether the target was opened, and nobody has gone back."""
    row = conn.execute(
        "SELECT NOT active FROM cdc_migrator.stream_progress WHERE stream = 'forward'"
    ).fetchone()
    return row == (True,)


def strays(conn: psycopg.Connection) -> int | None:
    """Changes that applications wrote on the source after the target was opened.

    None before, and where there is a way back: that writes there, and nobody else as long as the
    fence is up. Inside one database there is none.
    """
    row = conn.execute(
        "SELECT changes_ignored FROM cdc_migrator.stream_progress "
        "WHERE stream = 'forward' AND NOT active"
    ).fetchone()
    back = schema.exists(conn, "source") and not within.both_sides(conn)
    return int(row[0]) if row and not back else None


def require_not_open(conn: psycopg.Connection) -> None:
    """Refuse what would make the target what the source is, once it is on its own.

    Raises Refused: CDCM-CUTOVER-OPEN.
    """
    if opened(conn):
        raise Refused(
            "CDCM-CUTOVER-OPEN",
            "the target was opened: applications write there, and the source is no measure for it",
            "`cdc-migrator cutover status` tells when and by whom.",
        )


def rehearsed(conn: psycopg.Connection) -> Attempt | None:
    """The last rehearsal that went through."""
    return _one(conn, "WHERE rehearsal AND state = 'rehearsed' ORDER BY attempt DESC LIMIT 1")


def enter(
    conn: psycopg.Connection,
    attempt: int,
    before: str,
    state: str,
    *,
    details: dict[str, Any] | None = None,
    error: dict[str, Any] | None = None,
    fenced: bool = False,
    opened: bool = False,
    ended: bool = False,
) -> bool:
    """Go from one state to the next, with a journal entry, in one transaction (the caller's, if
    one is open).

    Returns whether somebody has asked the attempt to stop.

    Raises Failed: CDCM-CUTOVER-TAKEN: it is in another state by now.
    """
    with conn.transaction():
        row = conn.execute(
            "UPDATE cdc_migrator.cutover SET state = %s, details = details || %s, "
            "error = coalesce(%s, error), "
            "fenced_at = CASE WHEN %s THEN coalesce(fenced_at, clock_timestamp()) "
            "ELSE fenced_at END, "
            "opened_at = CASE WHEN %s THEN clock_timestamp() ELSE opened_at END, "
            "ended_at = CASE WHEN %s THEN clock_timestamp() ELSE ended_at END "
            "WHERE attempt = %s AND state = %s RETURNING options ? 'abort'",
            (
                state,
                Jsonb(details or {}),
                Jsonb(error) if error else None,
                fenced,
                opened,
                ended,
                attempt,
                before,
            ),
        ).fetchone()
        if row is None:
            raise taken()
        told = {"error": error} if error else {}
        journal.write(conn, "cutover-state", attempt=attempt, state=state, **told)
    return bool(row[0])


def ask_to_stop(conn: psycopg.Connection, attempt: int) -> None:
    """Ask whoever carries the attempt out to stop and undo."""
    # The row first, as in `enter`: both then wait for the journal in one order.
    with conn.transaction():
        conn.execute(
            "UPDATE cdc_migrator.cutover SET options = options || '{\"abort\": true}' "
            "WHERE attempt = %s AND ended_at IS NULL",
            (attempt,),
        )
        journal.write(conn, "cutover-abort-asked", attempt=attempt)


def _one(conn: psycopg.Connection, which: str, *values: Any) -> Attempt | None:
    with conn.cursor(row_factory=class_row(Attempt)) as cursor:
        return cursor.execute(
            f"SELECT {_COLUMNS} FROM cdc_migrator.cutover {which}".encode(),  # noqa: S608
            values,
        ).fetchone()


class Copied(StrEnum):
    """The source's own state: its fence is up; the target may be open; the fence was lifted."""

    FENCED = "fenced"
    OPENING = "opening"
    LIFTED = "lifted"


@dataclass(frozen=True, slots=True)
class Copy:
    """What the source knows by itself. `target` says how that server is known again."""

    migration: str
    attempt: int
    state: Copied
    marker: str
    tables: tuple[TableName, ...]
    target: dict[str, Any]
    actor: str
    changed_at: datetime


def copy_fenced(
    migration: str, attempt: Attempt, tables: Sequence[TableName], target: dict[str, Any]
) -> sql.Composed:
    """To be run in the transaction that raises the source's fence."""
    return sql.SQL(
        "INSERT INTO cdc_migrator.cutover_copy "
        "(migration, attempt, state, marker, tables, target, actor) "
        "VALUES ({}, {}, 'fenced', {}, {}, {}, {}) ON CONFLICT (migration) DO UPDATE SET "
        "attempt = excluded.attempt, state = excluded.state, marker = excluded.marker, "
        "tables = excluded.tables, target = excluded.target, actor = excluded.actor, "
        "changed_at = clock_timestamp()"
    ).format(
        migration,
        attempt.attempt,
        attempt.marker,
        Jsonb([[table.schema, table.name] for table in tables]),
        Jsonb(target),
        journal.actor(),
    )


def give_up(
    source: psycopg.Connection, migration: str, attempt: int, opening_too: bool
) -> Copied | None:
    """Say on the source that its fence will be lifted: from then on nobody opens the target.

    Args:
        opening_too: also where somebody was about to open the target, who has not and will not.

    Returns:
        The source's state now; None where this attempt has never fenced it.

    Raises Failed: CDCM-CUTOVER-TAKEN: a later attempt has.
    """
    source.execute(
        "UPDATE cdc_migrator.cutover_copy SET state = 'lifted', actor = %s, "
        "changed_at = clock_timestamp() WHERE migration = %s AND attempt = %s "
        "AND state = ANY (%s)",
        (journal.actor(), migration, attempt, ["fenced", *(["opening"] if opening_too else [])]),
    )
    there = read_copy(source, migration)
    if there is not None and there.attempt > attempt:
        raise taken()
    return there.state if there is not None and there.attempt == attempt else None


def about_to_open(source: psycopg.Connection, migration: str, attempt: int) -> bool:
    """Say on the source that the target may be open from now on; False if its fence was lifted."""
    row = source.execute(
        "UPDATE cdc_migrator.cutover_copy SET state = 'opening', changed_at = clock_timestamp() "
        "WHERE migration = %s AND attempt = %s AND state IN ('fenced', 'opening') RETURNING true",
        (migration, attempt),
    ).fetchone()
    return row is not None


def read_copy(source: psycopg.Connection, migration: str) -> Copy | None:
    """The source's own state of the last attempt that fenced it; None where none ever has."""
    if not schema.has(source, "cutover_copy"):
        return None
    row = source.execute(
        "SELECT attempt, state, marker, tables, target, actor, changed_at "
        "FROM cdc_migrator.cutover_copy WHERE migration = %s",
        (migration,),
    ).fetchone()
    if row is None:
        return None
    attempt, state, marker, tables, target, actor, changed_at = row
    return Copy(
        migration,
        attempt,
        Copied(state),
        marker,
        tuple(TableName(*table) for table in tables),
        target,
        actor,
        changed_at,
    )
