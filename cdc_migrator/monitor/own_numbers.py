"""The numbers that rules measure by themselves, all from one look at either side.

The way back lives in the source's control schema as the migration lives in the target's. Where
it was not prepared nothing is known of its lag, and of the source the fence alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import psycopg

from cdc_migrator.control import load, migration, progress, relations, schema, watch, within
from cdc_migrator.control.watch import Baseline
from cdc_migrator.databases.postgres import fence
from cdc_migrator.databases.postgres.fence import Guard, State
from cdc_migrator.errors import MigratorError
from cdc_migrator.model.tables import TableName
from cdc_migrator.monitor import baseline, traffic
from cdc_migrator.monitor.lag import lag_seconds
from cdc_migrator.monitor.measured import Measured, unknown
from cdc_migrator.monitor.session import Session, clock
from cdc_migrator.monitor.traffic import Counters, Traffic

_NO_WAY_BACK = "there is no stream back to the source"
_MOST = 20
_DIFFERENCES = "SELECT count(*) FROM cdc_migrator.difference WHERE state = 'open'"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at both sides has found, by kind of rule."""

    error_rate: Measured
    latency: Measured
    lag: Measured
    mismatch: Measured
    critical: Measured
    usual: Baseline | None

    def of(self, kind: str) -> Measured:
        """The number of a kind of rule."""
        found: Measured = getattr(self, kind)
        return found

    def usual_latency(self) -> float | None:
        """The mean latency of the source's latest baseline, if it is of the same kind as now."""
        kind = self.latency.evidence.get("kind")
        if self.usual is None or self.usual.kind != kind:
            return None
        mean: float | None = self.usual.numbers.get(baseline.MEAN)
        return mean


@dataclass(frozen=True, slots=True)
class _Back:
    """How the way back stands: by the source's clock, which is ahead of ours by so much."""

    now: datetime
    ahead_of_us: float
    stream: progress.Progress | None
    halted: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class _Source:
    back: _Back
    differences: int
    holes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Target:
    counters: Counters
    ahead_of_us: float
    differences: int
    tables: tuple[TableName, ...]
    usual: Baseline | None


@dataclass(slots=True)
class OwnNumbers:
    """Looks at both sides, by a session of each. Not for several threads at once."""

    source: Session
    target: Session
    _before: Counters | None = field(default=None, init=False)
    _tables: tuple[TableName, ...] = field(default=(), init=False)

    @classmethod
    def at(cls, source_dsn: Callable[[], str], target_dsn: Callable[[], str]) -> OwnNumbers:
        """At these connection strings, read anew each time a session is opened."""
        return cls(Session("source", source_dsn), Session("target", target_dsn))

    def look(self) -> Look:
        """Look now. What needs two looks is unknown at the first. Never raises for a side that
        does not answer."""
        target = _asked(lambda: self.target.ask(_read_target))
        if isinstance(target, _Target):
            self._tables = target.tables
        source = _asked(lambda: self.source.ask(lambda conn: _read_source(conn, self._tables)))
        past = _asked(lambda: self._past(target)) if isinstance(target, _Target) else target
        return Look(
            error_rate=_error_rate(past),
            latency=_latency(past),
            lag=_lag(source, target),
            mismatch=_mismatch(source, target),
            critical=_critical(source, self._tables),
            usual=target.usual if isinstance(target, _Target) else None,
        )

    def _past(self, target: _Target) -> Traffic:
        before, self._before = self._before, target.counters
        if before is None:
            raise _Unknown("it was looked at once only so far")
        found = traffic.between(before, target.counters)
        if found is None:
            raise _Unknown("the target's counters were set back")
        return found

    def close(self) -> None:
        """End the sessions."""
        self.source.close()
        self.target.close()


class _Unknown(Exception):
    """Why something is not known."""


def _asked(ask: Callable[[], T]) -> T | Measured:
    """The answer, or why there is none."""
    try:
        return ask()
    except _Unknown as error:
        return unknown(str(error))
    except MigratorError as error:
        return unknown(error.cause, code=error.code)


def _read_target(conn: psycopg.Connection) -> _Target:
    _, ahead = clock(conn)
    return _Target(
        traffic.read(conn),
        ahead,
        _count(conn),
        tuple(relations.of_source(load.read_tables(conn))),
        watch.latest_baseline(conn, "source"),
    )


def _read_source(conn: psycopg.Connection, tables: tuple[TableName, ...]) -> _Source:
    now, ahead = clock(conn)
    stream = halted = None
    differences = 0
    one = within.both_sides(conn)
    # Only then is the schema there that of the target of a way back.
    if schema.has(conn, "stream_progress") and not one:
        stream = progress.read(conn)
        there = migration.read(conn)
        halted = there.last_error if there else None
        differences = _count(conn)
    guard = Guard.LEFT if one else Guard.OWN
    found = fence.read(conn, tables, guard)
    refused = fence.refuses(conn, guard)
    up = {one.table for one in found if refused and one.state is State.UP}
    holes = sorted({*tables, *(one.table for one in found)} - up)
    return _Source(
        _Back(now, ahead, stream, halted), differences, tuple(str(table) for table in holes)
    )


def _count(conn: psycopg.Connection) -> int:
    if not schema.has(conn, "difference"):
        return 0
    row = conn.execute(_DIFFERENCES).fetchone()
    assert row is not None
    return int(row[0])


def _error_rate(past: Traffic | Measured) -> Measured:
    if isinstance(past, Measured):
        return past
    rate = past.error_rate
    if rate is None:
        return unknown("no transaction has ended since the last look")
    return Measured(
        rate,
        evidence={
            "commits": past.commits,
            "rollbacks": past.rollbacks,
            "seconds": round(past.seconds, 3),
        },
    )


def _latency(past: Traffic | Measured) -> Measured:
    if isinstance(past, Measured):
        return past
    if past.latency_ms is None:
        return unknown("nothing was executed since the last look", kind=past.kind)
    return Measured(
        past.latency_ms,
        evidence={"kind": past.kind, "calls": past.calls, "seconds": round(past.seconds, 3)},
    )


def _lag(source: _Source | Measured, target: _Target | Measured) -> Measured:
    if isinstance(source, Measured):
        return source
    stream = source.back.stream
    if stream is None:
        return unknown(_NO_WAY_BACK)
    if not stream.active:
        return unknown("the stream back to the source writes nothing")
    ahead = None
    if isinstance(target, _Target):
        ahead = source.back.ahead_of_us - target.ahead_of_us
    seconds = lag_seconds(stream.source_committed_at, stream.applied_at, source.back.now, ahead)
    if seconds is None:
        return unknown("the stream back to the source has applied nothing yet")
    return Measured(seconds, evidence={"commit_position": stream.commit_position})


def _mismatch(source: _Source | Measured, target: _Target | Measured) -> Measured:
    """Found in either direction; what one side does not tell may be 0 or not."""
    known = [one.differences for one in (source, target) if not isinstance(one, Measured)]
    if sum(known) == 0:
        for one in (source, target):
            if isinstance(one, Measured):
                return one
    return Measured(float(sum(known)), evidence={"sides_counted": len(known)})


def _critical(source: _Source | Measured, tables: tuple[TableName, ...]) -> Measured:
    if isinstance(source, Measured):
        return source
    if not tables:
        return unknown("the migration's tables are not known")
    back, holes = source.back, source.holes
    evidence: dict[str, Any] = {"unfenced": list(holes[:_MOST])}
    if back.halted is not None:
        evidence["halted"] = {key: back.halted.get(key) for key in ("code", "cause", "position")}
    return Measured(float(len(holes) + (back.halted is not None)), evidence=evidence)
