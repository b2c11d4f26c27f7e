"""Cut a table into ranges of heap blocks that workers copy one at a time. Decides only.

A heap block never moves while its table keeps its file, so a range means the same rows to every
session that has the same snapshot, and to the one that resumes after a kill.

A table that is not too large stays whole: only a transaction that fills the table from empty can
freeze its rows as it writes them (`copy`), which saves more than two workers on one table gain.
"""

from __future__ import annotations

from cdc_migrator.control.load import Chunk
from cdc_migrator.model.tables import TableName

CHUNK_BYTES = 64 * 1024 * 1024
# What a kill may cost: some seconds of copying.
WHOLE_BYTES = 1024 * 1024 * 1024


def plan(
    table: TableName,
    attempt: int,
    blocks: int,
    size: int,
    chunk_bytes: int = CHUNK_BYTES,
    whole_bytes: int = 0,
) -> list[Chunk]:
    """The chunks of a table, in block order; together they cover every block exactly once.

    The last one has no end: blocks that the table gains after it was measured hold rows that the
    snapshot may still see. An empty table has one chunk.

    Args:
        blocks: of the heap.
        size: bytes of the table with its TOAST: long values make for shorter ranges.
        chunk_bytes: how much of `size` one chunk shall cover.
        whole_bytes: up to this `size` the table is one chunk all the same.
    """
    wanted = 1 if size <= whole_bytes else max(1, -(-size // chunk_bytes))
    step = max(1, -(-blocks // wanted))
    starts = list(range(0, max(blocks, 1), step))
    ends: list[int | None] = [*starts[1:], None]
    chunks = []
    for number, (first, end) in enumerate(zip(starts, ends, strict=True)):
        covered = (end if end is not None else max(blocks, 1)) - first
        weight = max(1, size * covered // max(blocks, 1))
        chunks.append(Chunk(table, number, attempt, first, end, weight))
    return chunks
