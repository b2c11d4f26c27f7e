"""A service that reads tables again lives, however long that takes."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from cdc_migrator.errors import Failed
from cdc_migrator.monitor.sample import ServiceState
from cdc_migrator.service.resuming import reread


def test_the_loop_turns_while_tables_are_read_again() -> None:
    """Else a probe would end the service, and the next one would begin the reading anew."""
    turns: list[ServiceState] = []
    read: list[Sequence[str]] = []
    enough = threading.Event()

    def reading(tables: Sequence[str]) -> None:
        assert enough.wait(20), "nobody said meanwhile that the service lives"
        read.append(tables)

    def turn(state: ServiceState) -> None:
        turns.append(state)
        if len(turns) == 3:
            enough.set()

    reread(reading, ["shop.orders"], turn)
    assert read == [["shop.orders"]]
    assert set(turns) == {ServiceState.REREADING}


def test_what_reading_has_met_is_raised() -> None:
    """With its code."""

    def reading(tables: Sequence[str]) -> None:
        raise Failed("CDCM-TOOL-FAILED", "psql ended", "look")

    with pytest.raises(Failed, match="psql ended"):
        reread(reading, [], lambda _: None)
