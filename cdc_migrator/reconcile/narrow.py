"""Find the rows of a chunk that does not match, and in which columns they differ.

All of it at the same alignment point as the digests, so that nothing is reported that was only on
its way. Texts decide: where the hashes differ and no text does, the servers hash unlike each other,
and the table is compared again in a safer way.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from psycopg import sql

from cdc_migrator.model.alignment import Aligned
from cdc_migrator.model.differences import DIGEST, DifferenceKind, RowDifference
from cdc_migrator.reconcile import expressions, hooked
from cdc_migrator.reconcile.chunks import Range, Slicer
from cdc_migrator.reconcile.digest import NOTHING, Digest, add, grouped, unequal
from cdc_migrator.reconcile.expressions import Hashing
from cdc_migrator.reconcile.pairs import Pair
from cdc_migrator.reconcile.snapshot import Row, Sides

_DIRECTLY = 1_000  # rows of a chunk that are fetched without ado
_HANDFUL = 500  # rows of a chunk that share a part of their hash
_MOST_HANDFULS = 4_096
_FETCH_ROWS = 50_000  # at once
_KEYS_AT_ONCE = 500

Key = tuple[str, ...]
Where = Callable[[bool], sql.Composable]  # a condition on the rows of either side


class HashesDisagree(Exception):
    """Rows with different hashes have the same text."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is looked at, and how: one table at one point."""

    sides: Sides
    pair: Pair
    slicer: Slicer
    hashing: Hashing
    aligned: Aligned
    values: bool = False

    def read(self, query: sql.Composed, target: bool, among: sql.Composable) -> list[Row]:
        """The rows of a query over the pair's rows, which are those `among`: see `hooked.read`."""
        return self.sides.read(self.pair, self.aligned, query, target, among)

    def those(self, condition: sql.Composable) -> sql.Composable:
        """`among` of a condition; rows without a key are told apart by all columns, also by those
        that a hook gives."""
        return hooked.where(condition) if self.pair.key else hooked.ALL


def differences(look: Look, part: Range, rows: int) -> Iterator[RowDifference]:
    """The rows of a range that differ.

    A large range is first cut into handfuls by the low bits of a hash, in one more reading of it:
    only those that differ are fetched.

    Args:
        rows: how many there are on the side that has more of them.

    Raises:
        SnapshotLost, TableMoved, HashesDisagree, MigratorError.
    """

    def within(target: bool) -> sql.Composable:
        return look.slicer.within(part, target) or sql.SQL("true")

    yield from differing(look, within, rows)


def differing(look: Look, within: Where, rows: int) -> Iterator[RowDifference]:
    """As `differences`, of the rows for which a condition holds that is the same on both sides."""
    of_some = _of_keys if look.pair.key else _of_contents
    if rows <= _DIRECTLY:
        yield from of_some(look, within)
        return
    count = 1
    while count < min(rows // _HANDFUL, _MOST_HANDFULS):
        count *= 2
    for numbers in _handfuls(look, within, count):

        def among(target: bool, numbers: list[int] = numbers) -> sql.Composable:
            return sql.SQL("{} AND {} = ANY({}::int8[])").format(
                within(target), _number(look, target, count), sql.Literal(numbers)
            )

        yield from of_some(look, among)


def _number(look: Look, target: bool, count: int) -> sql.Composable:
    """SQL of the handful that a row belongs to."""
    columns = look.pair.key or look.pair.columns
    return sql.SQL("({} & {}::int8)").format(
        expressions.row_hash(columns, target, look.hashing), sql.Literal(count - 1)
    )


def _handfuls(look: Look, within: Where, count: int) -> Iterator[list[int]]:
    """The numbers of unequal handfuls, as many at a time as are to be fetched at once."""

    def of_side(target: bool) -> dict[int | None, Digest]:
        found: dict[int | None, Digest] = {}
        condition = within(target)
        query = grouped(look.pair, look.hashing, target, _number(look, target, count), condition)
        add(look.read(query, target, look.those(condition)), found)
        return found

    here, there = look.sides.both(of_side)
    some: list[int] = []
    rows = 0
    for number in unequal(here, there):
        assert number is not None, "a row's hash is never null"
        more = max(here.get(number, NOTHING).rows, there.get(number, NOTHING).rows)
        if some and rows + more > _FETCH_ROWS:
            yield some
            some, rows = [], 0
        some.append(number)
        rows += more
    if some:
        yield some


def _of_keys(look: Look, where: Where) -> Iterator[RowDifference]:
    def of_side(target: bool) -> dict[Key, list[int]]:
        own = [column.on(target) for column in look.pair.key]
        query = sql.SQL("SELECT {row}, {key} FROM {rows} WHERE {where}").format(
            row=expressions.row_hash(look.pair.columns, target, look.hashing),
            key=expressions.texts(own),
            rows=look.pair.rows(target),
            where=where(target),
        )
        found: dict[Key, list[int]] = defaultdict(list)
        for value, *key in look.read(query, target, look.those(where(target))):
            found[tuple(key)].append(value)
        return found

    here, there = look.sides.both(of_side)
    changed = []
    for key in sorted(here.keys() | there.keys(), key=_order):
        ours, theirs = here.get(key, []), there.get(key, [])
        if sorted(ours) == sorted(theirs):
            continue
        if len(ours) == len(theirs) == 1:
            changed.append(key)
            continue
        kind = DifferenceKind.MISSING if len(ours) > len(theirs) else DifferenceKind.EXTRA
        if len(ours) == len(theirs):
            kind = DifferenceKind.DIFFERENT
        yield RowDifference(
            look.pair.source.name,
            kind,
            named(look.pair, key),
            source_count=len(ours),
            target_count=len(theirs),
        )
    for start in range(0, len(changed), _KEYS_AT_ONCE):
        found = compare_keys(look, changed[start : start + _KEYS_AT_ONCE])
        if len(found) < len(changed[start : start + _KEYS_AT_ONCE]):
            raise HashesDisagree(str(look.pair.source.name))
        yield from found


def _order(key: Key) -> tuple[tuple[int, str], ...]:
    # The target may hold a null in a key, if it lacks the key's constraint.
    return tuple((len(part or ""), part or "") for part in key)


def named(pair: Pair, key: Key) -> Mapping[str, str]:
    """A key by its columns."""
    if not pair.key:
        return {DIGEST: key[0]}
    return {column.name: part for column, part in zip(pair.key, key, strict=True)}


def compare_keys(look: Look, keys: Sequence[Key]) -> list[RowDifference]:
    """Those of the keys (of a keyless table: digests) whose rows differ at the point."""
    if not look.pair.key:
        return list(_unequal_contents(look, [key[0] for key in keys]))

    def of_side(target: bool) -> dict[Key, list[Row]]:
        own = [column.on(target) for column in look.pair.key]
        of_them = sql.SQL("JOIN {} ON {}").format(
            expressions.wanted_keys(own, keys), expressions.same_key(own, "t")
        )
        query = sql.SQL("SELECT {lying}, {key}, {row} FROM {rows} {of_them}").format(
            lying=look.pair.lying(target),
            key=expressions.texts(own, "t"),
            row=expressions.texts((c.on(target) for c in look.pair.columns), "t"),
            rows=look.pair.rows(target, "t"),
            of_them=of_them,
        )
        found: dict[Key, list[Row]] = defaultdict(list)
        # Two texts may be one key to the database (1.0 and 1.00), and find the same row twice.
        rows = look.read(query, target, of_them)
        for row in {row[0]: row[1:] for row in rows}.values():
            found[tuple(row[: len(own)])].append(row[len(own) :])
        return found

    here, there = look.sides.both(of_side)
    return [
        found
        for key in keys
        if (found := _compare(look, key, here.get(key, []), there.get(key, []))) is not None
    ]


def _compare(look: Look, key: Key, ours: list[Row], theirs: list[Row]) -> RowDifference | None:
    made = RowDifference(
        look.pair.source.name,
        DifferenceKind.DIFFERENT,
        named(look.pair, key),
        source_count=len(ours),
        target_count=len(theirs),
    )
    if len(ours) != len(theirs):
        missing = len(ours) > len(theirs)
        return replace(made, kind=DifferenceKind.MISSING if missing else DifferenceKind.EXTRA)
    if sorted(map(repr, ours)) == sorted(map(repr, theirs)):
        return None
    if len(ours) > 1:
        return made
    wrong = {
        column.name: (ours[0][place], theirs[0][place])
        for place, column in enumerate(look.pair.columns)
        if ours[0][place] != theirs[0][place]
    }
    return replace(made, columns=tuple(wrong), values=wrong if look.values else {})


def _of_contents(look: Look, where: Where) -> Iterator[RowDifference]:
    found = list(_contents(look, where))
    if not found:
        raise HashesDisagree(str(look.pair.source.name))
    yield from found


def _unequal_contents(look: Look, digests: Iterable[str]) -> Iterator[RowDifference]:
    wanted = sql.Literal(list(digests))

    def where(target: bool) -> sql.Composable:
        return sql.SQL("{} = ANY({}::text[])").format(
            expressions.row_digest(look.pair, target), wanted
        )

    return _contents(look, where)


def _contents(look: Look, where: Where) -> Iterator[RowDifference]:
    """Rows whose content is there more often on one side than on the other."""

    def of_side(target: bool) -> dict[str, int]:
        query = sql.SQL("SELECT {digest}, count(*) FROM {rows} WHERE {where} GROUP BY 1").format(
            digest=expressions.row_digest(look.pair, target),
            rows=look.pair.rows(target),
            where=where(target),
        )
        found: Counter[str] = Counter()
        for digest, count in look.read(query, target, look.those(where(target))):
            found[digest] += count
        return found

    here, there = look.sides.both(of_side)
    for digest in sorted(here.keys() | there.keys()):
        ours, theirs = here.get(digest, 0), there.get(digest, 0)
        if ours != theirs:
            yield RowDifference(
                look.pair.source.name,
                DifferenceKind.MISSING if ours > theirs else DifferenceKind.EXTRA,
                {DIGEST: digest},
                source_count=ours,
                target_count=theirs,
            )
