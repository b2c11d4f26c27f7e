"""Folding: where each row ends, what it needs from the target, and what cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from cdc_migrator.apply.fold import UnknownTable, fold
from cdc_migrator.apply.follow import TableState
from cdc_migrator.apply.shape import Reread, Shape, by_stream_name
from cdc_migrator.errors import StreamHalted
from cdc_migrator.model.changes import Change, Op, Transaction
from cdc_migrator.model.positions import Snapshot
from cdc_migrator.model.tables import TableName
from cdc_migrator.stream.rows import UNCHANGED, KeyDecoder, RowDecoder

T, LOG = TableName("s", "t"), TableName("s", "log")
P = "__placeholder__"


class Counting:
    """A row decoder that remembers how many images it took apart."""

    def __init__(self, decoder: RowDecoder) -> None:
        self.decoder = decoder
        self.decoded = 0

    def decode(self, image: bytes, lsn: int) -> tuple[object, ...]:
        self.decoded += 1
        return self.decoder.decode(image, lsn)

    def decode_many(self, images: Sequence[bytes]) -> list[tuple[str | None, ...] | None]:
        self.decoded += len(images)
        return self.decoder.decode_many(images)


def shapes(reread: Reread | None = None) -> dict[TableName, Shape]:
    keyed, plain = [("id", False), ("v", True)], [("v", True), ("w", True)]
    return {
        T: Shape(T, ("id", "v"), (0,), Counting(RowDecoder(T, keyed, P)),
                 KeyDecoder(T, keyed[:1]), True, reread),
        LOG: Shape(LOG, ("v", "w"), (), RowDecoder(LOG, plain, P), None),
    }  # fmt: skip


def image(key: int, value: str) -> bytes:
    return b'{"id":%d,"v":"%s"}' % (key, value.encode())


def key(number: int) -> bytes:
    return b'{"id":%d}' % number


def insert(k: int, v: str) -> list[Change]:
    return [Change(T, Op.INSERT, key(k), None, image(k, v), 1)]


def update(k: int, v: str) -> list[Change]:
    return [Change(T, Op.UPDATE, key(k), None, image(k, v), 1)]


def delete(k: int) -> list[Change]:
    return [Change(T, Op.DELETE, key(k), image(k, ""), None, 1)]


def move(k: int, to: int, v: str) -> list[Change]:
    return [
        Change(T, Op.DELETE, key(k), image(k, ""), None, 1, key_moves_on=True),
        Change(T, Op.INSERT, key(to), None, image(to, v), 1, key_moved_here=True),
    ]


def truncate(table: TableName = T) -> list[Change]:
    return [Change(table, Op.TRUNCATE, b"", None, None, 1)]


def transaction(*steps: list[Change], xid: int = 7, commit_lsn: int = 100) -> Transaction:
    return Transaction(xid, 1, commit_lsn, None, [change for step in steps for change in step])


def folded(*steps: list[Change]) -> TableState:
    """The state of T, each step a transaction of its own."""
    (state,) = fold([transaction(step) for step in steps], shapes()).tables
    return state


@pytest.mark.parametrize(
    ("steps", "deletes", "complete", "partial"),
    [
        ([insert(1, "a")], [], [("1", "a")], []),
        ([insert(1, "a"), delete(1)], [], [], []),
        ([insert(1, "a"), update(1, "b")], [], [("1", "b")], []),
        ([insert(1, "a"), update(1, P)], [], [("1", "a")], []),
        ([update(1, "a"), update(1, P), update(1, P)], [], [("1", "a")], []),
        ([update(1, P)], [], [], [(None, ("1", UNCHANGED))]),
        ([update(1, "a"), delete(1)], [("1",)], [], []),
        ([delete(1), insert(1, "b")], [], [("1", "b")], []),
        ([delete(1), insert(1, "b"), update(1, P)], [], [("1", "b")], []),
        ([delete(1), insert(1, "b"), delete(1)], [("1",)], [], []),
        # key changes
        ([move(1, 2, "b")], [("1",)], [("2", "b")], []),
        ([move(1, 2, P)], [("1",)], [], [(("1",), ("2", UNCHANGED))]),
        ([move(1, 2, P), move(2, 3, P)], [("1",)], [], [(("1",), ("3", UNCHANGED))]),
        ([move(1, 2, P), move(2, 1, P)], [], [], [(None, ("1", UNCHANGED))]),
        ([move(1, 2, P), delete(2)], [("1",)], [], []),
        ([move(1, 2, P), update(2, "c")], [("1",)], [("2", "c")], []),
        ([update(1, "a"), move(1, 2, P)], [("1",)], [("2", "a")], []),
        ([move(1, 2, P), insert(1, "n")], [], [("1", "n")], [(("1",), ("2", UNCHANGED))]),
        ([insert(1, "a"), move(1, 2, P)], [], [("2", "a")], []),
        # 1 and 2 swap by way of 9
        (
            [move(1, 9, P), move(2, 1, P), move(9, 2, P)],
            [],
            [],
            [(("2",), ("1", UNCHANGED)), (("1",), ("2", UNCHANGED))],
        ),
        # sorted by number, not by text
        ([insert(10, "a"), insert(9, "b")], [], [("9", "b"), ("10", "a")], []),
    ],
)
def test_rows_end_where_the_last_change_left_them(
    steps: list[list[Change]], deletes: object, complete: object, partial: object
) -> None:
    """Each history folds to what must be removed, written whole, and written in part."""
    state = folded(*steps)
    if len(state.partial) == 2:  # both rows of a swap sit on keys that are vacated too
        assert sorted(state.deletes) == [("1",), ("2",)]
        state.deletes = []
    assert (state.deletes, state.complete, state.partial) == (deletes, complete, partial)
    assert not state.truncated


@pytest.mark.parametrize(
    ("steps", "deletes", "complete", "partial"),
    [
        ([insert(1, "a")], [], [("1", "a")], []),
        ([insert(1, "a"), update(1, "b")], [], [("1", "b")], []),
        ([update(1, "a")], [], [], [(("1",), ("1", "a"))]),
        ([update(1, P)], [], [], [(None, ("1", UNCHANGED))]),
        ([delete(1), insert(1, "b")], [("1",)], [], [(None, ("1", "b"))]),
        ([move(1, 2, "b")], [("1",)], [], [(("1",), ("2", "b"))]),
        ([move(1, 2, "b"), insert(1, "n")], [("1",)], [],
         [(None, ("1", "n")), (("1",), ("2", "b"))]),
        ([move(1, 2, "b"), move(2, 1, "c")], [], [], [(("1",), ("1", "c"))]),
    ],
)  # fmt: skip
def test_where_the_target_has_more_it_is_told_which_row_that_is_of(
    steps: list[list[Change]],
    deletes: list[tuple[str, ...]],
    complete: list[tuple[str, ...]],
    partial: list[object],
) -> None:
    """A whole row comes with its base, if the target has it; a new one under a key that was
    another's is told apart from that."""
    keeps = {name: replace(shape, keeps=True) for name, shape in shapes().items()}
    (state,) = fold([transaction(step) for step in steps], keeps).tables
    assert (state.deletes, state.complete, state.partial) == (deletes, complete, partial)


def test_truncate_forgets_what_came_before() -> None:
    """After a truncate nothing of the target is left to delete or to fill from."""
    state = folded(update(1, "a"), delete(2), insert(3, "c"), truncate(), insert(1, "b"))
    assert state.truncated
    assert (state.deletes, state.complete, state.partial) == ([], [("1", "b")], [])


@pytest.mark.parametrize(
    "steps",
    [
        [insert(1, "a"), insert(1, "b")],
        [update(1, "a"), insert(1, "b")],
        [delete(1), update(1, "b")],
        [delete(1), delete(1)],
        [move(1, 2, "a"), update(1, "b")],
        [truncate(), update(1, "b")],
        [truncate(), delete(1)],
        [insert(1, P)],
        [insert(1, "a"), delete(1), insert(1, P)],
        [move(1, 2, "a")[1:]],
        [move(1, 2, "a")[:1]],
        [insert(1, "a"), move(1, 2, "a")[:1], move(3, 4, "a")],
        [[Change(T, Op.UPDATE, b"", None, image(1, "a"), 1)]],
        [[Change(T, Op.DELETE, b"", None, None, 1)]],
        [[Change(T, Op.INSERT, key(1), None, None, 1)]],
    ],
)
def test_event_that_cannot_follow_halts(steps: list[list[Change]]) -> None:
    """A history that no table can have stops the stream instead of being made to fit."""
    with pytest.raises(StreamHalted) as halted:
        folded(*steps)
    assert halted.value.code == "CDCM-STREAM-SEQUENCE"


def test_replaced_images_are_never_decoded() -> None:
    """A key changed a thousand times costs one decode."""
    known = shapes()
    fold([transaction(*(update(1, str(n)) for n in range(1000)))], known)
    assert known[T].rows.decoded == 1  # type: ignore[attr-defined]


def log(op: Op, before: str | None, after: str | None, w: str = "w") -> list[Change]:
    def whole(v: str | None) -> bytes | None:
        return None if v is None else b'{"v":"%s","w":"%s"}' % (v.encode(), w.encode())

    return [Change(LOG, op, b"", whole(before), whole(after), 1)]


def test_keyless_rows_are_counted() -> None:
    """Equal rows are as many as they are; an update is one less and one more."""
    state = folded(
        log(Op.INSERT, None, "a"),
        log(Op.INSERT, None, "a"),
        log(Op.UPDATE, "b", "a"),
        log(Op.DELETE, "c", None),
        log(Op.DELETE, "c", None),
        log(Op.UPDATE, "a", "d"),
        log(Op.INSERT, None, "e"),
        log(Op.DELETE, "e", None),
    )
    assert sorted(state.deletes) == [("b", "w"), ("c", "w"), ("c", "w")]
    assert sorted(state.complete) == [("a", "w"), ("a", "w"), ("d", "w")]


def test_keyless_update_takes_unchanged_values_from_the_old_row() -> None:
    """With the whole old row in the event, nothing is asked of the target."""
    change = log(Op.UPDATE, "a", "b")
    change[0].after = b'{"v":"b","w":"%s"}' % P.encode()
    state = folded(change)
    assert (state.deletes, state.complete) == ([("a", "w")], [("b", "w")])


def test_keyless_delete_after_truncate_halts() -> None:
    """An emptied table has no row to remove."""
    with pytest.raises(StreamHalted):
        folded(truncate(LOG), log(Op.DELETE, "a", None))


def test_counts_include_what_a_reread_skips() -> None:
    """Skipped transactions change nothing, but the stream carried them."""
    seen = Reread(Snapshot(10, 10, frozenset()), until=50)
    work = [
        transaction(insert(1, "a"), xid=5, commit_lsn=40),
        transaction(insert(2, "b"), xid=11, commit_lsn=45),
        transaction(insert(3, "c"), xid=5, commit_lsn=60),
    ]
    result = fold(work, shapes(seen))
    assert result.tables[0].complete == [("2", "b"), ("3", "c")]
    assert result.counts == {T: (3, 0, 0, 0, 0)}


def test_a_table_that_was_renamed_since_is_known_by_its_former_name() -> None:
    """Up to where the stream comes to that; unless another table has taken the name."""
    seen = Reread(Snapshot(10, 10, frozenset()), until=50, former=(TableName("s", "old"), LOG))
    known = by_stream_name(shapes(seen).values())
    assert known[LOG].name == LOG
    before = insert(1, "a")
    before[0].table = TableName("s", "old")
    work = [
        transaction(before, xid=5, commit_lsn=40),
        transaction(insert(2, "b"), xid=11, commit_lsn=45),
    ]
    result = fold(work, known)
    assert [state.complete for state in result.tables] == [[("2", "b")]]
    assert result.counts == {T: (2, 0, 0, 0, 0)}


def test_control_tables_are_set_apart() -> None:
    """The service's own tables are not the target's business."""
    marker = Change(TableName("cdc_migrator", "marker"), Op.INSERT, b"{}", None, b"{}", 1)
    work = transaction([marker], insert(1, "a"), [marker])
    result = fold([work], shapes())
    assert [change for _, change in result.control] == [marker, marker]
    assert [state.shape.name for state in result.tables] == [T]


def test_unknown_table_halts() -> None:
    """No event is dropped because nobody knows its table, or whose side table it comes from."""
    with pytest.raises(UnknownTable) as halted:
        fold([transaction(insert(1, "a"))], {LOG: shapes()[LOG]})
    assert halted.value.code == "CDCM-STREAM-UNKNOWN-TABLE"
    assert halted.value.table == T
    side = Change(TableName("cdc_migrator", "side_0123"), Op.INSERT, b"{}", None, b"{}", 1)
    with pytest.raises(UnknownTable) as halted:
        fold([transaction([side])], shapes())
    assert halted.value.table == side.table
