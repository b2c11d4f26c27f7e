"""Mark the chunks that a batch writes to, in the transaction that writes.

A comparison cuts a table into chunks and keeps what it has proven of each (`control.proofs`). Which
chunks a batch touches is asked of the target, of the staged keys, in the very expression under
which they are proven; a chunk is marked once, then known here until the next point at which both
sides are aligned. There everything is forgotten: a proof made at that point removes the marks from
before it, so what comes after has to be marked anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import psycopg

from cdc_migrator.apply.plan import TablePlan
from cdc_migrator.apply.signals import UNFENCE, Marker
from cdc_migrator.apply.stage import Staged
from cdc_migrator.control import proofs
from cdc_migrator.control.proofs import Map
from cdc_migrator.databases.postgres import names
from cdc_migrator.databases.postgres.sqlstate import Disposition, disposition
from cdc_migrator.model.tables import TableName


class Marks:
    """What is to be marked, and what is already; used by one thread at a time."""

    def __init__(self) -> None:
        self._maps: dict[TableName, Map] = {}
        # Of which map everything is marked once anything changes.
        self._whole: set[int] = set()
        self._marked: dict[int, set[int]] = {}
        self._fresh: dict[int, set[int]] = {}

    def learn(self, conn: psycopg.Connection, plans: Mapping[TableName, TablePlan]) -> None:
        """Take up all chunks that are kept, inside the caller's transaction, and mark from now on.

        Nothing may be applied between this and the caller's commit.
        """
        found = {one.table: one for one in proofs.take_up(conn) if one.table in plans}
        self._whole = {
            one.id
            for one in found.values()
            if one.place is None or not _works(conn, plans[one.table], one.place)
        }
        self._maps = found
        self._fresh = {}
        self.forget()

    def forget(self) -> None:
        """Both sides are aligned: all that is written to from now on is marked anew."""
        self._marked = {one.id: set() for one in self._maps.values()}

    def heed(self, passing: Iterable[Marker]) -> None:
        """Where the source's fence is lifted: what was compared behind it has taken marks away."""
        if any(one.kind == UNFENCE for one in passing):
            self.forget()

    def begin(self) -> None:
        """A transaction begins; what one that failed would have marked is not marked."""
        self._fresh = {}

    def asks_of(self, table: TableName) -> bool:
        """Whether `note` is to know which rows of a table are staged."""
        known = self._maps.get(table)
        return known is not None and known.id not in self._whole

    def note(
        self, tables: Iterable[Staged], places: Callable[[Staged, str], Collection[int]]
    ) -> None:
        """What these staged rows write to; after they are staged, before that is emptied.

        Args:
            places: the different numbers that a table's staged keys have by this SQL.
        """
        for staged in tables:
            known = self._maps.get(staged.shape.name)
            if known is None:
                continue
            marked = self._marked[known.id]
            fresh = self._fresh.setdefault(known.id, set())
            if len(marked | fresh) == known.chunks:
                continue
            if staged.truncated or known.id in self._whole:
                fresh.update(range(known.chunks))
            elif known.place is not None and staged.payload:
                fresh.update(places(staged, known.place))
            fresh -= marked

    def write(self, conn: psycopg.Connection) -> None:
        """Mark what was noted, inside the transaction that wrote it."""
        written = [(of, number) for of, numbers in self._fresh.items() for number in numbers]
        if written:
            proofs.mark(conn, written)

    def committed(self) -> None:
        """The transaction is committed: what it marked need not be marked again."""
        for of, numbers in self._fresh.items():
            self._marked[of] |= numbers
        self._fresh = {}


def _works(conn: psycopg.Connection, plan: TablePlan, place: str) -> bool:
    """Whether the target's key still has the types that the chunks were cut by."""
    query = f"SELECT {place} FROM ONLY {names.table(plan.target).as_string(conn)} LIMIT 0"  # noqa: S608
    try:
        with conn.transaction():
            conn.execute(query.encode())
    except psycopg.Error as exc:
        if disposition(exc) is Disposition.RETRY:
            raise
        return False
    return True
