"""What two servers do not hash alike is hashed in a safer way."""

from __future__ import annotations

from typing import Any

import pytest

from cdc_migrator.reconcile.expressions import NEWER_FUNCTIONS, RAW, Hashing
from cdc_migrator.reconcile.probe import decide

ALIKE: dict[str, Any] = {**{name: [(1,)] for name in RAW}, "(text)": [(2,)], "(mix)": [(3,)]}


def test_all_alike_is_hashed_in_its_own_form() -> None:
    """The usual case."""
    assert decide(ALIKE, dict(ALIKE), NEWER_FUNCTIONS) == Hashing()


def test_a_type_that_differs_goes_as_text() -> None:
    """That type alone."""
    made = decide(ALIKE, {**ALIKE, "uuid": [(9,)]}, NEWER_FUNCTIONS)
    assert made.raw == set(RAW) - {"uuid"}
    assert made.by_server


@pytest.mark.parametrize("name", ["(text)", "(mix)"])
def test_where_not_even_texts_agree_md5_decides(name: str) -> None:
    """For example between servers of different byte order."""
    made = decide(ALIKE, {**ALIKE, name: [(9,)]}, NEWER_FUNCTIONS)
    assert not made.by_server


def test_the_safer_ways_come_to_an_end() -> None:
    """Own form, text, md5, and then the same again."""
    text = Hashing().slower()
    assert (text.raw, text.by_server) == (frozenset(), True)
    assert not text.slower().by_server
    assert text.slower().slower() == text.slower()
