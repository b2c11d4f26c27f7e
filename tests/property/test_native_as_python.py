"""The library in C reads, folds and writes out as Python does, or leaves it to Python."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_migrator.apply import fold_blocks
from cdc_migrator.native.library import library
from cdc_migrator.stream import blocks
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


def test_without_the_library_python_does_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (blocks, fold_blocks):
        monkeypatch.setattr(module, "library", lambda: None)

    assert native.compared(Writer(1).topic(20), 60) == (None, False)


def test_a_library_that_was_built_from_other_files_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = library.__wrapped__
    assert load() is not None

    monkeypatch.setattr("cdc_migrator.native.library.digest", lambda: "of other files")
    assert load() is None
