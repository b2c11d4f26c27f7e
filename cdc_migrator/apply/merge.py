"""Bring staged rows into their table, inside the caller's transaction.

Fast path: delete, update what is partial, upsert what is complete. Where another unique index
objects to the order in which one statement touches its rows, or no index can arbitrate, the
second path: finish all rows in a typed table, taking unchanged values from the target; delete
every touched key; insert the finished rows. Because a batch ends where a source transaction
does, that order cannot violate an index that the source honoured.

Every count that the stream implies is asserted: a row that should be there and is not means
that the two sides have parted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import psycopg
from psycopg import errors, sql

from cdc_migrator.apply.plan import TablePlan
from cdc_migrator.apply.stage import Staged
from cdc_migrator.apply.statements import Statements
from cdc_migrator.databases.postgres import names
from cdc_migrator.faultpoints import reach
from cdc_migrator.model.tables import TableName

# With the batch sorted by key, looking each row up by index beats reading a large table, and
# the planner cannot know how large a staging table is. Keyless tables turn this around.
SESSION_SETTINGS = {
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_seqscan": "off",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "work_mem": "64MB",
    "temp_buffers": "32MB",
    "client_min_messages": "warning",
}
_SCAN = ("enable_hashjoin", "enable_mergejoin", "enable_seqscan")
# Temporary tables that are emptied at each commit: each costs a little every time.
_KEPT = 256


class RowsMissing(Exception):
    """The target did not hold the rows that the stream changes; carries no values."""

    def __init__(self, table: TableName, action: str, expected: int, found: int) -> None:
        super().__init__(f"{action} of {expected} rows in {table} found {found}")
        self.table = table
        self.action = action
        self.expected = expected
        self.found = found


class Merger:
    """Writes staged tables on one session; knows that session's temporary tables.

    `prepare` makes what is missing, outside a transaction; then `truncate` and `write` run
    inside one.
    """

    def __init__(self, conn: psycopg.Connection, plans: dict[TableName, TablePlan]) -> None:
        self._conn = conn
        self._plans = plans
        self._made: dict[TableName, Statements] = {}
        self._numbers = 0

    def prepare(self, tables: Iterable[TableName]) -> None:
        """Make the temporary tables of these tables, and drop those long not used."""
        wanted = sorted(tables)
        for name in wanted:
            statements = self._made.pop(name, None)
            if statements is None:
                statements = self._create(self._plans[name])
            self._made[name] = statements
        while len(self._made) > max(_KEPT, len(wanted)):
            self._conn.execute(self._made.pop(next(iter(self._made))).drop)

    def _create(self, plan: TablePlan) -> Statements:
        self._numbers += 1
        statements = Statements(plan, self._numbers, lambda part: part.as_string(self._conn))
        self._conn.execute(statements.create_stage)
        if plan.shape.keys is not None:
            self._conn.execute(statements.create_final)
        return statements

    def clear(self, tables: Iterable[TableName]) -> None:
        """Empty what was staged for these tables; the end of the transaction does so as well."""
        for name in tables:
            self._run("clear", self._made[name].clear)

    def truncate(self, tables: Sequence[TableName]) -> None:
        """Empty tables in one statement, as their foreign keys among each other demand.

        Where a table outside refers to one of them they are emptied by DELETE.
        """
        targets = [names.table(self._plans[name].target) for name in tables]
        only = sql.SQL(", ").join(sql.SQL("ONLY {}").format(t) for t in targets)
        try:
            with self._conn.transaction():
                reach("apply.truncate.before")
                self._conn.execute(sql.SQL("TRUNCATE {}").format(only))
                reach("apply.truncate.after")
        except errors.FeatureNotSupported:
            for target in targets:
                self._conn.execute(sql.SQL("DELETE FROM ONLY {}").format(target))

    def write(self, staged: Staged) -> None:
        """Send one table's rows and merge them.

        Raises RowsMissing, and psycopg.Error as the server says it.
        """
        if not staged.payload:
            return
        plan, statements = self._plans[staged.shape.name], self._made[staged.shape.name]
        reach("apply.copy.before")
        with (
            self._conn.cursor() as cursor,
            cursor.copy(statements.copy) as copy,
        ):
            for piece in staged.payload:
                copy.write(piece)
                reach("apply.copy.within")
        reach("apply.copy.after")
        if staged.shape.keys is None:
            self._keyless(plan, statements, staged)
        elif plan.replace or staged.moves:
            self._replace(plan, statements, staged)
        elif not plan.identity.rivals:
            self._fast(plan, statements, staged)
        else:
            try:
                with self._conn.transaction():
                    self._fast(plan, statements, staged)
            except (errors.UniqueViolation, errors.ExclusionViolation):
                self._replace(plan, statements, staged)

    def _fast(self, plan: TablePlan, statements: Statements, staged: Staged) -> None:
        if staged.deletes:
            self._expect(plan, "delete", staged.deletes, "delete", statements.delete)
        for kind, count in staged.partial.items():
            update = statements.update(kind)
            if update is not None:
                self._expect(plan, "update", count, "update", update)
        if staged.complete:
            done = self._run("upsert", statements.upsert, prepare=True)
            if len(plan.columns) > len(plan.key) and done != staged.complete:
                raise RowsMissing(plan.target, "insert", staged.complete, done)

    def places(self, table: TableName, place: str) -> list[int]:
        """The different numbers that a table's staged keys have by this SQL over its key."""
        statement = self._made[table].places(place)
        return [row[0] for row in self._conn.execute(statement, prepare=True)]

    def _replace(self, plan: TablePlan, statements: Statements, staged: Staged) -> None:
        scans = not plan.identity.indexed
        if scans:
            self._allow_scans(True)
        if staged.complete:
            self._run("finish_complete", statements.finish_complete, prepare=True)
        for kind, count in staged.partial.items():
            self._expect(plan, "update", count, "finish_partial", statements.finish_partial(kind))
        if staged.deletes:
            self._expect(plan, "delete", staged.deletes, "delete", statements.delete)
        rows = staged.complete + sum(staged.partial.values())
        if rows:
            self._run("delete_finals", statements.delete_finals)
            self._expect(plan, "insert", rows, "insert_finals", statements.insert_finals)
        if scans:
            self._allow_scans(False)

    def _keyless(self, plan: TablePlan, statements: Statements, staged: Staged) -> None:
        if staged.deletes:
            self._allow_scans(True)
            self._expect(plan, "delete", staged.deletes, "delete_equal", statements.delete_equal)
            self._allow_scans(False)
        if staged.complete:
            self._expect(plan, "insert", staged.complete, "insert", statements.insert)

    def _allow_scans(self, allowed: bool) -> None:
        value = "on" if allowed else "off"
        self._conn.execute("; ".join(f"SET LOCAL {name} = {value}" for name in _SCAN))

    def _expect(
        self, plan: TablePlan, action: str, expected: int, place: str, statement: str
    ) -> None:
        found = self._run(place, statement)
        if found != expected:
            raise RowsMissing(plan.target, action, expected, found)

    def _run(self, place: str, statement: str, prepare: bool = False) -> int:
        # A statement with a join is planned each time: a plan made while the table was small
        # would be kept when it is large.
        reach(f"apply.{place}.before")
        count = self._conn.execute(statement, prepare=prepare).rowcount
        reach(f"apply.{place}.after")
        return count
