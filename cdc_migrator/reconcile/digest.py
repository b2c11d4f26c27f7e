"""Digest the chunks of a unit: per chunk the number of rows and two sums of their hashes.

The exclusive or of the rows' hashes notices every single row that changed, but not a row that is
there twice too often; the sum of a second hash notices both. Both are 64 bits, and add up over the
pieces of a table in any order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from psycopg import sql

from cdc_migrator.control.proofs import Proven
from cdc_migrator.databases.postgres import names
from cdc_migrator.model.alignment import Aligned
from cdc_migrator.reconcile import expressions
from cdc_migrator.reconcile.chunks import Slicer, Unit
from cdc_migrator.reconcile.expressions import Hashing
from cdc_migrator.reconcile.hooked import where
from cdc_migrator.reconcile.pairs import Pair
from cdc_migrator.reconcile.snapshot import Sides


@dataclass(frozen=True, slots=True)
class Digest:
    """Of the rows of one chunk: how many, exclusive or of the hashes, sum of the second hashes."""

    rows: int = 0
    either: int = 0
    total: int = 0

    def __add__(self, other: Digest) -> Digest:
        return Digest(self.rows + other.rows, self.either ^ other.either, self.total + other.total)


NOTHING = Digest()
Digests = Mapping[int | None, Digest]


def statement(
    pair: Pair, slicer: Slicer, hashing: Hashing, unit: Unit, target: bool, where: sql.Composable
) -> sql.Composed:
    """A unit's digests, one row a chunk; `where` is a condition on the rows or ``true``."""
    if not unit.bounds:
        return grouped(pair, hashing, target, sql.SQL("0"), where)
    return grouped(
        pair, hashing, target, slicer.value(target), where, slicer.bucket(_PLACE, unit.bounds)
    )


_PLACE = sql.SQL("k")


def grouped(
    pair: Pair,
    hashing: Hashing,
    target: bool,
    place: sql.Composable,
    where: sql.Composable,
    bucket: sql.Composable = _PLACE,
) -> sql.Composed:
    """One row for each value of `bucket`, SQL over ``k``, a row's `place`: as `add` takes them.

    OFFSET 0 keeps the hash from being computed once for each aggregate.
    """
    return sql.SQL(
        "SELECT {bucket}, count(*), bit_xor(h), sum({mixed}) "
        "FROM (SELECT {place} AS k, {row} AS h FROM {rows} WHERE {where} OFFSET 0) q "
        "GROUP BY 1"
    ).format(
        bucket=bucket,
        mixed=expressions.mixed(sql.SQL("h"), hashing),
        place=place,
        row=expressions.row_hash(pair.columns, target, hashing),
        rows=pair.rows(target),
        where=where,
    )


def add(rows: Iterable[tuple[int | None, int, int, int]], into: dict[int | None, Digest]) -> None:
    """Add the rows of one statement to what is there."""
    for bucket, count, either, total in rows:
        into[bucket] = into.get(bucket, NOTHING) + Digest(int(count), int(either), int(total))


def pieces(blocks: int, size: int) -> Iterator[sql.Composable]:
    """Conditions that cut the heap into runs of blocks; the last one is open."""
    starts = range(0, max(blocks, 1), size)
    for start in starts:
        condition = sql.SQL("ctid >= {}::tid").format(sql.Literal(f"({start},0)"))
        if start != starts[-1]:
            condition += sql.SQL(" AND ctid < {}::tid").format(sql.Literal(f"({start + size},0)"))
        yield condition


def blocks(sides: Sides, pair: Pair, target: bool) -> int:
    """Heap blocks of a table now; a table that grew since has more, which the last piece reads."""
    name = names.table(pair.relation(target)).as_string(None)
    conn = sides.target if target else sides.source
    row = conn.execute(
        "SELECT coalesce(pg_relation_size(to_regclass(%s)) "
        "/ current_setting('block_size')::int8, 0)",
        (name,),
    ).fetchone()
    return int(row[0]) if row else 0


def _read_in(sides: Sides, pair: Pair, target: bool, piece_blocks: int) -> list[sql.Composable]:
    """The pieces in which a side is read."""
    bounded = pair.route is not None and pair.route.bound is not None
    if target and bounded and blocks(sides, pair, False) <= piece_blocks:
        # A small part of a table that has many: an index may lead to its rows.
        return [sql.SQL("true")]
    return list(pieces(blocks(sides, pair, target), piece_blocks))


def digest(
    sides: Sides,
    pair: Pair,
    slicer: Slicer,
    hashing: Hashing,
    unit: Unit,
    aligned: Aligned,
    piece_blocks: int,
    rest: Callable[[float], None],
) -> tuple[Digests, Digests]:
    """Both sides' digests of a unit, read at the same time.

    Args:
        rest: called on either side after each statement with its seconds; may wait, may raise.

    Raises:
        SnapshotLost, TableMoved, MigratorError.
    """

    def of_side(target: bool) -> Digests:
        found: dict[int | None, Digest] = {}
        among: sql.Composable | None = None
        if unit.range.everything:
            conditions = _read_in(sides, pair, target, piece_blocks)
            if unit.only is not None:
                among = slicer.among(unit, target)
        else:
            conditions = [sql.SQL("true")]
            among = slicer.within(unit.range, target)
        for piece in conditions:
            condition = piece if among is None else sql.SQL("{} AND {}").format(piece, among)
            query = statement(pair, slicer, hashing, unit, target, condition)
            began = time.monotonic()
            # Rows without a key are told apart by all of their columns, also by those of a hook.
            wanted = where(condition if pair.key else piece)
            add(sides.read(pair, aligned, query, target, wanted), found)
            rest(time.monotonic() - began)
        return found

    return sides.both(of_side)


def unequal(here: Digests, there: Digests) -> list[int | None]:
    """The chunks whose digests differ."""
    buckets = here.keys() | there.keys()
    found = [b for b in buckets if here.get(b, NOTHING) != there.get(b, NOTHING)]
    return sorted(found, key=lambda bucket: (bucket is None, bucket or 0))


def rows(digests: Digests) -> int:
    """Rows in all chunks."""
    return sum(one.rows for one in digests.values())


def by_chunk(unit: Unit, here: Digests, wrong: Iterable[int | None]) -> tuple[Proven, ...]:
    """What is proven of each of the map's chunks in a unit; `here`: of the source."""
    added = dict.fromkeys(unit.mapped, NOTHING)
    for bucket, one in here.items():
        added[unit.in_map(bucket)] += one
    unlike = {unit.in_map(bucket) for bucket in wrong}
    return tuple(
        Proven(number, one.rows, one.either, one.total, number not in unlike)
        for number, one in added.items()
    )
