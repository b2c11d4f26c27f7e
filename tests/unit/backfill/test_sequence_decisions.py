"""Where a target's sequence must stand: past all that exists, never back, never over its limit."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, takewhile

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cdc_migrator.backfill.sequences import Decision, decide, decide_alone, next_value, proven
from cdc_migrator.model.sequences import Fed, Parameters, Position, SequenceName, SequenceState
from cdc_migrator.model.tables import TableName

NAME = SequenceName("shop", "t_id_seq")
BIG = Parameters("bigint", 1, 1, (1 << 63) - 1, 1, False, 1)
SMALL = Parameters("smallint", 1, 1, 32767, 1, False, 1)
DOWN = Parameters("bigint", -1, -(1 << 63), -1, -1, False, 1)
ID = Fed(TableName("shop", "t"), "id", "pg_catalog.int8", True)
FRESH = Position(1, False)


def sequence(
    parameters: Parameters, position: Position | None, *, settable: bool = True
) -> SequenceState:
    return SequenceState(1, NAME, parameters, position, (ID,), settable)


def values(parameters: Parameters, position: Position) -> list[int]:
    """The next values that `nextval` would give, at most forty."""

    def each() -> object:
        at = position
        while (value := next_value(parameters, at)) is not None:
            yield value
            at = Position(value, True)

    return list(islice(each(), 40))  # type: ignore[call-overload, no-any-return]


def after(decision: Decision) -> Position:
    """Where the target stands when the decision was carried out."""
    assert decision.target is not None
    assert decision.target.position is not None
    return decision.move_to or decision.target.position


def codes(decision: Decision) -> list[str]:
    return [finding.code for finding in decision.findings]


@st.composite
def parameters(draw: st.DrawFn, *, cycle: bool = False) -> Parameters:
    """Small ranges, so that limits are met often, and steps of both directions."""
    least = draw(st.integers(-300, 300))
    most = least + draw(st.integers(1, 400))
    step = draw(st.integers(-7, 7).filter(bool))
    assume(abs(step) <= most - least)
    start = draw(st.integers(least, most))
    return Parameters("bigint", start, least, most, step, cycle, draw(st.integers(1, 5)))


@st.composite
def positions(draw: st.DrawFn, of: Parameters) -> Position:
    return Position(draw(st.integers(of.minimum, of.maximum)), draw(st.booleans()))


@given(st.data())
@settings(max_examples=1500, deadline=None)
def test_what_comes_next_never_exists_and_is_never_behind(data: st.DataObject) -> None:
    """Both directions, any step, cache, margin, and wherever columns and target are."""
    plan = data.draw(parameters())
    ours, theirs = data.draw(positions(plan)), data.draw(positions(plan))
    column = data.draw(st.none() | st.integers(plan.minimum, plan.maximum))
    margin = data.draw(st.integers(0, 60))
    source, target = sequence(plan, ours), sequence(plan, theirs)
    decision = decide(source, target, {ID: column}, margin)
    d, now = plan.direction, after(decision)
    assert plan.minimum <= now.last <= plan.maximum
    before, then = next_value(plan, theirs), next_value(plan, now)
    if before is not None and then is not None:
        assert d * then >= d * before, "never back"
    if before is None:
        assert decision.move_to is None, "a sequence at its end stays there"
    given_by_source = ours.last if ours.called else ours.last - plan.increment
    if decision.failed:
        assert set(codes(decision)) & {"CDCM-SEQUENCE-AHEAD", "CDCM-SEQUENCE-COLUMN-FULL"}
        return
    for value in values(plan, now):
        assert d * value > d * given_by_source
        if next_value(plan, ours) is not None and column is not None:
            assert d * value > d * column
    assert proven(decision, source, replace(target, position=now))
    again = decide(source, replace(target, position=now), {ID: column}, margin)
    assert not again.changes, "a second time there is nothing to do"


@given(st.data())
@settings(max_examples=800, deadline=None)
def test_the_margin_is_for_a_source_that_goes_on(data: st.DataObject) -> None:
    """So many calls, each by a new session that takes a cacheful; the step stays in its class."""
    plan = data.draw(parameters())
    ours = data.draw(positions(plan))
    margin = data.draw(st.integers(1, 20))
    source, target = sequence(plan, ours), sequence(plan, Position(plan.first, False))
    decision = decide(source, target, {}, margin)
    first = next_value(plan, ours)
    assume(first is not None and decision.move_to is not None)
    then = next_value(plan, after(decision))
    assert first is not None
    assert then is not None
    if "CDCM-SEQUENCE-MARGIN" in codes(decision):
        left = (plan.limit - first) // plan.increment
        assert (then - first) // plan.increment == left // 2 < margin * plan.cache
    else:
        assert then == first + margin * plan.cache * plan.increment
    assert (then - first) % abs(plan.increment) == 0
    taken = takewhile(lambda v: plan.direction * (v - then) < 0, values(plan, ours))
    moved_on = [*taken][: margin * plan.cache]
    if moved_on:
        later = sequence(plan, Position(moved_on[-1], True))
        assert proven(decision, later, replace(target, position=after(decision)))


@given(st.data())
@settings(max_examples=800, deadline=None)
def test_one_that_cycles_follows_the_source_around(data: st.DataObject) -> None:
    """Its position stays in range, it is ahead on the shorter way, and a second time stays."""
    plan = data.draw(parameters(cycle=True))
    ours, theirs = data.draw(positions(plan)), data.draw(positions(plan))
    source, target = sequence(plan, ours), sequence(plan, theirs)
    decision = decide(source, target, {ID: plan.limit}, data.draw(st.integers(0, 60)))
    now = after(decision)
    assert plan.minimum <= now.last <= plan.maximum
    assert not decision.failed
    assert proven(decision, source, replace(target, position=now))


@given(st.data())
@settings(max_examples=500, deadline=None)
def test_other_parameters_are_put_right_with_a_position_that_fits(data: st.DataObject) -> None:
    """Whatever the target's were; where it is past the source's end, it is left and told."""
    plan, other = data.draw(parameters()), data.draw(parameters())
    ours, theirs = data.draw(positions(plan)), data.draw(positions(other))
    source, target = sequence(plan, ours), sequence(other, theirs)
    decision = decide(source, target, {}, 5)
    if decision.failed:
        assert codes(decision) == ["CDCM-SEQUENCE-AHEAD"]
        assert not decision.changes
        return
    assert decision.alter == (plan != other)
    if decision.restart:
        assert decision.move_to is not None
    now = after(decision)
    assert plan.minimum <= now.last <= plan.maximum
    assert proven(decision, source, replace(target, parameters=plan, position=now))


def test_next_value_is_what_postgresql_gives() -> None:
    """Uncalled, called, at the limit, and around."""
    assert next_value(BIG, Position(500, False)) == 500
    assert next_value(BIG, Position(500, True)) == 501
    assert next_value(SMALL, Position(32767, True)) is None
    assert next_value(replace(SMALL, cycle=True), Position(32767, True)) == 1
    assert next_value(DOWN, Position(-5, True)) == -6


@pytest.mark.parametrize(
    ("plan", "ours", "column", "next_one"),
    [
        (BIG, Position(10, True), None, 1011),
        (BIG, Position(10, True), 5000, 6001),
        (BIG, Position(1_000_000, False), None, 1_001_000),
        (replace(BIG, cache=20), Position(40, True), None, 20_041),
        (replace(BIG, increment=2), Position(11, True), 200, 2201),
        (DOWN, Position(-10, True), -70, -1071),
    ],
    ids=["source", "column", "never called", "cache", "odd numbers", "descending"],
)
def test_where_it_is_set(
    plan: Parameters, ours: Position, column: int | None, next_one: int
) -> None:
    """Past the further one of source and column, by the margin."""
    target = sequence(plan, Position(plan.start, False))
    decision = decide(sequence(plan, ours), target, {ID: column})
    assert next_value(plan, after(decision)) == next_one
    assert decision.findings == ()


def test_one_that_is_far_enough_is_left_alone() -> None:
    """Also when it is much further: nothing moves it back."""
    decision = decide(
        sequence(BIG, Position(10, True)), sequence(BIG, Position(10_000_000, True)), {ID: 7}
    )
    assert not decision.changes


def test_near_the_limit_half_of_what_is_left_is_taken() -> None:
    """So that both sides can still give values; a warning says so."""
    decision = decide(sequence(SMALL, Position(32_700, True)), sequence(SMALL, FRESH), {ID: 32_700})
    assert codes(decision) == ["CDCM-SEQUENCE-MARGIN"]
    assert next_value(SMALL, after(decision)) == 32_734
    assert not decision.failed


def test_a_narrow_column_limits_the_margin_of_a_wide_sequence() -> None:
    """The next insert must not be out of the column's range."""
    narrow = replace(ID, base_type="pg_catalog.int2")
    decision = decide(sequence(BIG, Position(32_700, True)), sequence(BIG, FRESH), {narrow: 32_700})
    assert codes(decision) == ["CDCM-SEQUENCE-MARGIN"]
    assert next_value(BIG, after(decision)) == 32_734


def test_a_source_at_its_limit_leaves_a_target_at_its_limit() -> None:
    """Neither gives a value; it does not wrap."""
    decision = decide(sequence(SMALL, Position(32_767, True)), sequence(SMALL, FRESH), {})
    assert codes(decision) == ["CDCM-SEQUENCE-EXHAUSTED"]
    assert next_value(SMALL, after(decision)) is None


def test_a_column_at_the_limit_is_told_and_the_source_is_followed() -> None:
    """One stray row must not make the target's sequence useless."""
    decision = decide(sequence(SMALL, Position(10, True)), sequence(SMALL, FRESH), {ID: 32_767})
    assert codes(decision) == ["CDCM-SEQUENCE-COLUMN-FULL"]
    assert decision.failed
    assert next_value(SMALL, after(decision)) == 1011


def test_unreadable_and_missing_are_two_things() -> None:
    """And neither lets anything be done."""
    unread = decide(sequence(BIG, None), sequence(BIG, FRESH), {})
    missing = decide(sequence(BIG, FRESH), None, {})
    assert codes(unread) == ["CDCM-SEQUENCE-UNREADABLE"]
    assert codes(missing) == ["CDCM-SEQUENCE-MISSING"]
    assert not unread.changes
    assert not missing.changes
    assert "schema apply" in missing.findings[0].remedy
    left = decide(sequence(BIG, FRESH), None, {}, left_out=True)
    assert "not migrated" in left.findings[0].remedy


def test_one_that_only_the_target_has_goes_past_its_columns() -> None:
    """No further, and not twice."""
    target = sequence(BIG, FRESH)
    decision = decide_alone(target, {ID: 50})
    assert codes(decision) == ["CDCM-SEQUENCE-TARGET-ONLY"]
    now = replace(target, position=after(decision))
    assert now.position == Position(50, True)
    assert proven(decision, now, now)
    assert not proven(decision, target, target)
    assert not decide_alone(now, {ID: 50}).changes


def test_a_source_that_was_faster_than_the_margin_is_seen() -> None:
    """The proof compares with what it gives by now."""
    source, target = sequence(BIG, Position(10, True)), sequence(BIG, FRESH)
    decision = decide(source, target, {}, 5)
    now = replace(target, position=after(decision))
    assert proven(decision, source, now)
    assert proven(decision, replace(source, position=Position(15, True)), now)
    assert not proven(decision, replace(source, position=Position(16, True)), now)
    assert not proven(decision, source, replace(now, parameters=replace(BIG, cache=2)))
    assert not proven(decision, source, None)
