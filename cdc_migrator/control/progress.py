"""The stream's progress row: who owns it, and how far it is applied.

`advance` runs inside the transaction that writes the rows, so rows and progress commit
together. The epoch is the fencing token: whoever claims the stream raises it, and every
apply transaction compares it. `applies` numbers these transactions: it tells one that was
carried out from one that was not, also where it moves no position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from cdc_migrator.errors import Fenced, Refused
from cdc_migrator.model.tables import TableName

FORWARD = "forward"


@dataclass(frozen=True, slots=True)
class Progress:
    """One row of ``stream_progress``; positions as in `model.changes.Transaction`.

    `applies` counts the apply transactions; `applied_ahead` are the commit positions above
    `commit_position` whose transactions are applied all the same. While it is not `active` nothing
    is written: the other side was opened, on the way that `leg` counts. `changes_ignored`: what
    came over since. `topic_id`: which topic of this name; None where an earlier release made it.
    """

    stream: str
    topic: str
    partition: int
    generation: int
    next_offset: int
    commit_position: int
    source_committed_at: datetime | None
    applied_at: datetime | None
    transactions_applied: int
    transactions_redelivered: int
    transactions_suspect: int
    epoch: int
    owner: str | None
    applies: int
    applied_ahead: list[int]
    active: bool
    leg: int
    changes_ignored: int
    topic_id: str | None = None


@dataclass(frozen=True, slots=True)
class Advance:
    """What one apply transaction adds to the progress row; `ahead` as in `Progress`."""

    next_offset: int
    commit_position: int
    source_committed_at_us: int | None
    transactions: int = 0
    redelivered: int = 0
    suspect: int = 0
    ahead: Sequence[int] = ()


# Of one table: inserts, updates, deletes, truncates that the stream carried, and those of the
# truncates that were ignored.
Counts = tuple[int, int, int, int, int]


_COLUMNS = (
    "stream, topic, partition, generation, next_offset, commit_position, source_committed_at, "
    "applied_at, transactions_applied, transactions_redelivered, transactions_suspect, epoch, "
    "owner, applies, applied_ahead, active, leg, changes_ignored, "
    # Also read where an earlier release's row has no such column.
    "to_jsonb(stream_progress) ->> 'topic_id' AS topic_id"
)
_THIS_BACKEND = (
    "owner_backend = pg_backend_pid(), owner_backend_start = "
    "(SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())"
)
_SEEN = (
    "ON CONFLICT (stream) DO UPDATE "
    "SET epoch = excluded.epoch, seen_at = excluded.seen_at, sample = excluded.sample "
    "WHERE stream_owner_seen.epoch <= excluded.epoch"
)


def create(
    conn: psycopg.Connection,
    topic: str,
    generation: int,
    stream: str = FORWARD,
    commit_position: int = 0,
    topic_id: str | None = None,
) -> None:
    """Make the progress row of a new stream; does nothing if it is there.

    A row of an earlier generation goes on as that of this one: its counts, its leg and its epochs
    stay. `commit_position` is the slot's consistent point: what ends there or before is in the
    load. Epochs begin at the time of day, so that an owner from before an abort, of a stream with
    the same name, finds a newer one.
    """
    conn.execute(
        "INSERT INTO cdc_migrator.stream_progress AS p "
        "(stream, topic, generation, commit_position, topic_id, epoch) VALUES "
        "(%s, %s, %s, %s, %s, extract(epoch FROM clock_timestamp())::bigint) "
        "ON CONFLICT (stream) DO UPDATE SET topic = excluded.topic, "
        "generation = excluded.generation, next_offset = 0, topic_id = excluded.topic_id, "
        "commit_position = excluded.commit_position, applied_ahead = '{}', epoch = p.epoch + 1 "
        "WHERE p.generation < excluded.generation",
        (stream, topic, generation, commit_position, topic_id),
    )


def read(conn: psycopg.Connection, stream: str = FORWARD) -> Progress | None:
    """The progress row as committed, or None before the stream exists."""
    with conn.cursor(row_factory=class_row(Progress)) as cursor:
        return cursor.execute(
            f"SELECT {_COLUMNS} FROM cdc_migrator.stream_progress WHERE stream = %s",  # noqa: S608
            (stream,),
        ).fetchone()


def claim(
    conn: psycopg.Connection, owner: str, stream: str = FORWARD, stale_after: float = 15.0
) -> Progress | None:
    """Become the owner of a stream: raise its epoch and end the former owner's session.

    `conn` is the autocommit connection that will apply; its backend is recorded so that a
    later owner can end it, should this process be stopped in the middle of a transaction.
    Each statement is a transaction of its own: whoever is stopped here holds no lock. The epoch
    is compared each time, so of several that claim at once one wins, and keeps its session.

    Returns None while another owner has been seen within the last `stale_after` seconds, when
    another one claims the stream at this moment, or while capture begins anew.

    Raises:
        Refused: CDCM-STREAM-MISSING: there is no such stream yet.
    """
    found = _owner(conn, stale_after, stream)
    if found is None:
        raise Refused(
            "CDCM-STREAM-MISSING",
            f"there is no stream {stream!r} on this target yet",
            "Start it with `cdc-migrator migrate` (or `cdc-migrator capture start`).",
        )
    epoch, seen_lately = found
    if seen_lately:
        return None
    # The former owner may be stopped with a transaction open that holds the row's lock.
    _end_backend(conn, epoch, stream)
    with conn.cursor(row_factory=class_row(Progress)) as cursor:
        return cursor.execute(
            "WITH claimed AS (UPDATE cdc_migrator.stream_progress "  # noqa: S608
            f"SET epoch = epoch + 1, owner = %s, {_THIS_BACKEND} "
            "WHERE stream = %s AND epoch = %s "
            "AND NOT EXISTS (SELECT FROM cdc_migrator.table_progress WHERE keeps) "
            f"RETURNING {_COLUMNS}), "
            "said AS (INSERT INTO cdc_migrator.stream_owner_seen (stream, epoch, seen_at) "
            f"SELECT stream, epoch, clock_timestamp() FROM claimed {_SEEN}) "
            "SELECT * FROM claimed",
            (owner, stream, epoch),
        ).fetchone()


def reattach(conn: psycopg.Connection, epoch: int, stream: str = FORWARD) -> Progress:
    """Go on with a new session after the old one was lost, as the owner with this epoch.

    Ends the old session if the server still has it and waits for its transaction to end, so
    that the progress returned says for certain whether a COMMIT under way was carried out.

    Raises:
        Fenced: the stream has a newer epoch.
    """
    _end_backend(conn, epoch, stream)
    with conn.cursor(row_factory=class_row(Progress)) as cursor:
        mine = cursor.execute(
            f"UPDATE cdc_migrator.stream_progress SET {_THIS_BACKEND} "  # noqa: S608
            f"WHERE stream = %s AND epoch = %s RETURNING {_COLUMNS}",
            (stream, epoch),
        ).fetchone()
    if mine is None:
        raise Fenced("the stream was taken over by another process")
    return mine


def _end_backend(conn: psycopg.Connection, epoch: int, stream: str) -> None:
    """End the session of the owner with this epoch, unless it is this one; waits for its end."""
    conn.execute(
        "SELECT pg_terminate_backend(a.pid, 5000) FROM pg_stat_activity a "
        "JOIN cdc_migrator.stream_progress p ON a.pid = p.owner_backend "
        "AND a.backend_start = p.owner_backend_start "
        "WHERE p.stream = %s AND p.epoch = %s AND a.pid <> pg_backend_pid()",
        (stream, epoch),
    )


def seen(
    conn: psycopg.Connection, epoch: int, sample: dict[str, Any] | None, stream: str = FORWARD
) -> None:
    """Say that the owner with this epoch is alive, with its latest measurements.

    One statement on an autocommit connection: an owner that is stopped here leaves no lock
    behind that the next one would have to wait for.

    Raises:
        Fenced: the stream has a newer epoch.
    """
    said = conn.execute(
        "INSERT INTO cdc_migrator.stream_owner_seen (stream, epoch, seen_at, sample) "  # noqa: S608
        "SELECT stream, epoch, clock_timestamp(), %s FROM cdc_migrator.stream_progress "
        f"WHERE stream = %s AND epoch = %s {_SEEN}",
        (Jsonb(sample) if sample is not None else None, stream, epoch),
    ).rowcount
    if said != 1:
        raise Fenced("the stream was taken over by another process")


def alive(conn: psycopg.Connection, stale_after: float, stream: str = FORWARD) -> bool:
    """Whether an owner of the stream was seen within the last `stale_after` seconds."""
    found = _owner(conn, stale_after, stream)
    return found is not None and found[1]


def lag(conn: psycopg.Connection, stream: str = FORWARD) -> float | None:
    """Seconds by which whoever applies the stream is behind, or has been silent for; None where
    nobody does, or it is not known."""
    row = conn.execute(
        "SELECT greatest((sample ->> 'lag_seconds')::float8, "
        "extract(epoch FROM clock_timestamp() - seen_at)::float8) "
        "FROM cdc_migrator.stream_owner_seen WHERE stream = %s",
        (stream,),
    ).fetchone()
    return row[0] if row else None


def _owner(conn: psycopg.Connection, stale_after: float, stream: str) -> tuple[int, bool] | None:
    """(epoch, whether its owner was seen within `stale_after` seconds); None without a stream."""
    row = conn.execute(
        "SELECT p.epoch, s.seen_at > clock_timestamp() - make_interval(secs => %s) "
        "FROM cdc_migrator.stream_progress p LEFT JOIN cdc_migrator.stream_owner_seen s "
        "ON s.stream = p.stream AND s.epoch = p.epoch WHERE p.stream = %s",
        (stale_after, stream),
    ).fetchone()
    return None if row is None else (row[0], bool(row[1]))


def release(conn: psycopg.Connection, epoch: int, stream: str = FORWARD) -> None:
    """Give the stream up on an orderly stop, so that the next owner need not wait."""
    conn.execute(
        "DELETE FROM cdc_migrator.stream_owner_seen WHERE stream = %s AND epoch = %s",
        (stream, epoch),
    )


def advance(
    conn: psycopg.Connection,
    epoch: int,
    applies: int,
    offset: int,
    step: Advance,
    stream: str = FORWARD,
) -> bool:
    """Move the progress row inside the caller's open transaction: compare, then set.

    Returns whether the stream is active; if not, nothing may be written behind it.

    Call it first in the transaction: it takes the row's lock, so a fenced writer stops here
    before it touches a row.

    Args:
        applies, offset: number of apply transactions and `next_offset` before this one.

    Raises:
        Fenced: epoch, number or offset are no longer what this process believes.
    """
    moved = conn.execute(
        "UPDATE cdc_migrator.stream_progress SET next_offset = %s, commit_position = %s, "
        "source_committed_at = coalesce(to_timestamp(%s::float8 / 1000000), source_committed_at), "
        "applied_at = clock_timestamp(), transactions_applied = transactions_applied + %s, "
        "transactions_redelivered = transactions_redelivered + %s, "
        "transactions_suspect = transactions_suspect + %s, "
        "applies = applies + 1, applied_ahead = %s "
        "WHERE stream = %s AND epoch = %s AND applies = %s AND next_offset = %s RETURNING active",
        (
            step.next_offset,
            step.commit_position,
            step.source_committed_at_us,
            step.transactions,
            step.redelivered,
            step.suspect,
            list(step.ahead),
            stream,
            epoch,
            applies,
            offset,
        ),
    ).fetchone()
    if moved is None:
        raise Fenced("the stream's epoch or position was moved by another process")
    return bool(moved[0])


def stand(conn: psycopg.Connection, epoch: int, applies: int, stream: str = FORWARD) -> None:
    """Count an apply transaction that moves no position; otherwise as `advance`."""
    stood = conn.execute(
        "UPDATE cdc_migrator.stream_progress SET applies = applies + 1 "
        "WHERE stream = %s AND epoch = %s AND applies = %s",
        (stream, epoch, applies),
    ).rowcount
    if stood != 1:
        raise Fenced("the stream's epoch or position was moved by another process")


def count(conn: psycopg.Connection, tables: Mapping[TableName, Counts]) -> None:
    """Add to the tables' counts, in the transaction that applied their changes."""
    if tables:
        names, counts = list(tables), list(tables.values())
        conn.execute(
            "UPDATE cdc_migrator.table_progress t SET inserts = inserts + d.i, "
            "updates = updates + d.u, deletes = deletes + d.d, truncates = truncates + d.t, "
            "truncates_ignored = truncates_ignored + d.g "
            "FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], "
            "%s::bigint[], %s::bigint[]) AS d(s, n, i, u, d, t, g) "
            "WHERE t.source_schema = d.s AND t.source_table = d.n",
            (
                [name.schema for name in names],
                [name.name for name in names],
                *([of_table[k] for of_table in counts] for k in range(5)),
            ),
        )


def ignore(conn: psycopg.Connection, changes: int, stream: str = FORWARD) -> None:
    """Count changes that an inactive stream passes over, in the transaction that moves it."""
    if changes:
        conn.execute(
            "UPDATE cdc_migrator.stream_progress SET changes_ignored = changes_ignored + %s "
            "WHERE stream = %s",
            (changes, stream),
        )


def retire(conn: psycopg.Connection, stream: str = FORWARD) -> int:
    """Let the stream write nothing any more, in the caller's transaction; its next leg.

    Waits for the apply transaction under way: what that wrote is there, and nothing will be after.
    """
    row = conn.execute(
        "UPDATE cdc_migrator.stream_progress SET active = false, leg = leg + 1, "
        "changes_ignored = 0 WHERE stream = %s RETURNING leg",
        (stream,),
    ).fetchone()
    assert row is not None
    return int(row[0])


def activate(conn: psycopg.Connection, leg: int, stream: str = FORWARD) -> bool:
    """Let a retired stream write again from here on, in the caller's transaction, if this is its
    leg; whether it was retired until now."""
    return (
        conn.execute(
            "UPDATE cdc_migrator.stream_progress SET active = true "
            "WHERE stream = %s AND leg = %s AND NOT active",
            (stream, leg),
        ).rowcount
        == 1
    )


def passive(conn: psycopg.Connection, leg: int, stream: str = FORWARD) -> None:
    """Have a new stream write nothing before its leg is started, in the caller's transaction."""
    conn.execute(
        "UPDATE cdc_migrator.stream_progress SET active = false, leg = %s WHERE stream = %s",
        (leg, stream),
    )
