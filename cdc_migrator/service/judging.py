"""What evidence comes to: status, progress, availability, issues, risk, what to do next. Pure.

For people who were not there. What rests on something unknown says so, and is never taken for good.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from cdc_migrator.control.cutover import Attempt, Copied
from cdc_migrator.control.migration import Phase
from cdc_migrator.cutover.machine import State
from cdc_migrator.service.evidence import Evidence

MEANING = {
    Phase.CREATED: "the migration is written down, nothing is made yet",
    Phase.SCHEMA: "tables are made on the target",
    Phase.CAPTURE: "the capture of changes is set up on the source",
    Phase.LOAD: "what was already there is copied",
    Phase.INDEXES: "keys and indexes are made on the target",
    Phase.STREAM: "every change of the source is applied to the target as it is made",
    Phase.SWITCHED: "applications write to the target",
}


class Status(StrEnum):
    """Where the migration stands. UNKNOWN: who knows does not answer."""

    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    ROLLED_BACK = "ROLLED_BACK"
    UNKNOWN = "UNKNOWN"


class Level(StrEnum):
    """How bad something is."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class Issue:
    """Something that somebody should know of; `remedy`: what to do, None where nothing is."""

    level: Level
    text: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is: `fraction` of 1, None where unknown; `how` it was counted."""

    fraction: float | None
    how: str


@dataclass(frozen=True, slots=True)
class Stall:
    """For how long one attempt kept writers waiting.

    Attributes:
        seconds: None: not at all. exact: measured; else the times of the database's rows, from
            before the fence, so it was at most that.
    """

    seconds: float | None
    exact: bool


@dataclass(frozen=True, slots=True)
class Availability:
    """The share of the time in which applications could write; `how` it was counted."""

    fraction: float | None
    stalled_seconds: float | None
    over_seconds: float | None
    how: str


@dataclass(frozen=True, slots=True)
class WayBack:
    """Whether one can go back without losing writes. None: unknown."""

    available: bool | None
    why: str


@dataclass(frozen=True, slots=True)
class Risk:
    level: Level
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """All of it."""

    status: Status
    progress: Progress
    availability: Availability
    issues: tuple[Issue, ...]
    risk: Risk
    next: tuple[str, ...]
    way_back: WayBack


def judge(known: Evidence) -> Judged:
    """What it comes to."""
    stands, back = status(known), way_back(known)
    found = tuple(issues(known, stands))
    return Judged(
        stands,
        progress(known),
        availability(known),
        found,
        risk(known, stands, back, found),
        tuple(next_steps(known, stands, back)),
        back,
    )


def status(known: Evidence) -> Status:
    """Which side applications write to, and whether somebody is at changing that."""
    if known.attempts is None:
        return Status.UNKNOWN
    tried_back = known.back.attempts if known.back is not None else ()
    there, back = _last_opened(known.attempts), _last_opened(tried_back)
    if there is None:
        return Status.IN_PROGRESS
    if under_way(known):
        return Status.IN_PROGRESS
    if back is not None and _opened(back) > _opened(there):
        return Status.ROLLED_BACK
    if known.back is None and known.sample.phase is not Phase.SWITCHED:
        # The source does not tell whether anybody went back; the target's phase does.
        return Status.ROLLED_BACK if known.sample.phase is not None else Status.UNKNOWN
    return Status.COMPLETED


def under_way(known: Evidence) -> Attempt | None:
    """The attempt to leave either side that has not ended; a rehearsal too."""
    back = known.back.attempts if known.back is not None else ()
    open_ones = [one for one in (*(known.attempts or ()), *back) if one.ended_at is None]
    return open_ones[-1] if open_ones else None


def _last_opened(attempts: Iterable[Attempt]) -> Attempt | None:
    opened = [one for one in attempts if one.opened_at is not None]
    return opened[-1] if opened else None


def _opened(attempt: Attempt) -> datetime:
    assert attempt.opened_at is not None
    return attempt.opened_at


def progress(known: Evidence) -> Progress:
    """The phases that are through, and a share of the one it is in."""
    phase = known.sample.phase
    if phase is None:
        return Progress(None, "unknown: the target does not answer")
    order = list(Phase)
    inner, how = 0.0, ""
    if phase is Phase.LOAD:
        done = known.sample.load.done_fraction if known.sample.load else None
        inner, how = done or 0.0, "; of this phase the share of the bytes that are copied"
        if done is None:
            how = "; how far this phase is, is unknown"
    elif phase is Phase.STREAM and known.gates:
        inner = sum(gate.passed for gate in known.gates) / len(known.gates)
        how = "; of this phase the share of the gates that are passed"
    fraction = min((order.index(phase) + inner) / (len(order) - 1), 1.0)
    return Progress(fraction, f"phases that are through, of {len(order) - 1}{how}")


def stall(attempt: Attempt, now: datetime) -> Stall:
    """For how long one attempt kept writers waiting."""
    measured = attempt.details.get("stall_ms")
    if measured is not None:
        return Stall(float(measured) / 1000, True)
    if attempt.fenced_at is None:
        return Stall(None, True)
    until = attempt.opened_at or attempt.ended_at or now
    return Stall(max((until - attempt.fenced_at).total_seconds(), 0.0), False)


def availability(known: Evidence) -> Availability:
    """1 - stall / duration, over all attempts in either direction."""
    if known.attempts is None or known.migration is None:
        why = "unknown: the target, which keeps the attempts, does not answer"
        return Availability(None, None, None, why)
    back = known.back.attempts if known.back is not None else ()
    stalls = [stall(one, known.at) for one in (*known.attempts, *back)]
    stalled = sum(one.seconds for one in stalls if one.seconds is not None)
    over = (known.at - known.migration.created_at).total_seconds()
    count = sum(one.seconds is not None for one in stalls)
    how = f"writers waited in {count} attempts, rehearsals too"
    if any(not one.exact for one in stalls):
        how += "; of those that were undone the whole time with the fence is counted"
    if known.back is None:
        how += "; what rolling back took is unknown, since the source does not tell"
    fraction = max(1 - stalled / over, 0.0) if over > 0 else None
    return Availability(fraction, stalled, over, how)


def way_back(known: Evidence) -> WayBack:
    """Whether one can go back without losing writes."""
    stands = status(known)
    opened = _last_opened(known.attempts or ())
    if known.attempts is None:
        return WayBack(None, "the target does not answer, so nobody knows which side is open")
    if stands is Status.ROLLED_BACK:
        return WayBack(True, "it was used: applications write to the source again")
    if opened is None:
        return WayBack(
            True,
            "the target was never opened: applications write to the source, and `cdc-migrator "
            "abort` leaves it as it is",
        )
    if known.back is None:
        return WayBack(None, "the source does not answer, so its way back cannot be looked at")
    if known.back.prepared:
        return WayBack(True, known.reverse_stream)
    given_up = known.said.without_way_back
    why = f": given up knowingly ({given_up})" if given_up else ""
    return WayBack(False, f"no way back was prepared before the target was opened{why}")


def issues(known: Evidence, stands: Status) -> Iterable[Issue]:
    """What somebody should know of, the worst first."""
    return sorted(
        _issues(known, stands), key=lambda one: list(Level).index(one.level), reverse=True
    )


def _issues(known: Evidence, stands: Status) -> Iterable[Issue]:
    sample = known.sample
    for side in (known.target, known.source):
        if side.silent is not None:
            yield Issue(Level.HIGH, side.silent, f"Bring the {side.side} back and look again.")
    if sample.last_error is not None and stands is not Status.COMPLETED:
        told = f"the stream stands still: {sample.last_error.get('cause', 'of unknown cause')}"
        yield Issue(Level.HIGH, told, sample.last_error.get("remedy"))
    for one in known.journals:
        if (fault := one.checked.fault) is not None:
            told = f"the journal on the {one.side} is not as it was written: {fault.reason}"
            yield Issue(Level.HIGH, told, "Find out who can write to the schema cdc_migrator.")
    if sample.stream is not None and (since := sample.stream.ignored_since_left or 0):
        told = f"{since} changes were written on the source after it was left"
        yield Issue(Level.HIGH, told, "Find out who writes there; `cdc-migrator cutover status`.")
    yield from _rows(known)
    yield from _attempts(known, stands)
    if stands is Status.IN_PROGRESS and sample.phase is Phase.STREAM:
        for gate in known.gates:
            if not gate.passed:
                yield Issue(Level.MEDIUM, f"gate {gate.name}: {gate.reason}", gate.remedy)
    yield from _fired(known)
    halts = sum(e.action == "run-failed" for one in known.journals for e in one.entries)
    if halts and sample.last_error is None:
        yield Issue(Level.LOW, f"the stream has stood still, and gone on again: {halts} in all")
    for note in known.notes:
        if note.part not in ("target", "source"):
            yield Issue(Level.MEDIUM, f"{note.part} could not be measured: {note.cause}")


def _fired(known: Evidence) -> Iterable[Issue]:
    """Triggers: those whose condition may still hold, then how often others fired."""
    standing: dict[str, Issue] = {}
    over = 0
    for entry in (entry for one in known.journals for entry in one.entries):
        if entry.action not in ("watch-fired", "watch-cleared"):
            continue
        rule = str(entry.details.get("rule", ""))
        over += standing.pop(rule, None) is not None
        if entry.action == "watch-fired":
            told = f"the trigger {fired(entry.details)} fired at {entry.at:%Y-%m-%d %H:%M:%S} UTC"
            standing[rule] = Issue(Level.MEDIUM, told)
    yield from standing.values()
    if over:
        yield Issue(Level.LOW, f"triggers that fired before and were fine again: {over}")


def fired(details: Mapping[str, Any]) -> str:
    """A trigger that fired, with its numbers where they are known."""
    rule, number, threshold = (details.get(key) for key in ("rule", "number", "threshold"))
    if number is None or threshold is None:
        return str(rule)
    return f"{rule} ({number:g}, {'below' if details.get('below') else 'above'} {threshold:g})"


def _rows(known: Evidence) -> Iterable[Issue]:
    standing = {"open": 0, "accepted": 0}
    for one in known.differences or ():
        if one.kind in standing:
            standing[one.kind] += one.count
    if standing["open"]:
        told = f"{standing['open']} rows differ between both sides"
        yield Issue(Level.HIGH, told, "`cdc-migrator reconcile --repair` writes them anew.")
    if standing["accepted"]:
        told = f"{standing['accepted']} rows differ, which somebody has accepted with a reason"
        yield Issue(Level.LOW, told)


def _attempts(known: Evidence, stands: Status) -> Iterable[Issue]:
    if (going := under_way(known)) is not None:
        yield Issue(
            Level.HIGH,
            f"attempt {going.attempt} stands at {going.state} and has not ended",
            "Type the same command again: it goes on, or undoes it.",
        )
    last = known.attempts[-1] if known.attempts else None
    if last is None or last.ended_at is None:
        return
    if last.state == State.UNDONE and last.error is not None:
        told = f"the last attempt to leave the source was undone: {last.error.get('cause')}"
        yield Issue(Level.MEDIUM, told, last.error.get("remedy"))
    if last.state == State.DONE and stands is Status.COMPLETED:
        if (wrong := last.details.get("keys_error")) is not None:
            told = f"not every foreign key of the target is proven: {wrong.get('cause')}"
            yield Issue(Level.MEDIUM, told, wrong.get("remedy"))
        if (wrong := last.details.get("verify_error")) is not None:
            told = f"what was compared after the switch differs: {wrong.get('cause')}"
            yield Issue(Level.HIGH, told, wrong.get("remedy"))
        elif not last.details.get("verified"):
            told = "what was written to last before the switch was not compared"
            yield Issue(Level.MEDIUM, told)


def risk(known: Evidence, stands: Status, back: WayBack, found: Iterable[Issue]) -> Risk:
    """The worst of what is open, and what would make it worse."""
    reasons = [(one.level, one.text) for one in found if one.level is not Level.LOW]
    if stands is Status.UNKNOWN:
        reasons.append((Level.HIGH, "nobody knows which side applications write to"))
    if stands is Status.ROLLED_BACK:
        reasons.append((Level.MEDIUM, "it was rolled back: what led to that may still be there"))
    if stands is Status.COMPLETED and back.available is not True:
        doubt = "unknown whether there is a way back" if back.available is None else back.why
        reasons.append((Level.MEDIUM, doubt))
    if stands is Status.IN_PROGRESS and known.said.without_way_back and not _prepared(known):
        reasons.append(
            (Level.MEDIUM, f"without a way back, knowingly: {known.said.without_way_back}")
        )
    worst = max((list(Level).index(level) for level, _ in reasons), default=0)
    told = tuple(
        dict.fromkeys(text for level, text in reasons if list(Level).index(level) == worst)
    )
    return Risk(list(Level)[worst], told or ("nothing is open that anybody knows of",))


def _prepared(known: Evidence) -> bool:
    return known.back is not None and known.back.prepared


def next_steps(known: Evidence, stands: Status, back: WayBack) -> Iterable[str]:
    """What to do now, in order."""
    if stands is Status.UNKNOWN:
        if known.copied is Copied.FENCED:
            yield "The source is fenced: `cdc-migrator cutover abort --source-only` opens it again."
        yield "Bring the target back, then write this report again."
        return
    if (going := under_way(known)) is not None:
        yield f"End attempt {going.attempt}: `cdc-migrator cutover status` says how."
        return
    if stands is Status.COMPLETED:
        yield "Watch the applications and `cdc-migrator cutover status`."
        if back.available:
            yield "If it goes wrong: `cdc-migrator rollback`, as `cdc-migrator plan rollback` says."
        yield (
            "When you are sure: `cdc-migrator journal export --to FILE`, keep this report, then "
            "`cdc-migrator finish`, after which there is no way back."
        )
        return
    if stands is Status.ROLLED_BACK:
        yield "Find out why it was rolled back; the timeline below says when and by whom."
        yield "Then `cdc-migrator readiness`, and `cdc-migrator cutover` again."
        return
    phase = known.sample.phase
    if phase is not Phase.STREAM:
        yield "`cdc-migrator migrate`: it goes on where it is."
        return
    against = [gate for gate in known.gates if not gate.passed]
    yield from dict.fromkeys(gate.remedy for gate in against[:3] if gate.remedy)
    if len(against) > 3:
        yield f"{len(against) - 3} more gates: `cdc-migrator readiness`."
    if not against:
        tried = any(one.state == State.REHEARSED for one in known.attempts or ())
        yield "`cdc-migrator cutover`" if tried else "`cdc-migrator cutover --rehearse`"
