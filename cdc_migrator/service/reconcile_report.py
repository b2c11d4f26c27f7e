"""What came of a comparison, table by table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg

from cdc_migrator.control import differences, proofs, reconcile
from cdc_migrator.control.differences import Known
from cdc_migrator.control.proofs import Standing
from cdc_migrator.control.reconcile import CONTINUOUS, Run
from cdc_migrator.model.alignment import Repair
from cdc_migrator.model.differences import RowDifference
from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile.options import Outcome
from cdc_migrator.reconcile.pairs import Pair, Unpaired

# Modes that rely on what was proven before, and those whose chunks keep their proofs.
_RELYING = ("incremental", CONTINUOUS)
_KEEPING = (*_RELYING, "full")


@dataclass(frozen=True, slots=True)
class TableReport:
    """What is known of one table.

    Attributes:
        rows: on the source, as far as it was read in this run.
        since: the oldest moment for which something in here is proven; None: nothing is.
        chunked_by: how its chunks lie: by the values of a key column, by a hash of the key, or
            the whole table is one; None: it has none that keep their proofs.
        chunks: how many. digested: of these, in this run. standing_chunks: not read in this run,
            because the stream has not written to them since they were proven.
        standing: differences that are open or accepted.
        more: there are more differences than were named.
        unproven: why it was not compared, or not to its end; None: it was.
        left_out: generated columns that are not compared.
        of_nobody: these are the rows that no table claims of one of the target's.
    """

    table: TableName
    rows: int
    since: datetime | None
    standing: tuple[Known, ...]
    more: bool
    unproven: str | None
    left_out: tuple[str, ...]
    chunked_by: str | None
    chunks: int
    digested: int
    standing_chunks: int
    of_nobody: bool = False

    @property
    def equal(self) -> bool:
        """Proven, and nothing is open."""
        return (
            self.unproven is None
            and not self.more
            and all(one.state != "open" for one in self.standing)
        )


@dataclass(frozen=True, slots=True)
class Report:
    """What came of one comparison.

    Attributes:
        finished: False: its time was up; it can be resumed.
        planned: with `dry_run`: what would be repaired.
        repaired: differences that were written anew and seen equal.
        values: differences with their values, where they were asked for.
        seconds: of this process.
        parked: rows of which the stream keeps records back, by table and key.
    """

    run: Run
    finished: bool
    tables: tuple[TableReport, ...]
    planned: tuple[Repair, ...]
    repaired: int
    values: tuple[RowDifference, ...]
    seconds: float
    parked: frozenset[tuple[TableName, tuple[str, ...] | None]] = frozenset()

    @property
    def equal(self) -> bool:
        """Every table is proven, and nothing is open."""
        return self.finished and all(one.equal for one in self.tables)

    @property
    def verified_as_of(self) -> datetime | None:
        """The oldest moment of all proofs; None where a table has none."""
        moments = [one.since for one in self.tables]
        known = [moment for moment in moments if moment is not None]
        return min(known) if known and len(known) == len(moments) else None


def reports(
    target: psycopg.Connection,
    current: Run,
    looked: Sequence[Pair | Unpaired],
    outcome: Outcome,
) -> tuple[TableReport, ...]:
    """What is known of each table at the end of a run; `looked`: at their catalogs."""
    known = {one.table: one for one in reconcile.proven(target, current.id)}
    kept = {one.table: one for one in proofs.standing(target, current.id)}
    standing: dict[TableName, list[Known]] = {}
    for one in differences.standing(target, current.tables):
        standing.setdefault(one.table, []).append(one)
    reasons = {**{o.table: o.reason for o in looked if isinstance(o, Unpaired)}, **outcome.unproven}
    left_out = {o.source.name: o.left_out for o in looked if isinstance(o, Pair)}
    nobodys = {o.source.name for o in looked if isinstance(o, Pair) and o.of_nobody}
    made = []
    for name in current.tables:
        proven = known.get(name)
        reason = reasons.get(name)
        if reason is None and (proven is None or proven.done < proven.planned):
            reason = "not compared to its end yet"
        chunks = kept.get(name) if current.mode in _KEEPING else None
        moments = [proven.since if proven else None]
        if chunks is not None and current.mode in _RELYING:
            moments.append(chunks.earlier_since)
        made.append(
            TableReport(
                name,
                proven.rows if proven else 0,
                min((moment for moment in moments if moment is not None), default=None),
                tuple(standing.get(name, ())),
                bool(proven and proven.more),
                reason,
                left_out.get(name, ()),
                _chunked_by(chunks),
                chunks.chunks if chunks else 0,
                proven.digested if proven else 0,
                chunks.earlier if chunks and current.mode in _RELYING else 0,
                name in nobodys,
            )
        )
    return tuple(made)


def _chunked_by(chunks: Standing | None) -> str | None:
    if chunks is None:
        return None
    if chunks.ordered_by is not None:
        return f"ranges of {chunks.ordered_by}"
    return "whole table" if chunks.place is None else "hash of the key"
