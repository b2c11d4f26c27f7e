"""A batch folded and written out for COPY: all that can be done without the target. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from cdc_migrator.apply.batcher import Batch
from cdc_migrator.apply.fold import fold
from cdc_migrator.apply.fold_blocks import fold_blocks
from cdc_migrator.apply.pieces import PieceLimits, pieces
from cdc_migrator.apply.shape import Shape
from cdc_migrator.apply.signals import START, TABLES, Heartbeat, Marker, begins, signals
from cdc_migrator.apply.stage import Staged, encode
from cdc_migrator.control.progress import Counts
from cdc_migrator.errors import StreamHalted
from cdc_migrator.model.changes import Transaction, TruncatePolicy
from cdc_migrator.model.tables import TableName


@dataclass(frozen=True, slots=True)
class Piece:
    """What is written at a time: a whole batch, or a part of one that is too large for memory.

    Attributes:
        staged: the tables that it changes, in name order: every process locks in one order.
        counts: events that the stream carried, by table.
        skimmed: events that were passed over unread.
    """

    staged: tuple[Staged, ...]
    counts: dict[TableName, Counts]
    markers: tuple[Marker, ...]
    heartbeats: tuple[Heartbeat, ...]
    skimmed: int = 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch, ready to be sent.

    Attributes:
        tables: those that pieces still to be made may change; none where the pieces are there.
        pieces: what is written, in order; can be gone through again for a second attempt.
        skimmed: nothing of it can be written, for it was not read.
    """

    batch: Batch
    tables: frozenset[TableName]
    pieces: Iterable[Piece]
    skimmed: bool = False

    @property
    def touched(self) -> Collection[TableName]:
        """The tables that it changes, or may change."""
        if self.batch.spilled:
            return self.tables
        return {name for piece in self.pieces for name in piece.counts}


def up_to_start(batch: Batch, prepared: Prepared | None) -> int:
    """How many transactions there are up to the first in which a side was opened, that one
    included; 0 where there is none in front of the last one.
    """
    if prepared is not None and not batch.spilled:
        markers = (marker for piece in prepared.pieces for marker in piece.markers)
        if not any(marker.kind == START for marker in markers):
            return 0
    some = enumerate(batch.transactions[:-1], 1)
    return next((number for number, one in some if begins(one)), 0)


class Preparer:
    """Folds and encodes batches; used by any thread.

    Args:
        shapes: every table of the stream, also under the name of its side table.
        limits: of a piece, where a transaction is too large for memory; of any, what is inline.
        truncates: what to do with them.
    """

    def __init__(
        self,
        shapes: Mapping[TableName, Shape],
        limits: PieceLimits = PieceLimits(),
        truncates: TruncatePolicy = TruncatePolicy.APPLY,
    ) -> None:
        self.shapes = shapes
        self.truncates = truncates
        self._limits = limits

    @property
    def inline(self) -> int:
        """Rows of a table that go along with a statement, at most."""
        return self._limits.inline

    def prepare(self, batch: Batch) -> Prepared:
        """Fold and encode; a batch that is too large for memory only when it is written.

        Raises StreamHalted; for such a batch the pieces do.
        """
        if not batch.spilled:
            piece = self.piece(batch, batch.transactions)
            return Prepared(batch, frozenset(), (piece,))
        named: set[TableName] = set()
        for transaction in batch.transactions:
            named.update(transaction.tables or (change.table for change in transaction.changes))
        shapes = self.shapes
        tables = frozenset(one.name for name in named if name in shapes for one in shapes[name].all)
        return Prepared(batch, tables, _Pieces(self, batch))

    def skim(self, batch: Batch) -> Prepared:
        """Read no more of a batch than the service's own rows: nothing of it will be written.

        Raises StreamHalted.
        """
        control = []
        skimmed = 0
        for transaction in batch.transactions:
            for change in transaction.changes:
                if change.table in TABLES:
                    control.append((transaction, change))
                else:
                    skimmed += 1
        markers, heartbeats = signals(control)
        piece = Piece((), {}, tuple(markers), tuple(heartbeats), skimmed)
        return Prepared(batch, frozenset(), (piece,), skimmed=True)

    def runs(self, batch: Batch) -> Iterable[Sequence[Transaction]]:
        """What is written at a time: all transactions, or parts of those too large for memory."""
        if not batch.spilled:
            return (batch.transactions,)
        return pieces(batch.transactions, self.shapes, self._limits)

    def piece(self, batch: Batch, transactions: Sequence[Transaction]) -> Piece:
        """Fold and encode one run of a batch. Raises StreamHalted."""
        taken = fold_blocks(transactions, self.shapes, self._limits.inline)
        folded = fold(taken.rest, self.shapes, self.truncates)
        markers, heartbeats = signals(folded.control)
        staged = taken.staged
        for state in folded.tables:
            try:
                staged.append(encode(state, self._limits.inline))
            except UnicodeEncodeError:
                raise StreamHalted(
                    "CDCM-STREAM-UNDECODABLE",
                    f"a row of {state.shape.name} is not valid Unicode",
                    f"offsets below {batch.next_offset}",
                ) from None
        staged.sort(key=lambda one: (one.shape.last, one.shape.name))
        counts = taken.counts | folded.counts
        return Piece(tuple(staged), counts, tuple(markers), tuple(heartbeats))

    def pieces(self, batch: Batch) -> Iterator[Piece]:
        """The pieces of a batch that is too large for memory, made one by one."""
        # A loop would hold on to each run, and to what was made of it, until it has the next one.
        return map(partial(self.piece, batch), self.runs(batch))


@dataclass(frozen=True, slots=True)
class _Pieces:
    """The pieces of one batch, made anew each time that they are gone through."""

    preparer: Preparer
    batch: Batch

    def __iter__(self) -> Iterator[Piece]:
        return self.preparer.pieces(self.batch)
