"""Apply batches exactly once: rows and progress in one transaction, under the owner's epoch.

The one place that retries. Errors that pass are tried again for a bounded time; after a lost
connection the stored progress says whether the COMMIT under way was carried out. Data that the
target refuses is narrowed down to one source transaction: those before it are applied, then the
stream halts at exactly that position, or goes on without the rows in question (`parking`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack, closing

import psycopg

from cdc_migrator.apply.applied import Applied, Tally, advance_by
from cdc_migrator.apply.batcher import Batch
from cdc_migrator.apply.ddl import Stops
from cdc_migrator.apply.halts import Rejected, control_unwritable, place, placed
from cdc_migrator.apply.hands import Hands
from cdc_migrator.apply.marks import Marks
from cdc_migrator.apply.merge import Merger, RowsMissing
from cdc_migrator.apply.parking import Parking
from cdc_migrator.apply.patience import Patience
from cdc_migrator.apply.pieces import PieceLimits
from cdc_migrator.apply.plan import Routes, TablePlan, plan_tables
from cdc_migrator.apply.prepared import Prepared, Preparer, up_to_start
from cdc_migrator.apply.session import open_session
from cdc_migrator.apply.shape import Reread, by_stream_name
from cdc_migrator.control import progress
from cdc_migrator.control.progress import FORWARD, Progress
from cdc_migrator.databases.postgres.coded import describe, speaking
from cdc_migrator.databases.postgres.side import Side
from cdc_migrator.databases.postgres.sqlstate import Disposition, connection_lost, disposition
from cdc_migrator.errors import Failed, Fenced, StreamHalted
from cdc_migrator.faultpoints import reach
from cdc_migrator.model.changes import TruncatePolicy
from cdc_migrator.model.tables import Table, TableName


def _needs_new_session(exc: psycopg.Error) -> bool:
    # A read-only server is one that has lost its role: the next connection may find another.
    return connection_lost(exc) or exc.sqlstate == "25006"


class Applier:
    """Owns the target's apply session; used by one thread.

    Args:
        dsn: of the target.
        tables: the tables of the stream, as the source's catalog describes them.
        placeholder: what the connector writes for values that an update left as they are.
        sides: of the tables whose events do not hold everything.
        rereads: tables that were loaded again under a later snapshot.
        routes: of the tables that become others.
        migration, stops: whose starts count, and where changes of the schema stop the stream.
        truncates: what to do with them.
        parking: what is kept back, and whether more may be.
        pieces: how much is written at a time of what is too large for memory.
        retry_for: seconds for which errors that pass are tried again, unless `stopping`.
        on_applied: called after each commit, also of the part of a batch before a halt.
    """

    def __init__(
        self,
        dsn: str,
        tables: Iterable[Table],
        placeholder: str,
        *,
        sides: Mapping[TableName, Side] | None = None,
        rereads: Mapping[TableName, Reread] | None = None,
        routes: Routes | None = None,
        stream: str = FORWARD,
        migration: str | None = None,
        stops: Stops | None = None,
        truncates: TruncatePolicy = TruncatePolicy.APPLY,
        parking: Parking | None = None,
        pieces: PieceLimits = PieceLimits(),
        retry_for: float = 300.0,
        stopping: threading.Event | None = None,
        on_applied: Callable[[Applied], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dsn = dsn
        self._stream = stream
        self._migration = migration
        self._stops = stops or Stops(migration)
        self._patience = Patience(retry_for, stopping or threading.Event(), monotonic)
        self._on_applied = on_applied
        self._monotonic = monotonic
        self._placeholder = placeholder
        self._plans: dict[TableName, TablePlan] = {}
        self._marks = Marks()
        self._parking = parking or Parking()
        self._pieces = pieces
        self._truncates = truncates
        with speaking("target", "getting ready to apply changes"), ExitStack() as stack:
            self._conn = stack.enter_context(closing(open_session(self._dsn)))
            self._take_up(tables, sides, rereads, routes)
            stack.pop_all()
        # The session was lost: until `_resume`, nobody knows what of its work was committed.
        self._lost = False
        self._epoch = self._applies = self._offset = -1
        self._ahead: frozenset[int] = frozenset()
        # What is written is decided by the progress row; this spares reading what is not.
        self._active = True
        self._position = "nothing claimed"

    def _take_up(
        self,
        tables: Iterable[Table],
        sides: Mapping[TableName, Side] | None,
        rereads: Mapping[TableName, Reread] | None,
        routes: Routes | None,
    ) -> None:
        """Plan these tables, and no others, for the present session."""
        plans = plan_tables(self._conn, tables, self._placeholder, sides, rereads, routes)
        self._plans = plans
        shapes = by_stream_name(plan.shape for plan in plans.values())
        self._preparer = Preparer(shapes, self._pieces, self._truncates)
        self._merger = Merger(self._conn, plans)

    @property
    def active(self) -> bool:
        """Whether what comes next is written, as far as this owner knows."""
        return self._active

    @property
    def epoch(self) -> int:
        """The fencing token of this owner; -1 before `start`."""
        return self._epoch

    def close(self) -> None:
        """End the session; a transaction under way is rolled back."""
        self._conn.close()

    def __enter__(self) -> Applier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, owner: str, stale_after: float = 15.0) -> Progress | None:
        """Claim the stream; its progress, or None while another owner is alive.

        Raises MigratorError with a code where the target is away or refuses.
        """
        with speaking("target", "claiming the stream"):
            try:
                claimed = progress.claim(self._conn, owner, self._stream, stale_after)
            except psycopg.OperationalError as exc:
                if not connection_lost(exc):
                    raise
                self._renew()  # one that waited idle for its turn may have died long ago
                claimed = progress.claim(self._conn, owner, self._stream, stale_after)
        if claimed is not None:
            self._epoch = claimed.epoch
            self._stand_at(claimed)
            with speaking("target", "claiming the stream"):
                self.learn_chunks()
            self._position = f"{claimed.topic}[{claimed.partition}]"
        return claimed

    def learn(
        self,
        tables: Iterable[Table],
        sides: Mapping[TableName, Side],
        rereads: Mapping[TableName, Reread],
        stops: Stops | None = None,
        routes: Routes | None = None,
    ) -> Progress:
        """Go on with these tables in place of the former ones, as the same owner.

        Nobody may be preparing or applying meanwhile; what was prepared before is of no use any
        more. Returns the progress to read on from.

        Raises Fenced, and MigratorError where the target is away or refuses; call it again then.
        """
        with speaking("target", "getting ready to apply changes"):
            self._renew()
            stored = progress.reattach(self._conn, self._epoch, self._stream)
            self._take_up(tables, sides, rereads, routes)
            self._stops = stops or self._stops
            self._stand_at(stored)
            self._lost = False
            self.learn_chunks()
        return stored

    def learn_chunks(self) -> None:
        """Mark from now on what is written to in all chunks that comparisons keep.

        To be called between two batches; raises as `at_barrier`.
        """
        self.at_barrier(lambda conn: self._marks.learn(conn, self._plans))

    def forget_marked(self) -> None:
        """Both sides are aligned here, between two batches: mark anew what is written to."""
        self._marks.forget()

    def _stand_at(self, stored: Progress) -> None:
        self._applies, self._offset = stored.applies, stored.next_offset
        self._active = stored.active
        self._ahead = frozenset(stored.applied_ahead)

    def prepare(self, batch: Batch) -> Prepared:
        """Fold and encode a batch, without the target; any thread may do it ahead of `apply`.

        Raises StreamHalted, of which `apply` finds the exact position.
        """
        return self._preparer.prepare(batch) if self._active else self._preparer.skim(batch)

    def apply(
        self, batch: Batch, prepared: Prepared | None = None, parting: bool = False
    ) -> Applied:
        """Commit a batch with its progress, once.

        Args:
            parting: rows of it were refused: keep those back.

        Raises:
            Fenced: another process owns the stream.
            SchemaChange: a transaction changes the schema; all before it are applied.
            StreamHalted: a transaction cannot be applied; all before it are.
            Failed: CDCM-APPLY-UNAVAILABLE: the target did not come back in time.
            Refused: the control schema or a privilege is missing.
        """
        if number := up_to_start(batch, prepared):
            first, second = batch.cut(number)
            return self.apply(first) + self.apply(second)
        try:
            if prepared is None or (prepared.skimmed and self._active):
                prepared = self.prepare(batch)
            if not self._stops.ahead(batch, prepared):
                return self._commit(prepared, parting)
        except Rejected as rejected:
            if not parting and self._parking.takes(rejected, self._preparer.shapes):
                return self.apply(batch, prepared, parting=True)
            if len(batch.transactions) < 2:
                raise rejected.halt(place(self._position, batch)) from rejected.cause
        except StreamHalted as halt:
            self._stops.require_none(batch, place(self._position, batch))
            if len(batch.transactions) < 2:
                raise placed(halt, place(self._position, batch)) from halt
        self._stops.require_none(batch, place(self._position, batch))
        first, second = batch.halves()
        return self.apply(first) + self.apply(second)

    def at_barrier(self, write: Callable[[psycopg.Connection], None]) -> None:
        """Have `write` change the target between two batches, in one transaction, once.

        It is called again when an attempt has failed for a reason that passes.

        Raises:
            Fenced: another process owns the stream.
            psycopg.Error: the target refuses what was written; nothing of it is there.
            Failed: CDCM-APPLY-UNAVAILABLE: the target did not come back in time.
        """
        self.between(lambda hands: write(hands.conn))

    def between(self, write: Callable[[Hands], None], tables: Collection[TableName] = ()) -> None:
        """The same with all that writes rows of these tables of the stream."""

        def attempt() -> None:
            self._merger.make(one for one in tables if one in self._plans)
            self._marks.begin()
            with self._conn.transaction():
                progress.stand(self._conn, self._epoch, self._applies, self._stream)
                write(self._hands())
                self._marks.write(self._conn)

        self._carry_out(attempt)
        self._marks.committed()
        self._parking.forget()

    def _hands(self) -> Hands:
        return Hands(self._conn, self._merger, self._marks, self._preparer)

    def _commit(self, prepared: Prepared, parting: bool) -> Applied:
        batch = prepared.batch
        began = self._monotonic()
        # After an ambiguous COMMIT that was carried out, that of the attempt before.
        tally = Tally()

        def attempt() -> None:
            nonlocal tally
            tally = Tally()
            self._parking.look_up(self._conn)
            self._once(prepared, tally, parting or self._parking.concerns(prepared))

        try:
            retries = self._carry_out(attempt)
        except psycopg.Error as exc:
            raise control_unwritable(exc) from exc
        self._marks.committed()
        self._parking.committed()
        if tally.begun:
            self._active = True
            self.learn_chunks()
        self._offset = batch.next_offset
        self._ahead = self._ahead_after(batch)
        applied = tally.applied(batch, self._monotonic() - began, retries)
        if self._on_applied is not None:
            self._on_applied(applied)
        return applied

    def _carry_out(self, attempt: Callable[[], None]) -> int:
        """Have `attempt` commit one apply transaction, once; how often it was tried again.

        Raises psycopg.Error where trying again is of no use, and Failed as `Patience.pause`.
        """
        began = self._monotonic()
        retries = 0
        tried = False
        while True:
            try:
                if self._lost and self._resume():
                    if tried:
                        break
                    # What was given up before this had been carried out after all.
                    self._applies += 1
                tried = True
                attempt()
                break
            except psycopg.Error as exc:
                if disposition(exc) is not Disposition.RETRY:
                    raise
                self._lost = self._lost or self._conn.closed or _needs_new_session(exc)
                self._patience.pause(retries, began, describe(exc))
            except Failed as exc:
                if exc.code != "CDCM-DB-UNREACHABLE":
                    raise
                self._patience.pause(retries, began, exc.cause)
            retries += 1
        self._applies += 1
        return retries

    def _once(self, prepared: Prepared, tally: Tally, parting: bool) -> None:
        batch = prepared.batch
        step = advance_by(batch, self._ahead_after(batch))
        if parting:
            self._merger.make(prepared.touched)
        else:
            self._merger.prepare(prepared)
        self._marks.begin()
        merging = False
        try:
            with self._conn.transaction():
                reach("apply.advance.before")
                active = progress.advance(
                    self._conn, self._epoch, self._applies, self._offset, step, self._stream
                )
                reach("apply.advance.after")
                self._active = active
                if active and prepared.skimmed:
                    raise Fenced("the stream was started by another process")
                if not active:
                    tally.pass_over(self._conn, self._stream, self._migration, prepared.pieces)
                    return
                merging = True
                if parting:
                    self._parking.write(self._hands(), batch, tally)
                else:
                    self._hands().write(prepared.pieces, tally)
                reach("apply.count.before")
                tally.write(self._conn, self._stream)
                self._marks.write(self._conn)
                reach("apply.count.after")
                reach("apply.commit.before")
            reach("apply.commit.after")
        except RowsMissing as exc:
            raise Rejected(tally.at, exc) from exc
        except psycopg.Error as exc:
            if merging and disposition(exc) is not Disposition.RETRY:
                raise Rejected(tally.at, exc) from exc
            raise

    def _ahead_after(self, batch: Batch) -> frozenset[int]:
        """What is applied above the commit position once `batch` is."""
        return frozenset(c for c in self._ahead.union(batch.ahead) if c > batch.commit_position)

    def _resume(self) -> bool:
        """Open a new session; whether what was under way in the old one was committed."""
        self._renew()
        stored = progress.reattach(self._conn, self._epoch, self._stream)
        if stored.applies not in (self._applies, self._applies + 1):
            raise Fenced("the stream's position was moved by another process")
        self._lost = False
        self._active = stored.active
        return stored.applies > self._applies

    def _renew(self) -> None:
        self._conn.close()
        self._conn = open_session(self._dsn)
        self._merger = Merger(self._conn, self._plans)
        self._parking.forget()
