"""What a call of the applier has committed, and the counting on the way there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import add
from typing import cast

import psycopg

from cdc_migrator.apply.prepared import Piece
from cdc_migrator.apply.signals import Heartbeat, Marker
from cdc_migrator.control import markers, progress, proofs
from cdc_migrator.control import migration as phases
from cdc_migrator.control.progress import Counts
from cdc_migrator.model.tables import TableName

_NONE: Counts = (0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Applied:
    """What one call of `Applier.apply` committed.

    Attributes:
        transactions, changes: of the source; re-deliveries are not counted.
        seconds: from the first statement to the commit, retries included.
        retries: attempts that failed and were made again.
        markers, heartbeats: what the service's own tables on the source said, in order.
        counts: what the stream carried, by table.
    """

    transactions: int
    changes: int
    seconds: float
    retries: int
    markers: tuple[Marker, ...]
    heartbeats: tuple[Heartbeat, ...]
    counts: dict[TableName, Counts]

    def __add__(self, later: Applied) -> Applied:
        return Applied(
            self.transactions + later.transactions,
            self.changes + later.changes,
            self.seconds + later.seconds,
            self.retries + later.retries,
            self.markers + later.markers,
            self.heartbeats + later.heartbeats,
            _sum(self.counts, later.counts),
        )


@dataclass(slots=True)
class Tally:
    """What the pieces of a batch held, as they were written.

    Attributes:
        skimmed: changes that were passed over unread.
        begun: the stream is active from here on.
    """

    counts: dict[TableName, Counts] = field(default_factory=dict)
    markers: list[Marker] = field(default_factory=list)
    heartbeats: list[Heartbeat] = field(default_factory=list)
    skimmed: int = 0
    begun: bool = False

    def take(self, piece: Piece) -> None:
        """Add one piece."""
        self.counts = _sum(self.counts, piece.counts)
        self.markers += piece.markers
        self.heartbeats += piece.heartbeats
        self.skimmed += piece.skimmed

    def write(self, conn: psycopg.Connection, stream: str) -> None:
        """Put down what they held, in the transaction that wrote them."""
        progress.count(conn, self.counts)
        kept = [one for one in self.markers if one.kind in markers.KEPT]
        markers.applied(conn, stream, [(one.token, one.kind, one.commit_lsn) for one in kept])

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


def _sum(
    one: Mapping[TableName, Counts], other: Mapping[TableName, Counts]
) -> dict[TableName, Counts]:
    return {
        name: cast(Counts, tuple(map(add, one.get(name, _NONE), other.get(name, _NONE))))
        for name in {**one, **other}
    }
