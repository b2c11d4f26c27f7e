"""Bring the stream to the point at which a snapshot of the source was taken. Pure.

From the moment at which the snapshot is known until a marker that was committed after it comes by,
what the snapshot sees is applied and what it does not see is held back. Behind the marker nothing
can come that it sees, so the target then equals it. What is visible is often not a prefix of
commit order. Holding some back is safe: a transaction that depends on another one could write
only after that had become visible, so whatever the snapshot sees depends on nothing that is held.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cdc_migrator.apply.batcher import Batch
from cdc_migrator.apply.signals import MARKER, signals
from cdc_migrator.model.changes import Transaction
from cdc_migrator.model.positions import Snapshot


@dataclass(slots=True)
class Holding:
    """One way to one snapshot.

    Attributes:
        snapshot: the source's.
        token: of the marker that was committed after it.
        commit_position: of the last transaction applied so far.
        held: transactions held back so far, in the stream's order.
    """

    snapshot: Snapshot
    token: str
    commit_position: int
    held: list[Transaction] = field(default_factory=list)
    _next_offset: int = 0
    _last: Batch | None = None
    _redelivered: int = 0
    _behind: tuple[Transaction, ...] = ()

    def take(self, batch: Batch) -> tuple[list[Batch], bool]:
        """What of a batch is to be applied now, and whether the snapshot is then reached.

        From then on only `rest` may be called.
        """
        marker = self._place_of_marker(batch)
        reached = marker is not None
        before = batch.transactions[:marker]
        self._behind = batch.transactions[len(before) :]
        self._last = batch
        plain: list[Transaction] = []
        ahead: list[Transaction] = []
        for one in before:
            if not self.snapshot.sees(one.xid):
                if not self.held:
                    self._next_offset = min(one.first_offset, batch.next_offset)
                self.held.append(one)
            elif self.held:
                ahead.append(one)
            else:
                plain.append(one)
                self.commit_position = one.commit_lsn
        if not self.held and not reached:
            self.commit_position = batch.commit_position
            return [batch], False
        self._redelivered += batch.redelivered
        if not self.held:
            # The marker's own transaction is the first that is left.
            self._next_offset = min(self._behind[0].first_offset, batch.next_offset)
        here = Batch((), self._next_offset, self.commit_position)
        now = []
        if plain:
            size = sum(one.bytes for one in plain)
            now.append(Batch(tuple(plain), here.next_offset, here.commit_position, bytes=size))
        if ahead:
            now.append(here.ahead_with(tuple(ahead)))
        return now, reached

    def rest(self) -> Batch | None:
        """What was held back and what came behind the marker: to be applied next, if anything."""
        last = self._last
        left = (*self.held, *self._behind)
        if last is None or not left:
            return None
        size = sum(one.bytes for one in left)
        return Batch(left, last.next_offset, last.commit_position, self._redelivered, size)

    def _place_of_marker(self, batch: Batch) -> int | None:
        for place, one in enumerate(batch.transactions):
            # It has nothing but the marker; what is not in memory is larger.
            if one.tables is None:
                few = ((one, change) for change in one.changes[:4] if change.table == MARKER)
                if any(marker.token == self.token for marker in signals(few)[0]):
                    return place
        return None
