"""The lag's stages are those of the last transaction that was applied."""

from __future__ import annotations

import pytest

from cdc_migrator.apply.batcher import Batch
from cdc_migrator.model.changes import Transaction
from cdc_migrator.service.passing import Passing


def batch(*transactions: tuple[float | None, float | None]) -> Batch:
    """Committed at and sent at, seconds since 1970."""
    return Batch(
        tuple(
            Transaction(
                7,
                1,
                2,
                None if committed is None else round(committed * 1e6),
                sent_ms=None if sent is None else round(sent * 1e3),
            )
            for committed, sent in transactions
        ),
        next_offset=9,
        commit_position=2,
    )


def test_the_last_transaction_counts() -> None:
    """Of the last batch that had one, by the clock at its commit."""
    now = 1000.5
    passing = Passing(lambda: now)
    assert passing.stages(True, None) is None
    passing.note(batch((990.0, 991.0), (1000.0, 1000.2)))
    found = passing.stages(False, 0.0)
    assert found is not None
    assert (found.capture, found.delivery) == pytest.approx((0.2, 0.3))
    now = 1001.0
    passing.note(batch())
    passing.note(batch((None, None)))
    assert passing.stages(False, 0.0) == found, "where only the position moves, nothing is told"


def test_a_stall_is_the_captures_once_all_is_applied() -> None:
    """Else it is the delivery's; the source's clock is reconciled."""
    now = 1000.5
    passing = Passing(lambda: now)
    passing.note(batch((1000.0, 1000.2)))
    now = 1060.5
    idle, busy = passing.stages(True, -0.1), passing.stages(None, -0.1)
    assert idle is not None
    assert busy is not None
    assert (idle.capture, idle.delivery) == pytest.approx((60.1, 0.3))
    assert (busy.capture, busy.delivery) == pytest.approx((0.1, 60.3))
