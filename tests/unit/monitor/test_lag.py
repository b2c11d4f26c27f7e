"""Lag is time since the source committed, pending is never less than the truth, rates are rates."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_migrator.monitor.lag import FRESH_SECONDS, RateWindow, events_pending, lag_seconds

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
