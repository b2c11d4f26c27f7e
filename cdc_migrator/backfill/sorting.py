"""How a session that builds indexes is set: the memory of its sort, and how it reads the table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isqrt

import psycopg

from cdc_migrator.backfill.schema_options import SchemaOptions

# What a merge takes for each run that it reads (MERGE_BUFFER_SIZE and twice TAPE_BUFFER_OVERHEAD
# of PostgreSQL's tuplesort.c, with blocks of 8 kB), and how many it reads at most (MAXORDER).
_PER_RUN = 272 * 1024
_RUNS = 500
# Half of it was slower again.
_LEAST = 16 * 1024 * 1024

# The server has reads done by processes of its own, which wins where a disk makes them wait.
_READ_ITSELF = {"effective_io_concurrency": "0", "maintenance_io_concurrency": "0"}


@dataclass(frozen=True, slots=True)
class Machine:
    """What the target's server goes by, in bytes: ``maintenance_work_mem``, and how much of its
    files it takes to be in memory (``effective_cache_size``)."""

    memory: int
    cached: int


def machine(target: psycopg.Connection) -> Machine:
    """As the session has it. Raises psycopg.Error."""
    row = target.execute(
        "SELECT pg_size_bytes(current_setting('maintenance_work_mem')), "
        "pg_size_bytes(current_setting('effective_cache_size'))"
    ).fetchone()
    assert row is not None
    return Machine(*row)


def build_settings(
    options: SchemaOptions, server: Machine, size: int, sorts: bool
) -> dict[str, str]:
    """The run-time settings of a session that builds an index of a table just loaded.

    A table that fits into memory is there still. To read it is to copy it, which a session does
    in less time than it takes to have that done: a whole load, whose builds have a processor
    each, took 3 % less (https://www.postgresql.org/docs/18/runtime-config-resource.html, on
    ``effective_io_concurrency``: 0 disables asynchronous requests).

    Args:
        size: bytes of the table.
        sorts: the index is a b-tree.
    """
    # By its memory the server also decides how many workers help a sort; each needs 32 MB.
    if sorts and options.parallel == 0:
        options = replace(options, memory=min(options.memory or server.memory, sort_memory(size)))
    return {**options.settings, **(_READ_ITSELF if size <= server.cached else {})}


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
