"""Changes as the connector would tell them, recorded while plain SQL runs on a real table.

Each statement gives its old and new rows back (RETURNING, PostgreSQL 18), in the order in which
it touched them; that is what the log holds. Nothing of the product decodes or folds here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import dict_row

from cdc_migrator.apply.batcher import Batch
from cdc_migrator.control import progress, schema
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.model.changes import Change, Op, Transaction
from cdc_migrator.model.tables import Table, TableName
from tests.support.private_postgres import private_database

PLACEHOLDER = "__cdcm_unchanged_0123456789abcdef"
# Longer texts count as stored out of line: an update that leaves one alone does not log it.
INLINE = 12


@dataclass
class Recorder:
    """Runs statements on the source and keeps what a consumer of its stream would get.

    `keys` names the key columns of each table; a table that is not there is keyless, with
    REPLICA IDENTITY FULL, as those of `full` are, which have keys. `as_text`: numeric columns,
    which the connector sends as strings.
    """

    conn: psycopg.Connection
    keys: dict[TableName, tuple[str, ...]]
    offset: int = 100
    lsn: int = 1_000
    xid: int = 700
    changes: list[Change] = field(default_factory=list)
    full: frozenset[TableName] = frozenset()
    as_text: frozenset[str] = frozenset()

    def insert(self, table: TableName, **values: Any) -> None:
        """INSERT one row."""
        names = ", ".join(values)
        marks = ", ".join(["%s"] * len(values))
        self._run(
            table,
            f"INSERT INTO {table} AS t ({names}) OVERRIDING SYSTEM VALUE VALUES ({marks}) "
            "RETURNING NULL AS old, to_jsonb(new) AS new",
            list(values.values()),
        )

    def update(self, table: TableName, change: str, where: str, *values: Any) -> None:
        """UPDATE … SET `change` WHERE `where`."""
        self._run(
            table,
            f"UPDATE {table} AS t SET {change} WHERE {where} "
            "RETURNING to_jsonb(old) AS old, to_jsonb(new) AS new",
            list(values),
        )

    def delete(self, table: TableName, where: str, *values: Any) -> None:
        """DELETE … WHERE `where`."""
        self._run(
            table,
            f"DELETE FROM {table} AS t WHERE {where} RETURNING to_jsonb(old) AS old, NULL AS new",
            list(values),
        )

    def truncate(self, *tables: TableName) -> None:
        """TRUNCATE several tables in one statement."""
        self.conn.execute(f"TRUNCATE {', '.join(str(table) for table in tables)}")
        self.lsn += 8
        for table in tables:
            self.changes.append(Change(table, Op.TRUNCATE, b"", None, None, self.lsn))

    def attempt(self, steps: Iterable[Callable[[Recorder], None]]) -> None:
        """Take steps of one transaction; one that the application's constraints refuse is undone,
        and the log never sees it."""
        self.conn.execute("SELECT")  # opens it: each step is a savepoint
        for step in steps:
            kept = len(self.changes)
            try:
                with self.conn.transaction():
                    step(self)
            except psycopg.errors.IntegrityError:
                del self.changes[kept:]

    def _run(self, table: TableName, statement: str, values: list[Any]) -> None:
        with self.conn.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(statement, values).fetchall()
        for row in rows:
            self._record(table, row["old"], row["new"])

    def _record(
        self, table: TableName, old: dict[str, Any] | None, new: dict[str, Any] | None
    ) -> None:
        self.lsn += 8
        key = self.keys.get(table, ())
        for row in (old, new):
            if row is not None:
                row.pop("computed", None)  # generated: not in the stream
                row |= {n: str(row[n]) for n in self.as_text & row.keys() if row[n] is not None}
        whole = not key or table in self.full
        before = _json(old if whole else _only(old, key))
        # With the whole old row at hand the connector takes what is not logged from there.
        left = old if not key or table not in self.full else None
        after = None if new is None else _json(_unchanged(left, new, key))
        old_key, new_key = _key(old, key), _key(new, key)
        if old is None:
            self._add(table, Op.INSERT, new_key, None, after)
        elif new is None:
            self._add(table, Op.DELETE, old_key, before, None)
        elif old_key != new_key:
            self._add(table, Op.DELETE, old_key, before, None, key_moves_on=True)
            self._add(table, Op.INSERT, new_key, None, after, key_moved_here=True)
        else:
            self._add(table, Op.UPDATE, new_key, before if whole else None, after)

    def _add(
        self, table: TableName, op: Op, key: bytes, before: bytes | None, after: bytes | None,
        **flags: bool,
    ) -> None:  # fmt: skip
        self.changes.append(Change(table, op, key, before, after, self.lsn, **flags))

    def commit(self) -> Transaction:
        """Commit on the source; the transaction as the assembler would hand it over."""
        self.conn.commit()
        changes, self.changes = self.changes, []
        first, self.offset = self.offset, self.offset + len(changes) + 2
        begin, self.lsn, self.xid = self.lsn + 8, self.lsn + 64, self.xid + 1
        return Transaction(
            xid=self.xid,
            begin_lsn=changes[0].lsn if changes else begin,
            commit_lsn=self.lsn,
            committed_at_us=1_700_000_000_000_000 + self.xid,
            changes=changes,
            first_offset=first,
            next_offset=self.offset,
            bytes=sum(len(c.after or b"") + len(c.key) for c in changes),
        )

    def rollback(self) -> None:
        """Undo on the source; the stream never hears of it."""
        self.conn.rollback()
        self.changes = []


def _json(row: dict[str, Any] | None) -> bytes | None:
    return None if row is None else json.dumps(row, separators=(",", ":")).encode()


def _key(row: dict[str, Any] | None, key: tuple[str, ...]) -> bytes:
    if row is None or not key:
        return b""
    return _json({name: row[name] for name in key}) or b""


def _only(row: dict[str, Any] | None, key: tuple[str, ...]) -> dict[str, Any] | None:
    """What the default replica identity knows of the old row."""
    return None if row is None else {n: v if n in key else None for n, v in row.items()}


def _unchanged(
    old: dict[str, Any] | None, new: dict[str, Any], key: tuple[str, ...]
) -> dict[str, Any]:
    """A key is never stored out of line."""
    if old is None:
        return new
    return {
        name: PLACEHOLDER
        if isinstance(value, str) and len(value) > INLINE and old[name] == value and name not in key
        else value
        for name, value in new.items()
    }


def batch(*transactions: Transaction) -> Batch:
    """These transactions as one batch."""
    last = transactions[-1]
    return Batch(transactions, last.next_offset, last.commit_lsn)


@dataclass
class RecordedPair:
    """A source that is recorded, and a target whose stream begins where the recording does."""

    source: psycopg.Connection
    target: psycopg.Connection
    source_dsn: str
    target_dsn: str
    tables: list[Table]
    recorder: Recorder


@contextmanager
def recorded_pair(
    source_schema: str, target_schema: str, keys: dict[TableName, tuple[str, ...]]
) -> Iterator[RecordedPair]:
    """Two databases with these tables, all of them in the schema shop."""
    with (
        private_database() as source_dsn,
        private_database() as target_dsn,
        connect(source_dsn, application_name="source") as source,
        connect(target_dsn, application_name="target") as target,
    ):
        source.execute(source_schema.encode())
        target.execute(target_schema.encode())
        schema.ensure(target, "target")
        progress.create(target, "topic", 1)
        tables = read_tables(source, include=["shop.*"])
        source.autocommit = False
        recorder = Recorder(source, keys)
        target.execute(
            "UPDATE cdc_migrator.stream_progress SET next_offset = %s", (recorder.offset,)
        )
        yield RecordedPair(source, target, source_dsn, target_dsn, tables, recorder)
