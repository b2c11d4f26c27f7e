"""Rows of side tables: what they add to events, what is missing, and where a cut may fall."""

from __future__ import annotations

import pytest

from cdc_migrator.apply.beside import EventRows, SideRows, SideValues
from cdc_migrator.apply.fold import fold
from cdc_migrator.apply.follow import TableState
from cdc_migrator.apply.pieces import PieceLimits, pieces
from cdc_migrator.apply.shape import Shape, by_stream_name
from cdc_migrator.databases.postgres.side import Side, sides
from cdc_migrator.errors import StreamHalted
from cdc_migrator.model.changes import Change, Op, Transaction, TruncatePolicy
from cdc_migrator.model.tables import Column, ReplicaIdentity, Table, TableName
from cdc_migrator.stream.rows import UNCHANGED, KeyDecoder, RowDecoder

P = "__placeholder__"


def column(name: str, type_text: str, element: str | None = None) -> Column:
    base = "pg_catalog." + ("_int4" if element else type_text)
    return Column(name, type_text, base, "b", element, "b" if element else None, False, False, "")


def made(name: str, *columns: Column, key: tuple[str, ...] = ("id",)) -> tuple[Table, Side]:
    table = Table(TableName("s", name), columns, key, ReplicaIdentity.DEFAULT, None, 0, 0)
    return table, sides([table], "m")[table.name]


ID = column("id", "int4")
# `z` is never in an event, `a` is there but may be odd, rows of `w` are sent whole.
ALWAYS, ALWAYS_SIDE = made("always", ID, column("z", "timetz"))
ODD, ODD_SIDE = made("odd", ID, column("a", "integer[]", "pg_catalog.int4"))
WHOLE, WHOLE_SIDE = made("w", ID, column("z", "timetz"), key=())


def keyed(table: Table, side: Side, rows: object) -> Shape:
    key = [("id", False)]
    values = SideValues(side, key, (1,), 2, P)
    names = tuple(c.name for c in table.columns)
    return Shape(table.name, names, (0,), rows, KeyDecoder("t", key), values=values)  # type: ignore[arg-type]


SHAPES = by_stream_name(
    [
        keyed(ALWAYS, ALWAYS_SIDE, EventRows(RowDecoder("t", [("id", False)], P), (0,), 2)),
        keyed(ODD, ODD_SIDE, RowDecoder("t", [("id", False), ("a", False)], P)),
        Shape(
            WHOLE.name,
            ("id", "z"),
            (),
            RowDecoder("t", [], P),
            None,
            images=SideRows(WHOLE_SIDE, P),
        ),
    ]
)


def event(op: Op, table: Table, k: int, after: str = "", **flags: bool) -> Change:
    image = None if op is Op.DELETE else b'{"id":%d%s}' % (k, after.encode())
    return Change(table.name, op, b'{"id":%d}' % k, None, image, 1, **flags)


def said(side: Side, k: int, value: str | None) -> Change:
    """A row of a side table; None says that the value was kept."""
    text = "null" if value is None else f'"{value}"'
    kept = "true" if value is None else "false"
    image = f'{{"id":9,"k0":{k},"v0":{text},"kept":{kept}}}'
    return Change(side.name, Op.INSERT, b'{"id":9}', None, image.encode(), 1)


def folded(*changes: Change) -> TableState:
    (state,) = fold([Transaction(7, 1, 2, None, list(changes))], SHAPES).tables
    return state


def test_a_fresh_row_takes_its_value_from_the_side_table() -> None:
    """The rows of one statement come first, what they lack comes behind them."""
    state = folded(
        event(Op.INSERT, ALWAYS, 1), event(Op.INSERT, ALWAYS, 2),
        said(ALWAYS_SIDE, 1, "x"), said(ALWAYS_SIDE, 2, "y"),
    )  # fmt: skip
    assert state.complete == [("1", "x"), ("2", "y")]


def test_the_last_word_about_a_key_counts() -> None:
    """A trigger that fires late tells what the row holds by then; a kept value changes nothing."""
    state = folded(
        event(Op.UPDATE, ALWAYS, 1), event(Op.UPDATE, ALWAYS, 1),
        said(ALWAYS_SIDE, 1, "new"), said(ALWAYS_SIDE, 1, None),
    )  # fmt: skip
    assert state.complete == [("1", "new")]


def test_a_kept_value_stays_as_the_target_has_it() -> None:
    """The row is written without that column."""
    state = folded(event(Op.UPDATE, ALWAYS, 1), said(ALWAYS_SIDE, 1, None))
    assert state.partial == [(None, ("1", UNCHANGED))]


def test_a_moved_row_is_told_of_at_its_new_key() -> None:
    """Delete and create of a key change, then the row of the side table."""
    state = folded(
        event(Op.DELETE, ALWAYS, 1, key_moves_on=True),
        event(Op.INSERT, ALWAYS, 5, key_moved_here=True),
        said(ALWAYS_SIDE, 5, "x"),
    )
    assert (state.complete, state.deletes) == ([("5", "x")], [("1",)])


def test_a_row_that_is_gone_when_its_trigger_fires_is_no_matter() -> None:
    """Another trigger may have deleted it."""
    state = folded(
        event(Op.INSERT, ALWAYS, 1), event(Op.DELETE, ALWAYS, 1), said(ALWAYS_SIDE, 1, "x")
    )
    assert (state.complete, state.partial, state.deletes) == ([], [], [])


@pytest.mark.parametrize(
    "changes",
    [
        [event(Op.INSERT, ALWAYS, 1)],
        [event(Op.UPDATE, ALWAYS, 1)],
        [event(Op.UPDATE, ALWAYS, 1), said(ALWAYS_SIDE, 1, "x"), said(ALWAYS_SIDE, 1, "x")],
    ],
)
def test_what_the_trigger_did_not_say_halts(changes: list[Change]) -> None:
    """Each change has its row in the side table, no more and no less."""
    with pytest.raises(StreamHalted) as caught:
        folded(*changes)
    assert caught.value.code == "CDCM-STREAM-SIDE-MISSING"


def test_a_row_that_did_not_change_is_not_spoken_of() -> None:
    """The key in the side table must be one of those in the events, spelled alike."""
    with pytest.raises(StreamHalted) as caught:
        folded(event(Op.UPDATE, ALWAYS, 1), said(ALWAYS_SIDE, 2, "x"))
    assert caught.value.code == "CDCM-STREAM-SEQUENCE"


def test_an_odd_value_wins_over_the_event_before_it_and_not_over_the_next() -> None:
    """The event behind it carries its own value."""
    row = event(Op.UPDATE, ODD, 1, ',"a":[null,null]')
    odd = said(ODD_SIDE, 1, "{{1},{2}}")
    assert folded(row, odd).complete == [("1", "{{1},{2}}")]
    assert folded(row, odd, event(Op.UPDATE, ODD, 1, ',"a":[3]')).complete == [("1", "[3]")]


def test_an_odd_value_behind_a_cut_is_an_update() -> None:
    """In a transaction that comes in pieces the change may have been in the piece before."""
    assert folded(said(ODD_SIDE, 1, "{{1}}")).partial == [(None, ("1", "{{1}}"))]
    later = event(Op.UPDATE, ODD, 1, f',"a":["{P}"]')
    assert folded(said(ODD_SIDE, 1, "{{1}}"), later).complete == [("1", "{{1}}")]


def whole(op: str, before: str | None, after: str | None) -> Change:
    def text(value: str | None) -> str:
        return "null" if value is None else f'"{value}"'

    image = f'{{"id":1,"op":"{op}","b0":{text(before)},"b1":null,"a0":{text(after)},"a1":null}}'
    return Change(WHOLE_SIDE.name, Op.INSERT, b'{"id":1}', None, image.encode(), 1)


def test_whole_rows_are_counted() -> None:
    """Old rows go, new ones come, as often as they were told."""
    state = folded(
        whole("INSERT", None, "1"), whole("INSERT", None, "1"), whole("UPDATE", "5", "1"),
        whole("DELETE", "6", None), whole("DELETE", "1", None),
    )  # fmt: skip
    assert state.complete == [("1", None)] * 2
    assert state.deletes == [("5", None), ("6", None)]


def test_a_truncate_told_with_whole_rows_empties_the_table() -> None:
    """What comes behind it is there."""
    state = folded(
        whole("INSERT", None, "1"), whole("TRUNCATE", None, None), whole("INSERT", None, "2")
    )
    assert state.truncated
    assert state.complete == [("2", None)]


def test_deletes_that_make_room_in_a_side_table_say_nothing() -> None:
    """Nor do truncates of it."""
    pruned = Change(ALWAYS_SIDE.name, Op.DELETE, b'{"id":9}', None, None, 1)
    emptied = Change(WHOLE_SIDE.name, Op.TRUNCATE, b"", None, None, 1)
    result = fold([Transaction(7, 1, 2, None, [pruned, emptied])], SHAPES)
    assert all(not (s.complete or s.partial or s.deletes or s.truncated) for s in result.tables)


def test_a_piece_never_parts_a_change_from_what_it_needs() -> None:
    """Halves of a key change stay together, and an event and its row of the side table."""
    changes = [
        event(Op.INSERT, ALWAYS, 1), event(Op.INSERT, ALWAYS, 2),
        said(ALWAYS_SIDE, 1, "x"), said(ALWAYS_SIDE, 2, "y"),
        event(Op.DELETE, ODD, 1, key_moves_on=True),
        event(Op.INSERT, ODD, 5, ',"a":[1]', key_moved_here=True),
        event(Op.UPDATE, ODD, 6, ',"a":[1]'),
    ]  # fmt: skip
    runs = list(pieces([Transaction(7, 1, 2, None, changes)], SHAPES, PieceLimits(rows=1)))
    assert [[len(one.changes) for one in run] for run in runs] == [[4], [2], [1]]
    for run in runs:
        fold(run, SHAPES)


def test_pieces_hold_small_transactions_whole_and_by_size() -> None:
    """Several small ones share a piece; the images' bytes count as the rows do."""
    small = [Transaction(n, n, n, None, [event(Op.UPDATE, ODD, n, ',"a":[1]')]) for n in range(5)]
    runs = list(pieces(small, SHAPES, PieceLimits(rows=2)))
    assert [[one.xid for one in run] for run in runs] == [[0, 1], [2, 3], [4]]
    assert len(list(pieces(small, SHAPES, PieceLimits(bytes=20)))) == 3


@pytest.mark.parametrize("policy", [TruncatePolicy.IGNORE, TruncatePolicy.HALT])
def test_truncates_are_ignored_and_counted_or_halt(policy: TruncatePolicy) -> None:
    """As the user chose."""
    work = [Transaction(7, 1, 2, None, [Change(ODD.name, Op.TRUNCATE, b"", None, None, 1)])]
    if policy is TruncatePolicy.HALT:
        with pytest.raises(StreamHalted) as caught:
            fold(work, SHAPES, policy)
        assert caught.value.code == "CDCM-APPLY-TRUNCATE"
    else:
        result = fold(work, SHAPES, policy)
        assert not result.tables[0].truncated
        assert result.counts[ODD.name] == (0, 0, 0, 1, 1)
