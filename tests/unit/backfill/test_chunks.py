"""Chunks cover every block of a table exactly once, and the last has no end."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from cdc_migrator.backfill.chunks import plan
from cdc_migrator.model.tables import TableName

TABLE = TableName("shop", "item")
sizes = st.integers(0, 1 << 40)


@given(blocks=st.integers(0, 5_000), size=sizes, chunk_bytes=st.integers(8192, 1 << 30))
def test_every_block_is_in_exactly_one_chunk(blocks: int, size: int, chunk_bytes: int) -> None:
    """Whatever the sizes: the ranges follow each other from block 0 to an open end."""
    chunks = plan(TABLE, 3, blocks, size, chunk_bytes)

    assert chunks[0].first_block == 0
    for one, next_ in itertools.pairwise(chunks):
        assert one.end_block == next_.first_block
        assert one.end_block > one.first_block
    assert chunks[-1].end_block is None
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    assert all(chunk.attempt == 3 and chunk.weight > 0 for chunk in chunks)


@given(blocks=st.integers(1, 5_000), per_block=st.integers(1, 1 << 20))
def test_chunks_are_about_as_large_as_asked(blocks: int, per_block: int) -> None:
    """Long values outside the heap make for shorter ranges; no chunk is much too large."""
    chunk_bytes = 1 << 20
    chunks = plan(TABLE, 0, blocks, blocks * per_block, chunk_bytes)

    assert all(chunk.weight <= chunk_bytes + per_block for chunk in chunks)
    assert sum(chunk.weight for chunk in chunks) <= blocks * per_block + len(chunks)


@given(blocks=st.integers(0, 5_000), size=sizes, whole_bytes=st.integers(0, 1 << 40))
def test_table_of_up_to_a_size_stays_whole(blocks: int, size: int, whole_bytes: int) -> None:
    """However small the chunks are to be."""
    chunks = plan(TABLE, 0, blocks, size, 8192, whole_bytes)

    assert chunks[0].whole == (len(chunks) == 1)
    if size <= whole_bytes:
        assert len(chunks) == 1


def test_empty_table_has_one_open_chunk() -> None:
    """Rows that come between measuring and copying belong to somebody."""
    (chunk,) = plan(TABLE, 0, 0, 0)

    assert (chunk.first_block, chunk.end_block) == (0, None)
