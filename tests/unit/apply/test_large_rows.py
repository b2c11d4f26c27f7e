"""What a batch takes of memory does not grow with what it is made of in between."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from cdc_migrator.apply.batcher import LARGE_ROW, Batch, Batcher, BatchLimits
from cdc_migrator.apply.follow import TableState
from cdc_migrator.apply.pieces import PieceLimits
from cdc_migrator.apply.prepared import Preparer
from cdc_migrator.apply.shape import Shape
from cdc_migrator.apply.stage import encode
from cdc_migrator.model.changes import Change, Op, Transaction
from cdc_migrator.model.tables import TableName
from cdc_migrator.stream.rows import KeyDecoder, RowDecoder
from cdc_migrator.stream.spill import Spilled

T = TableName("s", "t")
MEMBERS = [("id", False), ("body", True)]
SHAPE = Shape(T, ("id", "body"), (0,), RowDecoder(T, MEMBERS, "P"), KeyDecoder(T, MEMBERS[:1]))
MIB = 1 << 20
WIDE = "\N{GRINNING FACE}"


def insert(number: int, body: str) -> Change:
    image = msgspec.json.encode({"id": number, "body": body})
    key = msgspec.json.encode({"id": number})
    return Change(T, Op.INSERT, key, None, msgspec.Raw(image), number)


def whole(*changes: Change, spilled: bool = False) -> Transaction:
    size = sum(len(change.after or b"") for change in changes)
    kept = Spilled.of(changes) if spilled else list(changes)
    return Transaction(1, 1, 9, 1, kept, bytes=size, tables=frozenset({T}) if spilled else None)


def batch(*transactions: Transaction) -> Batch:
    return Batch(transactions, 9, 9, bytes=sum(one.bytes for one in transactions))


@contextmanager
def at_most(mib: float) -> Iterator[None]:
    """No more than this is taken in the block on top of what was there."""
    gc.collect()
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= mib * MIB, f"{peak / MIB:.1f} MiB"


@pytest.mark.parametrize("spilled", [False, True])
def test_large_rows_are_written_one_by_one(spilled: bool) -> None:
    """Eight rows of 4 MiB with a wide character: at no time is more than one taken apart."""
    rows = [insert(number, WIDE + "x" * 4 * MIB) for number in range(8)]
    made = batch(whole(*rows, spilled=spilled))
    del rows
    preparer = Preparer({T: SHAPE}, PieceLimits())
    # One as text takes 16 MiB, and all of them 128.
    with at_most(42):
        prepared = preparer.prepare(made)
        sizes = [sum(map(len, one.payload)) for piece in prepared.pieces for one in piece.staged]
    assert len(sizes) == 8
    assert all(4 * MIB < size < 5 * MIB for size in sizes)
    assert prepared.touched == {T}


def test_only_batches_of_large_rows_are_cut_for_it() -> None:
    """Many small rows are prepared ahead of the writer, in one go, whatever they come to."""
    small = [insert(number, "x" * 1000) for number in range(3000)]
    assert not batch(whole(*small)).spilled
    assert not batch(*(whole(one) for one in small)).spilled
    assert not batch().spilled
    assert batch(whole(insert(1, "x" * LARGE_ROW))).spilled


def test_wide_texts_are_not_put_together_as_one() -> None:
    """One wide character among 24 MiB of rows does not make four times as much of all of them."""
    rows = [(str(number), "x" * 6000) for number in range(4096)]
    rows[7] = ("7", WIDE)
    # The payload itself, the lines that it is made of, and the part that is put together.
    with at_most(24 + 24 + 4 * 8):
        staged = encode(TableState(SHAPE, False, complete=list(rows)))
    assert sum(map(len, staged.payload)) > 23 * MIB
    assert b"".join(staged.payload).count(b"\n") == 4096


def test_a_large_row_is_written_as_a_small_one_is() -> None:
    """NULLs and escapes in a row beyond what is put together as one text."""
    body = WIDE + "tab\tline\nback\\slash\rend" + "x" * 5 * MIB
    state = TableState(SHAPE, False, complete=[("1", body), ("2", None), ("3", "y" * 5 * MIB)])
    lines = b"".join(encode(state).payload).split(b"\n")
    assert [line.split(b"\t")[2] for line in lines[:-1]] == [b"1", b"2", b"3"]
    cells = [line.split(b"\t")[3] for line in lines[:-1]]
    assert cells[0].startswith(f"{WIDE}tab\\tline\\nback\\\\slash\\rendxxx".encode())
    assert cells[1] == b"\\N"
    assert cells[2] == b"y" * 5 * MIB


def test_large_transactions_are_not_put_into_one_batch() -> None:
    """The first one is given as it is when the second one would make it twice what it may be."""
    batcher = Batcher(BatchLimits(bytes=100), 0, 0)
    sizes = (90, 150, 150, 10, 10)
    of = [Transaction(n, 1, n, n, [], next_offset=n, bytes=size) for n, size in enumerate(sizes)]
    given = [batcher.add(one, 0.0) for one in of]
    assert [one and [t.xid for t in one.transactions] for one in given] == [
        None, [0], [1], [2, 3], None,
    ]  # fmt: skip
    assert given[1] is not None
    assert given[1].next_offset == 0
    full = Batcher(BatchLimits(bytes=100), 0, 0)
    assert full.add(of[0], 0.0) is None
    assert full.add(of[1], 0.0) is not None
    alone = full.take(0.0, idle=False)
    assert alone is not None, "what is full does not wait for its age"
    assert [t.xid for t in alone.transactions] == [1]
