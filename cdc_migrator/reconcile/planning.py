"""Plan a table's units: which column orders its chunks, and where they begin.

Bounds come from a sample of the source's heap, read under its snapshot: a few pages for each chunk.
They only balance the work; any bounds give the same result.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import psycopg
from psycopg import sql

from cdc_migrator.databases.postgres import names
from cdc_migrator.model.alignment import Aligned
from cdc_migrator.reconcile.chunks import (
    Range,
    Sizes,
    Slicer,
    Unit,
    even_bounds,
    orderable,
    units,
)
from cdc_migrator.reconcile.expressions import Hashing
from cdc_migrator.reconcile.pairs import Pair
from cdc_migrator.reconcile.snapshot import Sides

_PAGES_A_CHUNK = 3
_ROWS_A_BLOCK = 60  # a guess, where the table was never analyzed
_IN_ORDER = 0.9

_STATISTICS = """
SELECT attname::text, n_distinct::float8, coalesce(correlation, 0)::float8 FROM pg_stats
WHERE schemaname = %s AND tablename = %s AND NOT inherited AND attname = ANY(%s)
"""


def plan(
    sides: Sides, pair: Pair, hashing: Hashing, aligned: Aligned, sizes: Sizes, sample: bool
) -> list[Unit]:
    """The units of a table.

    Args:
        sample: a few chunks by chance instead of all.

    Raises:
        SnapshotLost, TableMoved, MigratorError.
    """
    row = sides.source.execute(
        "SELECT c.reltuples::int8, pg_relation_size(c.oid) / current_setting('block_size')::int8 "
        "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = %s AND c.relname = %s",
        (pair.source.name.schema, pair.source.name.name),
    ).fetchone()
    known, blocks = row or (0, 0)
    estimated = known if known > 0 else blocks * _ROWS_A_BLOCK
    by = _column(sides.source, pair, estimated)
    slicer = Slicer(pair, by, hashing)
    chunks = -(-estimated // sizes.chunk_rows)
    bounds: Sequence[str] = ()
    if chunks > 1:
        if by is None:
            bounds = even_bounds(chunks)
        else:
            percent = min(100.0, 100.0 * _PAGES_A_CHUNK * chunks / max(blocks, 1))
            bounds = sampled(sides, pair, slicer, aligned, chunks, percent)
    if sample:
        # A range of hashes is found by reading the whole table: once is enough.
        wanted = sizes.sample_chunks if by is not None else 1
        return _some(units_of_chunks(pair, by, bounds, estimated), wanted)
    ranges = by is not None and _in_order(sides, pair, by)
    return units(pair.source.name, by, bounds, estimated, ranges, sizes)


def _column(source: psycopg.Connection, pair: Pair, rows: int) -> str | None:
    """The first key column that tells enough rows apart, or the one that tells most apart."""
    able = [column.name for column in pair.key if orderable(column)]
    if len(able) < 2:
        return able[0] if able else None
    name = pair.source.name
    distinct = {
        column: n if n >= 0 else -n * rows
        for column, n, _ in source.execute(_STATISTICS, (name.schema, name.name, able))
    }
    if able[0] not in distinct or distinct[able[0]] * 500 >= rows:
        return able[0]
    return max(able, key=lambda column: distinct.get(column, 0.0))


def _in_order(sides: Sides, pair: Pair, by: str) -> bool:
    """Whether on both sides an index leads with the column, and the heap follows it."""
    if pair.key[0].name != by:
        return False
    for conn, table in ((sides.source, pair.source), (sides.target, pair.target)):
        found = conn.execute(_STATISTICS, (table.name.schema, table.name.name, [by])).fetchone()
        if found is None or abs(found[2]) < _IN_ORDER:
            return False
        if not pair.key[0].on(False).base_type.endswith(("text", "varchar")):
            continue
        collation = conn.execute(
            "SELECT l.collcollate = 'C' "
            "OR (l.collprovider = 'd' AND d.datcollate IN ('C', 'POSIX')) "
            "FROM pg_attribute a JOIN pg_collation l ON l.oid = a.attcollation, pg_database d "
            "WHERE a.attrelid = to_regclass(%s) AND a.attname = %s "
            "AND d.datname = current_database()",
            (names.table(table.name).as_string(conn), by),
        ).fetchone()
        if collation != (True,):
            return False
    return True


def sampled(
    sides: Sides, pair: Pair, slicer: Slicer, aligned: Aligned, chunks: int, percent: float
) -> tuple[str, ...]:
    """Bounds of about `chunks` equal shares of the source's rows, from so much of its pages."""
    bounds = sql.SQL(
        "SELECT DISTINCT k::text FROM (SELECT k, row_number() OVER (ORDER BY k) AS n, "
        "count(*) OVER () AS t FROM "
        "(SELECT {place} AS k FROM ONLY {table} TABLESAMPLE SYSTEM ({percent})) a) b "
        "WHERE k IS NOT NULL AND n > 1 AND n * {chunks} / t > (n - 1) * {chunks} / t"
    ).format(
        place=slicer.value(False),
        table=names.table(pair.source.name),
        percent=sql.Literal(percent),
        chunks=sql.Literal(chunks),
    )
    ordered = sql.SQL("SELECT k FROM ({}) c ORDER BY {}").format(bounds, slicer.order(_BOUND))
    return tuple(row[0] for row in sides.read(pair, aligned, ordered, False))


_BOUND = sql.SQL("k")


def units_of_chunks(pair: Pair, by: str | None, bounds: Sequence[str], rows: int) -> list[Unit]:
    """A unit for each chunk."""
    edges = [None, *bounds, None]
    return [
        Unit(pair.source.name, n, by, Range(edges[n], edges[n + 1]), (), rows // (len(edges) - 1))
        for n in range(len(edges) - 1)
    ]


def _some(chunks: list[Unit], wanted: int) -> list[Unit]:
    if len(chunks) <= wanted:
        return chunks
    return sorted(random.sample(chunks, wanted), key=lambda unit: unit.number)
