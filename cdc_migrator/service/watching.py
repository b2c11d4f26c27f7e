"""Beside the pipeline: watches the target once it is open, and goes back where a rule says so.

A rule that fires is written down with its numbers before anything is done. What it asks for is
done outside of any transaction; where that fails it is tried again, as long as the number is
beyond. While the target is not the open side nothing is measured. What fails here disturbs nobody,
and is unknown: it neither fires a rule nor clears it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import structlog

from cdc_migrator.control import watch
from cdc_migrator.control.watch import Firing, Opening
from cdc_migrator.databases.postgres.coded import coded
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import MigratorError, Refused, name_of
from cdc_migrator.model.logins import Role, login
from cdc_migrator.monitor.metrics import Metrics
from cdc_migrator.monitor.watch import Standing, State, decide
from cdc_migrator.service.beside import Beside
from cdc_migrator.service.measuring import Measuring, Taken, WatchOptions

_LIMITS = {"statement_timeout": "10s", "lock_timeout": "2s"}
_LEAST_PAUSE = 0.05

_log = structlog.get_logger("cdc_migrator.service")

RollBack = Callable[[Firing], None]


@dataclass(slots=True)
class _Watched:
    """What is remembered of one rule while the target is open."""

    standing: Standing
    firing: Firing | None = None
    told_unknown: bool = False


@dataclass(slots=True)
class _Turned:
    """Everything that belongs to one opening of the target. `rows`: what was shown last;
    `in_doubt`: what was written down last may be there or not."""

    attempt: int
    measuring: Measuring
    rules: dict[str, _Watched]
    rows: list[dict[str, Any]]
    in_doubt: bool = True


class Watching(Beside):
    """Watches until left. A context manager.

    Args:
        roll_back: goes back to the source; called once for a firing, and again on the next turn
            where it raised and the number is still beyond. None: there is no way back.
        metrics: where the numbers are shown.
    """

    def __init__(
        self, options: WatchOptions, roll_back: RollBack | None, metrics: Metrics | None = None
    ) -> None:
        super().__init__("watching")
        self._options = options
        self._roll_back = roll_back
        self._metrics = metrics
        self._conn: psycopg.Connection | None = None
        self._open: _Turned | None = None

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        there = self._open
        if there is not None:
            there.measuring.stop()
        self._thread.join()

    def _run(self) -> None:
        every = self._options.watch.every.total_seconds()
        try:
            while not self._stop.is_set():
                began = time.monotonic()
                try:
                    self._turn()
                except Exception as error:  # whoever does not watch says so, and goes on
                    code = name_of(error)
                    _log.warning("not-watched", code=code)
                    self._lost()
                self._stop.wait(max(every - (time.monotonic() - began), _LEAST_PAUSE))
        finally:
            self._disconnect()
            self._leave()

    def _turn(self) -> None:
        conn = self._target()
        opening = watch.opening(conn)
        if opening is None:
            self._leave()
            return
        there = self._open
        if there is None or there.attempt != opening.attempt:
            self._leave()
            there = self._open = self._enter(opening)
        if there.in_doubt:
            _recall(there, watch.unclear(conn, there.attempt))
        taken = there.measuring.take()
        at, now = time.monotonic(), datetime.now(UTC)
        settling = opening.seconds < self._options.watch.settle.total_seconds()
        rows = []
        for one in taken:
            known = there.rules[one.rule.called]
            if not settling and not self._stop.is_set():
                self._judge(conn, there.attempt, known, one, at)
            rows.append(_row(known, one, at, now))
        there.rows = rows
        self._show(conn, opening, settling, rows)
        for one in taken:
            self._act(conn, there.attempt, there.rules[one.rule.called])

    def _enter(self, opening: Opening) -> _Turned:
        at = time.monotonic()
        rules = {rule.called: _Watched(Standing(since=at)) for rule in self._options.watch.rules}
        _log.info("watching", attempt=opening.attempt, rules=list(rules))
        return _Turned(opening.attempt, Measuring(self._options), rules, [])

    def _judge(
        self, conn: psycopg.Connection, attempt: int, known: _Watched, one: Taken, at: float
    ) -> None:
        decision = decide(one.condition, known.standing, at, one.number)
        # Written down first: if that fails, the next turn decides again.
        if decision.fired:
            known.firing = self._fire(conn, attempt, one)
        elif decision.cleared and known.firing is not None:
            watch.clear(conn, known.firing)
            _log.info("watch-cleared", rule=one.rule.called)
            known.firing = None
        known.standing = decision.standing
        unknown = decision.standing.long_unknown(at, one.condition.lasting)
        if unknown and not known.told_unknown:
            _log.warning("watch-rule-unknown", rule=one.rule.called, why=one.why)
        known.told_unknown = unknown

    def _fire(self, conn: psycopg.Connection, attempt: int, one: Taken) -> Firing:
        rule, asked, number = one.rule, one.condition, one.number
        assert number is not None
        assert asked.threshold is not None
        firing = watch.fire(
            conn,
            attempt,
            rule.called,
            number,
            asked.threshold,
            asked.below,
            asked.lasting,
            rule.action,
            {"kind": rule.kind, **one.measured.evidence},
        )
        _log.warning(
            "watch-fired",
            rule=rule.called,
            number=number,
            threshold=asked.threshold,
            below=asked.below,
            for_seconds=asked.lasting,
            action=rule.action,
        )
        if self._metrics is not None:
            self._metrics.watch_fired(rule.called)
        return firing

    def _act(self, conn: psycopg.Connection, attempt: int, known: _Watched) -> None:
        """Do what a firing asks for, where that is not done and it still holds."""
        firing = known.firing
        holds = known.standing.state is State.FIRED and known.standing.beyond
        if firing is None or firing.acted_at is not None or not holds or self._stop.is_set():
            return
        # Another rule may have gone back already, or a person.
        opening = watch.opening(conn)
        if opening is None or opening.attempt != attempt:
            return
        _log.warning("watch-rolling-back", rule=firing.rule)
        error = self._try_to_roll_back(firing)
        if error is not None:
            _log.error("watch-not-rolled-back", rule=firing.rule, **error)
        known.firing = watch.acted(self._target(), firing, error)

    def _try_to_roll_back(self, firing: Firing) -> dict[str, Any] | None:
        """None where it is done, else why not."""
        try:
            if self._roll_back is None:
                raise Refused(
                    "CDCM-WATCH-NO-WAY-BACK",
                    f"the rule {firing.rule!r} asks to go back, and there is no way back",
                    "Look at the target yourself; with `action: alert` a rule only tells.",
                )
            self._roll_back(firing)
        except MigratorError as failed:
            return failed.as_dict()
        except psycopg.Error as failed:
            return coded(failed, "database", "going back").as_dict()
        except Exception as failed:  # it must be told, whatever it was
            return {"code": "CDCM-INTERNAL", "cause": f"an unexpected {type(failed).__name__}"}
        return None

    def _show(
        self,
        conn: psycopg.Connection,
        opening: Opening,
        settling: bool,
        rows: Sequence[dict[str, Any]],
    ) -> None:
        if self._metrics is not None:
            self._metrics.watched(rows)
        watch.show(
            conn,
            {
                "attempt": opening.attempt,
                "settling": settling,
                "every_seconds": self._options.watch.every.total_seconds(),
                "rules": list(rows),
            },
        )

    def _lost(self) -> None:
        """A turn has failed: nothing is known of the time until the next one."""
        self._disconnect()
        there = self._open
        if there is None:
            return
        there.in_doubt = True
        at = time.monotonic()
        for known in there.rules.values():
            if known.standing.unknown_since is None:
                known.standing = replace(known.standing, seen_at=None, unknown_since=at, since=at)
        if self._metrics is not None:
            blind = {"number": None, "threshold": None, "state": str(State.UNKNOWN)}
            self._metrics.watched([{**row, **blind} for row in there.rows])

    def _leave(self) -> None:
        """The target is not the open side any more."""
        if self._open is not None:
            self._open.measuring.close()
            self._open = None
        if self._metrics is not None:
            self._metrics.watched(())

    def _target(self) -> psycopg.Connection:
        if self._conn is None or self._conn.closed:
            self._conn = connect(
                login(self._options.target_dsn(), Role.APPLY),
                application_name=f"cdcm-{self._options.migration}-watch",
                side="target",
                settings=_LIMITS,
            )
        return self._conn

    def _disconnect(self) -> None:
        if self._conn is not None:
            with suppress(psycopg.Error):
                self._conn.close()
            self._conn = None


def _recall(there: _Turned, unclear: Mapping[str, Firing]) -> None:
    """Go by what is written down: another process may have watched, or an answer was lost."""
    for name, known in there.rules.items():
        known.firing = unclear.get(name)
        fired = known.firing is not None
        if known.standing.fired is not fired:
            known.standing = replace(known.standing, fired=fired, held=None)
    there.in_doubt = False


def _row(known: _Watched, one: Taken, at: float, now: datetime) -> dict[str, Any]:
    """How a rule stands, for people and programs."""
    standing, firing = known.standing, known.firing
    return {
        "rule": one.rule.called,
        "kind": one.rule.kind,
        "action": one.rule.action,
        "number": one.measured.number,
        "threshold": one.condition.threshold,
        "below": one.condition.below,
        "for_seconds": one.condition.lasting,
        "state": str(standing.state),
        "since": (now - timedelta(seconds=at - standing.since)).isoformat(),
        "long_unknown": known.told_unknown,
        "why": one.why,
        "fired_at": firing.at.isoformat() if firing else None,
        "acted": firing.acted_at is not None if firing else None,
        "error": firing.error if firing else None,
    }
