"""What a side does in ordinary times, and which rule has fired since the target was opened.

A firing is written down, with the numbers that it rests on, before anything is done about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from cdc_migrator.control import cutover, inspection, journal, schema
from cdc_migrator.control.inspection import Part

# Beside what an inspection has found: how each rule stood when it was looked at last.
_PART = "watch"

Side = Literal["source", "target"]


@dataclass(frozen=True, slots=True)
class Baseline:
    """One row of ``baseline``; `kind` and `numbers` as `monitor.traffic` and `.baseline` have
    them."""

    id: int
    side: Side
    kind: Literal["statements", "transactions"]
    numbers: dict[str, Any]
    window_seconds: float
    actor: str
    taken_at: datetime


@dataclass(frozen=True, slots=True)
class Firing:
    """One row of ``watch_firing``.

    Attributes:
        attempt: the cutover that had opened the target.
        number: the last of those that were beyond `threshold`, above or `below` it, for
            `for_seconds`.
        evidence: what else was known when it fired; no row's values.
        acted_at: when its action was done. error: code, cause and remedy, where that failed.
        cleared_at: when it could fire again.
    """

    id: int
    attempt: int
    rule: str
    number: float
    threshold: float
    below: bool
    for_seconds: float
    action: Literal["alert", "rollback"]
    evidence: dict[str, Any]
    at: datetime
    acted_at: datetime | None
    error: dict[str, Any] | None
    cleared_at: datetime | None


@dataclass(frozen=True, slots=True)
class Opening:
    """The attempt that has opened the target, and for how many seconds it has been open."""

    attempt: int
    seconds: float


_BASELINE = "id, side, kind, numbers, window_seconds, actor, taken_at"
_FIRING = (
    "id, attempt, rule, number, threshold, below, for_seconds, action, evidence, at, acted_at, "
    "error, cleared_at"
)


def opening(conn: psycopg.Connection) -> Opening | None:
    """Who has opened the target, and since when; None while it is not the open side."""
    if not schema.has(conn, "cutover") or not cutover.opened(conn):
        return None
    # Of the latest attempt alone: another one may just be about to open it.
    row = conn.execute(
        "SELECT attempt, extract(epoch FROM clock_timestamp() - opened_at)::float8 "
        "FROM cdc_migrator.cutover WHERE opened_at IS NOT NULL "
        "AND attempt = (SELECT max(attempt) FROM cdc_migrator.cutover)"
    ).fetchone()
    return Opening(*row) if row else None


def keep_baseline(
    conn: psycopg.Connection, side: Side, kind: str, numbers: Mapping[str, Any], window: float
) -> Baseline:
    """Keep a baseline of `window` seconds, with a journal entry."""
    with conn.transaction(), conn.cursor(row_factory=class_row(Baseline)) as cursor:
        journal.write(conn, "baseline-recorded", side=side, kind=kind, **numbers)
        kept = cursor.execute(
            "INSERT INTO cdc_migrator.baseline (side, kind, numbers, window_seconds, actor) "  # noqa: S608
            f"VALUES (%s, %s, %s, %s, %s) RETURNING {_BASELINE}",
            (side, kind, Jsonb(dict(numbers)), window, journal.actor()),
        ).fetchone()
    assert kept is not None
    return kept


def baselines(conn: psycopg.Connection, most: int = 50) -> list[Baseline]:
    """The latest baselines of both sides, the newest first."""
    with conn.cursor(row_factory=class_row(Baseline)) as cursor:
        return cursor.execute(
            f"SELECT {_BASELINE} FROM cdc_migrator.baseline ORDER BY id DESC LIMIT %s",  # noqa: S608
            (most,),
        ).fetchall()


def latest_baseline(conn: psycopg.Connection, side: Side) -> Baseline | None:
    """The newest baseline of a side."""
    with conn.cursor(row_factory=class_row(Baseline)) as cursor:
        return cursor.execute(
            f"SELECT {_BASELINE} FROM cdc_migrator.baseline WHERE side = %s "  # noqa: S608
            "ORDER BY id DESC LIMIT 1",
            (side,),
        ).fetchone()


def fire(
    conn: psycopg.Connection,
    attempt: int,
    rule: str,
    number: float,
    threshold: float,
    below: bool,
    for_seconds: float,
    action: str,
    evidence: Mapping[str, Any],
) -> Firing:
    """Write down that a rule has fired, with a journal entry; an alert's action is done by that."""
    told = {
        "rule": rule,
        "attempt": attempt,
        "number": number,
        "threshold": threshold,
        "below": below,
        "for_seconds": for_seconds,
        "does": action,
        "evidence": dict(evidence),
    }
    with conn.transaction(), conn.cursor(row_factory=class_row(Firing)) as cursor:
        journal.write(conn, "watch-fired", **told)
        fired = cursor.execute(
            "INSERT INTO cdc_migrator.watch_firing (rule, attempt, number, threshold, below, "  # noqa: S608
            "for_seconds, action, evidence, acted_at) VALUES (%(rule)s, %(attempt)s, %(number)s, "
            "%(threshold)s, %(below)s, %(for_seconds)s, %(does)s, %(evidence)s, "
            "CASE WHEN %(does)s = 'alert' THEN clock_timestamp() END) "
            f"RETURNING {_FIRING}",
            {**told, "evidence": Jsonb(dict(evidence))},
        ).fetchone()
    assert fired is not None
    return fired


def acted(conn: psycopg.Connection, firing: Firing, error: Mapping[str, Any] | None) -> Firing:
    """Write down that a firing's action is done or, with its error, is not; with a journal entry
    where that is news."""
    with conn.transaction(), conn.cursor(row_factory=class_row(Firing)) as cursor:
        if error is None or (firing.error or {}).get("code") != error.get("code"):
            journal.write(
                conn,
                "watch-acted",
                rule=firing.rule,
                does=firing.action,
                **({"error": dict(error)} if error else {}),
            )
        row = cursor.execute(
            "UPDATE cdc_migrator.watch_firing SET error = %s, "  # noqa: S608
            "acted_at = CASE WHEN %s THEN clock_timestamp() END "
            f"WHERE id = %s RETURNING {_FIRING}",
            (Jsonb(dict(error)) if error else None, error is None, firing.id),
        ).fetchone()
    return row or firing


def clear(conn: psycopg.Connection, firing: Firing) -> None:
    """Write down that the rule was fine for long enough, with a journal entry."""
    with conn.transaction():
        journal.write(conn, "watch-cleared", rule=firing.rule)
        conn.execute(
            "UPDATE cdc_migrator.watch_firing SET cleared_at = clock_timestamp() WHERE id = %s",
            (firing.id,),
        )


def unclear(conn: psycopg.Connection, attempt: int) -> dict[str, Firing]:
    """What has fired since this attempt opened the target and was not fine since, by rule."""
    return {
        one.rule: one for one in _firings(conn, "WHERE attempt = %s", attempt) if not one.cleared_at
    }


def firings(conn: psycopg.Connection, most: int = 20) -> list[Firing]:
    """The latest firings, the newest first."""
    return _firings(conn, "ORDER BY id DESC LIMIT %s", most)


def _firings(conn: psycopg.Connection, which: str, *values: Any) -> list[Firing]:
    with conn.cursor(row_factory=class_row(Firing)) as cursor:
        return cursor.execute(
            f"SELECT {_FIRING} FROM cdc_migrator.watch_firing {which}".encode(),  # noqa: S608
            values,
        ).fetchall()


def show(conn: psycopg.Connection, found: Mapping[str, Any]) -> None:
    """Keep how the rules stand now, for whoever asks."""
    row = conn.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    inspection.store(conn, {_PART: Part(found, row[0])})


def shown(conn: psycopg.Connection) -> tuple[Part, float] | None:
    """What `show` has kept last, and how many seconds ago; None where nobody has watched yet."""
    row = conn.execute(
        "SELECT found, at, extract(epoch FROM clock_timestamp() - at)::float8 "
        "FROM cdc_migrator.inspection WHERE part = %s",
        (_PART,),
    ).fetchone()
    return (Part(row[0], row[1]), row[2]) if row else None
