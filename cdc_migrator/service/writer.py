"""The one place that applies: batches from the pipeline, and what a barrier asks for in between.

Two threads come here: the pipeline's writer, and one that leads the stream to a barrier. They take
turns, first come, first served, so the applier has one user at a time and neither starves.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import psycopg

from cdc_migrator.apply.applied import Applied
from cdc_migrator.apply.applier import Applier
from cdc_migrator.apply.batcher import Batch
from cdc_migrator.apply.holding import Holding
from cdc_migrator.apply.prepared import Prepared
from cdc_migrator.faultpoints import reach
from cdc_migrator.model.positions import Snapshot, widen_xid
from cdc_migrator.service.pipeline import Work

# Ids of applied transactions that are kept until somebody says from which on they matter. Beyond
# it they are forgotten, and no barrier is possible for a while.
_REMEMBERED = 1_000_000


T = TypeVar("T")


class Writer:
    """Applies through `applier`; `on_applied` is told of each batch.

    The methods from `all_visible` on are for whoever has the turn. `forgotten` counts how often
    there were more transactions than are remembered.
    """

    def __init__(
        self,
        applier: Applier,
        on_applied: Callable[[Batch, Applied], None],
    ) -> None:
        self._applier = applier
        self._commit_position = 0
        self._on_applied = on_applied
        self._next = threading.Lock()
        self._now = threading.Lock()
        # Four bytes each: while the source is away there may be as many as are remembered.
        self._xids = array("I")
        self._holding: Holding | None = None
        self._at_point: Callable[[float | None], None] = lambda _: None
        self._held_since: float | None = None
        self._failed: BaseException | None = None
        self.forgotten = 0

    @property
    def holding(self) -> bool:
        """Whether something may be held back."""
        return self._holding is not None

    @property
    def remembered(self) -> int:
        """Number of transactions whose ids are kept."""
        return len(self._xids)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Be the only one here."""
        # Whoever waits keeps the next one out: otherwise a busy writer would always be first.
        with self._next:
            self._now.acquire()
        try:
            yield
        finally:
            self._now.release()

    def begin(self, commit_position: int) -> None:
        """Everything up to this position is applied; what follows is read from there."""
        with self.turn():
            self._commit_position = commit_position

    def interrupt(self) -> None:
        """Whatever was held back will be read again: forget it, and the way to the barrier.

        And that it could not be applied.
        """
        with self.turn():
            self._holding = None
            self._failed = None

    def write(self, work: Work) -> None:
        """Apply a batch, or what of it may be applied now. Raises as `Applier.apply`."""
        with self.turn():
            if self._failed is not None:
                raise self._failed
            if self._holding is None:
                self._apply(work.batch, work.prepared)
                return
            now, reached = self._holding.take(work.batch)
            if self._holding.held and self._held_since is None:
                self._held_since = time.monotonic()
            for batch in now:
                self._apply(batch, work.prepared if batch is work.batch else None)
                if batch.ahead:
                    reach("align.ahead")
            if reached:
                self._arrive(self._holding)

    def all_visible(self, snapshot: Snapshot) -> bool:
        """Whether the snapshot sees every transaction that was applied here."""
        return all(snapshot.sees(xid) for xid in self._xids)

    def forget(self, snapshot: Snapshot) -> None:
        """Forget transactions that every later snapshot sees."""
        near, oldest = snapshot.xmax, snapshot.xmin
        self._xids = array("I", (x for x in self._xids if widen_xid(x, near) >= oldest))

    def hold(
        self, snapshot: Snapshot, token: str, at_point: Callable[[float | None], None]
    ) -> None:
        """Lead the stream to this snapshot; `at_point` is called there, once, by the writer.

        While it runs the target holds exactly what the snapshot sees. It is told since when
        (monotonic seconds) something was held back.
        """
        self._holding = Holding(snapshot, token, self._commit_position)
        self._at_point = at_point
        self._held_since = None

    def learn_chunks(self) -> None:
        """Mark what is written to in chunks that are kept since the last time."""
        self._applier.learn_chunks()

    def forget_marked(self) -> None:
        """Both sides are aligned: see `Applier.forget_marked`."""
        self._applier.forget_marked()

    def let_go(self) -> None:
        """Give the snapshot up: go on with everything that was held back."""
        holding, self._holding = self._holding, None
        if holding is not None:
            try:
                self._release(holding)
            except BaseException as error:
                # It is the stream that cannot go on, not the barrier.
                self._failed = error

    def at_barrier(self, write: Callable[[psycopg.Connection], None]) -> None:
        """Have `write` change the target in a transaction of its own; see `Applier.at_barrier`."""
        self._applier.at_barrier(write)

    def between_batches(self, work: Callable[[Applier], T]) -> T:
        """Have the applier do something else than a batch; for whoever has the turn."""
        return work(self._applier)

    def _arrive(self, holding: Holding) -> None:
        self._holding = None
        self._at_point(self._held_since)
        self._release(holding)

    def _release(self, holding: Holding) -> None:
        rest = holding.rest()
        if rest is not None:
            self._apply(rest, None)

    def _apply(self, batch: Batch, prepared: Prepared | None) -> None:
        applied = self._applier.apply(batch, prepared)
        self._commit_position = batch.commit_position
        if len(self._xids) > _REMEMBERED:
            self._xids = array("I")
            self.forgotten += 1
        self._xids.extend(one.xid for one in batch.transactions)
        self._on_applied(batch, applied)
