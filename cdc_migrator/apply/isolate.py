"""Find what the target does not accept among many rows, and write the rest. Pure.

What was tried together and refused is tried in halves, so n rows with one bad one among them cost
about 2 log n tries. Rows that pass a unique value on to each other refuse one another when they are
tried apart, which is no fault of theirs: they are put back and tried together at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

# Among so few that are left it is worth trying all but one.
_FEW = 16


class Refusal(Protocol):
    """Why something was not accepted."""

    @property
    def clashes(self) -> bool:
        """Whether another row is in its way, so that it may be accepted together with that."""


T = TypeVar("T")
R = TypeVar("R", bound=Refusal)


def isolate(
    units: Sequence[T],
    write: Callable[[Sequence[T]], R | None],
    refusal: R,
    found: Callable[[int], None] = lambda _: None,
) -> list[tuple[T, R]]:
    """Write as much of the units as the target accepts; those that it does not, and why.

    Args:
        write: tries some of them together: they are written, or none of them and why.
        refusal: why all of them together were refused.
        found: is told how many are refused by now; what it raises ends the search.
    """
    refused: list[tuple[T, R]] = []
    clashing: list[tuple[T, R]] = []

    def halve(some: Sequence[T], why: R) -> None:
        if len(some) == 1:
            (clashing if why.clashes else refused).append((some[0], why))
            found(len(refused))
            return
        middle = len(some) // 2
        for half in (some[:middle], some[middle:]):
            again = write(half)
            if again is not None:
                halve(half, again)

    halve(units, refusal)
    while clashing:
        left, clashing = clashing, []
        why = write([unit for unit, _ in left])
        if why is None:
            break
        one = _one_too_many(left, write)
        if one is not None:
            refused.append(one)
            break
        halve([unit for unit, _ in left], why)
        if len(clashing) == len(left):
            refused += clashing
            break
    found(len(refused))
    return refused


def _one_too_many(
    left: Sequence[tuple[T, R]], write: Callable[[Sequence[T]], R | None]
) -> tuple[T, R] | None:
    """The one without which all others are accepted, and then written; None: there is no such."""
    if not 1 < len(left) <= _FEW:
        return None
    for one in left:
        if write([unit for unit, _ in left if unit is not one[0]]) is None:
            return one
    return None
