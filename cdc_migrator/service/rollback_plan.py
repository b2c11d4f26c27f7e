"""The plan to go back: what a team reads in the night, as a document of plain values. Pure.

What it estimates was measured before, in a rollback, a rehearsal or the cutover, and says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cdc_migrator.control.cutover import Attempt
from cdc_migrator.cutover.machine import STALLED, State
from cdc_migrator.databases.postgres import names
from cdc_migrator.service.evidence import Evidence
from cdc_migrator.service.judging import Judged, Status, stall

_DOES = {
    State.CHECKING: "asks whether the way back is ready: its stream runs and is not behind",
    State.PREPARING: "checks the hooks, prepares the target's fence, sets sequences, and compares "
    "what was written to",
    State.HOLDING: "lets the hooks hold the applications",
    State.FENCING: "fences the target: from here on nobody can write there",
    State.DRAINING: "waits until all that was written on the target is applied to the source",
    State.VERIFYING: "compares what was written to since",
    State.SEQUENCES: "sets the source's sequences past the target's",
    State.OPENING: "opens the source in one commit: from here on it can only be gone on with",
    State.SWITCHING: "lets the hooks send the applications back to the source",
}


def plan(known: Evidence, judged: Judged) -> dict[str, Any]:
    """The whole plan, without `schema_version`, which the printer adds."""
    exists, why = _way_back(known, judged)
    basis = _basis(known)
    seconds = basis[1].details.get("seconds", {}) if basis else {}
    return {
        "migration": known.name,
        "made_at": known.at,
        "way_back": {"exists": exists, "why": why},
        "state": {
            "status": judged.status,
            "applications": _applications(judged),
            "sides": [
                {
                    "side": one.side,
                    "address": one.address,
                    "version": one.version,
                    "bytes": one.bytes,
                    "route": one.route,
                    "silent": one.silent,
                }
                for one in (known.source, known.target)
            ],
            "opened_at": max(
                (one.opened_at for one in known.attempts or () if one.opened_at is not None),
                default=None,
            ),
        },
        "triggers": list(known.said.watch),
        "decide": list(known.said.decide),
        "tell": list(known.said.tell),
        "hooks": list(known.said.hooks),
        "estimate": {
            "basis": _told(*basis) if basis else None,
            "seconds": round(sum(seconds.values()), 1) if seconds else None,
            "stall_seconds": _stall(known, basis),
            "steps": [
                {
                    "state": state,
                    "does": does,
                    "seconds": seconds.get(state),
                    "stalls": state in STALLED,
                }
                for state, does in _DOES.items()
            ],
        },
        "queries": _queries(known),
        "backup": _backup(known),
    }


def _way_back(known: Evidence, judged: Judged) -> tuple[bool | None, str]:
    if known.back is None:
        return None, "the source does not answer, so nobody can see whether one is prepared"
    if known.back.prepared:
        return True, known.reverse_stream
    if known.said.without_way_back is not None:
        return False, f"it was given up knowingly: {known.said.without_way_back}"
    if judged.status is Status.COMPLETED:
        return False, "none was prepared before the target was opened"
    return False, "none is prepared yet; the gate way-back refuses the cutover until one is"


def _applications(judged: Judged) -> str:
    match judged.status:
        case Status.COMPLETED:
            return "on the target"
        case Status.UNKNOWN:
            return "unknown"
        case _:
            return "on the source"


def _basis(known: Evidence) -> tuple[str, Attempt] | None:
    """The latest attempt that went through, of the same way before the other one."""
    back = known.back.attempts if known.back is not None else ()
    for way, attempts in (("back", back), ("forward", known.attempts or ())):
        through = [one for one in attempts if one.state in (State.DONE, State.REHEARSED)]
        if through:
            return way, through[-1]
    return None


def _told(way: str, attempt: Attempt) -> str:
    what = "rollback" if way == "back" else "cutover"
    kind = f"rehearsal of a {what}" if attempt.rehearsal else what
    return f"the {kind} of {attempt.started_at:%Y-%m-%d %H:%M} UTC"


def _stall(known: Evidence, basis: tuple[str, Attempt] | None) -> float | None:
    if basis is None:
        return None
    measured = stall(basis[1], known.at)
    if measured.exact and measured.seconds is not None:
        return round(measured.seconds, 3)
    seconds = basis[1].details.get("seconds", {})
    found = [seconds[state] for state in STALLED if state in seconds]
    return round(sum(found), 3) if found else None


def _queries(known: Evidence) -> dict[str, str] | None:
    """One statement a side that counts the rows of every table; None: the tables are unknown."""
    if known.tables is None:
        return None
    return {
        "source": _counts([names.table(one).as_string(None) for one, _ in known.tables]),
        "target": _counts([names.table(one).as_string(None) for _, one in known.tables]),
    }


def _counts(tables: Sequence[str]) -> str:
    counted = (
        f"SELECT '{one.replace(chr(39), chr(39) * 2)}' AS table, count(*) FROM {one}"  # noqa: S608
        for one in tables
    )
    return "\nUNION ALL ".join(counted) + "\nORDER BY 1;" if tables else ""


def _backup(known: Evidence) -> dict[str, Any] | None:
    usable = [one for one in known.backups or () if one.usable]
    if not usable:
        return None
    return {"kind": usable[0].kind, "place": usable[0].place, "taken_at": usable[0].taken_at}
