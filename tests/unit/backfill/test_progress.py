"""The meter: rates over a window, and no more claimed than is done."""

from __future__ import annotations

from cdc_migrator.backfill.progress import Meter
from cdc_migrator.model.tables import TableName

ITEM = TableName("shop", "item")


def test_time_left_follows_the_rate() -> None:
    """Half the weight in five seconds leaves five."""
    meter = Meter(0, 1, 0, 0, 1000, weight_done=0, weight_total=1000)
    assert meter.read(100.0).seconds_left is None
    meter.begin(ITEM, 0, 500)
    meter.passed(ITEM, 0, 50, 500)
    seen = meter.read(105.0)

    assert (seen.rows, seen.bytes, seen.fraction) == (50, 500, 0.5)
    assert (seen.rows_per_second, seen.bytes_per_second) == (10.0, 100.0)
    assert seen.seconds_left == 5.0
    assert seen.tables == (ITEM,)


def test_a_failed_chunk_counts_for_nothing() -> None:
    """What had passed of a chunk that is given up is taken back."""
    meter = Meter(0, 1, 7, 70, 0, weight_done=10, weight_total=100)
    meter.begin(ITEM, 1, 50)
    meter.passed(ITEM, 1, 5, 50)
    meter.failed(ITEM, 1)

    seen = meter.read(1.0)
    assert (seen.rows, seen.bytes, seen.fraction, seen.tables) == (7, 70, 0.1, ())


def test_a_chunk_never_claims_more_than_its_weight() -> None:
    """Text is longer than the heap it comes from: the fraction still stays below one."""
    meter = Meter(0, 1, 0, 0, 0, weight_done=0, weight_total=100)
    meter.begin(ITEM, 0, 100)
    meter.passed(ITEM, 0, 1, 10_000)
    assert meter.read(1.0).fraction == 1.0
    meter.done(ITEM, 0, 1, 10_000, last=True)

    seen = meter.read(2.0)
    assert (seen.tables_done, seen.fraction, seen.seconds_left) == (1, 1.0, 0.0)


def test_old_marks_leave_the_window() -> None:
    """A fast beginning does not flatter the rate for ever."""
    meter = Meter(0, 1, 0, 0, 0, weight_done=0, weight_total=10_000)
    meter.read(0.0)
    meter.begin(ITEM, 0, 10_000)
    meter.passed(ITEM, 0, 1000, 1000)
    meter.read(1.0)
    for second in range(2, 30):
        seen = meter.read(float(second))

    assert seen.rows_per_second == 0.0
    assert seen.seconds_left is None
