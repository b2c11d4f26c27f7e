"""Units and chunks cover the whole order, each place once."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile.chunks import Range, Sizes, even_bounds, units
from cdc_migrator.reconcile.digest import Digest, unequal

TABLE = TableName("shop", "orders")


@given(
    st.lists(st.integers(-1000, 1000), unique=True, max_size=60).map(sorted),
    st.integers(1, 7),
    st.booleans(),
)
def test_every_value_lies_in_exactly_one_chunk_of_one_unit(
    bounds: list[int], size: int, ranges: bool
) -> None:
    """Whatever the bounds, and however many chunks a unit has."""
    sizes = Sizes(unit_rows=10, range_chunks=size)
    made = units(TABLE, "id", [str(b) for b in bounds], 1000, ranges, sizes)
    assert [unit.number for unit in made] == list(range(len(made)))
    for value in (-1001, *bounds, *(b + 1 for b in bounds), 1001):
        holding = [
            (unit.number, bucket)
            for unit in made
            for bucket in range(len(unit.bounds) + 1)
            if inside(value, unit.chunk(bucket)) and inside(value, unit.range)
        ]
        assert len(holding) == 1


def inside(value: int, part: Range) -> bool:
    return (part.low is None or int(part.low) <= value) and (
        part.high is None or value < int(part.high)
    )


def test_a_table_is_one_unit_where_no_range_of_it_can_be_read_alone() -> None:
    """And where it is small enough to be proven at one point."""
    bounds = [str(n) for n in range(100)]
    assert len(units(TABLE, None, bounds, 10**9, False, Sizes())) == 1
    assert len(units(TABLE, "id", bounds, 1000, True, Sizes())) == 1
    assert len(units(TABLE, "id", bounds, 10**9, True, Sizes(range_chunks=10))) == 11


def test_even_bounds_cut_the_hashes_into_equal_shares() -> None:
    """In order, over all of int8."""
    bounds = [int(bound) for bound in even_bounds(8)]
    edges = [-(1 << 63), *bounds, 1 << 63]
    assert {b - a for a, b in pairwise(edges)} == {1 << 61}


def test_digests_of_pieces_add_up_in_any_order() -> None:
    """A chunk whose rows lie in several pieces has the sum of them."""
    one, two, three = Digest(1, 5, 7), Digest(2, 9, -4), Digest(4, 1 << 62, 1 << 63)
    assert one + two + three == three + (two + one)


def test_a_chunk_that_only_one_side_has_is_unequal_unless_it_is_empty() -> None:
    """Also the one of rows without a key."""
    full, empty = Digest(1, 2, 3), Digest()
    assert unequal({0: full, 1: empty, 2: full}, {2: full, None: full}) == [0, None]
