"""The library in C reads, folds and writes out as Python does, or leaves it to Python."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_migrator.native.library import library
from tests.oracle import native
from tests.oracle.records import Writer, spoiled

SEEDS = st.integers(0, 2**32 - 1)
EXAMPLES = settings(max_examples=60, deadline=None)


def test_the_library_was_built() -> None:
    assert library() is not None


@EXAMPLES
@given(SEEDS, st.sampled_from((3, 7, 60, 400)))
def test_what_the_connector_writes_is_read_and_folded_alike(seed: int, poll: int) -> None:
    difference, natively = native.compared(Writer(seed).topic(40), poll)

    assert difference is None
    assert natively


@EXAMPLES
@given(SEEDS, SEEDS, st.sampled_from((7, 60, 400)))
def test_what_went_astray_is_refused_alike(seed: int, how: int, poll: int) -> None:
    difference, _ = native.compared(spoiled(Writer(seed).topic(20), how), poll)

    assert difference is None
