"""Durations and sizes are read as people write them, and written back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_migrator.config.values import duration_text, parse_duration, parse_size, size_text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10), ("250ms", 0.25), (3, 3), (0.5, 0.5), ("1.5m", 90), ("2 h", 7200), ("7", 7)],
)
def test_durations(text: object, seconds: float) -> None:
    """Seconds are meant where no unit is written."""
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "soon", "-1s", -1, "10 parsecs", True, "inf", float("inf")])
def test_what_is_no_duration_is_refused(text: object) -> None:
    """Also what is endless or lies in the past."""
    with pytest.raises(ValueError, match="must"):
        parse_duration(text)


@given(st.integers(0, 10**7))
def test_a_duration_is_read_back_as_written(milliseconds: int) -> None:
    """`config show` prints what could stand in the file."""
    value = timedelta(milliseconds=milliseconds)
    assert parse_duration(duration_text(value)) == value


@pytest.mark.parametrize(
    ("text", "count"), [("64MiB", 64 << 20), ("1GB", 10**9), (5, 5), ("5", 5), ("2 kib", 2048)]
)
def test_sizes(text: object, count: int) -> None:
    """Bytes are meant where no unit is written."""
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "big", "1.5MiB", "-1", "3 pages", True])
def test_what_is_no_size_is_refused(text: object) -> None:
    """A truth value included."""
    with pytest.raises(ValueError, match="must"):
        parse_size(text)


@given(st.integers(0, 1 << 45))
def test_a_size_is_read_back_as_written(count: int) -> None:
    """Exactly, to the byte."""
    assert parse_size(size_text(count)) == count
