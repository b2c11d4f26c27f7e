"""The journal's chain: whatever is changed afterwards is found, in the database or in a file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_migrator.control import chain, journal_file
from cdc_migrator.control.chain import Entry

BEGAN = datetime(2026, 3, 1, 22, 15, tzinfo=UTC)
DETAILS = st.dictionaries(
    st.text(max_size=4),
    st.none() | st.booleans() | st.text(max_size=6) | st.floats(0, 9) | st.lists(st.integers(0, 9)),
    max_size=3,
)


def chained(*details: dict[str, object]) -> list[Entry]:
    """A right chain with these details."""
    found: list[Entry] = []
    for number, one in enumerate(details, 1):
        previous = found[-1].hash if found else chain.FIRST
        at = BEGAN + timedelta(seconds=number, microseconds=number % 2)
        content = (previous, number, at, "ann@host:1", f"did-{number}", one)
        found.append(Entry(number, *content[2:], previous, chain.digest(*content)))
    return found


FIVE = chained({}, {"a": 1.5}, {"b": "ü"}, {"c": [1, None]}, {"d": True})


def written(entries: list[Entry]) -> bytes:
    return b"".join(journal_file.dump("shop", "target", BEGAN, entries))


def test_a_right_chain_is_whole() -> None:
    """And its head is the last entry's hash, with which its end can be known again."""
    checked = chain.check(FIVE, known=FIVE[-1].hash)
    assert (checked.entries, checked.head, checked.fault) == (5, FIVE[-1].hash, None)
    assert chain.check(FIVE, known=FIVE[2].hash).fault is None
    assert chain.check([]).fault is None


@pytest.mark.parametrize(
    ("entries", "where"),
    [
        (FIVE[:1] + FIVE[2:], 2),
        (FIVE[1:], 1),
        ([FIVE[0], FIVE[2], FIVE[1], *FIVE[3:]], 2),
        ([*FIVE[:2], *FIVE[1:]], 2),
        ([*FIVE[:3], *chained({}, {}, {}, {}, {})[3:]], 4),
    ],
    ids=["removed", "first-removed", "moved", "twice", "of-another-chain"],
)
def test_what_is_missing_moved_or_added_is_found_at_its_place(
    entries: list[Entry], where: int
) -> None:
    """Each entry knows the one before it."""
    fault = chain.check(entries).fault
    assert fault is not None
    assert fault.entry == where


def test_an_end_that_was_cut_off_is_found_by_who_knows_it() -> None:
    """By itself the rest is a right chain."""
    assert chain.check(FIVE[:3]).fault is None
    fault = chain.check(FIVE[:3], known=FIVE[-1].hash).fault
    assert fault is not None
    assert fault.entry is None
    assert chain.check([], known=FIVE[-1].hash).fault is not None


@given(st.lists(DETAILS, max_size=4))
def test_a_file_gives_back_what_was_written(details: list[dict[str, object]]) -> None:
    """Every entry, its hash and the header."""
    entries = chained(*details)
    file = journal_file.verify(written(entries))
    assert file.checked.fault is None
    assert list(file.entries) == entries
    assert file.header is not None
    assert (file.header.migration, file.header.side) == ("shop", "target")
    assert file.header.head == file.checked.head


CONTENT = written(FIVE)


@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
def test_no_byte_can_be_another_one(place: int, flip: int) -> None:
    """In the header, in an entry, between them, or at the end."""
    altered = bytearray(CONTENT)
    altered[place] ^= flip
    assert journal_file.verify(bytes(altered)).checked.fault is not None


def test_no_bit_can_be_flipped_and_no_byte_cut_off() -> None:
    """All of them, one by one."""
    for place in range(len(CONTENT)):
        assert journal_file.verify(CONTENT[:place]).checked.fault is not None, place
        for bit in range(8):
            altered = bytearray(CONTENT)
            altered[place] ^= 1 << bit
            assert journal_file.verify(bytes(altered)).checked.fault is not None, (place, bit)


def test_lines_that_are_missing_added_or_exchanged_are_found() -> None:
    """Also where the rest of the file is right by itself."""
    lines = CONTENT.splitlines(keepends=True)
    for place in range(len(lines)):
        assert journal_file.verify(b"".join(lines[:place] + lines[place + 1 :])).checked.fault
        assert journal_file.verify(b"".join([*lines[: place + 1], *lines[place:]])).checked.fault
    for one, other in pairwise(range(len(lines))):
        turned = list(lines)
        turned[one], turned[other] = turned[other], turned[one]
        assert journal_file.verify(b"".join(turned)).checked.fault
    assert journal_file.verify(CONTENT + b"\n").checked.fault
    assert journal_file.verify(CONTENT.replace(b"\n", b"\r\n")).checked.fault


@given(st.binary(max_size=80))
def test_anything_else_is_no_journal(content: bytes) -> None:
    """Told as such, whatever it is."""
    assert journal_file.verify(content).checked.fault is not None
