"""The shop's application: writers that work the whole time and count what they commit.

Every writer plays a shuffled deck of kinds, so that each kind comes round about once a second
however rare it is. A transaction that lost a race (serialization, deadlock, lock timeout) goes
to the bottom of the deck, and so does one that was refused, once its writer has asked where to go
(`following`). One that the database says no to for good is counted as failed, as a shop loses an
order, and the next customer comes. Any other error ends the workload, and so does a writer that
stops making progress: a demo whose application stands still proves nothing.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import psycopg

from cdc_migrator.demo import bulk, ledger
from cdc_migrator.demo.following import Follower
from cdc_migrator.demo.kinds import KINDS, Bounds, Kind, Pen, read_bounds
from cdc_migrator.demo.tally import Side, Summary, Tally, summarize
from cdc_migrator.errors import ConfigurationError, Failed

ALL_KINDS: tuple[str, ...] = (*KINDS, bulk.KIND)

_LOST_RACE = frozenset({"40001", "40P01", "55P03"})  # serialization, deadlock, lock timeout
_CANCELLED = "57014"
_SAID_NO = "P0001"  # RAISE EXCEPTION in a function of the database
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


class Workload:
    """Writers in threads of this process.

    A context manager that starts and stops them; leaving it raises what `check` would.

    Args:
        dsn: the source, where they begin.
        target: where they may be led to; without it a write that is refused is a failure.
    """

    def __init__(
        self, dsn: str, settings: Settings | None = None, target: str | None = None
    ) -> None:
        self._dsns: dict[Side, str] = {"source": dsn}
        if target is not None:
            self._dsns["target"] = target
        self._settings = settings or Settings()
        self._stop = threading.Event()
        self._failure: str | None = None
        self._threads: list[threading.Thread] = []
        self._followers: list[Follower] = []
        self._tallies: list[Tally] = []
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
            with psycopg.connect(self._dsns["source"]) as conn:
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
                    partial(self._write, bounds=bounds, cards=cards),
                    patience=settings.stall_seconds,
                    large=False,
                )
        if bulk.KIND in settings.kinds:
            self._spawn(
                settings.writers,
                self._write_bulk,
                patience=settings.stall_seconds + settings.bulk_seconds + settings.bulk_every,
                large=True,
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
            for follower in self._followers:
                with contextlib.suppress(psycopg.Error):  # it is closed already
                    follower.conn.cancel_safe(timeout=_GRACE_SECONDS)
            alive[0].join(_CANCEL_SECONDS)
        if self._summary is None:
            wall, cpu = self._started
            self._summary = summarize(
                self._tallies,
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
        for tally in self._tallies:
            idle = now - tally.progressed_at > tally.patience
            if idle and self._summary is None and self._failure is None:
                self._failure = (
                    f"writer {tally.writer} committed nothing for {tally.patience:.0f} s"
                )
        if self._failure is not None:
            self._stop.set()
            raise _failed(self._failure)

    def _spawn(
        self, number: int, body: Callable[[Follower, Tally], None], patience: float, large: bool
    ) -> None:
        tally = Tally(number, large, patience)

        def work() -> None:
            name = f"cdc-migrator-demo writer {number}"
            try:
                with Follower(self._dsns, name, self._stop) as follower:
                    self._followers.append(follower)
                    body(follower, tally)
            except Exception as error:
                self._failure = self._failure or f"writer {number}: {_describe(error)}"
                self._stop.set()

        self._tallies.append(tally)
        self._threads.append(threading.Thread(target=work, name=f"writer-{number}", daemon=True))
        self._threads[-1].start()

    def _write(
        self, follower: Follower, tally: Tally, *, bounds: Bounds, cards: list[Kind]
    ) -> None:
        settings = self._settings
        chance = random.Random(f"{settings.seed}/{tally.writer}")
        deck: list[Kind] = []
        gap = settings.writers / settings.rate
        due = time.monotonic() + chance.random() * gap
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            if not deck:
                deck = chance.sample(cards, len(cards))
            kind = deck.pop()
            run = partial(kind.run, Pen(follower.conn, chance, bounds))
            if not self._play(follower, tally, kind.name, run) and deck:
                # Once more, at the end: a kind that cannot go on at all (a lock that a long
                # snapshot holds) must not keep the writer from everything else.
                deck.insert(0, kind)
            # After a wait for a lock go on at the same pace: no burst to make up for it.
            due = max(due + gap, time.monotonic() - gap)

    def _write_bulk(self, follower: Follower, tally: Tally) -> None:
        settings = self._settings
        sizes = (settings.bulk_rows, settings.bulk_seconds, settings.bulk_keys)
        while not self._stop.is_set():
            began = time.monotonic()
            run = partial(bulk.run, follower.conn, *sizes, self._stop.wait)
            if self._play(follower, tally, bulk.KIND, run):
                self._stop.wait(max(0.0, began + settings.bulk_every - time.monotonic()))

    def _play(self, follower: Follower, tally: Tally, kind: str, run: Callable[[], bool]) -> bool:
        """Make one transaction; whether it is done with: its commit was acknowledged, or it failed
        for good."""
        conn, committing = follower.conn, False
        try:
            if not run():
                conn.rollback()
                tally.missed[kind] += 1
                return False
            ledger.record(conn, tally.writer, kind)
            committing = True
            conn.commit()
        except psycopg.Error as error:
            if committing and conn.closed:
                tally.lose(kind)
            self._excuse(error, follower, tally)
            if error.sqlstate != _SAID_NO:
                return False
            tally.failed[kind] += 1
            return True
        tally.commit(kind, follower.side)
        return True

    def _excuse(self, error: psycopg.Error, follower: Follower, tally: Tally) -> None:
        """Roll back and count a transaction that lost a race, failed, was refused or was stopped.

        Who was refused asks where to go. Re-raises everything else.
        """
        state = error.sqlstate or ""
        if follower.sends_elsewhere(error):
            tally.refuse()
            follower.follow()
        elif state in (*_LOST_RACE, _SAID_NO) or (state == _CANCELLED and self._stop.is_set()):
            follower.conn.rollback()
        else:
            raise error
        tally.retried[state or "connection lost"] += 1


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
