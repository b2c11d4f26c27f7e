"""Words for people who were not there: times, sizes, and what each entry means. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from cdc_migrator.control.migration import Phase
from cdc_migrator.cutover.machine import State
from cdc_migrator.service.judging import MEANING, fired

UNKNOWN: Final = "unknown"


def when(at: datetime | None) -> str:
    """With its zone."""
    return UNKNOWN if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def clock(at: datetime | None) -> str:
    """To the millisecond, for what is close together."""
    if at is None:
        return UNKNOWN
    return f"{at.astimezone(UTC):%H:%M:%S}.{at.microsecond // 1000:03} UTC"


def span(seconds: float | None) -> str:
    """A duration by its two largest units."""
    if seconds is None:
        return UNKNOWN
    if seconds < 1:
        return f"{seconds * 1000:,.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return _two(whole // 60, "min", whole % 60, "s")
    if whole < 86400:
        return _two(whole // 3600, "h", whole % 3600 // 60, "min")
    days = whole // 86400
    return _two(days, "day" if days == 1 else "days", whole % 86400 // 3600, "h")


def _two(number: int, unit: str, rest: int, smaller: str) -> str:
    return f"{number:,} {unit} {rest} {smaller}" if rest else f"{number:,} {unit}"


def count(number: float | None) -> str:
    """With thousands apart."""
    if number is None:
        return UNKNOWN
    return f"{number:,.1f}" if isinstance(number, float) and number % 1 else f"{number:,.0f}"


def size(number: int | None) -> str:
    """Bytes by the unit that suits."""
    if number is None:
        return UNKNOWN
    value, unit = float(number), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"


def share(fraction: float | None, digits: int = 1) -> str:
    """A percentage, rounded down: only what is whole is 100 %."""
    if fraction is None:
        return UNKNOWN
    scale = 10**digits
    return f"{math.floor(fraction * 100 * scale + 1e-9) / scale:.{digits}f} %"


def attempt(one: Mapping[str, Any]) -> str:
    """What an attempt is called."""
    way = "rollback" if one["direction"] == "back" else "cutover"
    return f"{'rehearsal of a ' if one['rehearsal'] else ''}{way} {one['attempt']}"


Words = Callable[[Mapping[str, Any], str], str]


# The source's journal is that of the way back, whose source is the target.
_WAY_BACK = {
    Phase.SWITCHED: "the way back waits for the target to be opened",
    Phase.STREAM: "the way back: what is written on the target is applied to the source",
}


def _phase(details: Mapping[str, Any], side: str) -> str:
    name = str(details.get("phase", ""))
    if side == "source":
        known = _WAY_BACK.get(Phase(name)) if name in set(Phase) else None
        return known or f"the way back: phase {name}"
    meaning = MEANING[Phase(name)] if name in set(Phase) else "of another release"
    return f"phase {name}: {meaning}"


def _which(details: Mapping[str, Any], side: str) -> str:
    way = "to go back to the source" if side == "source" else "to leave the source"
    return f"attempt {details.get('attempt', '')} {way}"


def _begun(details: Mapping[str, Any], side: str) -> str:
    tried = ", a rehearsal," if details.get("rehearsal") else ""
    return f"{_which(details, side)}{tried} was begun"


def _state(details: Mapping[str, Any], side: str) -> str:
    left, other = ("target", "source") if side == "source" else ("source", "target")
    name = str(details.get("state", ""))
    return {
        State.FENCING: f"the {left} is fenced, writers wait from here",
        State.OPENING: f"all is applied and compared, the {other} is about to be opened",
        State.SWITCHING: f"the {other} is open",
        State.UNDOING: "it is being undone",
        State.DONE: "done",
        State.UNDONE: f"undone, the {left} is open as before",
        State.REHEARSED: f"rehearsed, the {left} is open as before",
    }.get(State(name) if name in set(State) else State.CHECKING, name)


_WORDS: dict[str, Words] = {
    "migration-created": lambda _, side: (
        "the way back was begun" if side == "source" else "the migration was begun"
    ),
    "phase": _phase,
    "findings-accepted": lambda d, _: (
        f"what `check` found was accepted with a reason: {', '.join(d.get('accepted', ()))}"
    ),
    "capture-stop": lambda *_: "the capture of changes was stopped",
    "connector-restart": lambda *_: "the connector had failed and was started again",
    "run-failed": lambda *_: "the stream stood still",
    "tables-added": lambda *_: "tables were added",
    "tables-again": lambda *_: "tables were read again from the source",
    "table-read-anew": lambda d, _: f"the table {d.get('table', '')} was read anew",
    "reconcile-ended": lambda d, _: (
        f"comparison {d.get('run', '')} of both sides: {d.get('state', '')}"
    ),
    "differences-accepted": lambda *_: "rows that differ were accepted by somebody",
    "rebuild-ended": lambda d, _: f"rewriting a table from the source: {d.get('state', '')}",
    "backup-noted": lambda d, _: f"a backup of the source was noted ({d.get('kind', '')})",
    "backup-verified": lambda *_: "a backup was restored for a test, and is whole",
    "backup-doubted": lambda *_: "a backup was looked at, and may not be relied on",
    "cutover-begun": _begun,
    "cutover-state": lambda d, side: f"{_which(d, side)}: {_state(d, side)}",
    "cutover-abort-asked": lambda d, side: f"{_which(d, side)}: somebody asked it to stop",
    "fence-removed": lambda *_: "the target's fence was removed",
    "baseline-recorded": lambda d, _: f"a baseline of the {d.get('side', '')} was recorded",
    "watch-fired": lambda d, _: f"the trigger {fired(d)} fired",
    "watch-acted": lambda d, _: f"the trigger {d.get('rule', '')} has led to: {d.get('does', '')}",
    "watch-cleared": lambda d, _: f"what fired the trigger {d.get('rule', '')} is fine again",
    "abort": lambda *_: "the migration was given up",
}


def event(entry: Mapping[str, Any]) -> str:
    """What one entry of the timeline means; of one that is not known here, its own name."""
    known = _WORDS.get(entry["action"])
    return known(entry["details"], entry["side"]) if known else entry["action"].replace("-", " ")
