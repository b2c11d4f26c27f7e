"""Batches close where a transaction does; COPY text says exactly what the cells say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cdc_migrator.apply.batcher import Batch, Batcher, BatchLimits
from cdc_migrator.apply.follow import TableState
from cdc_migrator.apply.shape import Shape
from cdc_migrator.apply.stage import copy_text, encode, unchanged_places
from cdc_migrator.model.changes import Change, Op, Transaction
from cdc_migrator.model.tables import TableName
from cdc_migrator.stream.rows import UNCHANGED, KeyDecoder, RowDecoder

T = TableName("s", "t")


def transaction(number: int, rows: int = 1, size: int = 10, suspect: bool = False) -> Transaction:
    change = Change(T, Op.INSERT, b"", None, b"", 1)
    return Transaction(
        number, 1, 1000 + number, None if rows == 0 else number, [change] * rows,
        first_offset=10 * number, next_offset=10 * number + 9, suspect=suspect, bytes=size,
    )  # fmt: skip


def batcher(**limits: float) -> Batcher:
    return Batcher(BatchLimits(**limits), next_offset=5, commit_position=900)  # type: ignore[arg-type]


def test_batch_closes_with_the_transaction_that_fills_it() -> None:
    """By rows or by bytes; a transaction is never cut."""
    by_rows = batcher(rows=5)
    assert by_rows.add(transaction(1, rows=4), 0) is None
    full = by_rows.add(transaction(2, rows=100), 0)
    assert full is not None
    assert (full.changes, full.next_offset, full.commit_position) == (104, 29, 1002)
    by_size = batcher(bytes=25)
    assert [by_size.add(transaction(n), 0) is None for n in (1, 2, 3)] == [True, True, False]


def test_batch_closes_when_old_or_idle() -> None:
    """Age counts from the first transaction; a topic read to its end closes at once."""
    one = batcher(age=0.2)
    assert one.take(100.0, idle=True) is None
    one.add(transaction(1), 100.0)
    assert one.take(100.1, idle=False) is None
    old = one.take(100.2, idle=False)
    assert old is not None
    assert old.transactions[0].xid == 1
    one.add(transaction(2), 100.3)
    idle = one.take(100.3, idle=True)
    assert idle is not None
    assert one.take(200.0, idle=True) is None


def test_batch_moves_past_skipped_redeliveries() -> None:
    """Their number is told once, with the position behind them and the commit position before."""
    one = batcher()
    one.reached(44, redelivered=3)
    skipped = one.take(0, idle=True)
    assert skipped == Batch((), 44, 900, redelivered=3)
    assert one.take(0, idle=True) is None
    one.add(transaction(7), 0)
    one.reached(79, redelivered=4)
    more = one.take(0, idle=True)
    assert more is not None
    assert (more.redelivered, more.next_offset, more.commit_position) == (1, 79, 1007)


def test_halves_are_the_whole() -> None:
    """Two halves in turn reach the same position with the same transactions."""
    whole = Batch(
        tuple(transaction(n, suspect=n == 2) for n in range(1, 6)),
        99,
        1005,
        redelivered=2,
        bytes=50,
    )
    first, second = whole.halves()
    assert first.transactions + second.transactions == whole.transactions
    assert (first.next_offset, first.commit_position) == (29, 1002)
    assert (second.next_offset, second.commit_position) == (99, 1005)
    assert first.redelivered + second.redelivered == 2
    assert first.suspect + second.suspect == whole.suspect == 1
    assert first.bytes + second.bytes == 50
    assert whole.committed_at_us == 5


def read_copy(data: bytes) -> list[list[str | None]]:
    """COPY's text format read by the letter of its documentation."""
    plain = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}

    def cell(text: str) -> str | None:
        if text == "\\N":
            return None
        out, letters = [], iter(text)
        for letter in letters:
            out.append(plain[next(letters)] if letter == "\\" else letter)
        return "".join(out)

    lines = data.decode().split("\n")
    assert lines.pop() == ""
    return [[cell(text) for text in line.split("\t")] for line in lines]


cells = st.none() | st.text(st.sampled_from("ab\\\n\t\rN\u00e9\u2028'\"{}"), max_size=6)


@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.tuples(*[cells] * n), max_size=20)))
def test_copy_text_reads_back(rows: list[tuple[str | None, ...]]) -> None:
    """Whatever the cells hold, COPY reads the same cells."""
    assert read_copy(b"".join(copy_text(rows))) == [list(row) for row in rows]


@given(st.lists(st.tuples(cells, cells), max_size=30))
def test_whole_rows_read_back(rows: list[tuple[str | None, ...]]) -> None:
    """The quicker way for rows as they mostly are writes the same for those that are not so."""
    members = [("id", True), ("a", True)]
    shape = Shape(T, ("id", "a"), (0,), RowDecoder(T, members, "P"), KeyDecoder(T, members[:1]))
    staged = encode(TableState(shape, False, complete=rows))
    wanted = [["c", None, *row] for row in rows]
    assert read_copy(b"".join(staged.payload)) == wanted


def test_copy_text_comes_in_pieces_of_whole_rows() -> None:
    """A large table's rows are not held twice at once."""
    pieces = list(copy_text((str(n), None) for n in range(10_000)))
    assert len(pieces) == 3
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert len(read_copy(b"".join(pieces))) == 10_000


def test_staged_kinds_say_what_each_row_is() -> None:
    """Removed keys, whole rows, and rows that leave columns as they are, moved or not."""
    members = [("id", False), ("a", True), ("b", True)]
    shape = Shape(
        T, ("id", "a", "b"), (0,), RowDecoder(T, members, "P"), KeyDecoder(T, members[:1])
    )
    state = TableState(
        shape,
        False,
        deletes=[("1",)],
        complete=[("2", "x", None)],
        partial=[
            (None, ("3", UNCHANGED, "y")),
            (("4",), ("5", UNCHANGED, UNCHANGED)),
            (None, ("6", UNCHANGED, "z")),
        ],
    )
    staged = encode(state)
    assert read_copy(b"".join(staged.payload)) == [
        ["d", "1", None, None, None],
        ["c", None, "2", "x", None],
        ["u:1", None, "3", None, "y"],
        ["m:1,2", "4", "5", None, None],
        ["u:1", None, "6", None, "z"],
    ]
    assert (staged.deletes, staged.complete, staged.partial) == (1, 1, {"u:1": 2, "m:1,2": 1})
    assert staged.moves
    assert staged.few is None
    assert encode(state, inline=4).few is None
    assert encode(state, inline=5).few == [
        ["d", "c", "u:1", "m:1,2", "u:1"],
        ["1", None, None, "4", None],
        [None, "2", "3", "5", "6"],
        [None, "x", None, None, None],
        [None, None, "y", None, "z"],
    ]
    # What a text of the server cannot hold is refused by the server, not on the way there.
    state.complete.append(("7", "\0", None))
    assert encode(state, inline=9).few is None
    assert unchanged_places("m:1,2") == (1, 2)
