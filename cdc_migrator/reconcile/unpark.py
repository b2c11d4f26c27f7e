"""Repair rows of which the stream keeps records back, which settles those.

At the point all that was kept back is in the source's snapshot: what that does not see is held, and
has not been looked at yet. So a row that is written as the snapshot shows it holds what its records
say; they go, in the same transaction. The keys of a chain are written together or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import psycopg

from cdc_migrator.control import dead_letters
from cdc_migrator.errors import Refused
from cdc_migrator.model.alignment import Repair
from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile import repair
from cdc_migrator.reconcile.marking import mark_keys
from cdc_migrator.reconcile.narrow import Key
from cdc_migrator.reconcile.pairs import Pair

_ROUNDS = 50


def write(
    source: psycopg.Connection, target: psycopg.Connection, pair: Pair, wanted: Repair
) -> None:
    """As `repair.write`, chunks marked and what was kept back settled; audited.

    A key that is kept back and that the target still does not accept stays as it is: it is not in
    the way of others.
    """
    parked = _Parked(target, pair.source.name)
    plain = tuple(key for key in wanted.keys if key not in parked.chains)
    # What collides with a plain row may be kept back as well.
    touched = _repair(source, target, pair, replace(wanted, keys=plain)) if plain else []
    for chain in parked.chains_of([*wanted.keys, *touched]):
        keys = parked.texts[chain]
        if keys is None:
            continue
        try:
            with target.transaction():
                _settle(source, target, pair, replace(wanted, keys=keys), parked, chain)
        except Refused:
            continue


class _Parked:
    """What is kept back of one table; `texts` of a chain: its keys, None where one is not known."""

    def __init__(self, target: psycopg.Connection, table: TableName) -> None:
        self.chains: dict[Key, int] = {}
        self.texts: dict[int, tuple[Key, ...] | None] = {}
        for one in dead_letters.keys(target):
            if one.table != table:
                continue
            known = self.texts.get(one.chain, ())
            if one.texts is None or known is None:
                self.texts[one.chain] = None
            else:
                self.texts[one.chain] = (*known, one.texts)
            if one.texts is not None:
                self.chains[one.texts] = one.chain

    def chains_of(self, keys: Iterable[Key]) -> list[int]:
        """The chains of those of the keys that are kept back."""
        return list(dict.fromkeys(self.chains[key] for key in keys if key in self.chains))


def _settle(
    source: psycopg.Connection,
    target: psycopg.Connection,
    pair: Pair,
    wanted: Repair,
    parked: _Parked,
    chain: int,
) -> None:
    chains = [chain]
    for _ in range(_ROUNDS):
        touched = _repair(source, target, pair, wanted)
        more = [one for one in parked.chains_of(touched) if one not in chains]
        if not more:
            dead_letters.resolve(target, chains, "repaired")
            return
        chains += more
        keys = [key for one in chains for key in parked.texts[one] or ()]
        wanted = replace(wanted, keys=tuple(dict.fromkeys(keys)))
    raise repair.entangled(pair)


def _repair(
    source: psycopg.Connection, target: psycopg.Connection, pair: Pair, wanted: Repair
) -> list[Key]:
    """The keys whose rows were written, those in the way among them."""
    done = repair.write(source, target, pair, wanted)
    keys = [tuple(row.key.values()) for row in done]
    mark_keys(target, pair, keys)
    return keys


def to_settle(
    target: psycopg.Connection, pairs: Mapping[TableName, Pair], known: Iterable[Repair], run: int
) -> list[Repair]:
    """The keys of these tables that are kept back and that no other repair writes."""
    written = {(one.table, key) for one in known for key in one.keys}
    keys: dict[TableName, list[Key]] = {}
    for one in dead_letters.keys(target):
        if one.table in pairs and one.texts is not None and (one.table, one.texts) not in written:
            keys.setdefault(one.table, []).append(one.texts)
    return [Repair(table, tuple(of), run) for table, of in sorted(keys.items())]


def require_none(target: psycopg.Connection, table: TableName) -> None:
    """See that nothing is kept back of a table whose ranges are written anew.

    Raises Refused: CDCM-PARK-REBUILD: applying it later would overwrite what is newer.
    """
    if dead_letters.chains_of(target, [table]):
        raise Refused(
            "CDCM-PARK-REBUILD",
            f"records of {table} are kept back, which a rebuild does not settle",
            f"`cdc-migrator dead-letters retry --table {table}`, or `cdc-migrator reconcile "
            f"--repair --tables {table}`; then run the same command again.",
        )
