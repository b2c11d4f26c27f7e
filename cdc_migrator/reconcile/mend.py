"""Have what differs repaired at an alignment point, and look at it again at that very point."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import psycopg

from cdc_migrator.control import differences
from cdc_migrator.control.differences import Known
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.errors import Failed
from cdc_migrator.faultpoints import reach
from cdc_migrator.model.alignment import Aligner, Repair
from cdc_migrator.model.differences import DIGEST
from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile.chunks import Slicer
from cdc_migrator.reconcile.expressions import Hashing
from cdc_migrator.reconcile.narrow import Key, Look, compare_keys, named
from cdc_migrator.reconcile.pairs import Pair
from cdc_migrator.reconcile.snapshot import Sides, SnapshotLost, TableMoved

_AT_ONCE = 2_000
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Mended:
    """How many differences were repaired and seen equal, and how many still stand."""

    repaired: int
    standing: int


def plan(known: Sequence[Known], pairs: Mapping[TableName, Pair], run: int) -> list[Repair]:
    """What would be repaired: the keys of open differences, by table; what rests on others last."""
    keys: dict[TableName, list[Key]] = defaultdict(list)
    for one in known:
        if one.table in pairs and one.state == "open":
            keys[one.table].append(_key(pairs[one.table], one))
    ordered = sorted(keys, key=lambda table: (pairs[table].part, table))
    return [Repair(table, tuple(keys[table]), run) for table in ordered]


def _key(pair: Pair, one: Known) -> Key:
    if not pair.key:
        return (one.key[DIGEST],)
    return tuple(one.key[column.name] for column in pair.key)


def mend(
    sides: Sides,
    aligner: Aligner,
    control: psycopg.Connection,
    pairs: Mapping[TableName, Pair],
    known: Sequence[Known],
    run: int,
) -> Mended:
    """Repair the open differences, some thousands of keys at each point.

    Raises:
        MigratorError: what was repaired and seen equal stays so.
    """
    ids = {
        (one.table, _key(pairs[one.table], one)): one.id
        for one in known
        if one.table in pairs and one.state == "open"
    }
    repaired = 0
    try:
        for some in _portions(plan(known, pairs, run)):
            repaired += _portion(sides, aligner, control, pairs, some, ids)
    finally:
        aligner.release()
    return Mended(repaired, len(ids) - repaired)


def _portions(repairs: Sequence[Repair]) -> Iterator[list[Repair]]:
    """All of it in portions of so many keys: each needs a point of its own."""
    some: list[Repair] = []
    room = _AT_ONCE
    for repair in repairs:
        keys = repair.keys
        while keys:
            some.append(Repair(repair.table, keys[:room], repair.run))
            keys, room = keys[room:], room - len(keys[:room])
            if not room:
                yield some
                some, room = [], _AT_ONCE
    if some:
        yield some


def _portion(
    sides: Sides,
    aligner: Aligner,
    control: psycopg.Connection,
    pairs: Mapping[TableName, Pair],
    repairs: Sequence[Repair],
    ids: Mapping[tuple[TableName, Key], int],
) -> int:
    for _ in range(_ATTEMPTS):
        aligned = aligner.align(repairs)
        reach("reconcile.mended")
        try:
            equal: list[int] = []
            for repair in repairs:
                pair = pairs[repair.table]
                look = Look(sides, pair, Slicer(pair, None, Hashing()), Hashing(), aligned)
                wrong = [dict(one.key) for one in compare_keys(look, repair.keys)]
                equal += [
                    ids[repair.table, key]
                    for key in repair.keys
                    if dict(named(pair, key)) not in wrong
                ]
        except (SnapshotLost, TableMoved):
            continue  # what is repaired once more is written as the source has it by then
        with speaking("target", "writing down what was repaired"):
            differences.repaired(control, equal, aligned.at)
        return len(equal)
    raise Failed(
        "CDCM-RECONCILE-UNSEEN",
        "rows were repaired, but could not be looked at again: their table is truncated, rewritten "
        "or locked again and again",
        "Run `cdc-migrator reconcile` when it is at rest.",
    )
