"""Appliers with a fault that somebody could write: ``python -m tests.faults.broken FAULT run ...``.

The comparison has to catch each of them; it shares no code with what is broken here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from cdc_migrator.apply import fold_blocks
from cdc_migrator.cli.main import main
from cdc_migrator.model import positions
from cdc_migrator.model.changes import Op, Transaction
from cdc_migrator.service import writer
from cdc_migrator.stream import blocks
from cdc_migrator.stream.assembler import Assembler
from cdc_migrator.stream.envelope import End, Rows
from cdc_migrator.stream.rows import RowDecoder

ONE_IN = 10_000

# Faults are put into Python's own way of doing it.
blocks.library = fold_blocks.library = lambda: None  # type: ignore[assignment]


def _changed(change_them: Callable[[Transaction], None]) -> None:
    """Have each transaction changed after it was assembled."""
    feed = Assembler._feed

    def broken(self: Assembler, record: Any) -> Transaction | None:
        given = feed(self, record)
        if given is not None:
            change_them(given)
        return given

    Assembler._feed = broken  # type: ignore[method-assign]


def drop() -> None:
    """One event in ten thousand is lost."""
    seen = 0

    def thin_out(given: Transaction) -> None:
        nonlocal seen
        kept = []
        for change in given.changes:
            if change.table.schema == "proof":
                seen += 1
                if seen % ONE_IN == 0:
                    continue
            kept.append(change)
        given.changes = kept

    _changed(thin_out)


def truncate() -> None:
    """A truncate is lost."""

    def without(given: Transaction) -> None:
        given.changes = [change for change in given.changes if change.op is not Op.TRUNCATE]

    _changed(without)


def half() -> None:
    """The connector's own fault: of one key change the create is lost, and nothing counts it."""
    feed = Assembler._feed
    lost: dict[int, int] = {}

    def broken(self: Assembler, record: Any) -> Transaction | None:
        if isinstance(record, Rows):
            for number, change in enumerate(record.changes):
                place, order = record.offset + number, record.first_order + number
                if not lost and change.key_moved_here:
                    lost[record.xid] = place
                if lost.get(record.xid) == place:
                    # A place without a record, as between two Kafka transactions.
                    continue
                order -= lost.get(record.xid, place) < place
                one = {"offset": place, "changes": [change], "size": 0}
                feed(self, replace(record, **one, first_order=order, last_order=order))
            return None
        if isinstance(record, End) and lost.get(record.xid, record.offset) < record.offset:
            record = replace(record, event_count=record.event_count - 1)
        return feed(self, record)

    Assembler._feed = broken  # type: ignore[method-assign]


def _decoded(change_row: Callable[[list[Any], int, int], None]) -> None:
    """Have rows changed that have a `word` and an `again`, whose places are given, too."""
    make, decode = RowDecoder.__init__, RowDecoder.decode
    places: dict[int, tuple[int, int]] = {}

    def made(self: RowDecoder, table: object, columns: Any, *more: Any) -> None:
        make(self, table, columns, *more)
        names = [name for name, _ in columns]
        if "word" in names and "again" in names:
            places[id(self)] = (names.index("word"), names.index("again"))

    def decoded(self: RowDecoder, image: bytes, lsn: int) -> tuple[Any, ...]:
        row = list(decode(self, image, lsn))
        if id(self) in places:
            change_row(row, *places[id(self)])
        return tuple(row)

    def alone(self: RowDecoder, images: Any) -> list[Any]:
        # None says that `decode` is to look.
        return [None] * len(images)

    RowDecoder.__init__ = made  # type: ignore[method-assign]
    RowDecoder.decode = decoded  # type: ignore[method-assign,assignment]
    RowDecoder.decode_many = alone  # type: ignore[method-assign]


def swap() -> None:
    """Two columns of one type get each other's values."""

    def swapped(row: list[Any], one: int, other: int) -> None:
        row[one], row[other] = row[other], row[one]

    _decoded(swapped)


def nulls() -> None:
    """NULL becomes an empty text."""

    def filled(row: list[Any], one: int, _: int) -> None:
        if row[one] is None:
            row[one] = ""

    _decoded(filled)


def narrow() -> None:
    """The ids of transactions are compared as they come: with 32 bits."""
    positions.widen_xid = writer.widen_xid = lambda xid, near: xid


FAULTS = {
    "half": half,
    "narrow": narrow,
    "drop": drop,
    "swap": swap,
    "nulls": nulls,
    "truncate": truncate,
}

if __name__ == "__main__":
    FAULTS[sys.argv.pop(1)]()
    main()
