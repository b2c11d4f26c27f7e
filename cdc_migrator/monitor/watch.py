"""When a rule fires: decided from the moments and numbers that it is given. Pure.

A rule is fine, fires when its number was beyond the threshold for all of a time, and is fine again
when it was not for as long. One number on the other side begins that time anew, so what flaps
around the threshold changes nothing. What is not known speaks for neither: it stops the clock, and
what went by between two numbers counts only if both were there, and not too far apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum

# What is unknown for less may pass by itself.
_LONG_SECONDS = 60.0


class State(StrEnum):
    """How a rule stands. PENDING: beyond, but not for long enough. UNKNOWN: nobody can say."""

    FINE = "fine"
    PENDING = "pending"
    FIRED = "fired"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Condition:
    """What a rule asks for; seconds.

    Attributes:
        threshold: beyond is above it, or `below` it; None: not known, and so is the answer.
        lasting: for how long it must be beyond, or fine again.
        apart: two numbers that are further apart say nothing of the time between them.
    """

    threshold: float | None
    below: bool
    lasting: float
    apart: float

    def beyond(self, number: float) -> bool:
        """Whether this number is on the wrong side; the threshold itself is fine."""
        if self.threshold is None:
            raise ValueError("without a threshold nothing is beyond it")
        return number < self.threshold if self.below else number > self.threshold


@dataclass(frozen=True, slots=True)
class Standing:
    """What a rule remembers; moments in seconds of a clock that never goes back.

    Attributes:
        fired: it has fired, and was not fine for long enough since.
        beyond: by the last number that was known.
        held: for how long the numbers have spoken for the opposite of `fired`; None: they do not.
        seen_at: when the number was known, if it was the last time.
        unknown_since: since when it is not.
        since: when the state began.
    """

    fired: bool = False
    beyond: bool = False
    held: float | None = None
    seen_at: float | None = None
    unknown_since: float | None = None
    since: float = 0.0

    @property
    def state(self) -> State:
        """The state, as people see it."""
        if self.unknown_since is not None:
            return State.UNKNOWN
        if self.fired:
            return State.FIRED
        return State.PENDING if self.beyond else State.FINE

    def long_unknown(self, at: float, lasting: float) -> bool:
        """Whether it is unknown for so long that somebody should look."""
        since = self.unknown_since
        return since is not None and at - since > max(_LONG_SECONDS, lasting)


@dataclass(frozen=True, slots=True)
class Decision:
    """How the rule stands now, and whether it has just fired, or is just fine again."""

    standing: Standing
    fired: bool = False
    cleared: bool = False


def decide(condition: Condition, before: Standing, at: float, number: float | None) -> Decision:
    """What a number, or that there is none, makes of a rule.

    Args:
        at: now; not before any moment of earlier calls.
        number: what was measured; None: it could not be.
    """
    after = _decide(condition, before, at, number)
    if after.standing.state is before.state:
        return after
    return replace(after, standing=replace(after.standing, since=at))


def _decide(condition: Condition, before: Standing, at: float, number: float | None) -> Decision:
    if number is None or condition.threshold is None or not math.isfinite(number):
        since = at if before.unknown_since is None else before.unknown_since
        return Decision(replace(before, seen_at=None, unknown_since=since))
    beyond = condition.beyond(number)
    known = replace(before, beyond=beyond, seen_at=at, unknown_since=None)
    if beyond is before.fired:
        return Decision(replace(known, held=None))
    held = 0.0
    if before.held is not None:
        whole = before.seen_at is not None and at - before.seen_at <= condition.apart
        held = before.held + (at - before.seen_at if whole and before.seen_at is not None else 0.0)
    if held < condition.lasting:
        return Decision(replace(known, held=held))
    return Decision(replace(known, fired=beyond, held=None), fired=beyond, cleared=not beyond)
