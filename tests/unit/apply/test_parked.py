"""What goes with a key that is kept back, and what does not."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from cdc_migrator.apply.parked import ParkedKeys, only, set_aside, units
from cdc_migrator.apply.shape import Row, Shape
from cdc_migrator.control.dead_letters import Key, KeyState
from cdc_migrator.errors import StreamHalted
from cdc_migrator.model.changes import Change, Op, Transaction, TruncatePolicy
from cdc_migrator.model.tables import TableName
from cdc_migrator.stream.rows import KeyDecoder, RowDecoder

ITEM, OTHER, SIDE = (TableName("shop", name) for name in ("item", "other", "side"))


class Sides:
    """A side table whose rows name a key and a value."""

    name = SIDE
    always = False

    def decode(self, image: bytes, lsn: int) -> tuple[Row, Row]:
        told = json.loads(image)
        return (str(told["id"]),), (None, told["v"])


COLUMNS = [("id", False), ("v", True)]
SHAPE = Shape(
    ITEM,
    ("id", "v"),
    (0,),
    RowDecoder(ITEM, COLUMNS, "gone"),
    KeyDecoder(ITEM, COLUMNS[:1]),
    values=Sides(),
)
SHAPES = {ITEM: SHAPE, SIDE: SHAPE}


def key(number: int) -> bytes:
    return b'{"id":%d}' % number


def change(op: Op, number: int, table: TableName = ITEM, **flags: bool) -> Change:
    image = None if op is Op.DELETE else b'{"id":%d,"v":"x"}' % number
    return Change(table, op, key(number), None, image, 7, **flags)


def moved(one: int, other: int) -> list[Change]:
    return [
        change(Op.DELETE, one, key_moves_on=True),
        change(Op.INSERT, other, key_moved_here=True),
    ]


def beside(number: int) -> Change:
    return Change(SIDE, Op.INSERT, b"{}", None, b'{"id":%d,"v":"y"}' % number, 7)


def transaction(*changes: Change, commit: int = 100) -> Transaction:
    return Transaction(1, 1, commit, None, list(changes))


def parked(*numbers: int, state: KeyState = KeyState.PARKED) -> ParkedKeys:
    return ParkedKeys(Key(ITEM, key(n), n, state) for n in numbers)


def numbers(changes: Iterable[Change]) -> list[Any]:
    return [json.loads(bytes(one.after or one.key))["id"] for one in changes]


def kept(rest: Sequence[Transaction]) -> list[int]:
    return numbers(change for one in rest for change in one.changes)


def test_every_later_record_of_a_key_goes_with_it() -> None:
    """Also what a side table says of its row; others stay."""
    run = [
        transaction(change(Op.UPDATE, 1), change(Op.UPDATE, 2), beside(1), beside(2)),
        transaction(change(Op.DELETE, 1), change(Op.INSERT, 1, OTHER)),
    ]
    rest, aside = set_aside(run, parked(1), SHAPES)
    assert kept(rest) == [2, 2, 1]
    assert numbers(one.change for one in aside) == [1, 1, 1]
    assert {one.key for one in aside} == {key(1)}


def test_a_key_change_takes_the_other_key_along() -> None:
    """From there on, whichever of the two was kept back."""
    for there in (1, 2):
        keys = parked(there)
        run = [transaction(*moved(1, 2), change(Op.UPDATE, 2), change(Op.INSERT, 1))]
        rest, aside = set_aside(run, keys, SHAPES)
        assert kept(rest) == []
        assert len(aside) == 4
        assert set(keys.of(ITEM)) == {key(1), key(2)}
        assert len(set(keys.of(ITEM).values())) == 1


def test_what_came_before_the_key_change_is_applied() -> None:
    """The row was not kept back yet."""
    rest, aside = set_aside([transaction(change(Op.UPDATE, 1), *moved(1, 2))], parked(2), SHAPES)
    assert kept(rest) == [1]
    assert len(aside) == 2


def test_two_chains_become_one() -> None:
    """All keys of both, and given up if one of them was."""
    keys = ParkedKeys(
        [
            Key(ITEM, key(1), 1, KeyState.PARKED),
            Key(ITEM, key(3), 1, KeyState.PARKED),
            Key(ITEM, key(2), 2, KeyState.SKIPPED),
        ]
    )
    set_aside([transaction(*moved(1, 2))], keys, SHAPES)
    assert set(keys.of(ITEM).values()) == {2}
    assert keys.skipped(ITEM, key(3))
    fresh, changed = keys.take_changed()
    assert fresh == []
    assert {one.key for one in changed} == {key(1), key(3)}


def test_a_new_chain_gets_its_number_later() -> None:
    """Keys that are parked together have one, others another."""
    keys = ParkedKeys()
    keys.park(ITEM, [key(1), key(2)])
    keys.park(ITEM, [key(3)])
    keys.number(lambda count: list(range(50, 50 + count)))
    chains = keys.of(ITEM)
    assert chains[key(1)] == chains[key(2)] != chains[key(3)]
    assert set(chains.values()) == {50, 51}


def test_a_truncate_of_such_a_table_halts() -> None:
    """And one of another table does not."""
    truncate = Change(ITEM, Op.TRUNCATE, b"", None, None, 7)
    with pytest.raises(StreamHalted) as halted:
        set_aside([transaction(truncate)], parked(1), SHAPES)
    assert halted.value.code == "CDCM-PARK-TRUNCATE"
    rest, _ = set_aside([transaction(truncate)], ParkedKeys(), SHAPES)
    assert len(rest[0].changes) == 1


def test_units_hang_together_by_key_changes_alone() -> None:
    """Each with what a side table says of it, in the order of the stream."""
    run = [
        transaction(change(Op.UPDATE, 1), beside(1), change(Op.UPDATE, 5)),
        transaction(*moved(1, 2), *moved(3, 1), beside(1), commit=200),
    ]
    found = units(run, SHAPE, TruncatePolicy.APPLY)
    assert [set(one.keys) for one in found] == [{key(1), key(2), key(3)}, {key(5)}]
    assert [len(one.changes) for one in found] == [7, 1]
    (first, second) = only([found[0]])
    assert (first.commit_lsn, second.commit_lsn) == (100, 200)
    assert len(first.changes) == 2


def test_units_begin_behind_a_truncate_that_is_applied() -> None:
    """What came before it is gone."""
    truncate = Change(ITEM, Op.TRUNCATE, b"", None, None, 7)
    run = [transaction(change(Op.UPDATE, 1), truncate, change(Op.INSERT, 2))]
    (one,) = units(run, SHAPE, TruncatePolicy.APPLY)
    assert set(one.keys) == {key(2)}
    assert len(units(run, SHAPE, TruncatePolicy.IGNORE)) == 2


def test_what_a_side_table_says_of_a_row_of_an_earlier_piece_stands_alone() -> None:
    """It has no key that could be kept back."""
    found = units([transaction(change(Op.UPDATE, 1), beside(9))], SHAPE, TruncatePolicy.APPLY)
    assert [list(one.keys) for one in found] == [[key(1)], []]
