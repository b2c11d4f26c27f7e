"""A rate is kept whatever passes when; the time is the test's own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cdc_migrator.backfill.throttle import Debt, ThrottleOptions

blocks = st.lists(
    st.tuples(st.integers(0, 500), st.integers(0, 100_000), st.floats(0, 2)), min_size=1
)


@given(blocks, st.integers(1, 10_000), st.integers(1, 1_000_000))
def test_no_more_passes_than_the_rates_allow(
    passed: list[tuple[int, int, float]], rows_rate: int, bytes_rate: int
) -> None:
    """Whoever waits as told has moved at most rate times time, but for the block in hand."""
    debt = Debt(ThrottleOptions(rows_rate, bytes_rate))
    now, rows, size = 10.0, 0, 0
    for block_rows, block_bytes, idle in passed:
        now += idle
        assert rows <= rows_rate * (now - 10.0) * (1 + 1e-9) + 1e-6
        assert size <= bytes_rate * (now - 10.0) * (1 + 1e-9) + 1e-6
        wait = debt.passed(now, block_rows, block_bytes)
        assert wait >= 0
        now += wait
        rows, size = rows + block_rows, size + block_bytes


def test_without_a_rate_nothing_waits() -> None:
    """The default costs nothing."""
    debt = Debt(ThrottleOptions())
    assert [debt.passed(1.0, 10**6, 10**9) for _ in range(3)] == [0, 0, 0]


def test_idle_time_is_not_saved_up() -> None:
    """After a pause the rate holds at once, without a burst."""
    debt = Debt(ThrottleOptions(rows_per_second=10))
    assert debt.passed(0.0, 10, 0) == 1
    assert debt.passed(100.0, 10, 0) == 1
