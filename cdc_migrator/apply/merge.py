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

from cdc_migrator.apply import hooked
from cdc_migrator.apply.mapped import MappedStatements
from cdc_migrator.apply.plan import TablePlan
from cdc_migrator.apply.prepared import Prepared
from cdc_migrator.apply.returned import ReturnedStatements
from cdc_migrator.apply.stage import COMPLETE, Staged
from cdc_migrator.apply.statements import Statements
from cdc_migrator.databases.postgres import mapped, names
from cdc_migrator.databases.postgres.sqlstate import Disposition, disposition
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
# Tables whose temporary tables are kept in a session.
_KEPT = 256
# After a table did not take rows by COPY, or did not have what was to be updated.
_DETOURS = 64


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
        # Its placeholders are the server's: a name with a percent sign stays what it is.
        self._cursor = psycopg.RawCursor(conn)
        self._plans = plans
        self._numbers = {name: number for number, name in enumerate(plans)}
        self._statements: dict[tuple[TableName, bool], Statements] = {}
        # Those whose temporary tables are there, the one used last at the end.
        self._made: dict[TableName, None] = {}
        # Temporary tables that may have rows: emptied before they are filled again.
        self._used: set[str] = set()
        # For how many batches a way of writing a table is not tried.
        self._detours: dict[tuple[str, TableName], int] = {}

    def prepare(self, prepared: Prepared) -> None:
        """Make the temporary tables that a batch needs, and drop those long not used."""
        self.make(self._wanted(prepared))

    def make(self, tables: Iterable[TableName]) -> None:
        """Make the temporary tables of these, and drop those long not used."""
        wanted = sorted(tables)
        missing = [name for name in wanted if name not in self._made]
        if missing:
            with self._conn.transaction():
                for name in missing:
                    self._create(name)
        for name in wanted:
            self._made.pop(name, None)
            self._made[name] = None
        while len(self._made) > max(_KEPT, len(wanted)):
            oldest = next(iter(self._made))
            statements = self._of(oldest)
            self._conn.execute(statements.drop)
            del self._made[oldest]
            self._used -= {statements.clear_stage, statements.clear_final}

    def _wanted(self, prepared: Prepared) -> Iterable[TableName]:
        if prepared.batch.spilled:
            # How many rows each piece of it has is known when it is made.
            return prepared.tables
        return {
            one.shape.name
            for piece in prepared.pieces
            for one in piece.staged
            if one.few is None or self._may_replace(one)
        }

    def _may_replace(self, staged: Staged) -> bool:
        plan = self._plans[staged.shape.name]
        if staged.shape.keys is None:
            return False
        return plan.replace or staged.moves or bool(plan.identity.rivals)

    def _of(self, name: TableName, few: bool = False) -> Statements:
        made = self._statements.get((name, few))
        if made is None:
            plan, number = self._plans[name], self._numbers[name]
            made = _kind(plan)(plan, number, lambda part: part.as_string(self._conn), few)
            self._statements[name, few] = made
        return made

    def _statements_for(self, staged: Staged) -> Statements:
        return self._of(staged.shape.name, staged.few is not None)

    def _create(self, name: TableName) -> None:
        statements = self._of(name)
        self._conn.execute(statements.create_stage)
        if self._plans[name].shape.keys is not None:
            self._conn.execute(statements.create_final)

    def truncate(self, tables: Sequence[TableName]) -> None:
        """Empty tables in one statement, as their foreign keys among each other demand.

        Where a table outside refers to one of them they are emptied by DELETE.
        """
        plans = [self._plans[name] for name in tables]
        # Rows that others write to the same table stay.
        shared = [plan for plan in plans if plan.shared]
        targets = [names.alone(p.target, p.divided) for p in plans if p not in shared]
        try:
            with self._conn.transaction():
                reach("apply.truncate.before")
                if targets:
                    together = sql.SQL(", ").join(targets)
                    self._conn.execute(sql.SQL("TRUNCATE {}").format(together))
                reach("apply.truncate.after")
        except errors.FeatureNotSupported:
            for target in targets:
                self._conn.execute(sql.SQL("DELETE FROM {}").format(target))
        for plan in shared:
            assert plan.route is not None
            self._conn.execute(mapped.emptied(plan.route))

    def write(self, staged: Staged, straight: bool = False) -> None:
        """Send one table's rows and merge them.

        Args:
            straight: rows that were inserted may go into the table itself, and nobody asks for
                their places.

        Raises RowsMissing, psycopg.Error as the server says it, and StreamHalted where the table's
        hook fails.
        """
        if not staged.payload:
            return
        plan = self._plans[staged.shape.name]
        if straight and plan.straight and staged.fresh and self._went_straight(staged):
            return
        statements = self._statements_for(staged)
        if staged.few is None:
            self._copy(statements, staged)
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

    def _copy(self, statements: Statements, staged: Staged) -> None:
        payload: Iterable[bytes] = staged.to_stage()
        if isinstance(statements, MappedStatements) and staged.shape.hooked:
            # Before the COPY begins, which has the session for itself.
            payload = list(hooked.staged(self._cursor, statements, payload))
        self._clear(statements.clear_stage)
        reach("apply.copy.before")
        with (
            self._conn.cursor() as cursor,
            cursor.copy(statements.copy) as copy,
        ):
            for piece in payload:
                copy.write(piece)
                reach("apply.copy.within")
        reach("apply.copy.after")

    def _went_straight(self, staged: Staged) -> bool:
        """Copy inserted rows into their table; whether it took them.

        It does not where a row is there already or a policy looks at rows. What the server has
        against a row is then said of the statement that everybody else's rows go by.
        """
        name = staged.shape.name
        if self._avoids("straight", name):
            return False
        try:
            reach("apply.straight.before")
            with (
                self._conn.transaction(),
                self._conn.cursor() as cursor,
            ):
                with cursor.copy(self._of(name).copy_straight) as copy:
                    for piece in staged.payload:
                        copy.write(piece)
                        reach("apply.straight.within")
                if cursor.rowcount != staged.complete:
                    raise RowsMissing(
                        self._plans[name].target, "insert", staged.complete, cursor.rowcount
                    )
            reach("apply.straight.after")
        except psycopg.Error as exc:
            if disposition(exc) is Disposition.RETRY:
                raise
            self._detours["straight", name] = _DETOURS
            return False
        return True

    def _avoids(self, way: str, name: TableName) -> bool:
        """Whether this batch does not try a way, which a table did not take some batches ago."""
        left = self._detours.get((way, name), 0)
        self._detours[way, name] = max(0, left - 1)
        return left > 0

    def _clear(self, statement: str) -> None:
        """Empty a temporary table that may have rows; it will have some."""
        if statement in self._used:
            self._run("clear", statement)
        self._used.add(statement)

    def _fast(self, plan: TablePlan, statements: Statements, staged: Staged) -> None:
        if staged.deletes:
            self._expect(plan, "delete", staged.deletes, "delete", statements.delete, staged)
        for kind, count in staged.partial.items():
            update = statements.update(kind)
            if update is not None:
                self._expect(plan, "update", count, "update", update, staged)
        if staged.complete:
            if staged.there and plan.route is None and self._rewrote(statements, staged):
                return
            self._delete_unwanted(statements, staged)
            done = self._run("upsert", statements.upsert, staged, prepare=True)
            whole = len(plan.columns) > len(plan.key) and not plan.filtered
            if whole and done != staged.complete:
                raise RowsMissing(plan.target, "insert", staged.complete, done)

    def _rewrote(self, statements: Statements, staged: Staged) -> bool:
        """Update the rows that the stream says are there; whether all of them were."""
        name = staged.shape.name
        update = statements.update(COMPLETE) if staged.few is None else None
        if update is None or self._avoids("rewrite", name):
            return False
        if self._run("rewrite", update, staged) == staged.complete:
            return True
        self._detours["rewrite", name] = _DETOURS
        return False

    def places(self, staged: Staged, place: str) -> list[int]:
        """The different numbers that a table's staged keys have by this SQL over its key."""
        statement = self._statements_for(staged).places(place)
        found = self._cursor.execute(statement, staged.few, prepare=True)
        return [row[0] for row in found]

    def key_texts(self, staged: Staged) -> tuple[str, ...] | None:
        """The one key that is staged to be removed, each column as the server writes it."""
        if staged.few is None:
            self._copy(self._statements_for(staged), staged)
        statement = self._statements_for(staged).key_texts
        found = self._cursor.execute(statement, staged.few).fetchone()
        return tuple(found[0]) if found is not None else None

    def _replace(self, plan: TablePlan, statements: Statements, staged: Staged) -> None:
        scans = not plan.identity.indexed
        if scans:
            self._allow_scans(True)
        self._clear(statements.clear_final)
        if staged.complete:
            self._run("finish_complete", statements.finish_complete, staged, prepare=True)
        for kind, count in staged.partial.items():
            finish = statements.finish_partial(kind)
            self._expect(plan, "update", count, "finish_partial", finish, staged)
        if staged.deletes:
            self._expect(plan, "delete", staged.deletes, "delete", statements.delete, staged)
        if staged.complete:
            self._delete_unwanted(statements, staged)
        rows = staged.complete + sum(staged.partial.values())
        if rows:
            if statements.delete_finals is not None:
                self._run("delete_finals", statements.delete_finals)
            self._expect(plan, "insert", rows, "insert_finals", statements.insert_finals)
        if scans:
            self._allow_scans(False)

    def _keyless(self, plan: TablePlan, statements: Statements, staged: Staged) -> None:
        if staged.deletes:
            self._allow_scans(True)
            equal = statements.delete_equal
            self._expect(plan, "delete", staged.deletes, "delete_equal", equal, staged)
            self._allow_scans(False)
        if staged.complete:
            self._expect(plan, "insert", staged.complete, "insert", statements.insert, staged)

    def _delete_unwanted(self, statements: Statements, staged: Staged) -> None:
        if statements.delete_unwanted is not None:
            self._run("delete", statements.delete_unwanted, staged)

    def _allow_scans(self, allowed: bool) -> None:
        value = "on" if allowed else "off"
        self._conn.execute("; ".join(f"SET LOCAL {name} = {value}" for name in _SCAN))

    def _expect(
        self,
        plan: TablePlan,
        action: str,
        expected: int,
        place: str,
        statement: str,
        staged: Staged | None = None,
    ) -> None:
        found = self._run(place, statement, staged)
        # Of rows that are left out on purpose nobody knows how many the target has.
        if found != expected and not plan.filtered:
            raise RowsMissing(plan.target, action, expected, found)

    def _run(
        self, place: str, statement: str, staged: Staged | None = None, prepare: bool = False
    ) -> int:
        """`staged`: whose rows the statement reads."""
        # A statement with a join is planned each time: a plan made while the table was small
        # would be kept when it is large.
        reach(f"apply.{place}.before")
        rows = staged.few if staged is not None else None
        count = self._cursor.execute(statement, rows, prepare=prepare).rowcount
        reach(f"apply.{place}.after")
        return count


def _kind(plan: TablePlan) -> type[Statements]:
    if plan.route is None:
        return Statements
    return MappedStatements if plan.route.back is None else ReturnedStatements
