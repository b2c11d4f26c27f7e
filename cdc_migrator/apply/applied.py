"""What a call of the applier has committed, and the counting on the way there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import add
from typing import cast

import psycopg

from cdc_migrator.apply.batcher import Batch
from cdc_migrator.apply.parked import Aside
from cdc_migrator.apply.prepared import Piece
from cdc_migrator.apply.signals import Heartbeat, Marker
from cdc_migrator.control import markers, progress, proofs
from cdc_migrator.control import migration as phases
from cdc_migrator.control.progress import Advance, Counts
from cdc_migrator.model.changes import Op
from cdc_migrator.model.tables import TableName

_NONE: Counts = (0, 0, 0, 0, 0)
_OPS = (Op.INSERT, Op.UPDATE, Op.DELETE)


@dataclass(frozen=True, slots=True)
class Applied:
    """What one call of `Applier.apply` committed.

    Attributes:
        transactions, changes: of the source; re-deliveries are not counted.
        seconds: from the first statement to the commit, retries included.
        retries: attempts that failed and were made again.
        markers, heartbeats: what the service's own tables on the source said, in order.
        counts: what the stream carried, by table.
        parked: records that were kept back.
    """

    transactions: int
    changes: int
    seconds: float
    retries: int
    markers: tuple[Marker, ...]
    heartbeats: tuple[Heartbeat, ...]
    counts: dict[TableName, Counts]
    parked: int = 0

    def __add__(self, later: Applied) -> Applied:
        return Applied(
            self.transactions + later.transactions,
            self.changes + later.changes,
            self.seconds + later.seconds,
            self.retries + later.retries,
            self.markers + later.markers,
            self.heartbeats + later.heartbeats,
            _sum(self.counts, later.counts),
            self.parked + later.parked,
        )


@dataclass(slots=True)
class Tally:
    """What the pieces of a batch held, as they were written.

    Attributes:
        skimmed: changes that were passed over unread.
        begun: the stream is active from here on.
        parked: records that were kept back.
        at: the table that is being written.
    """

    counts: dict[TableName, Counts] = field(default_factory=dict)
    markers: list[Marker] = field(default_factory=list)
    heartbeats: list[Heartbeat] = field(default_factory=list)
    skimmed: int = 0
    begun: bool = False
    parked: int = 0
    at: TableName | None = None

    def take(self, piece: Piece) -> None:
        """Add one piece."""
        self.counts = _sum(self.counts, piece.counts)
        self.markers += piece.markers
        self.heartbeats += piece.heartbeats
        self.skimmed += piece.skimmed

    def set_aside(self, records: Iterable[Aside]) -> None:
        """Count what the stream carried and is not part of a piece."""
        found: dict[TableName, list[int]] = {}
        for one in records:
            if one.change.table == one.shape.name:
                counts = found.setdefault(one.shape.name, [0] * len(_NONE))
                counts[_OPS.index(one.change.op)] += 1
        of = {name: cast(Counts, tuple(counts)) for name, counts in found.items()}
        self.counts = _sum(self.counts, of)

    def write(self, conn: psycopg.Connection, stream: str) -> None:
        """Put down what they held, in the transaction that wrote them."""
        progress.count(conn, self.counts)
        kept = [one for one in self.markers if one.kind in markers.KEPT]
        markers.applied(conn, stream, [(one.token, one.kind, one.commit_lsn) for one in kept])

    def applied(self, batch: Batch, seconds: float, retries: int) -> Applied:
        """What the batch came to, once it is committed."""
        return Applied(
            transactions=len(batch.transactions),
            changes=batch.changes,
            seconds=seconds,
            retries=retries,
            markers=tuple(self.markers),
            heartbeats=tuple(self.heartbeats),
            counts=self.counts,
            parked=self.parked,
        )

    def pass_over(
        self, conn: psycopg.Connection, stream: str, migration: str | None, pieces: Iterable[Piece]
    ) -> None:
        """Put down what they held where nothing of it is written.

        Where they end with the start of this stream's leg, what follows is written again.
        """
        for piece in pieces:
            self.take(piece)
        ignored = self.skimmed + sum(sum(of_table[:4]) for of_table in self.counts.values())
        progress.ignore(conn, ignored, stream)
        self.counts = {}
        self.write(conn, stream)
        legs = [one.leg for one in self.markers if one.migration == migration]
        for leg in legs:
            if leg is not None and progress.activate(conn, leg, stream):
                self.begun = True
                # What was proven is of the leg before.
                proofs.begin_anew(conn)
                phases.set_phase(conn, phases.Phase.STREAM, leg=leg)


def advance_by(batch: Batch, ahead: Iterable[int]) -> Advance:
    """What applying a batch adds to the stream's progress; `ahead` as in `Progress`."""
    return Advance(
        next_offset=batch.next_offset,
        commit_position=batch.commit_position,
        source_committed_at_us=batch.committed_at_us,
        transactions=len(batch.transactions),
        redelivered=batch.redelivered,
        suspect=batch.suspect,
        ahead=sorted(ahead),
    )


def _sum(
    one: Mapping[TableName, Counts], other: Mapping[TableName, Counts]
) -> dict[TableName, Counts]:
    return {
        name: cast(Counts, tuple(map(add, one.get(name, _NONE), other.get(name, _NONE))))
        for name in {**one, **other}
    }
