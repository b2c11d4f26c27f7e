"""How much memory the sort behind an index is worth. Decides only."""

from __future__ import annotations

from math import isqrt

# What a merge takes for each run that it reads (MERGE_BUFFER_SIZE and twice TAPE_BUFFER_OVERHEAD
# of PostgreSQL's tuplesort.c, with blocks of 8 kB), and how many it reads at most (MAXORDER).
_PER_RUN = 272 * 1024
_RUNS = 500
# Half of it was slower again.
_LEAST = 16 * 1024 * 1024


def sort_memory(size: int) -> int:
    """Bytes of ``maintenance_work_mem`` by which a table's b-tree is built in the least time.

    The server sorts runs of that size, and merges as many at a time as it has buffers for: memory
    m sorts m * m / 272 kB in one pass over the disk, a gigabyte with 16 MB, 500 m at most.
    More costs time: a larger run leaves the processor's caches, and takes pages that the system
    has to clear first. Five indexes of ten million rows took 8.8 s of a processor with 16 MB for
    each, 9.5 with 64, 11.5 with 256, and 10.9 with a gigabyte, by which nothing spills.

    Args:
        size: bytes of the table. What is sorted has at most twice that, however narrow the rows.
    """
    return max(_LEAST, isqrt(2 * size * _PER_RUN), 2 * size // _RUNS)
