"""Cut a table into chunks that are the same rows on both sides. Pure.

A chunk is a range of one ordered expression: a key column whose order both servers share, else a
hash of the key, else of the whole row. All chunks of a unit are digested in one reading, grouped
by ``width_bucket``: the reading follows the heap, whatever the order of the key. A unit is the
whole table up to a size at which it is proven within one alignment; a larger table is cut into
units by ranges of its key, where the rows lie in the key's order: each is proven for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from psycopg import sql

from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile import expressions
from cdc_migrator.reconcile.expressions import Hashing
from cdc_migrator.reconcile.pairs import Compared, Pair

# Types whose order does not depend on anything; texts are ordered by their bytes.
_ORDERED = frozenset(
    {"int2", "int4", "int8", "oid", "uuid", "date", "timestamp", "timestamptz", "numeric", "bytea"}
)
_TEXTS = frozenset({"text", "varchar"})
_HASH = "pg_catalog.int8"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the pieces are.

    Attributes:
        chunk_rows: of a chunk, about: what is read row by row where it does not match.
        unit_rows: a table with more rows than this is cut into units of `range_chunks` chunks.
        piece_blocks: heap blocks that one statement reads, and so how long a lock is held.
    """

    chunk_rows: int = 16_000
    unit_rows: int = 20_000_000
    range_chunks: int = 64
    piece_blocks: int = 16_384
    sample_chunks: int = 16


@dataclass(frozen=True, slots=True)
class Range:
    """Values [low, high) of the chunk expression as text; None is the open end.

    `nulls` instead: the rows for which it is null, which only a target without the key can have.
    """

    low: str | None = None
    high: str | None = None
    nulls: bool = False

    @property
    def everything(self) -> bool:
        return self.low is None and self.high is None and not self.nulls


@dataclass(frozen=True, slots=True)
class Unit:
    """What is read and proven at once: a range of a table, cut at `bounds` into chunks.

    Attributes:
        by: the key column whose values order the chunks; None: a hash.
        weight: rows, as far as one knows beforehand.
        map: whose chunks these are; None: nobody's, their proofs are not kept.
        first: number of its first chunk in the map; None: there the whole table is one chunk.
        only: of its chunks only these are read, in one reading of the whole range; None: all.
    """

    table: TableName
    number: int
    by: str | None
    range: Range
    bounds: tuple[str, ...]
    weight: int
    map: int | None = None
    first: int | None = None
    only: tuple[int, ...] | None = None

    @property
    def mapped(self) -> tuple[int, ...]:
        """The numbers of its chunks in the map."""
        if self.first is None:
            return (0,)
        if self.only is not None:
            return self.only
        return tuple(range(self.first, self.first + len(self.bounds) + 1))

    def in_map(self, bucket: int | None) -> int:
        """The number in the map of a bucket as ``width_bucket`` counts them; nulls are in front."""
        return 0 if self.first is None else self.first + (bucket or 0)

    def chunk(self, bucket: int | None) -> Range:
        """The range of one bucket as ``width_bucket`` counts them."""
        if bucket is None:
            return Range(nulls=True)
        edges = (self.range.low, *self.bounds, self.range.high)
        return Range(edges[bucket], edges[bucket + 1])


def orderable(column: Compared) -> bool:
    """Whether both servers put this column's values into the same order."""
    schema, _, name = column.source.base_type.partition(".")
    return schema == "pg_catalog" and column.same_type and name in _ORDERED | _TEXTS


class Slicer:
    """The chunk expression of one table, for either side.

    Args:
        by: a key column for which `orderable` holds, or None for a hash.
    """

    def __init__(self, pair: Pair, by: str | None, hashing: Hashing) -> None:
        self._pair = pair
        self._hashing = hashing
        self.by = by
        self._column = next((c for c in pair.key if c.name == by), None) if by else None

    @property
    def _textual(self) -> bool:
        return (
            self._column is not None and self._column.source.base_type.partition(".")[2] in _TEXTS
        )

    def _type(self) -> sql.Composable:
        base = self._column.source.base_type if self._column else _HASH
        return sql.Identifier("pg_catalog", "text" if self._textual else base.partition(".")[2])

    def value(self, target: bool) -> sql.Composable:
        """SQL of a row's place in the order."""
        if self._column is None:
            if self._pair.key:
                return expressions.key_hash(self._pair, target, self._hashing)
            return expressions.row_hash(self._pair.columns, target, self._hashing)
        name = sql.Identifier(self._column.on(target).name)
        return sql.SQL('{}::text COLLATE "C"').format(name) if self._textual else name

    def _place(self, target: bool) -> sql.Composable:
        """The same where it is only looked for."""
        if self._column is None or self._textual:
            return self.value(target)
        return self._pair.place(self._column, target)

    def bucket(self, value: sql.Composable, bounds: Sequence[str]) -> sql.Composable:
        """SQL of the number of the chunk that a value lies in."""
        collated = sql.SQL('{} COLLATE "C"').format(value) if self._textual else value
        return sql.SQL("width_bucket({}, {}::text[]::{}[])").format(
            collated, sql.Literal(list(bounds)), self._type()
        )

    def among(self, unit: Unit, target: bool) -> sql.Composable:
        """SQL of the condition that a row lies in one of the chunks that a unit reads."""
        number = self.bucket(self.value(target), unit.bounds)
        chosen = sql.SQL("{} = ANY({}::int[])").format(number, sql.Literal(list(unit.only or ())))
        if 0 not in (unit.only or ()):
            return chosen
        return sql.SQL("({} OR {} IS NULL)").format(chosen, self.value(target))

    def order(self, text: sql.Composable) -> sql.Composable:
        """SQL of the place in the order whose text is given."""
        typed = sql.SQL("{}::{}").format(text, self._type())
        return sql.SQL('{} COLLATE "C"').format(typed) if self._textual else typed

    def within(self, part: Range, target: bool) -> sql.Composable | None:
        """SQL of the condition that a row lies in a range; None where all do."""
        value = self._place(target)
        if part.nulls:
            return sql.SQL("{} IS NULL").format(value)
        conditions = [
            sql.SQL("{} {} {}::{}").format(value, sql.SQL(sign), sql.Literal(edge), self._type())
            for sign, edge in ((">=", part.low), ("<", part.high))
            if edge is not None
        ]
        if not conditions:
            return None
        condition = sql.SQL(" AND ").join(conditions)
        if part.low is None and self._column is not None and not self._column.never_null:
            return sql.SQL("({} OR {} IS NULL)").format(condition, value)
        return condition


def even_bounds(chunks: int) -> tuple[str, ...]:
    """Bounds that cut the hashes into equal shares."""
    step = (1 << 64) // chunks
    return tuple(str(-(1 << 63) + n * step) for n in range(1, chunks))


def units(
    table: TableName, by: str | None, bounds: Sequence[str], rows: int, ranges: bool, sizes: Sizes
) -> list[Unit]:
    """The units of a table whose chunks begin at `bounds`.

    Args:
        ranges: whether a range of the key can be read without reading the whole table.
    """
    whole = Unit(table, 0, by, Range(), tuple(bounds), rows, first=0)
    if not ranges or rows <= sizes.unit_rows or not bounds:
        return [whole]
    size = sizes.range_chunks
    edges = [None, *bounds[size - 1 :: size], None]
    weight = rows // (len(edges) - 1)
    return [
        Unit(
            table,
            number,
            by,
            Range(low, high),
            tuple(bounds[number * size : number * size + size - 1]),
            weight,
            first=number * size,
        )
        for number, (low, high) in enumerate(pairwise(edges))
    ]


def units_of(
    table: TableName,
    by: str | None,
    bounds: Sequence[str],
    chosen: Sequence[int],
    rows: int,
    ranges: bool,
    sizes: Sizes,
) -> list[Unit]:
    """The units that read some chunks only.

    Args:
        chosen: their numbers, at least one, in any order.
        ranges: whether to look each run of neighbours up by its key, instead of reading the whole
            table once and leaving out the rows of others.
    """
    numbers = sorted(chosen)
    each = rows // (len(bounds) + 1)
    if not ranges:
        weight = each * len(numbers)
        return [
            Unit(table, 0, by, Range(), tuple(bounds), weight, first=0, only=tuple(numbers)),
        ]
    edges = (None, *bounds, None)
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1 and len(runs[-1]) < sizes.range_chunks:
            runs[-1].append(number)
        else:
            runs.append([number])
    return [
        Unit(
            table,
            place,
            by,
            Range(edges[run[0]], edges[run[-1] + 1]),
            tuple(bounds[run[0] : run[-1]]),
            each * len(run),
            first=run[0],
        )
        for place, run in enumerate(runs)
    ]
