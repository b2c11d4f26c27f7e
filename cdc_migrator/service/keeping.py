"""Bring tables that keep their rows to a snapshot of the source: only what differs is written.

Nobody else writes to the target meanwhile: the stream is held, everybody else is fenced out. So
every moment of it is one at which both sides can be compared, against one snapshot of the source
that stays. A table is gone through by ranges of its key. Both sides' digests of a range are
compared; where they differ its rows are told apart, and those that differ are written as the
snapshot has them; where almost all differ the range is written anew. Then it is compared again, and
written down when it is equal (`keeping_table`). Whoever is killed here goes on behind that range.

The snapshot is that of the new slot. Where it is lost, or a table was truncated or rewritten since,
what is not done is brought to a newer one, and the stream leaves out what that one saw.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import psycopg

from cdc_migrator.backfill.snapshot import HeldSnapshot, enter, still
from cdc_migrator.backfill.snapshot import SnapshotLost as NotHeld
from cdc_migrator.control import deferring, fence, load, locks, migration
from cdc_migrator.control.load import LoadState
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Failed, Refused
from cdc_migrator.model.logins import Role, login
from cdc_migrator.model.naming import Names
from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile import probe
from cdc_migrator.reconcile.expressions import Hashing
from cdc_migrator.reconcile.pairs import Pair, Unpaired, only, pairs_of
from cdc_migrator.reconcile.snapshot import Sides, SnapshotLost, TableMoved
from cdc_migrator.service.fencing import fence_target
from cdc_migrator.service.keeping_table import Base, Ending, TableKeeping

_ROUNDS = 5


class Keeping:
    """Brings every table that keeps its rows to the new capture's snapshot.

    Args:
        workers: tables that are gone through at a time; each has two sessions on either side.
        notify: told of each table that is done.
    """

    def __init__(
        self,
        source_dsn: str,
        target_dsn: str,
        names: Names,
        workers: int,
        fenced: bool,
        notify: Callable[[str], None],
    ) -> None:
        self._source_dsn = source_dsn
        self._target_dsn = target_dsn
        self._names = names
        self._called = f"cdcm-{names.migration}-keep"
        self._workers = workers
        self._fenced = fenced
        self._notify = notify

    def run(self) -> None:
        """Every table that is left; afterwards the snapshot is given up.

        Raises:
            Refused: CDCM-LOAD-RUNNING, CDCM-RECONCILE-UNPAIRED, CDCM-RECONCILE-REPAIR,
                CDCM-FENCE-OWNER.
            Failed: CDCM-LOAD-SNAPSHOTS, CDCM-REBUILD-DIFFERS, CDCM-FENCE-LOCKED, or a server's
                error in coded form. What was written stays so, and the same call goes on behind.
        """
        with ExitStack() as stack:
            control = stack.enter_context(self._control())
            source = stack.enter_context(self._session("source"))
            # Only owners can fence a table, or give others their rights on it.
            fence_target(self._target_dsn, self._names.migration, self._fenced)
            for attempt in range(_ROUNDS + 1):
                left = self._left(control)
                if not left:
                    break
                if attempt == _ROUNDS:
                    raise _never_seen(left)
                base = self._first(control, source) if attempt == 0 else None
                if base is None:
                    with speaking("source", "taking a new snapshot"):
                        held = HeldSnapshot(self._source_dsn, self._called)
                    stack.callback(held.close)
                    base = Base(held.snapshot, held.until)
                self._round(control, source, base, left)
            with speaking("target", "giving the snapshot up"):
                migration.update(
                    control, "snapshot-released", snapshot_name=None, snapshot_holder_pid=None
                )

    def _left(self, control: psycopg.Connection) -> list[TableName]:
        with speaking("target", "reading the tables of the migration"):
            tables = load.read_tables(control)
        return [one.source for one in tables if one.keeps and one.state is not LoadState.LOADED]

    def _first(self, control: psycopg.Connection, source: psycopg.Connection) -> Base | None:
        """The snapshot of the slot's creation, if somebody still holds it."""
        with speaking("target", "reading the migration"):
            there = migration.read(control)
        if there is None or there.names != self._names or there.consistent_point is None:
            raise Refused(
                "CDCM-CAPTURE-MISSING",
                "capture has not begun anew for this migration",
                "Type `cdc-migrator migrate`, which goes on where it stopped.",
            )
        with speaking("source", "looking for the new slot's snapshot"):
            snapshot = still(source, there.snapshot_name, there.snapshot)
        return Base(snapshot, there.consistent_point) if snapshot else None

    def _round(
        self,
        control: psycopg.Connection,
        source: psycopg.Connection,
        base: Base,
        left: Sequence[TableName],
    ) -> None:
        """Go through these tables; those whose rows cannot be seen any more are left."""
        pairs = self._pairs(control, source, left)
        with speaking("source", "looking at what both servers compute alike"):
            hashing = probe.agree(source, control)
        ending = threading.Event()
        done: list[TableName] = []
        refused: list[Refused] = []

        def table(name: TableName) -> None:
            if ending.is_set():
                return
            try:
                with self._work(pairs[name], base, hashing, ending) as work:
                    kept = work.table()
            except (SnapshotLost, NotHeld, TableMoved, Ending):
                return
            except BaseException as error:
                if isinstance(error, Refused) and pairs[name].shared:
                    # A row of another table that is merged may be in the way, until it is done.
                    refused.append(error)
                    return
                ending.set()
                raise
            done.append(name)
            self._notify(
                f"{kept.table}: {kept.rows:,} rows, written to in {kept.written} of "
                f"{kept.ranges} ranges"
            )

        with ThreadPoolExecutor(self._workers, thread_name_prefix="keep") as pool:
            futures = [pool.submit(table, name) for name in left]
            try:
                for future in futures:
                    future.result()
            finally:
                ending.set()
        if refused and not done:
            raise refused[0]

    def _pairs(
        self, control: psycopg.Connection, source: psycopg.Connection, left: Sequence[TableName]
    ) -> Mapping[TableName, Pair]:
        with speaking("target", "reading the tables"):
            tables = [one for one in load.read_tables(control) if one.source in left]
            found = pairs_of(source, control, tables)
        for one in found:
            if isinstance(one, Unpaired):
                raise Refused(
                    "CDCM-RECONCILE-UNPAIRED",
                    f"{one.table} cannot be compared: {one.reason}",
                    "`cdc-migrator schema diff` shows what is wrong with it. Bring the target's "
                    "table in line with the source's, then run the same command again.",
                )
        return only(found)

    @contextmanager
    def _work(
        self, pair: Pair, base: Base, hashing: Hashing, ending: threading.Event
    ) -> Iterator[TableKeeping]:
        with ExitStack() as stack:
            sides = stack.enter_context(Sides(self._source_dsn, self._target_dsn, self._called))
            source = stack.enter_context(self._session("source"))
            target = stack.enter_context(self._session("target"))
            still = stack.enter_context(self._session("target"))
            with speaking("target", "getting ready to write"):
                deferring.hold_off(target)
                fence.present(target)
            with speaking("source", "reading under the snapshot"):
                enter(source, base.snapshot)
            yield TableKeeping(sides, source, target, still, pair, base, hashing, ending)

    @contextmanager
    def _control(self) -> Iterator[psycopg.Connection]:
        """The session that makes this the only one that fills the target's tables."""
        with self._session("target") as control:
            with speaking("target", "taking the loader's lock"):
                if not locks.try_lock(control, locks.Role.LOAD):
                    raise Refused(
                        "CDCM-LOAD-RUNNING",
                        "another process is loading this migration",
                        "Leave it to its work, or end it and run the same command again.",
                    )
                fence.present(control)
            yield control

    def _session(self, side: str) -> psycopg.Connection:
        reads = login(self._source_dsn, Role.VERIFY)
        return connect(
            reads if side == "source" else login(self._target_dsn, Role.APPLY),
            application_name=self._called,
            side=side,
            settings={"transaction_timeout": "0"},
        )


def _never_seen(left: Sequence[TableName]) -> Failed:
    return Failed(
        "CDCM-LOAD-SNAPSHOTS",
        f"{', '.join(map(str, left))}: begun anew {_ROUNDS} times, and each time the snapshot was "
        "lost",
        "See that the source stays up and that nothing truncates or rewrites the table all the "
        "time, then run the same command again.",
    )
