"""What the last cutover did, what typing it again will do, and what a new one would do."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psycopg

from cdc_migrator.control import cutover as rows
from cdc_migrator.control import migration, schema, within
from cdc_migrator.control.cutover import Attempt
from cdc_migrator.cutover.machine import ENDED, STALLED, State
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import MigratorError
from cdc_migrator.model.logins import Role, login


def steps(back: bool = False) -> tuple[tuple[State, str], ...]:
    """What each state does, for people; in order."""
    left, entered = ("target", "source") if back else ("source", "target")
    gates = "see that the way back is applied" if back else "ask every gate of `readiness`"
    return (
        (State.CHECKING, gates),
        (
            State.PREPARING,
            f"see that the {entered} is fenced; make the {left}'s fence, not raised; check the "
            "hooks; set sequences; compare what was written to; wait for the lag",
        ),
        (State.HOLDING, "let the hooks hold the applications"),
        (State.FENCING, f"raise the {left}'s fence: from here on nobody can write there"),
        (State.DRAINING, "wait until all that was written before it is applied"),
        (State.VERIFYING, "compare what was written to since"),
        (State.SEQUENCES, f"set the {entered}'s sequences past the {left}'s"),
        (State.OPENING, f"open the {entered} in one commit: the point of no return"),
        (State.SWITCHING, f"let the hooks send the applications to the {entered}"),
    )


def read(
    name: str, source_dsn: str, target_dsn: str, budget: float, back: bool = False
) -> dict[str, Any]:
    """The document of `cutover status`, or of `rollback status`, whose sides are changed over.

    Raises MigratorError where the side to be opened does not answer.
    """
    left, entered = ("target", "source") if back else ("source", "target")
    called = f"cdcm-{name}-cutover-status"
    with (
        _look(target_dsn, called, entered) as target,
        speaking(entered, "reading the last cutover"),
    ):
        _require(target, name, back)
        known = schema.has(target, "cutover")
        latest = rows.latest(target) if known else None
        ignored = rows.strays(target) if known else None
        time_left = _left(target, latest, budget) if latest else None
    return {
        "cutover": {**latest.facts(), "error": latest.error, "details": latest.details}
        if latest
        else None,
        left: _source(name, source_dsn, called),
        "written_on_source_since": None if back else ignored,
        "again": _again(latest, time_left, left, entered),
    }


def plan(
    target_dsn: str,
    name: str,
    rehearsal: bool,
    hooks: list[str],
    settings: dict[str, Any],
    back: bool = False,
) -> dict[str, Any]:
    """The document of `--dry-run`: the steps, and the stall that a rehearsal has shown.

    Args:
        target_dsn: of the side that would be opened, whose migration is `name`.
    """
    called = f"cdcm-{name}-cutover-status"
    entered = "source" if back else "target"
    with (
        _look(target_dsn, called, entered) as target,
        speaking(entered, "reading the last rehearsal"),
    ):
        _require(target, name, back)
        tried = rows.rehearsed(target) if schema.has(target, "cutover") else None
    seconds = tried.details.get("seconds", {}) if tried else {}
    listed = [
        {
            "step": str(state),
            "does": does,
            "seconds": seconds.get(state),
            "stalls": state in STALLED,
        }
        for state, does in steps(back)
        if not (rehearsal and state in (State.OPENING, State.SWITCHING))
    ]
    return {
        "rehearsal": rehearsal,
        "steps": listed,
        "hooks": hooks,
        "settings": settings,
        "expected_stall_seconds": _stall(seconds),
        "command": "rollback" if back else "cutover",
        "basis": f"the rehearsal of {tried.started_at:%Y-%m-%d %H:%M} UTC" if tried else None,
    }


def _require(conn: psycopg.Connection, name: str, back: bool) -> None:
    if back:
        within.require_apart(conn)
    migration.require(conn, name)


def _stall(seconds: dict[str, float]) -> float | None:
    known = [seconds[state] for state in STALLED if state in seconds]
    return round(sum(known), 3) if known else None


def _look(dsn: str, called: str, side: str) -> psycopg.Connection:
    return connect(login(dsn, Role.MONITOR), application_name=called, side=side, read_only=True)


def _source(name: str, source_dsn: str, called: str) -> str | None:
    """What the source says by itself; None where it does not answer or has never been fenced."""
    with (
        suppress(MigratorError),
        _look(source_dsn, called, "source") as source,
        speaking("source", "reading its copy of the cutover"),
    ):
        copy = rows.read_copy(source, name)
        return str(copy.state) if copy else None
    return None


def _left(target: psycopg.Connection, attempt: Attempt, budget: float) -> float | None:
    if attempt.fenced_at is None:
        return None
    row = target.execute(
        "SELECT extract(epoch FROM clock_timestamp() - %s)::float8", (attempt.fenced_at,)
    ).fetchone()
    return budget - row[0] if row else None


def _again(attempt: Attempt | None, seconds: float | None, left: str, entered: str) -> str:
    """What the command, typed now, will do. Follows `cutover.machine.TABLE`."""
    if attempt is None:
        return "begins"
    state = State(attempt.state)
    if state is State.DONE:
        return f"is refused as long as the {entered} is open; else it begins"
    if state in ENDED:
        return "begins a new attempt"
    if attempt.opened_at is not None:
        return f"goes on: the {entered} is open, and the hooks are run again"
    if state in STALLED - {State.FENCING} and seconds is not None and seconds > 0:
        return f"goes on, if it comes within {seconds:.1f} s; then undoes it"
    return f"undoes it: the {left} is open again afterwards"
