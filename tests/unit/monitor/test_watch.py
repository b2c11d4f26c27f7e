"""A rule fires for what lasts, once; what flaps, what is just below and what is unknown do not."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_migrator.monitor.watch import Condition, Decision, Standing, State, decide

ABOVE = Condition(threshold=10.0, below=False, lasting=30.0, apart=20.0)
BELOW = Condition(threshold=10.0, below=True, lasting=30.0, apart=20.0)

numbers = st.lists(st.none() | st.floats(0, 20), max_size=60)


def follow(
    condition: Condition, found: Iterable[float | None], step: float = 5.0
) -> list[Decision]:
    """What is decided at each number, taken every `step` seconds."""
    standing, decisions = Standing(), []
    for turn, number in enumerate(found):
        decision = decide(condition, standing, turn * step, number)
        standing = decision.standing
        decisions.append(decision)
    return decisions


def fired_at(decisions: list[Decision], step: float = 5.0) -> list[float]:
    return [turn * step for turn, one in enumerate(decisions) if one.fired]


def test_it_fires_when_it_was_beyond_for_all_of_the_time() -> None:
    """Not at the first number, not a moment earlier, and once."""
    assert fired_at(follow(ABOVE, [11.0] * 100)) == [30.0]
    assert fired_at(follow(ABOVE, [11.0] * 6)) == []
    assert fired_at(follow(BELOW, [9.0] * 100)) == [30.0]


def test_without_a_time_it_fires_at_the_first_number() -> None:
    """As a difference between rows does."""
    at_once = Condition(0.0, False, 0.0, 20.0)
    assert fired_at(follow(at_once, [0.0, 1.0, 2.0])) == [5.0]


def test_it_fires_again_only_after_it_was_fine_for_as_long() -> None:
    """A short relief is none."""
    relief = [11.0] * 7 + [9.0] * 6 + [11.0] * 20
    assert fired_at(follow(ABOVE, relief)) == [30.0]
    recovery = [11.0] * 7 + [9.0] * 7 + [11.0] * 7
    decisions = follow(ABOVE, recovery)
    assert fired_at(decisions) == [30.0, 100.0]
    assert [turn * 5.0 for turn, one in enumerate(decisions) if one.cleared] == [65.0]


@given(st.lists(st.floats(-1e9, 10.0), max_size=100), st.floats(0.1, 19.0))
def test_what_stays_below_never_fires(found: list[float], step: float) -> None:
    """The threshold itself included."""
    assert fired_at(follow(ABOVE, found, step)) == []


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=30),
    st.sampled_from([10.0, 9.999, 0.0]),
)
def test_what_flaps_never_fires(runs: list[int], fine: float) -> None:
    """However often it is beyond: never for all of the time."""
    found = [number for run in runs for number in [10.001] * run + [fine]]
    assert fired_at(follow(ABOVE, found)) == []


@given(numbers, st.integers(0, 60), st.integers(1, 30))
def test_the_unknown_brings_nothing_about(found: list[float | None], place: int, many: int) -> None:
    """Neither while it lasts, nor does it count as time in which something held."""
    place = min(place, len(found))
    unknown: list[float | None] = [None] * many
    whole = follow(ABOVE, [*found[:place], *unknown, *found[place:]])
    assert not any(one.fired or one.cleared for one in whole[place : place + many])
    without = follow(ABOVE, found)
    assert sum(one.fired for one in whole) <= sum(one.fired for one in without)
    assert all(one.standing.state is State.UNKNOWN for one in whole[place : place + many])


def test_the_unknown_stops_the_clock() -> None:
    """What was beyond before and after goes on; the hole between does not count."""
    found: list[float | None] = [11.0] * 4 + [None] * 50 + [11.0] * 10
    assert fired_at(follow(ABOVE, found)) == [285.0]


def test_what_has_fired_stays_so_while_nobody_knows() -> None:
    """It is shown as unknown, and fires no second time behind that."""
    decisions = follow(ABOVE, [*[11.0] * 7, *[None] * 20, *[11.0] * 20])
    assert fired_at(decisions) == [30.0]
    assert decisions[26].standing.fired
    assert decisions[26].standing.state is State.UNKNOWN
    assert decisions[27].standing.state is State.FIRED


def test_numbers_too_far_apart_say_nothing_of_the_time_between() -> None:
    """A process that slept has seen nothing."""
    assert fired_at(follow(ABOVE, [11.0] * 10, step=21.0), 21.0) == []
    assert fired_at(follow(ABOVE, [11.0] * 10, step=20.0), 20.0) == [40.0]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), None])
def test_what_is_no_number_is_unknown(number: float | None) -> None:
    """And so is any number without a threshold."""
    assert decide(ABOVE, Standing(), 0.0, number).standing.state is State.UNKNOWN
    nothing = Condition(None, False, 30.0, 20.0)
    assert decide(nothing, Standing(), 0.0, 5.0).standing.state is State.UNKNOWN


def test_what_is_unknown_for_long_is_told_as_such() -> None:
    """A minute, or the rule's own time where that is longer."""
    standing = decide(ABOVE, Standing(), 100.0, None).standing
    standing = decide(ABOVE, standing, 150.0, None).standing
    assert not standing.long_unknown(160.0, 30.0)
    assert standing.long_unknown(161.0, 30.0)
    assert not standing.long_unknown(161.0, 120.0)
    assert not Standing().long_unknown(1e9, 0.0)


def test_the_state_says_since_when() -> None:
    """Of what is shown, not of the last number."""
    states = [
        (str(one.standing.state), one.standing.since)
        for one in follow(ABOVE, [9.0, 9.0, 11.0, 11.0, None, *[11.0] * 7])
    ]
    assert states[:5] == [
        ("fine", 0.0),
        ("fine", 0.0),
        ("pending", 10.0),
        ("pending", 10.0),
        ("unknown", 20.0),
    ]
    assert states[-1] == ("fired", 50.0)
