"""Apply what was kept back, between two batches, as far as the target accepts it by now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg

from cdc_migrator.apply.hands import Hands
from cdc_migrator.apply.isolate import isolate
from cdc_migrator.apply.merge import RowsMissing
from cdc_migrator.apply.parked import Unit
from cdc_migrator.apply.trying import Declined, attempt, staged
from cdc_migrator.control import dead_letters
from cdc_migrator.control.dead_letters import Fault
from cdc_migrator.databases.postgres.sqlstate import Disposition, disposition
from cdc_migrator.errors import StreamHalted
from cdc_migrator.model.changes import Transaction
from cdc_migrator.model.tables import TableName

_PORTION_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Tried:
    """A chain whose records were tried again; `fault`: why they are still kept back."""

    chain: int
    table: TableName
    fault: Fault | None


def retry(by: Hands, chains: Sequence[int], who: str) -> list[Tried]:
    """Apply what is kept back of these chains, as far as it is accepted by now.

    To be called between two batches, in a transaction of its own. The records of a chain are
    all that came for its rows since it was parked, so nothing newer is overwritten. There may be
    more of them than there is memory: they are read in portions, and as long as that helps those
    that were refused are tried again, because what refused them may have been in another portion.
    """
    found: dict[int, Tried] = {}
    left = list(chains)
    while left:
        portions = dead_letters.portions(by.conn, left, _PORTION_BYTES)
        for some in portions:
            found.update((one.chain, one) for one in _portion(by, some))
        refused = [chain for some in portions for chain in some if found[chain].fault is not None]
        if len(portions) < 2 or len(refused) == len(left):
            break
        left = refused
    tried = list(found.values())
    for done in tried:
        if done.fault is not None:
            dead_letters.refused(by.conn, done.chain, done.fault)
    applied = [done.chain for done in tried if done.fault is None]
    if applied:
        dead_letters.apply(by.conn, applied, who)
    return tried


def _portion(by: Hands, chains: Sequence[int]) -> list[Tried]:
    of: dict[TableName, dict[int, Unit]] = {}
    last: Transaction | None = None
    for order, one in enumerate(dead_letters.read(by.conn, chains)):
        unit = of.setdefault(one.table, {}).setdefault(one.chain, Unit(chain=one.chain))
        if last is None or last.commit_lsn != one.transaction.commit_lsn:
            last = one.transaction
        unit.keys[one.key] = None
        unit.changes.append((order, last, one.change))
    return [done for table, some in of.items() for done in _again(by, table, some)]


def _again(by: Hands, table: TableName, some: Mapping[int, Unit]) -> list[Tried]:
    shape = by.preparer.shapes.get(table)
    if shape is None:
        gone = Fault("CDCM-STREAM-UNKNOWN-TABLE", "the table is not part of the stream any more")
        return [Tried(chain, table, gone) for chain in some]

    def write(few: Sequence[Unit]) -> Declined | None:
        try:
            return attempt(by, staged(by, shape, few))
        except (RowsMissing, StreamHalted) as exc:
            return Declined(exc)
        except psycopg.Error as exc:
            if disposition(exc) is Disposition.RETRY:
                raise
            return Declined(exc)

    all_of_them = list(some.values())
    refused = write(all_of_them)
    left = isolate(all_of_them, write, refused) if refused is not None else []
    faults = {unit.chain: why.fault for unit, why in left}
    return [Tried(chain, table, faults.get(chain)) for chain in some]
