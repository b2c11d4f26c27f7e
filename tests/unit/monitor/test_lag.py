"""Lag is time since the source committed, pending is never less than the truth, rates are rates."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_migrator.monitor.lag import (
    FRESH_SECONDS,
    Passage,
    RateWindow,
    Slope,
    catch_up,
    events_pending,
    lag_seconds,
    retention_left,
    stages,
    until_used_up,
)
from cdc_migrator.monitor.sample import CatchUp

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def test_while_it_moves_the_lag_is_what_the_last_transaction_took() -> None:
    """Not how long ago that was: a heartbeat comes each second."""
    assert lag_seconds(ago(1.05), ago(1.0), NOW) == pytest.approx(0.05)
    assert lag_seconds(ago(601), ago(1), NOW) == pytest.approx(600)


def test_a_stall_grows() -> None:
    """Once heartbeats stay out, the age of the last transaction counts."""
    assert lag_seconds(ago(60.05), ago(60), NOW) == pytest.approx(60.05)


def test_before_anything_was_applied_it_is_unknown() -> None:
    """Unknown is not zero."""
    assert lag_seconds(None, None, NOW) is None
    assert lag_seconds(ago(1), None, NOW) is None
    assert lag_seconds(None, ago(1), NOW) is None


def test_the_two_servers_clocks_are_reconciled() -> None:
    """A target whose clock is ahead shows no false lag, and one behind no negative one."""
    assert lag_seconds(ago(5.1), ago(0), NOW, target_ahead=5.0) == pytest.approx(0.1)
    assert lag_seconds(ago(0), ago(2), NOW, target_ahead=0.0) == 0.0


@given(st.floats(0, 10**6), st.floats(0, 10**6), st.floats(-100, 100))
def test_lag_is_never_negative_and_never_falls_while_nothing_is_applied(
    committed: float, applied: float, ahead: float
) -> None:
    """From the first moment on."""
    now = lag_seconds(ago(committed), ago(applied), NOW, ahead)
    later = lag_seconds(ago(committed), ago(applied), NOW + timedelta(seconds=9), ahead)
    assert now is not None
    assert later is not None
    assert now >= 0
    if committed >= applied or applied > FRESH_SECONDS:
        assert later >= now


@pytest.mark.parametrize(
    ("next_offset", "end", "at_end", "expected"),
    [
        (10, 15, None, (5, False)),
        (10, 15, False, (5, False)),
        (10, 15, True, (0, True)),
        (15, 15, None, (0, True)),
        (16, 15, None, (0, True)),
        (None, 15, None, (None, None)),
        (10, None, None, (None, None)),
        (None, None, True, (0, True)),
    ],
)
def test_pending_is_exact_only_where_somebody_saw_the_end(
    next_offset: int | None, end: int | None, at_end: bool | None, expected: tuple[int, bool]
) -> None:
    """Offsets have holes: a difference alone is an upper bound, and no answer is unknown."""
    assert events_pending(next_offset, end, at_end) == expected


def test_rates_are_taken_over_the_window() -> None:
    """Old points leave; two are needed."""
    window = RateWindow(10)
    assert window.rates() is None
    window.add(0, 0, 0)
    assert window.rates() is None
    for second in range(1, 31):
        window.add(second, second * 100, second * 400)
    rates = window.rates()
    assert rates is not None
    assert (rates.transactions, rates.events) == (100, 400)
    for second in range(31, 50):
        window.add(second, 3000, 12000)
    rates = window.rates()
    assert rates is not None
    assert (rates.transactions, rates.events) == (0, 0)


def test_totals_that_begin_anew_begin_a_new_window() -> None:
    """A restarted service shows no negative rate."""
    window = RateWindow(10)
    window.add(0, 1000, 1000)
    window.add(1, 5, 5)
    assert window.rates() is None
    window.add(2, 10, 15)
    rates = window.rates()
    assert rates is not None
    assert (rates.transactions, rates.events) == (5, 10)


# Committed at 1000 on the source, in the topic 0.03 s later, applied 0.02 s after that.
PASSED = Passage(1000.0, 1000.03, 1000.05)


def test_the_stages_add_up_to_the_lag() -> None:
    """Clocks are reconciled in the first one, where the source's comes in."""
    found = stages(PASSED, 1001.0, at_end=False)
    assert (found.capture, found.delivery) == pytest.approx((0.03, 0.02))
    ahead = stages(replace(PASSED, committed=1005.0), 1001.0, False, source_ahead=5.0)
    assert (ahead.capture, ahead.delivery) == pytest.approx((0.03, 0.02))
    backlog = stages(replace(PASSED, applied=4600.03), 4601.0, at_end=False)
    assert (backlog.capture, backlog.delivery) == pytest.approx((0.03, 3600))


def test_a_stall_grows_in_the_stage_that_holds_it_up() -> None:
    """In the capture where all that is in the topic is applied, else behind it."""
    capture = stages(PASSED, 1060.05, at_end=True)
    assert (capture.capture, capture.delivery) == pytest.approx((60.03, 0.02))
    delivery = stages(PASSED, 1060.05, at_end=False)
    assert (delivery.capture, delivery.delivery) == pytest.approx((0.03, 60.02))


def test_clocks_that_disagree_give_no_negative_stage() -> None:
    """Connect's may be anywhere."""
    found = stages(replace(PASSED, sent=990.0), 1001.0, at_end=False)
    assert found.capture == 0


@pytest.mark.parametrize(
    ("applied", "arriving", "pending", "behind", "expected"),
    [
        (12_300.0, 4_000.0, 83_000, 60.0, CatchUp(10.0, 12_300.0, 4_000.0)),
        (4_000.0, 4_000.0, 83_000, 60.0, CatchUp(None, 4_000.0, 4_000.0)),
        (0.0, 4_000.0, 83_000, 60.0, CatchUp(None, 0.0, 4_000.0)),
        (4_000.0, 4_100.0, 80, 0.2, CatchUp(0.0, 4_000.0, 4_100.0)),
        (4_000.0, 4_100.0, 0, 60.0, CatchUp(0.0, 4_000.0, 4_100.0)),
        (None, 4_000.0, 80, 60.0, None),
        (4_000.0, None, 80, 60.0, None),
        (4_000.0, 4_000.0, None, 60.0, None),
        (4_000.0, 4_000.0, 80, None, None),
    ],
)
def test_catching_up_is_told_with_its_basis(
    applied: float | None,
    arriving: float | None,
    pending: int | None,
    behind: float | None,
    expected: CatchUp | None,
) -> None:
    """No time where it falls behind, 0 where it keeps up, nothing where a number is missing."""
    assert catch_up(applied, arriving, pending, behind) == expected


def test_what_is_kept_for_how_long() -> None:
    """Without a limit, or unknown, there is no number; what is over is 0 and not less."""
    assert until_used_up(7200, 2.0) == 3600
    assert until_used_up(-5, 2.0) == 0
    assert [until_used_up(None, 2.0), until_used_up(5, None), until_used_up(5, 0.0)] == [None] * 3
    assert retention_left(3600.0, ago(600), NOW) == 3000
    assert retention_left(3600.0, ago(4000), NOW) == 0
    assert [retention_left(None, ago(600), NOW), retention_left(3600.0, None, NOW)] == [None] * 2


def test_a_slope_needs_two_points_and_forgets_old_ones() -> None:
    """Unknown, or a number that begins anew, begins a new window."""
    slope = Slope(30)
    slope.add(0, 100)
    slope.add(0.5, 200)
    assert slope.per_second() is None, "too near to each other"
    for second in range(1, 100):
        slope.add(second, second * 10 + (0 if second < 50 else 1000 * (second - 50)))
    assert slope.per_second() == pytest.approx(1010)
    slope.add(100, None)
    assert slope.per_second() is None
    slope.add(101, 5)
    slope.add(103, 5)
    assert slope.per_second() == 0
    slope.add(104, 1)
    assert slope.per_second() is None
