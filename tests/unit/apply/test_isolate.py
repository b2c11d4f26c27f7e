"""What the target refuses is found among many rows, and nothing else is held against them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_migrator.apply.isolate import isolate


@dataclass(frozen=True)
class Why:
    clashes: bool


@dataclass
class Target:
    """Accepts rows but the bad ones; `needs`: a row that another one has to be written with, or
    after; `taken`: rows whose value is taken for good."""

    bad: set[int]
    needs: dict[int, int] = field(default_factory=dict)
    taken: set[int] = field(default_factory=set)
    written: list[int] = field(default_factory=list)
    tries: int = 0

    def write(self, some: Sequence[int]) -> Why | None:
        self.tries += 1
        there = {*self.written, *some}
        if self.bad & {*some}:
            return Why(clashes=False)
        if self.taken & {*some} or any(
            n in self.needs and self.needs[n] not in there for n in some
        ):
            return Why(clashes=True)
        self.written += some
        return None

    def isolate(
        self, rows: Sequence[int], found: Callable[[int], None] = lambda _: None
    ) -> set[int]:
        why = self.write(rows)
        assert why is not None
        return {one for one, _ in isolate(rows, self.write, why, found)}


@given(st.integers(1, 60), st.data())
def test_all_bad_rows_and_no_others_are_left_out(count: int, data: st.DataObject) -> None:
    """Each row is written once, or is among those that are refused."""
    rows = list(range(count))
    bad = data.draw(st.sets(st.sampled_from(rows), min_size=1))
    target = Target(bad)
    assert target.isolate(rows) == bad
    assert sorted(target.written) == [row for row in rows if row not in bad]


def test_one_bad_row_among_many_costs_few_tries() -> None:
    """Two tries for each time that the rest is halved."""
    target = Target({617})
    assert target.isolate(range(1024)) == {617}
    assert target.tries <= 1 + 2 * 10


def test_rows_that_pass_a_value_on_are_no_fault_of_each_others() -> None:
    """Two that swap a unique value are refused apart, and accepted together."""
    target = Target({3}, needs={0: 7, 7: 0})
    assert target.isolate(range(8)) == {3}
    assert sorted(target.written) == [0, 1, 2, 4, 5, 6, 7]


def test_a_row_whose_value_is_taken_is_told_from_those_that_swap() -> None:
    """What is refused together is tried without each one."""
    target = Target({3}, needs={0: 7, 7: 0}, taken={5})
    assert target.isolate(range(8)) == {3, 5}


def test_several_whose_values_are_taken_are_all_left_out() -> None:
    """Where no single one is to blame, whatever is still refused alone goes."""
    target = Target(set(), taken={1, 5, 6})
    assert target.isolate(range(8)) == {1, 5, 6}
    assert sorted(target.written) == [0, 2, 3, 4, 7]


def test_the_search_ends_where_too_much_is_refused() -> None:
    """Whoever is told may raise."""
    target = Target(set(range(100)))

    def count(found: int) -> None:
        if found > 5:
            raise OverflowError

    with pytest.raises(OverflowError):
        target.isolate(range(100), count)
    assert target.tries < 40
