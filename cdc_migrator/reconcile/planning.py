"""Plan a table's units: which column orders its chunks, and where they begin.

Chunks that were proven before are kept, so that their proofs stand; where rows are added at the end
of the order the last one is cut. Bounds come from a sample of the source's heap, read under its
snapshot: a few pages for each chunk. They only balance the work; any bounds give the same result.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

from cdc_migrator.control.proofs import Map
from cdc_migrator.databases.postgres import names
from cdc_migrator.model.alignment import Aligned
from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile.chunks import (
    Range,
    Sizes,
    Slicer,
    Unit,
    even_bounds,
    orderable,
    units,
    units_of,
)
from cdc_migrator.reconcile.expressions import Hashing
from cdc_migrator.reconcile.pairs import Compared, Pair
from cdc_migrator.reconcile.snapshot import Sides

_PAGES_A_CHUNK = 3
_ROWS_A_BLOCK = 60  # a guess, where the table was never analyzed
_IN_ORDER = 0.9
# Shares of the chunks up to which each run of them is looked up by its key.
_FEW = 0.1
_FEW_IN_ORDER = 0.5
_ALL = sql.SQL("true")

_STATISTICS = """
SELECT attname::text, n_distinct::float8, coalesce(correlation, 0)::float8 FROM pg_stats
WHERE schemaname = %s AND tablename = %s AND NOT inherited AND attname = ANY(%s)
"""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table is cut into chunks that keep their proofs.

    Attributes:
        by, bounds: see `chunks.Unit`: what is digested apart.
        rows: about how many there are.
        place: SQL of the number of a row's chunk over the target's key columns; None: for who
            marks what is written to, the whole table is one chunk.
        one: the whole table is one chunk although it is digested in several.
        signature: of what is compared and how; where it is another, nothing proven stands.
        indexed: on both sides the key's index is in the order of the chunks.
        in_order: in addition, the heap follows it.
    """

    by: str | None
    bounds: tuple[str, ...]
    rows: int
    place: str | None
    one: bool
    signature: str
    indexed: bool = False
    in_order: bool = False

    @property
    def marked_bounds(self) -> tuple[str, ...]:
        """The bounds of the chunks that keep their proofs."""
        return () if self.one else self.bounds

    @property
    def chunks(self) -> int:
        """How many keep their proofs."""
        return len(self.marked_bounds) + 1


@dataclass(frozen=True, slots=True)
class Grown:
    """A table's last chunk has become too large: it is cut at these bounds as well."""

    more: tuple[str, ...]
    layout: Layout


def sample(
    sides: Sides, pair: Pair, hashing: Hashing, aligned: Aligned, sizes: Sizes
) -> list[Unit]:
    """A few chunks of a table by chance; raises as `lay_out`."""
    if pair.of_nobody:
        return units_of_chunks(pair, None, (), 0)
    rows, blocks = _size(sides, pair)
    by = _column(sides.source, pair, rows)
    bounds = _bounds(sides, pair, by, hashing, aligned, sizes, rows, blocks)
    # A range of hashes is found by reading the whole table: once is enough.
    wanted = sizes.sample_chunks if by is not None else 1
    return _some(units_of_chunks(pair, by, bounds, rows), wanted)


def lay_out(
    sides: Sides,
    pair: Pair,
    hashing: Hashing,
    aligned: Aligned,
    sizes: Sizes,
    known: Map | None = None,
) -> Layout | Grown:
    """How a table is cut; `known` as it is, or but for its end, where that still fits.

    Raises:
        SnapshotLost, TableMoved, MigratorError.
    """
    if pair.of_nobody:  # the stream writes none of them, so there is nothing to tell apart
        return Layout(None, (), 0, None, True, _signature(pair, None, hashing))
    found = _lay_out(sides, pair, hashing, aligned, sizes, known)
    if isinstance(found, Grown):
        return replace(found, layout=_reachable(sides, pair, found.layout))
    return _reachable(sides, pair, found)


def _lay_out(
    sides: Sides,
    pair: Pair,
    hashing: Hashing,
    aligned: Aligned,
    sizes: Sizes,
    known: Map | None,
) -> Layout | Grown:
    rows, blocks = _size(sides, pair)
    wanted = max(1, -(-rows // sizes.chunk_rows))
    if known is not None and _fits(known, pair, hashing):
        one = known.place is None and _untracked(pair)
        layout = Layout(
            known.ordered_by,
            even_bounds(wanted) if one else known.bounds,
            rows,
            known.place,
            one,
            known.signature,
        )
        if one:
            return layout
        if known.ordered_by is not None and wanted > known.chunks:
            more = _tail(sides, pair, hashing, aligned, sizes, layout, blocks)
            if more:
                bounds = (*known.bounds, *more)
                return Grown(more, _layout(pair, known.ordered_by, bounds, rows, hashing))
        if known.chunks <= 4 * wanted and wanted <= 2 * known.chunks:
            return layout
    by = None if _untracked(pair) else _column(sides.source, pair, rows)
    bounds = _bounds(sides, pair, by, hashing, aligned, sizes, rows, blocks)
    return _layout(pair, by, bounds, rows, hashing)


def _reachable(sides: Sides, pair: Pair, layout: Layout) -> Layout:
    """With what is known of ways to its chunks; where there is but one, nobody needs to know."""
    if layout.by is None or not layout.bounds or not _indexed(sides, pair, layout.by):
        return layout
    return replace(layout, indexed=True, in_order=_in_order(sides, pair, layout.by))


def all_units(table: TableName, layout: Layout, sizes: Sizes) -> list[Unit]:
    """The units that read a whole table."""
    made = units(table, layout.by, layout.bounds, layout.rows, layout.in_order, sizes)
    return [replace(unit, first=None) for unit in made] if layout.one else made


def some_units(table: TableName, layout: Layout, chosen: Sequence[int], sizes: Sizes) -> list[Unit]:
    """The units that read these of its chunks."""
    if not chosen:
        return []
    if len(chosen) >= layout.chunks:
        return all_units(table, layout, sizes)
    few = _FEW_IN_ORDER if layout.in_order else _FEW
    ranges = layout.indexed and len(chosen) <= few * layout.chunks
    return units_of(table, layout.by, layout.bounds, chosen, layout.rows, ranges, sizes)


def _size(sides: Sides, pair: Pair) -> tuple[int, int]:
    """About how many rows the source has, and its heap blocks."""
    row = sides.source.execute(
        "SELECT c.reltuples::float8, c.relpages, "
        "pg_relation_size(c.oid) / current_setting('block_size')::int8 "
        "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = %s AND c.relname = %s",
        (pair.relation(False).schema, pair.relation(False).name),
    ).fetchone()
    known, pages, blocks = row or (0.0, 0, 0)
    a_block = known / pages if known > 0 and pages > 0 else _ROWS_A_BLOCK
    return round(a_block * blocks), blocks


def _untracked(pair: Pair) -> bool:
    """Whether the key of a change does not tell the chunk of the target's row: there is no key, or
    writing it may round it."""
    return not pair.key or any(
        c.source.type_text != c.target.type_text or _rounded(pair, c) for c in pair.key
    )


def _rounded(pair: Pair, column: Compared) -> bool:
    """Whether a mapped column is brought to a type with a length or a scale, or to a domain."""
    if pair.route is None or not pair.route.column(column.name).cast:
        return False
    return not set("(.").isdisjoint(column.source.type_text)


def _fits(known: Map, pair: Pair, hashing: Hashing) -> bool:
    """Whether what was proven of these chunks still says what it said."""
    by = known.ordered_by
    if by is not None and not any(c.name == by and orderable(c) for c in pair.key):
        return False
    return known.signature == _signature(pair, by, hashing)


def _signature(pair: Pair, by: str | None, hashing: Hashing) -> str:
    told = [
        repr((c.name, c.source.type_text, c.target.type_text, c.never_null)) for c in pair.columns
    ]
    told.append(repr(pair.source.key))
    if pair.route is not None:
        told.append(repr(pair.route))
    if by is None:
        told.append(repr((sorted(hashing.raw), sorted(hashing.functions), hashing.by_server)))
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:32]


def _layout(
    pair: Pair, by: str | None, bounds: Sequence[str], rows: int, hashing: Hashing
) -> Layout:
    place = None
    if bounds and not _untracked(pair):
        slicer = Slicer(pair, by, hashing)
        place = slicer.bucket(slicer.value(True), bounds).as_string(None)
    return Layout(by, tuple(bounds), rows, place, _untracked(pair), _signature(pair, by, hashing))


def _bounds(
    sides: Sides,
    pair: Pair,
    by: str | None,
    hashing: Hashing,
    aligned: Aligned,
    sizes: Sizes,
    rows: int,
    blocks: int,
) -> tuple[str, ...]:
    chunks = -(-rows // sizes.chunk_rows)
    if chunks <= 1:
        return ()
    if by is None:
        return even_bounds(chunks)
    percent = min(100.0, 100.0 * _PAGES_A_CHUNK * chunks / max(blocks, 1))
    return sampled(sides, pair, Slicer(pair, by, hashing), aligned, chunks, percent)


def _tail(
    sides: Sides,
    pair: Pair,
    hashing: Hashing,
    aligned: Aligned,
    sizes: Sizes,
    layout: Layout,
    blocks: int,
) -> tuple[str, ...]:
    """Bounds that cut the last chunk, if it has become as large as two."""
    if not layout.bounds:
        return ()
    slicer = Slicer(pair, layout.by, hashing)
    chunks = -(-layout.rows // sizes.chunk_rows)
    percent = min(100.0, 100.0 * _PAGES_A_CHUNK * chunks / max(blocks, 1))
    behind = slicer.within(Range(layout.bounds[-1], None), False)
    assert behind is not None
    query = sql.SQL("SELECT count(*) FROM {rows} WHERE {behind}").format(
        rows=pair.sampled(percent), behind=behind
    )
    ((count,),) = sides.read(pair, aligned, query, False)
    cut = round(count * 100.0 / percent / sizes.chunk_rows)
    if cut < 2:
        return ()
    found = sampled(sides, pair, slicer, aligned, cut, percent, behind)
    return tuple(one for one in found if one != layout.bounds[-1])


def _column(source: psycopg.Connection, pair: Pair, rows: int) -> str | None:
    """The first key column that tells enough rows apart, or the one that tells most apart."""
    able = [column.name for column in pair.key if orderable(column)]
    if len(able) < 2:
        return able[0] if able else None
    name = pair.relation(False)
    own = {pair.attribute(column, False): column.name for column in pair.key}
    distinct = {
        own[column]: n if n >= 0 else -n * rows
        for column, n, _ in source.execute(_STATISTICS, (name.schema, name.name, list(own)))
    }
    if able[0] not in distinct or distinct[able[0]] * 500 >= rows:
        return able[0]
    return max(able, key=lambda column: distinct.get(column, 0.0))


def _indexed(sides: Sides, pair: Pair, by: str) -> bool:
    """Whether on both sides the key's index is in the order of the chunks."""
    if not pair.indexed or pair.key[0].name != by:
        return False
    for conn, on_target in ((sides.source, False), (sides.target, True)):
        if not pair.key[0].on(False).base_type.endswith(("text", "varchar")):
            continue
        collation = conn.execute(
            "SELECT l.collcollate = 'C' "
            "OR (l.collprovider = 'd' AND d.datcollate IN ('C', 'POSIX')) "
            "FROM pg_attribute a JOIN pg_collation l ON l.oid = a.attcollation, pg_database d "
            "WHERE a.attrelid = to_regclass(%s) AND a.attname = %s "
            "AND d.datname = current_database()",
            (
                names.table(pair.relation(on_target)).as_string(conn),
                pair.attribute(pair.key[0], on_target),
            ),
        ).fetchone()
        if collation != (True,):
            return False
    return True


def _in_order(sides: Sides, pair: Pair, by: str) -> bool:
    """Whether on both sides the heap follows a column."""
    column = next(column for column in pair.key if column.name == by)
    for conn, on_target in ((sides.source, False), (sides.target, True)):
        name, own = pair.relation(on_target), pair.attribute(column, on_target)
        found = conn.execute(_STATISTICS, (name.schema, name.name, [own])).fetchone()
        if found is None or abs(found[2]) < _IN_ORDER:
            return False
    return True


def sampled(
    sides: Sides,
    pair: Pair,
    slicer: Slicer,
    aligned: Aligned,
    chunks: int,
    percent: float,
    where: sql.Composable = _ALL,
) -> tuple[str, ...]:
    """Bounds of about `chunks` equal shares of the source's rows, from so much of its pages."""
    bounds = sql.SQL(
        "SELECT DISTINCT k::text FROM (SELECT k, row_number() OVER (ORDER BY k) AS n, "
        "count(*) OVER () AS t FROM "
        "(SELECT {place} AS k FROM {rows} WHERE {where}) a) b "
        "WHERE k IS NOT NULL AND n > 1 AND n * {chunks} / t > (n - 1) * {chunks} / t"
    ).format(
        place=slicer.value(False),
        rows=pair.sampled(percent),
        chunks=sql.Literal(chunks),
        where=where,
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
