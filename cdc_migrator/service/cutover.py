"""Carry a cutover out, step by step, or go on with one whose process is gone.

Each state is written down before its work is begun. One process carries a cutover out: it holds a
lock on the target for as long as its session lives, and whoever comes after a dead one first ends
whatever that had left running on either server.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg

from cdc_migrator.control import cutover as rows
from cdc_migrator.control import migration, schema, within
from cdc_migrator.control.cutover import Attempt
from cdc_migrator.cutover.machine import BEYOND, ENDED, STALLED, Signal, State, after
from cdc_migrator.databases.postgres.coded import coded, speaking
from cdc_migrator.errors import Failed, MigratorError, Refused
from cdc_migrator.faultpoints import reach
from cdc_migrator.service.cutover_options import CutoverOptions
from cdc_migrator.service.cutover_sessions import Sessions
from cdc_migrator.service.cutover_steps import Steps

# For how long a process that is asked to stop is waited for, before its sessions are ended.
_ENDING_SECONDS = 5.0
# For how long a target is asked whether it was opened, and told that the attempt is undone.
_OPENED_SECONDS = 10.0
_TOLD_SECONDS = 3.0
# For how long the way back is waited for, where it is not yet where the target was opened.
_STARTED_SECONDS = 10.0
_LOOK_SECONDS = 0.1
_UNDO_TRIES = 3


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a cutover.

    Attributes:
        state: where it stands; one of `cutover.machine.ENDED`, or `SWITCHING` where the hooks
            failed after the target was opened.
        error: what it was undone for, or what stands against its end.
        resumed: another process had begun it.
        seconds: of each state that this process went through.
    """

    attempt: Attempt
    state: State
    error: dict[str, Any] | None
    resumed: bool
    seconds: dict[str, float] = field(default_factory=dict)


def cut_over(
    options: CutoverOptions,
    rehearsal: bool,
    tell: Callable[[str], None] = lambda _: None,
    stopping: threading.Event | None = None,
) -> Ended:
    """Leave the source for the target; or go on with, or undo, what a dead process has begun.

    Args:
        rehearsal: do everything short of opening the target, then undo it.
        stopping: undo as soon as it is set, as long as that is possible.

    Raises:
        Refused: CDCM-CUTOVER-OPEN: it was done before. CDCM-CUTOVER-RUNNING: another process is
            at it. CDCM-MIGRATION-MISSING, CDCM-WAY-BACK-NONE,
            CDCM-WAY-BACK-SAME-DATABASE.
        MigratorError: a server was away before anything was begun, or stays away: run it again.
    """
    with (
        _sessions(options) as sessions,
        Steps(options, sessions, tell) as steps,
    ):
        _require(sessions.control, options)
        sessions.alone()
        sessions.end_others()
        with speaking(options.entering, "reading the cutover's state"):
            attempt = rows.unfinished(sessions.control)
            resumed = attempt is not None
            if attempt is None:
                _require_begun(sessions, options)
                attempt = rows.begin(
                    sessions.control,
                    State.CHECKING,
                    secrets.token_hex(16),
                    rehearsal,
                    options.settings,
                )
        run = _Run(steps, sessions, options, attempt, tell, stopping or threading.Event(), resumed)
        return run.through()


def undo(options: CutoverOptions, tell: Callable[[str], None] = lambda _: None) -> Ended | None:
    """Stop the cutover that is under way, whoever carries it out, and undo it.

    Returns None where there is none. Raises as `cut_over`; Refused: CDCM-CUTOVER-OPEN: the target
    is open, so it can only be gone on with.
    """
    for again in range(_UNDO_TRIES, 0, -1):
        try:
            return _undo(options, tell)
        except Failed as error:
            # Somebody else (the service, say) undoes it as well, and took us for a dead process.
            if error.code != "CDCM-DB-LOST" or again == 1:
                raise
            tell("another process is at it, too")
    raise AssertionError


def _undo(options: CutoverOptions, tell: Callable[[str], None]) -> Ended | None:
    with (
        _sessions(options) as sessions,
        Steps(options, sessions, tell) as steps,
    ):
        _require(sessions.control, options)
        with speaking(options.entering, "asking the cutover to stop"):
            attempt = rows.unfinished(sessions.control)
            if attempt is None:
                return None
            rows.ask_to_stop(sessions.control, attempt.attempt)
        while not sessions.try_alone(_ENDING_SECONDS):
            tell("its process does not answer: ending its sessions")
            sessions.end_others()
        sessions.end_others()
        with speaking(options.entering, "reading the cutover's state"):
            found = rows.read(sessions.control, attempt.attempt)
        assert found is not None
        stopping = threading.Event()
        stopping.set()
        return _Run(steps, sessions, options, found, tell, stopping, True).through()


def _sessions(options: CutoverOptions) -> Sessions:
    called = (options.leaving, options.entering)
    return Sessions(options.name, options.source_dsn, options.target_dsn, called)


def _require(conn: psycopg.Connection, options: CutoverOptions) -> None:
    with speaking(options.entering, "reading the migration"):
        if options.back:
            within.require_apart(conn)
        if options.back and migration.find(conn, options.name) is None:
            raise Refused(
                "CDCM-WAY-BACK-NONE",
                "there is no way back: none was prepared before the target was opened",
                "`cdc-migrator way-back prepare` makes one, as long as the source is written to.",
            )
        migration.require(conn, options.name)
        schema.ensure(conn, "target")


def _require_begun(sessions: Sessions, options: CutoverOptions) -> None:
    """The side to be opened is the one that follows, not the one that is written to."""
    if not options.back:
        rows.require_not_open(sessions.control)
        return
    until = time.monotonic() + _STARTED_SECONDS
    while rows.opened(sessions.control):
        # The way back may just be coming to where the target was opened.
        if time.monotonic() > until or not rows.opened(sessions.source):
            raise Refused(
                "CDCM-ROLLBACK-NOT-OPEN",
                "applications write to the source: the target was not opened, or was left again",
                "`cdc-migrator cutover status` tells how things are.",
            )
        time.sleep(_LOOK_SECONDS)


class _Run:
    """One process's part of an attempt."""

    def __init__(
        self,
        steps: Steps,
        sessions: Sessions,
        options: CutoverOptions,
        attempt: Attempt,
        tell: Callable[[str], None],
        stopping: threading.Event,
        resumed: bool,
    ) -> None:
        self._steps = steps
        self._sessions = sessions
        self._options = options
        self._attempt = attempt
        self._tell = tell
        self._stopping = stopping
        self._resumed = resumed
        self._state = State(attempt.state)
        self._error = attempt.error
        # What is undone: the state in which it was given up.
        self._reached = State(attempt.details.get("undone_from", attempt.state))
        self._target_told = True
        self._seconds: dict[str, float] = {}

    def through(self) -> Ended:
        """Go on until it has ended, or cannot."""
        if self._resumed and self._state not in ENDED:
            self._tell(f"going on with attempt {self._attempt.attempt}, found {self._state}")
            self._go(self._found())
        while self._state not in ENDED:
            began = time.monotonic()
            self._tell(str(self._state))
            signal = self._work()
            self._seconds[self._state] = round(time.monotonic() - began, 4)
            if signal is None:
                break
            self._go(signal)
        now = (
            rows.read(self._sessions.control, self._attempt.attempt) if self._target_told else None
        )
        return Ended(
            now or self._attempt, self._state, self._error, self._resumed, dict(self._seconds)
        )

    def _found(self) -> Signal:
        """What a process that comes after a dead one makes of what it finds."""
        if self._attempt.opened_at is not None:
            return Signal.BROKEN
        if self._stopping.is_set():
            return Signal.LATE
        if self._state in STALLED and self._attempt.fenced_at is not None:
            row = self._sessions.control.execute(
                "SELECT extract(epoch FROM clock_timestamp() - fenced_at)::float8 "
                "FROM cdc_migrator.cutover WHERE attempt = %s",
                (self._attempt.attempt,),
            ).fetchone()
            assert row is not None
            self._steps.fenced_at = time.monotonic() - row[0]
            return Signal.BROKEN if row[0] < self._options.budget else Signal.LATE
        return Signal.BROKEN

    def _work(self) -> Signal | None:
        """Do what the state stands for; None: it cannot be done, and nothing follows by itself."""
        try:
            reach(f"cutover.{self._state}")
            signal = self._do()
            reach(f"cutover.{self._state}.done")
            return signal
        except MigratorError as error:
            return self._failed(error)
        except psycopg.Error as error:
            return self._failed(
                coded(error, self._options.entering, f"the cutover's step {self._state}")
            )

    def _do(self) -> Signal:
        steps, attempt = self._steps, self._attempt
        match self._state:
            case State.CHECKING:
                steps.check()
            case State.PREPARING:
                steps.prepare(attempt)
            case State.HOLDING:
                steps.hold(attempt)
            case State.FENCING:
                steps.raise_fence(attempt)
            case State.DRAINING:
                steps.drain(attempt, self._left())
            case State.VERIFYING:
                steps.verify(self._left())
            case State.SEQUENCES:
                steps.set_sequences()
                if attempt.rehearsal:
                    return Signal.REHEARSED
            case State.OPENING:
                self._left()
                steps.open_target(attempt)
            case State.SWITCHING:
                steps.switch(attempt)
            case State.UNDOING:
                steps.undo(attempt, self._reached, self._target_told)
                if attempt.rehearsal and self._error is None:
                    return Signal.REHEARSED
        return Signal.OK

    def _failed(self, error: MigratorError) -> Signal | None:
        self._tell(f"{self._state} failed: {error.cause}")
        if self._state in (State.UNDOING, State.SWITCHING):
            # Nothing else can follow; the same command goes on from here.
            self._error = error.as_dict()
            return None
        if self._state is State.OPENING and self._is_open(error):
            return Signal.OPENED
        self._error = error.as_dict()
        return Signal.FAILED

    def _is_open(self, error: MigratorError) -> bool:
        """Whether the commit that opens the target was carried out, although it was not told.

        Raises the error where the target does not say.
        """
        if error.code == rows.TAKEN:
            raise error
        try:
            self._sessions.reconnect("target", max(self._left_or(0.0), _OPENED_SECONDS))
            found = rows.read(self._sessions.control, self._attempt.attempt)
        except (MigratorError, psycopg.Error):
            raise error from None
        return found is not None and found.opened_at is not None

    def _go(self, signal: Signal) -> None:
        """Write the next state down. Raises MigratorError where nobody can tell any more."""
        follows = after(self._state, signal)
        if self._state is State.OPENING and signal in (Signal.OK, Signal.OPENED):
            self._state = follows  # written in the transaction that opened the target
            return
        details = dict(self._steps.details)
        if follows is State.UNDOING and self._state is not State.UNDOING:
            self._reached = self._state
            details["undone_from"] = self._state
        details["seconds"] = self._attempt.details.get("seconds", {}) | self._seconds
        if follows is self._state and signal is not Signal.BROKEN:
            return
        asked = False
        try:
            asked = self._write(follows, details)
        except MigratorError as error:
            if follows is not State.UNDOING or error.code == rows.TAKEN:
                raise
            # The target is lost: the source says by itself whether it may be lifted.
            self._target_told = False
            self._tell(f"the {self._options.entering} does not answer")
        self._state = follows
        if (asked or self._stopping.is_set()) and follows not in (State.UNDOING, *ENDED, *BEYOND):
            self._error = {
                "code": "CDCM-CUTOVER-STOPPED",
                "cause": "somebody asked it to stop",
                "remedy": f"Run `cdc-migrator {self._options.command}` again when it shall go on.",
            }
            self._go(Signal.FAILED)

    def _write(self, follows: State, details: dict[str, Any]) -> bool:
        """Write the next state down, on a new session where the old one was lost."""

        def enter() -> bool:
            return rows.enter(
                self._sessions.control,
                self._attempt.attempt,
                self._state,
                follows,
                details=details,
                error=self._error,
                fenced=follows is State.DRAINING,
                ended=follows in ENDED,
            )

        with speaking(self._options.entering, "writing the cutover's state down"):
            try:
                return enter()
            except psycopg.OperationalError:
                self._sessions.reconnect("target", _TOLD_SECONDS)
                found = rows.read(self._sessions.control, self._attempt.attempt)
                if found is not None and found.state == follows:
                    return "abort" in found.options  # its commit had been carried out
                return enter()

    def _left(self) -> float:
        """Seconds of the budget that are left. Raises Failed: CDCM-CUTOVER-BUDGET."""
        left = self._left_or(self._options.budget)
        if left <= 0:
            raise Failed(
                "CDCM-CUTOVER-BUDGET",
                f"the {self._options.leaving} was fenced for {self._options.budget:g} s, and the "
                f"{self._options.entering} is not open",
                f"`cdc-migrator {self._options.command} status` shows how long each step took. Try "
                "again, or give it more time (cutover.budget).",
            )
        return left

    def _left_or(self, otherwise: float) -> float:
        if self._steps.fenced_at is None:
            return otherwise
        return self._options.budget - (time.monotonic() - self._steps.fenced_at)
