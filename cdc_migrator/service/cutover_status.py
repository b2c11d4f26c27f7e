"""What the last cutover did, what typing it again will do, and what a new one would do."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psycopg

from cdc_migrator.control import cutover as rows
from cdc_migrator.control import migration, progress, schema
from cdc_migrator.control.cutover import Attempt
from cdc_migrator.cutover.machine import ENDED, STALLED, State
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import MigratorError

# What each state does, for people; in order.
STEPS: tuple[tuple[State, str], ...] = (
    (State.CHECKING, "ask every gate of `readiness`"),
    (
        State.PREPARING,
        "fence the target if it is not; make the source's fence, not raised; check the hooks; set "
        "sequences; compare what was written to; wait for the lag",
    ),
    (State.HOLDING, "let the hooks hold the applications"),
    (State.FENCING, "raise the source's fence: from here on nobody can write there"),
    (State.DRAINING, "wait until all that was written before it is applied"),
    (State.VERIFYING, "compare what was written to since"),
    (State.SEQUENCES, "set the target's sequences past the source's"),
    (State.OPENING, "open the target in one commit: the point of no return"),
    (State.SWITCHING, "let the hooks send the applications to the target"),
)


def read(name: str, source_dsn: str, target_dsn: str, budget: float) -> dict[str, Any]:
    """The document of `cutover status`. Raises MigratorError where the target does not answer."""
    called = f"cdcm-{name}-cutover-status"
    with (
        connect(target_dsn, application_name=called, side="target", read_only=True) as target,
        speaking("target", "reading the last cutover"),
    ):
        migration.require(target, name)
        known = schema.has(target, "cutover")
        latest = rows.latest(target) if known else None
        ignored = None
        if known and rows.opened(target):
            there = progress.read(target)
            ignored = there.changes_ignored if there else None
        left = _left(target, latest, budget) if latest else None
    return {
        "cutover": _attempt(latest) if latest else None,
        "source": _source(name, source_dsn, called),
        "written_on_source_since": ignored,
        "again": _again(latest, left),
    }


def plan(
    target_dsn: str, name: str, rehearsal: bool, hooks: list[str], settings: dict[str, Any]
) -> dict[str, Any]:
    """The document of `cutover --dry-run`: the steps, and the stall that a rehearsal has shown."""
    called = f"cdcm-{name}-cutover-status"
    with (
        connect(target_dsn, application_name=called, side="target", read_only=True) as target,
        speaking("target", "reading the last rehearsal"),
    ):
        migration.require(target, name)
        tried = rows.rehearsed(target) if schema.has(target, "cutover") else None
    seconds = tried.details.get("seconds", {}) if tried else {}
    steps = [
        {
            "step": str(state),
            "does": does,
            "seconds": seconds.get(state),
            "stalls": state in STALLED,
        }
        for state, does in STEPS
        if not (rehearsal and state in (State.OPENING, State.SWITCHING))
    ]
    return {
        "rehearsal": rehearsal,
        "steps": steps,
        "hooks": hooks,
        "settings": settings,
        "expected_stall_seconds": _stall(seconds),
        "basis": f"the rehearsal of {tried.started_at:%Y-%m-%d %H:%M} UTC" if tried else None,
    }


def _stall(seconds: dict[str, float]) -> float | None:
    known = [seconds[state] for state in STALLED if state in seconds]
    return round(sum(known), 3) if known else None


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "attempt": attempt.attempt,
        "leg": attempt.leg,
        "rehearsal": attempt.rehearsal,
        "state": attempt.state,
        "by": attempt.actor,
        "started_at": attempt.started_at,
        "fenced_at": attempt.fenced_at,
        "opened_at": attempt.opened_at,
        "ended_at": attempt.ended_at,
        "error": attempt.error,
        "details": attempt.details,
    }


def _source(name: str, source_dsn: str, called: str) -> str | None:
    """What the source says by itself; None where it does not answer or has never been fenced."""
    with (
        suppress(MigratorError),
        connect(source_dsn, application_name=called, side="source", read_only=True) as source,
        speaking("source", "reading its copy of the cutover"),
    ):
        copy = rows.read_copy(source, name) if schema.has(source, "cutover") else None
        return str(copy.state) if copy else None
    return None


def _left(target: psycopg.Connection, attempt: Attempt, budget: float) -> float | None:
    if attempt.fenced_at is None:
        return None
    row = target.execute(
        "SELECT extract(epoch FROM clock_timestamp() - %s)::float8", (attempt.fenced_at,)
    ).fetchone()
    return budget - row[0] if row else None


def _again(attempt: Attempt | None, left: float | None) -> str:
    """What `cutover`, typed now, will do. Follows `cutover.machine.TABLE`."""
    if attempt is None:
        return "begins a cutover"
    state = State(attempt.state)
    if state is State.DONE:
        return "is refused: the target is open"
    if state in ENDED:
        return "begins a new attempt"
    if attempt.opened_at is not None:
        return "goes on: the target is open, and the hooks are run again"
    if state in STALLED - {State.FENCING} and left is not None and left > 0:
        return f"goes on, if it comes within {left:.1f} s; then undoes it"
    return "undoes it: the source is open again afterwards"
