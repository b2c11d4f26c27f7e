"""Decide where a target's sequence must stand so that it gives no value that exists or may come.

Its next value must lie past everything that the source's sequence has given and past everything
that its columns hold on the target, with a margin for the source that still runs; it keeps the
source's step, so odd numbers stay odd. It is never moved back. A sequence that cycles gives old
values again by design, so it follows the source alone, by the shorter way around its ring.

No connection and no clock in here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum

from cdc_migrator.model.sequences import Fed, Parameters, Position, SequenceName, SequenceState

DEFAULT_MARGIN = 1000


class Severity(StrEnum):
    """ERROR: the target's sequence is not, or cannot be made, what it should be."""

    ERROR = "error"
    WARN = "warn"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with one sequence, and what to do. Holds no value of a row."""

    code: str
    severity: Severity
    cause: str
    remedy: str

    def as_dict(self) -> dict[str, str]:
        return {
            "code": self.code,
            "severity": self.severity,
            "cause": self.cause,
            "remedy": self.remedy,
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done with one sequence.

    Attributes:
        target: as it was found; None where the target has none, then there is nothing to do.
        furthest: the outermost value of its columns on the target.
        differs: the parameters that are not the source's.
        move_to: where to set it; None: it is far enough, or must not be moved.
        restart: its present position lies outside of the source's range, so that the parameters
            can be set only together with it.
        alter: the parameters are to be set.
        bound_by_column: `furthest` is part of what must be proven.
        alone: the source has no such sequence; `source` is the target's own.
    """

    source: SequenceState
    target: SequenceState | None
    furthest: int | None = None
    differs: tuple[str, ...] = ()
    move_to: Position | None = None
    restart: bool = False
    alter: bool = False
    bound_by_column: bool = False
    alone: bool = False
    findings: tuple[Finding, ...] = ()

    @property
    def name(self) -> SequenceName:
        return self.source.name

    @property
    def failed(self) -> bool:
        """Whether something stands against it."""
        return any(f.severity is Severity.ERROR for f in self.findings)

    @property
    def changes(self) -> bool:
        """Whether there is anything to do on the target."""
        return self.alter or self.move_to is not None


def next_value(parameters: Parameters, position: Position) -> int | None:
    """What ``nextval`` gives from here; None: it raises, the sequence is at its limit."""
    if not position.called:
        return position.last
    value = position.last + parameters.increment
    if parameters.minimum <= value <= parameters.maximum:
        return value
    return parameters.first if parameters.cycle else None


def decide(
    source: SequenceState,
    target: SequenceState | None,
    columns: Mapping[Fed, int | None],
    margin: int = DEFAULT_MARGIN,
    *,
    left_out: bool = False,
) -> Decision:
    """What brings the target's sequence to where it must be.

    Args:
        columns: the columns that take values from it on the target, with their outermost values.
        margin: how many calls of ``nextval`` the source may be ahead of what was read. A call
            from a new session takes as many values as the cache holds, so it counts that often.
        left_out: the schema step does not make this sequence.
    """
    if target is None:
        return Decision(source, None, findings=(_missing(source, left_out),))
    plan = source.parameters
    outermost = _furthest(plan, columns)
    differs = differences(plan, target.parameters)
    if source.position is None or target.position is None:
        side = "source" if source.position is None else "target"
        return Decision(source, target, outermost, differs, findings=(_unreadable(source, side),))
    findings = [
        _not_compared(source, fed) for fed in sorted(columns, key=str) if not fed.comparable
    ]
    there = target.position
    if plan.direction * (there.last - plan.limit) > 0:
        findings.append(_ahead(source))
        return Decision(source, target, outermost, differs, findings=tuple(findings))
    outside = plan.direction * (there.last - plan.first) < 0
    bound = False
    if plan.cycle:
        wanted = _around(plan, source.position, there, margin, outside)
        if outermost is not None and _past(plan, outermost, source.position.last):
            findings.append(_cycles(source))
    else:
        wanted, bound, told = _ahead_of_all(
            source, there, outermost, _ceiling(plan, columns), margin, outside
        )
        findings += told
    if any(f.code == "CDCM-SEQUENCE-AHEAD" for f in findings):
        return Decision(source, target, outermost, differs, findings=tuple(findings))
    return Decision(
        source,
        target,
        outermost,
        differs,
        move_to=wanted,
        restart=outside,
        alter=bool(differs),
        bound_by_column=bound,
        findings=tuple(findings),
    )


def decide_alone(
    target: SequenceState, columns: Mapping[Fed, int | None], *, meant: bool = False
) -> Decision:
    """The same for a sequence that only the target has: its columns get rows from the source.

    Args:
        meant: the table has a shape of its own, so it is not told that the source lacks it.
    """
    decision = decide(target, target, columns, 0)
    findings = decision.findings if meant else (*decision.findings, _alone(target))
    return replace(decision, alone=True, findings=findings)


def proven(decision: Decision, source: SequenceState, target: SequenceState | None) -> bool:
    """Whether the sequences, looked at again, are as they must be.

    The parameters are equal, and the target's next value is past what the source has given by
    now and past what the columns held.
    """
    if target is None or source.position is None or target.position is None:
        return False
    plan = source.parameters
    if differences(plan, target.parameters):
        return False
    ours = next_value(plan, source.position)
    theirs = next_value(plan, target.position)
    if plan.cycle:
        return _distance(plan, ours, theirs) * 2 <= _ring(plan)
    if ours is None or theirs is None:
        return ours is None and theirs is None
    if decision.bound_by_column and decision.furthest is not None:
        return not _past(plan, ours, theirs) and _past(plan, theirs, decision.furthest)
    return not _past(plan, ours, theirs)


def differences(one: Parameters, other: Parameters) -> tuple[str, ...]:
    """Names of the parameters that are not the same."""
    return tuple(f.name for f in fields(one) if getattr(one, f.name) != getattr(other, f.name))


def _ahead_of_all(
    source: SequenceState,
    there: Position,
    outermost: int | None,
    ceiling: int,
    margin: int,
    outside: bool,
) -> tuple[Position | None, bool, list[Finding]]:
    """Where to move a sequence that does not cycle, whether past its columns, and what is odd."""
    plan = source.parameters
    assert source.position is not None
    ours = next_value(plan, source.position)
    theirs = None if outside else next_value(plan, there)
    exhausted = not outside and theirs is None
    if ours is None:
        spent = Position(source.position.last, True)
        return (None if exhausted else spent), False, [_exhausted(source)]
    if exhausted:
        return None, False, [_ahead(source)]
    least, bound, told = ours, outermost is not None, []
    if outermost is not None and not _past(plan, ours, outermost):
        least += _steps_past(plan, ours, outermost) * plan.increment
        if plan.direction * (least - plan.limit) > 0:
            # Short of the one value that is taken, the target is as good as the source.
            least, bound = ours, False
            told.append(_column_full(source))
    steps = margin * plan.cache
    room = max(0, plan.direction * (ceiling - least)) // abs(plan.increment)
    if steps > room // 2:
        told.append(_margin(source))
        steps = room // 2
    wanted = least + steps * plan.increment
    if theirs is not None and not _past(plan, wanted, theirs):
        return None, bound, told
    return _before(plan, wanted), bound, told


def _around(
    plan: Parameters, ours: Position, theirs: Position, margin: int, outside: bool
) -> Position | None:
    """Where to move a sequence that cycles; None where it is far enough, or ahead."""
    ahead = next_value(plan, ours)
    assert ahead is not None
    steps = min(margin * plan.cache, _ring(plan) // 4)
    room = plan.direction * (plan.limit - ahead) // abs(plan.increment)
    if steps <= room:
        wanted = ahead + steps * plan.increment
    else:
        wanted = plan.first + (steps - room - 1) * plan.increment
    now = next_value(plan, theirs)
    if not outside:
        distance = _distance(plan, ahead, now)
        if now == wanted or (steps <= distance and distance * 2 < _ring(plan)):
            return None
    return _before(plan, wanted)


def _ring(plan: Parameters) -> int:
    return (plan.maximum - plan.minimum) // abs(plan.increment) + 1


def _distance(plan: Parameters, start: int | None, end: int | None) -> int:
    """Calls from one value of a cycling sequence to another, forward."""
    assert start is not None
    assert end is not None
    places = [plan.direction * (v - plan.first) // abs(plan.increment) for v in (start, end)]
    return (places[1] - places[0]) % _ring(plan)


def _before(plan: Parameters, value: int) -> Position:
    """The position from which `value` comes next, as called where that is possible."""
    last = value - plan.increment
    inside = plan.minimum <= last <= plan.maximum
    return Position(last, True) if inside else Position(value, False)


def _past(plan: Parameters, value: int, other: int) -> bool:
    """Whether `value` comes after `other` in the sequence's direction."""
    return plan.direction * (value - other) > 0


def _steps_past(plan: Parameters, start: int, value: int) -> int:
    """The least number of steps from `start` after which it is past `value`."""
    return plan.direction * (value - start) // abs(plan.increment) + 1


def _furthest(plan: Parameters, columns: Mapping[Fed, int | None]) -> int | None:
    values = [value for value in columns.values() if value is not None]
    if not values:
        return None
    return max(values) if plan.increment > 0 else min(values)


def _ceiling(plan: Parameters, columns: Mapping[Fed, int | None]) -> int:
    """The last value of use: the sequence's own limit, or that of its narrowest column."""
    limits = [plan.limit]
    limits += [limit for fed in columns if (limit := fed.limit(plan.direction)) is not None]
    return min(limits) if plan.increment > 0 else max(limits)


def _missing(source: SequenceState, left_out: bool) -> Finding:
    remedy = "`cdc-migrator schema apply pre-data` makes it."
    if left_out:
        remedy = (
            "It belongs to a table that is not migrated: include that table, or create the "
            "sequence and the column's default on the target."
        )
    return Finding(
        "CDCM-SEQUENCE-MISSING",
        Severity.ERROR,
        f"the target has no sequence {source.name}",
        remedy,
    )


def _unreadable(source: SequenceState, side: str) -> Finding:
    return Finding(
        "CDCM-SEQUENCE-UNREADABLE",
        Severity.ERROR,
        f"the role may not read the {side}'s sequence {source.name}",
        f"On the {side}: GRANT SELECT on that sequence and USAGE on its schema to the role of "
        "the connection string.",
    )


def _alone(target: SequenceState) -> Finding:
    return Finding(
        "CDCM-SEQUENCE-TARGET-ONLY",
        Severity.WARN,
        f"the target's sequence {target.name} feeds a migrated column, and the source has none "
        "for it; it is set past what the column holds",
        "See that it is meant to be there; set it again when the stream has caught up.",
    )


def _ahead(source: SequenceState) -> Finding:
    return Finding(
        "CDCM-SEQUENCE-AHEAD",
        Severity.ERROR,
        f"the target's sequence {source.name} is past the last value that the source's can give, "
        "and is not moved back",
        "If no row of the target needs the values behind it, set it back with setval(), then "
        "repeat.",
    )


def _exhausted(source: SequenceState) -> Finding:
    return Finding(
        "CDCM-SEQUENCE-EXHAUSTED",
        Severity.WARN,
        f"the source's sequence {source.name} has given its last value; the target's is set "
        "likewise",
        "nextval() fails on both: raise its limit on the source (ALTER SEQUENCE), then repeat.",
    )


def _column_full(source: SequenceState) -> Finding:
    return Finding(
        "CDCM-SEQUENCE-COLUMN-FULL",
        Severity.ERROR,
        f"a column that the sequence {source.name} feeds holds a value at the sequence's limit, "
        "so it cannot be set past it; it follows the source's value",
        "Remove that row or give it another value, or raise the sequence's limit on the source, "
        "then repeat.",
    )


def _margin(source: SequenceState) -> Finding:
    return Finding(
        "CDCM-SEQUENCE-MARGIN",
        Severity.WARN,
        f"the margin does not fit before the limit of the sequence {source.name}; half of what "
        "is left was taken",
        "Set it again (`cdc-migrator sequences sync`) once the application no longer writes to "
        "the source.",
    )


def _cycles(source: SequenceState) -> Finding:
    return Finding(
        "CDCM-SEQUENCE-CYCLES",
        Severity.WARN,
        f"the sequence {source.name} cycles, and its columns hold values that it will give again",
        "It follows the source's value, as it would there; nothing is to be done if the "
        "application expects that.",
    )


def _not_compared(source: SequenceState, fed: Fed) -> Finding:
    return Finding(
        "CDCM-SEQUENCE-COLUMN-COMPUTED",
        Severity.WARN,
        f"the values of {fed} are computed from the sequence {source.name}, so they do not say "
        "how far it has been",
        "It is set past the source's value; look yourself whether rows were written without it.",
    )
