"""Fold whole transactions into the last state of each row. Pure: no driver, no clock.

What comes out, per table, does not depend on the order in which it is written, but for one rule:
values that stay as they are (UNCHANGED) come from the target's row at the base, so they are read
before that row is removed. How the rows of one table are followed: `follow`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from cdc_migrator.apply.follow import Keyed, Keyless, TableState
from cdc_migrator.apply.shape import Shape
from cdc_migrator.apply.signals import TABLES
from cdc_migrator.control.progress import Counts
from cdc_migrator.errors import StreamHalted
from cdc_migrator.model.changes import Change, Transaction, TruncatePolicy
from cdc_migrator.model.positions import lsn_to_text
from cdc_migrator.model.tables import TableName


class UnknownTable(StreamHalted):
    """A change of a table, or of a side table, that has no shape here; it may be being added."""

    def __init__(self, table: TableName, position: str) -> None:
        super().__init__(
            "CDCM-STREAM-UNKNOWN-TABLE",
            f"the stream carries the table {table}, which is not part of this migration",
            position,
        )
        self.table = table


@dataclass(slots=True)
class Folded:
    """What one batch makes of all tables.

    Attributes:
        tables: in the order in which the batch first touched them.
        counts: what the stream carried, by table.
        control: changes of the service's own tables on the source, in order; not for the target.
    """

    tables: list[TableState]
    counts: dict[TableName, Counts]
    control: list[tuple[Transaction, Change]]


def fold(
    transactions: Iterable[Transaction],
    shapes: Mapping[TableName, Shape],
    truncates: TruncatePolicy = TruncatePolicy.APPLY,
) -> Folded:
    """Fold a run of whole transactions.

    Raises:
        UnknownTable: a table has no shape.
        StreamHalted: CDCM-STREAM-SEQUENCE (an event that cannot follow the ones before it),
            CDCM-STREAM-SIDE-MISSING, CDCM-APPLY-TRUNCATE, or what the decoders raise.
    """
    folds: dict[TableName, Keyed | Keyless] = {}
    control: list[tuple[Transaction, Change]] = []
    # Who takes a table's events, where that is the same for every transaction.
    takers: dict[TableName, Callable[[Change], None]] = {}
    for transaction in transactions:
        # Events come in runs of one table: look it up once a run.
        name: TableName | None = None
        take = None
        for change in transaction.changes:
            if change.table is not name:
                name = change.table
                take = takers.get(name)
                if take is None and (shape := shapes.get(name)) is not None:
                    take = _taker(folds, shape, name, transaction, truncates)
                    if not any(one.reread for one in shape.all):
                        takers[name] = take
                if take is None and name not in TABLES:
                    raise UnknownTable(name, f"change at {lsn_to_text(change.lsn)}")
            if take is None:
                control.append((transaction, change))
            else:
                take(change)
    return Folded(
        tables=[one.finish() for one in folds.values()],
        counts={name: one.counts for name, one in folds.items()},
        control=control,
    )


def _taker(
    folds: dict[TableName, Keyed | Keyless],
    shape: Shape,
    name: TableName,
    transaction: Transaction,
    truncates: TruncatePolicy,
) -> Callable[[Change], None]:
    """Who takes a transaction's events that come under this name."""
    takers = []
    for one in shape.all:
        current = folds.get(one.name)
        if current is None:
            current = (Keyed if one.keys is not None else Keyless)(one, truncates)
            folds[one.name] = current
        beside = one.stream != name
        if one.reread is not None and one.reread.holds(transaction):
            takers.append(current.ignore if beside else current.pass_over)
        else:
            takers.append(current.take_beside if beside else current.take)
    if len(takers) == 1:
        return takers[0]

    def all_of_them(change: Change) -> None:
        for take in takers:
            take(change)

    return all_of_them
