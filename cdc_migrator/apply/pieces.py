"""Cut transactions that do not fit into memory into pieces that do. Pure.

All pieces go into one transaction of the target, one after the other. Between two row events the
source honoured every constraint that is checked at once, so each piece can be written as a batch
is; a cut only must not part what is folded together: the two halves of a key change, and a change
from the row of the side table that says what it lacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from cdc_migrator.apply.batcher import LARGE_ROW
from cdc_migrator.apply.shape import Shape
from cdc_migrator.model.changes import Change, Op, Transaction
from cdc_migrator.model.tables import TableName


@dataclass(frozen=True, slots=True)
class PieceLimits:
    """A piece is closed by the change that reaches one of these, or is large by itself, at the next
    place for a cut.

    Attributes:
        rows: row events. bytes: of their images.
        inline: rows of one table in a piece that go along with a statement, at most.
    """

    rows: int = 50_000
    bytes: int = 32 << 20
    inline: int = 250


def pieces(
    transactions: Iterable[Transaction], shapes: Mapping[TableName, Shape], limits: PieceLimits
) -> Iterator[list[Transaction]]:
    """Runs of transactions and of parts of them, each as small as the limits say."""
    balance = _Balance(shapes)
    run: list[Transaction] = []
    rows = size = 0
    for transaction in transactions:
        part: list[Change] = []
        for change in transaction.changes:
            part.append(change)
            balance.take(change)
            rows += 1
            large = len(change.after or b"") + len(change.before or b"")
            size += large
            full = rows >= limits.rows or size >= limits.bytes or large >= LARGE_ROW
            if full and balance.even:
                done = [[*run, replace(transaction, changes=part)]]
                run, part, rows, size = [], [], 0, 0
                # Nobody holds on to what is written already while the next is read.
                del change
                yield done.pop()
        if part:
            run.append(replace(transaction, changes=part))
    if run:
        yield run


class _Balance:
    """Whether everything that was begun is complete."""

    def __init__(self, shapes: Mapping[TableName, Shape]) -> None:
        self._shapes = shapes
        self._due = 0
        self._moving = False

    @property
    def even(self) -> bool:
        """Nothing is due, and no row is between two keys."""
        return not self._due and not self._moving

    def take(self, change: Change) -> None:
        """Count a change, or a row of a side table."""
        self._moving = change.key_moves_on
        shape = self._shapes.get(change.table)
        if shape is None or shape.values is None or not shape.values.always:
            return
        if shape.name != change.table:
            self._due -= change.op is Op.INSERT
        else:
            self._due += change.op is Op.INSERT or change.op is Op.UPDATE
