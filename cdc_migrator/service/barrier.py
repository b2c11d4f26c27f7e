"""Bring both sides to the same commit point and keep it: one snapshot on either, exported.

A snapshot of the source is taken first. If it sees all that was applied so far, the stream is led
to it: what it sees is applied, the rest is held back until a marker that was committed after it
comes by. There the target's snapshot is taken, and the stream goes on. A transaction can be in
the stream before a snapshot of its own server sees it; then another one is taken, at last with
the stream standing still.

See `apply.holding` for why this is exact, and docs/architecture.md for what was measured.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

import psycopg

from cdc_migrator.control import markers, proofs
from cdc_migrator.databases.postgres.coded import coded, speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.databases.postgres.exported import export
from cdc_migrator.errors import Failed, Fenced
from cdc_migrator.faultpoints import reach
from cdc_migrator.model.logins import Role, login
from cdc_migrator.model.positions import Snapshot
from cdc_migrator.service.writer import Writer

_TRIES = 3
_STILL_SECONDS = 5.0
_AGAIN_SECONDS = 0.005
_LONG_SECONDS = 0.1
_SLICE_SECONDS = 0.1


class Repairing(Protocol):
    """What to write at a point. The source's session reads under the point's snapshot."""

    def read(self, source: psycopg.Connection) -> None:
        """Read beforehand what is to be written, while the marker is on its way; once."""

    def write(self, source: psycopg.Connection, target: psycopg.Connection) -> None:
        """Write it; the target's transaction is open. Called again where an attempt has failed."""


@dataclass(slots=True)
class Point:
    """Both sides at one commit point, for as long as its two sessions live.

    Attributes:
        source_snapshot, target_snapshot: names for ``SET TRANSACTION SNAPSHOT``.
        sees: the source's snapshot as text.
        at: when it was taken.
        seconds: from the request to the point. held_seconds: for which changes were held back.
        retakes: snapshots that did not see all that was applied.
        still: whether the stream had to stand still for the last one.
    """

    source_snapshot: str
    target_snapshot: str
    sees: str
    at: datetime
    seconds: float
    held_seconds: float
    retakes: int
    still: bool
    sessions: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        """Give both snapshots up."""
        with suppress(psycopg.Error):
            self.sessions.close()


class Barriers:
    """Leads the stream to points; used by one thread.

    Args:
        stopping: nothing is waited for any longer once it is set.
        patience: seconds from the marker's commit to its arrival.
    """

    def __init__(
        self,
        source_dsn: Callable[[], str],
        target_dsn: Callable[[], str],
        migration: str,
        writer: Writer,
        stopping: threading.Event,
        patience: float = 60.0,
    ) -> None:
        self._source_dsn = source_dsn
        self._target_dsn = target_dsn
        self._migration = migration
        self._writer = writer
        self._stopping = stopping
        self._patience = patience
        # Transactions below this id may have been applied and forgotten; None: not known yet.
        self._forgotten_below: int | None = None
        self._forgotten = writer.forgotten

    def remember(self) -> None:
        """Learn from which transaction on all that are applied are known; then drop old ones.

        To be called soon after the start, and again now and then.
        """
        with (
            self._session("source", Role.VERIFY) as source,
            speaking("source", "reading its snapshot"),
        ):
            row = source.execute("SELECT pg_current_snapshot()::text").fetchone()
        assert row is not None
        with self._writer.turn():
            self._learn(Snapshot.parse(row[0]))

    def _learn(self, snapshot: Snapshot) -> int:
        """Drop what every later snapshot sees; below which id transactions are forgotten."""
        if self._forgotten_below is None or self._forgotten != self._writer.forgotten:
            self._forgotten = self._writer.forgotten
            self._forgotten_below = snapshot.xmax
        self._writer.forget(snapshot)
        return self._forgotten_below

    def reach(self, repair: Repairing | None = None) -> Point:
        """A new point; `repair` reads on the way there, and writes in a transaction of its own.

        Raises:
            Failed: CDCM-ALIGN-OPEN, -UNSEEN, -MARKER or -STOPPED, or a server's error.
        """
        began = time.monotonic()
        with ExitStack() as stack:
            sessions = stack.enter_context(ExitStack())
            source = sessions.enter_context(self._session("source", Role.VERIFY))
            target = sessions.enter_context(self._session("target", Role.APPLY))
            marking = self._session("source", Role.APPLY)
            markers = stack.enter_context(_Markers(marking, self._migration))
            arrived = _Arrival(source, target, self._writer, repair)
            with speaking("target", "reading which chunks are compared"):
                if proofs.unmarked(target):
                    with self._writer.turn():
                        self._writer.learn_chunks()
            taken = self._take(source, markers, arrived)
            try:
                reach("align.held")
                arrived.read()
                self._wait(arrived.done)
            finally:
                if not arrived.done.is_set():
                    with self._writer.turn():
                        if not arrived.done.is_set() and not self._stopping.is_set():
                            self._writer.let_go()
            if arrived.error is not None:
                raise arrived.error
            return Point(
                source_snapshot=taken.name,
                target_snapshot=arrived.snapshot,
                sees=taken.sees,
                at=taken.at,
                seconds=time.monotonic() - began,
                held_seconds=arrived.held_seconds,
                retakes=taken.retakes,
                still=taken.still,
                sessions=sessions.pop_all(),
            )

    def _take(self, source: psycopg.Connection, markers: _Markers, arrived: _Arrival) -> _Taken:
        """Take a snapshot that sees all that was applied, and begin to hold what it does not see.

        The marker is written before anything is held: where the stream was quicker, it is applied
        already, which the snapshot cannot see, and another one is taken.
        """
        deadline = time.monotonic() + self._patience
        tries = 0
        while tries < _TRIES:
            taken, snapshot = _snapshot(source, tries)
            token = markers.write()
            with self._writer.turn():
                known = snapshot.xmin >= self._learn(snapshot)
                if known and self._writer.all_visible(snapshot):
                    self._writer.hold(snapshot, token, arrived.arrive)
                    return taken
            if known:
                tries += 1
            elif time.monotonic() > deadline or self._stopping.wait(_LONG_SECONDS):
                raise Failed(
                    "CDCM-ALIGN-OPEN",
                    "a transaction has been open on the source since before the applier was "
                    "started, which does not know what it applied in its former life",
                    "Wait for it to end (the oldest xact_start in pg_stat_activity), then run "
                    "the same command again.",
                )
        began = time.monotonic()
        with self._writer.turn():
            while True:
                taken, snapshot = _snapshot(source, tries)
                if self._writer.all_visible(snapshot):
                    self._writer.hold(snapshot, markers.write(), arrived.arrive)
                    arrived.still_seconds = time.monotonic() - began
                    return replace(taken, still=True)
                tries += 1
                if time.monotonic() > began + _STILL_SECONDS or self._stopping.wait(_AGAIN_SECONDS):
                    raise Failed(
                        "CDCM-ALIGN-UNSEEN",
                        "a transaction that was applied is not visible on the source yet: its "
                        "commit waits there for a synchronous standby",
                        "See the source's standbys, then run the same command again.",
                    )

    def _wait(self, done: threading.Event) -> None:
        deadline = time.monotonic() + self._patience
        while not done.wait(_SLICE_SECONDS):
            if self._stopping.is_set():
                raise Failed(
                    "CDCM-ALIGN-STOPPED",
                    "the service is stopping",
                    "Start `cdc-migrator run` and run the same command again.",
                )
            if time.monotonic() > deadline:
                raise Failed(
                    "CDCM-ALIGN-MARKER",
                    f"a marker that was committed on the source did not arrive within "
                    f"{self._patience:g} s",
                    "See `cdc-migrator status`: the stream stands still or is far behind. Run the "
                    "same command again when its lag is small.",
                )

    def _session(self, side: str, role: Role) -> psycopg.Connection:
        dsn = self._source_dsn() if side == "source" else self._target_dsn()
        return connect(
            login(dsn, role),
            application_name="cdc-migrator align",
            side=side,
            settings={"transaction_timeout": "0"},
        )


class _Arrival:
    """What is done at the point, by the thread that brings the stream there."""

    def __init__(
        self,
        source: psycopg.Connection,
        target: psycopg.Connection,
        writer: Writer,
        repair: Repairing | None,
    ) -> None:
        self._source = source
        self._target = target
        self._writer = writer
        self._repair = repair
        # Set once that has been read; who brings the stream to the point waits for it there.
        self._read = threading.Event()
        self._unread: Exception | None = None
        self.done = threading.Event()
        self.error: Exception | None = None
        self.snapshot = ""
        self.still_seconds = 0.0
        self.held_seconds = 0.0

    def read(self) -> None:
        """Read what will be written; by the thread that waits for the point. Raises its errors."""
        try:
            if self._repair is not None:
                self._repair.read(self._source)
        except psycopg.Error as error:
            self._unread = coded(error, "source", "reading rows to be written anew")
            raise self._unread from error
        except Exception as error:
            self._unread = error
            raise
        finally:
            self._read.set()

    def arrive(self, held_since: float | None) -> None:
        """Repair, then take the target's snapshot; what fails here does not end the stream.

        Raises Fenced: then it does.
        """
        since = held_since or time.monotonic()
        try:
            reach("align.reached")
            if self._repair is not None:
                repair = self._repair
                self._read.wait()
                if self._unread is not None:
                    raise self._unread
                self._writer.at_barrier(lambda target: repair.write(self._source, target))
                reach("align.repaired")
            # What this snapshot shows can be proven; what comes after is to be marked again.
            self._writer.forget_marked()
            with speaking("target", "taking a snapshot"):
                _, self.snapshot = export(self._target)
            reach("align.taken")
        except Fenced as error:
            self.error = error
            raise
        except psycopg.Error as error:
            self.error = coded(error, "target", "repairing rows")
        except Exception as error:
            self.error = error
        finally:
            self.held_seconds = self.still_seconds + time.monotonic() - since
            self.done.set()


@dataclass(frozen=True, slots=True)
class _Taken:
    """A snapshot of the source: its text, its exported name, when, how many were given up."""

    sees: str
    name: str
    at: datetime
    retakes: int
    still: bool = False


class _Markers:
    """Writes markers, and removes them at the end."""

    def __init__(self, source: psycopg.Connection, migration: str) -> None:
        self._source = source
        self._migration = migration
        self._written: list[str] = []

    def __enter__(self) -> _Markers:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(psycopg.Error), self._source as source:
            source.execute(
                "DELETE FROM cdc_migrator.marker WHERE token = ANY (%s)", (self._written,)
            )

    def write(self) -> str:
        """Commit a new one; its token."""
        token = secrets.token_hex(16)
        with speaking("source", "writing a marker"):
            markers.write(self._source, self._migration, "barrier", token)
        self._written.append(token)
        reach("align.marked")
        return token


def _snapshot(source: psycopg.Connection, retakes: int) -> tuple[_Taken, Snapshot]:
    """Begin a new transaction in place of the one before."""
    with speaking("source", "taking a snapshot"):
        source.execute("ROLLBACK")
        text, name = export(source)
    return _Taken(text, name, datetime.now(UTC), retakes), Snapshot.parse(text)
