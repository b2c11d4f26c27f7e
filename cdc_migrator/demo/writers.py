"""The shop's application: writers that work the whole time and count what they commit.

Every writer plays a shuffled deck of kinds, so that each kind comes round about once a second
however rare it is. A transaction that lost a race (serialization, deadlock, lock timeout) goes
to the bottom of the deck; any other error ends the workload, and so does a writer that stops making
progress: a demo whose application stands still proves nothing.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import psycopg

from cdc_migrator.demo import bulk, ledger
from cdc_migrator.demo.kinds import KINDS, Bounds, Kind, Pen, read_bounds
from cdc_migrator.errors import ConfigurationError, Failed

ALL_KINDS: tuple[str, ...] = (*KINDS, bulk.KIND)

_LOST_RACE = frozenset({"40001", "40P01", "55P03"})  # serialization, deadlock, lock timeout
_CANCELLED = "57014"
_GRACE_SECONDS = 1.0  # for an open transaction to finish after a stop; then it is cancelled
_CANCEL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Settings:
    """How the application behaves.

    Attributes:
        writers: connections that make the small transactions.
        rate: small transactions a second that all writers together aim at.
        kinds: the kinds to make; ``bulk`` is made by a connection of its own.
        seed: of the choice of kinds and rows; concurrency makes runs differ all the same.
        bulk_rows, bulk_seconds, bulk_every: size of the large transactions in rows, how long
            each stays open, and how long it is from the start of one to the start of the next.
        bulk_keys: one line in so many, of those that a large transaction finds, gets a new key.
            The connector writes each as two events, and one that dies between them never sends
            the second: many of them make that likely.
        stall_seconds: a writer without a commit for so long has failed.
    """

    writers: int = 4
    rate: float = 300.0
    kinds: tuple[str, ...] = ALL_KINDS
    seed: int = 1
    bulk_rows: int = 4000
    bulk_seconds: float = 1.0
    bulk_every: float = 3.0
    bulk_keys: int = 500
    stall_seconds: float = 30.0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.kinds) - set(ALL_KINDS))
        if unknown or not self.kinds:
            raise ConfigurationError(
                "CDCM-DEMO-KIND-UNKNOWN",
                f"no such kind of transaction: {', '.join(unknown) or 'none given'}",
                f"Choose from: {', '.join(ALL_KINDS)}.",
            )


@dataclass(frozen=True, slots=True)
class Summary:
    """What the writers did.

    Attributes:
        committed: transactions by kind; agrees with the ledger.
        retried: transactions that lost a race, by SQLSTATE.
        missed: tries that found no suitable row, by kind.
        seconds: from start to stop.
        cpu_seconds: used by this process meanwhile.
        failure: why the workload ended by itself, without any value of a row, or None.
    """

    committed: dict[str, int]
    retried: dict[str, int]
    missed: dict[str, int]
    seconds: float
    cpu_seconds: float
    failure: str | None

    @property
    def per_second(self) -> float:
        """Committed transactions a second."""
        return sum(self.committed.values()) / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"per_second": round(self.per_second, 1)}


@dataclass(slots=True)
class _Tally:
    """What one writer did; only its own thread writes here.

    `patience` is how many seconds may pass between two commits.
    """

    patience: float
    committed: Counter[str] = field(default_factory=Counter)
    retried: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    progressed_at: float = field(default_factory=time.monotonic)

    def commit(self, kind: str) -> None:
        self.committed[kind] += 1
        self.progressed_at = time.monotonic()


class Workload:
    """Writers in threads of this process.

    A context manager that starts and stops them; leaving it raises what `check` would.
    """

    def __init__(self, dsn: str, settings: Settings | None = None) -> None:
        self._dsn = dsn
        self._settings = settings or Settings()
        self._stop = threading.Event()
        self._failure: str | None = None
        self._threads: list[threading.Thread] = []
        self._connections: list[psycopg.Connection] = []
        self._tallies: list[_Tally] = []
        self._started = (0.0, 0.0)
        self._summary: Summary | None = None

    def __enter__(self) -> Workload:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop()
        if kind is None:
            self.check()

    def start(self) -> None:
        """Begin; raises Failed (CDCM-DEMO-WORKLOAD) where there is no shop to work in."""
        try:
            with psycopg.connect(self._dsn) as conn:
                bounds = read_bounds(conn)
        except (psycopg.Error, ValueError) as error:
            self._failure = f"the shop cannot be read: {_describe(error)}"
            raise _failed(self._failure) from error
        self._started = (time.monotonic(), time.process_time())
        settings = self._settings
        for number in range(settings.writers):
            if cards := _cards(settings, number):
                self._spawn(
                    number,
                    partial(self._write, number=number, bounds=bounds, cards=cards),
                    patience=settings.stall_seconds,
                )
        if bulk.KIND in settings.kinds:
            self._spawn(
                settings.writers,
                self._write_bulk,
                patience=settings.stall_seconds + settings.bulk_seconds + settings.bulk_every,
            )

    def stop(self) -> Summary:
        """Let the open transactions finish, then say what was done; repeatable.

        A transaction that waits for a lock for longer than a second is cancelled instead.
        """
        self._stop.set()
        patient_until = time.monotonic() + _GRACE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, patient_until - time.monotonic()))
        while alive := [thread for thread in self._threads if thread.is_alive()]:
            for connection in self._connections:
                with contextlib.suppress(psycopg.Error):  # it is closed already
                    connection.cancel_safe(timeout=_GRACE_SECONDS)
            alive[0].join(_CANCEL_SECONDS)
        if self._summary is None:
            wall, cpu = self._started
            self._summary = Summary(
                committed=self._total(lambda t: t.committed),
                retried=self._total(lambda t: t.retried),
                missed=self._total(lambda t: t.missed),
                seconds=time.monotonic() - wall,
                cpu_seconds=time.process_time() - cpu,
                failure=self._failure,
            )
        return self._summary

    @property
    def failed(self) -> bool:
        """Whether a writer has failed; the others stop then."""
        return self._failure is not None

    def check(self) -> None:
        """Raise Failed (CDCM-DEMO-WORKLOAD) if a writer has failed or stands still."""
        now = time.monotonic()
        for number, tally in enumerate(self._tallies):
            idle = now - tally.progressed_at > tally.patience
            if idle and self._summary is None and self._failure is None:
                self._failure = f"writer {number} committed nothing for {tally.patience:.0f} s"
        if self._failure is not None:
            self._stop.set()
            raise _failed(self._failure)

    def _total(self, part: Callable[[_Tally], Counter[str]]) -> dict[str, int]:
        return dict(sorted(sum((part(t) for t in self._tallies), Counter[str]()).items()))

    def _spawn(
        self,
        number: int,
        body: Callable[[psycopg.Connection, _Tally], None],
        patience: float,
    ) -> None:
        tally = _Tally(patience)

        def work() -> None:
            name = f"cdc-migrator-demo writer {number}"
            try:
                with psycopg.connect(self._dsn, application_name=name) as conn:
                    self._connections.append(conn)
                    body(conn, tally)
            except Exception as error:
                self._failure = self._failure or f"writer {number}: {_describe(error)}"
                self._stop.set()

        self._tallies.append(tally)
        self._threads.append(threading.Thread(target=work, name=f"writer-{number}", daemon=True))
        self._threads[-1].start()

    def _write(
        self,
        conn: psycopg.Connection,
        tally: _Tally,
        *,
        number: int,
        bounds: Bounds,
        cards: list[Kind],
    ) -> None:
        settings = self._settings
        chance = random.Random(f"{settings.seed}/{number}")
        pen = Pen(conn, chance, bounds)
        deck: list[Kind] = []
        gap = settings.writers / settings.rate
        due = time.monotonic() + chance.random() * gap
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            if not deck:
                deck = chance.sample(cards, len(cards))
            kind = deck.pop()
            if not self._play(pen, kind, number, tally) and deck:
                # Once more, at the end: a kind that cannot go on at all (a lock that a long
                # snapshot holds) must not keep the writer from everything else.
                deck.insert(0, kind)
            # After a wait for a lock go on at the same pace: no burst to make up for it.
            due = max(due + gap, time.monotonic() - gap)

    def _play(self, pen: Pen, kind: Kind, number: int, tally: _Tally) -> bool:
        try:
            if not kind.run(pen):
                pen.conn.rollback()
                tally.missed[kind.name] += 1
                return False
            ledger.record(pen.conn, number, kind.name)
            pen.conn.commit()
        except psycopg.Error as error:
            self._excuse(error, pen.conn, tally)
            return False
        tally.commit(kind.name)
        return True

    def _excuse(self, error: psycopg.Error, conn: psycopg.Connection, tally: _Tally) -> None:
        """Roll back and count a transaction that lost a race or was stopped; re-raise the rest."""
        state = error.sqlstate
        if state is None or not (
            state in _LOST_RACE or (state == _CANCELLED and self._stop.is_set())
        ):
            raise error
        conn.rollback()
        tally.retried[state] += 1

    def _write_bulk(self, conn: psycopg.Connection, tally: _Tally) -> None:
        settings = self._settings
        number = settings.writers
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                bulk.run(
                    conn,
                    number,
                    settings.bulk_rows,
                    settings.bulk_seconds,
                    settings.bulk_keys,
                    self._stop.wait,
                )
                tally.commit(bulk.KIND)
            except psycopg.Error as error:
                self._excuse(error, conn, tally)
            self._stop.wait(max(0.0, began + settings.bulk_every - time.monotonic()))


def _cards(settings: Settings, number: int) -> list[Kind]:
    return [
        kind
        for kind in KINDS.values()
        if kind.name in settings.kinds and (number == 0 or not kind.single)
        for _ in range(kind.cards)
    ]


def _describe(error: Exception) -> str:
    # Not its message: that of a database error may quote a row.
    state = getattr(error, "sqlstate", None)
    return type(error).__name__ + (f" (SQLSTATE {state})" if state else "")


def _failed(reason: str) -> Failed:
    return Failed(
        "CDCM-DEMO-WORKLOAD",
        f"the shop's application stopped: {reason}",
        "Look at the locks and the log of the source database.",
    )
