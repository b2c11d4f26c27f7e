"""A migration on the real stack, and an account of rows that shows any loss or doubling.

The account is independent of the applier: it adds the loaded rows and what the topic brings, row
by row, and must end as the source's content. All its tables have REPLICA IDENTITY FULL, so each
update and delete names the whole row that it takes away.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import Consumer, TopicPartition
from psycopg import sql

from cdc_migrator.backfill import load as loading
from cdc_migrator.backfill.load import Loaded, LoadOptions
from cdc_migrator.capture import start as starting
from cdc_migrator.capture.abort import Aborted, abort
from cdc_migrator.capture.start import CaptureOptions, CaptureStarted
from cdc_migrator.control import fence, load
from cdc_migrator.databases.postgres import catalog
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.model.naming import Names
from cdc_migrator.model.outside import Brokers, Workers
from cdc_migrator.model.positions import Snapshot, lsn_to_int
from cdc_migrator.stack.local import StackInfo

TABLES = ("shop.item", "shop.log", "shop.plain")
SCHEMA = """
CREATE SCHEMA shop;
CREATE TABLE shop.item (id bigint PRIMARY KEY, amount int, note text);
ALTER TABLE shop.item REPLICA IDENTITY FULL;
CREATE TABLE shop.log (kind int, note text);
ALTER TABLE shop.log REPLICA IDENTITY FULL;
CREATE TABLE shop.plain (id int PRIMARY KEY, note text);
ALTER TABLE shop.plain REPLICA IDENTITY FULL;
"""
FILL = """
INSERT INTO shop.item SELECT g, g % 97, repeat(md5(g::text), 3) FROM generate_series(1, {n}) g;
INSERT INTO shop.log SELECT g % 7, 'same' FROM generate_series(1, {n}) g;
INSERT INTO shop.plain SELECT g, 'small' FROM generate_series(1, 100) g;
"""


@dataclass
class Rig:
    """One migration: its databases, its name, and the calls under test."""

    stack: StackInfo
    source: str
    target: str
    state_dir: Path
    names: Names = field(default_factory=lambda: Names(f"t{secrets.token_hex(4)}"))

    @property
    def options(self) -> CaptureOptions:
        return CaptureOptions(self.stack.secrets_dir, self.state_dir, streaming_patience=60)

    def start(
        self, options: CaptureOptions | None = None, tables: Sequence[str] = ("shop.*",)
    ) -> CaptureStarted:
        with connect(self.source, application_name="test") as conn:
            found = catalog.read_tables(conn, tables)
        return starting.start_capture(
            self.source,
            self.target,
            Workers.at(self.stack.connect_url),
            Brokers(self.stack.bootstrap_servers),
            self.names,
            found,
            options or self.options,
        )

    def load(self, options: LoadOptions | None = None, **kwargs: Any) -> Loaded:
        return loading.load(self.source, self.target, self.names, options, **kwargs)

    def fence(self) -> None:
        """The target's fence, as the load puts it up; before something stands in its way."""
        with connect(self.target, application_name="test") as conn:
            fence.keep(conn, self.names.migration, True)

    def abort(self, connect_url: str | None = None) -> Aborted:
        return abort(
            self.source,
            self.target,
            Workers.at(connect_url or self.stack.connect_url),
            Brokers(self.stack.bootstrap_servers),
            self.names.migration,
            self.stack.secrets_dir,
        )

    def fill(self, rows: int) -> None:
        """The schema on both sides, and `rows` rows in each of the two large source tables."""
        with psycopg.connect(self.source, autocommit=True) as conn:
            conn.execute(SCHEMA)
            conn.execute(FILL.format(n=rows))
        with psycopg.connect(self.target, autocommit=True) as conn:
            conn.execute(SCHEMA)

    def one(self, dsn: str, query: str, *params: object) -> Any:
        with psycopg.connect(dsn, autocommit=True) as conn:
            row = conn.execute(query, params).fetchone()
        return row[0] if row and len(row) == 1 else row

    @contextmanager
    def writing(self) -> Iterator[Writers]:
        """Writers on the source for the length of the block."""
        writers = Writers(self.source)
        try:
            yield writers
        finally:
            writers.stop()

    def content(self, dsn: str) -> dict[str, Counter[tuple[object, ...]]]:
        """The rows of each table with their multiplicity."""
        with psycopg.connect(dsn) as conn:
            return {
                table: Counter(
                    conn.execute(
                        sql.SQL("SELECT * FROM {}").format(sql.Identifier(*table.split(".")))
                    ).fetchall()
                )
                for table in TABLES
            }

    def account(self) -> dict[str, Counter[tuple[object, ...]]]:
        """The target's loaded rows and all that the topic holds until now, put together."""
        rows = self.content(self.target)
        with connect(self.target, application_name="test") as conn:
            anew = {str(t.source): t for t in load.read_tables(conn)}
        for xid, end, changes in self._stream():
            for table, before, after in changes:
                state = anew[table]
                if (
                    state.reread_snapshot
                    and state.reread_until
                    and end <= lsn_to_int(state.reread_until)
                    and Snapshot.parse(state.reread_snapshot).sees(xid)
                ):
                    continue
                if before is None and after is None:
                    rows[table].clear()
                if before is not None:
                    assert rows[table][before] > 0, (
                        f"{table} lacks a row that the stream takes away"
                    )
                    rows[table][before] -= 1
                if after is not None:
                    rows[table][after] += 1
        return {table: +counted for table, counted in rows.items()}

    def _stream(self) -> Iterator[tuple[int, int, list[tuple[str, Any, Any]]]]:
        """(xid, END position, changes) of each transaction up to a marker written now."""
        token = secrets.token_hex(16)
        with psycopg.connect(self.source, autocommit=True) as conn:
            conn.execute(
                "INSERT INTO cdc_migrator.marker (migration, kind, token) "
                "VALUES (%s, 'barrier', %s)",
                (self.names.migration, token),
            )
        consumer = Consumer(
            {
                "bootstrap.servers": self.stack.bootstrap_servers,
                "group.id": "test",
                "enable.auto.commit": "false",
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
            }
        )
        consumer.assign([TopicPartition(self.names.topic, 0, 0)])
        changes: list[tuple[str, Any, Any]] = []
        xid = 0
        seen = False
        deadline = time.monotonic() + 90
        try:
            while not seen:
                assert time.monotonic() < deadline, "the marker did not arrive"
                for message in consumer.consume(500, 0.5):
                    assert message.error() is None
                    value = json.loads(message.value() or b"{}")
                    if value.get("status") == "BEGIN":
                        changes = []
                    elif value.get("status") == "END":
                        assert value["event_count"] >= len(changes)
                        head, position = value["id"].split(":")
                        xid = int(head)
                        yield xid, int(position), changes
                        if seen:
                            return
                    elif "source" in value:
                        table = f"{value['source']['schema']}.{value['source']['table']}"
                        if table in TABLES:
                            changes.append((table, _row(value["before"]), _row(value["after"])))
                        seen = seen or token.encode() in (message.value() or b"")
        finally:
            consumer.close()


def _row(image: dict[str, object] | None) -> tuple[object, ...] | None:
    return None if image is None else tuple(image.values())


class Writers:
    """Three threads that change all tables in small transactions until told to stop."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._stop = threading.Event()
        self.commits = 0
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(3)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def _run(self, number: int) -> None:
        try:
            with psycopg.connect(self._dsn, autocommit=True) as conn:
                turn = 0
                while not self._stop.wait(0.004):
                    turn += 1
                    key = 10_000_000 + 3 * turn + number
                    # Deadlocks are part of an application's life; what was rolled back is gone.
                    with suppress(psycopg.errors.DeadlockDetected), conn.transaction():
                        self._transaction(conn, turn, key)
                    self.commits += 1
        except BaseException as exc:
            self._errors.append(exc)

    def _transaction(self, conn: psycopg.Connection, turn: int, key: int) -> None:
        conn.execute("INSERT INTO shop.item VALUES (%s, 1, 'new')", (key,))
        conn.execute("INSERT INTO shop.log VALUES (%s, 'new')", (turn % 5,))
        conn.execute("UPDATE shop.item SET amount = amount + 1 WHERE id = %s", (key % 997,))
        if turn % 3 == 0:
            conn.execute("DELETE FROM shop.item WHERE id = %s", (turn * 7,))
        if turn % 4 == 0:
            conn.execute(
                "DELETE FROM shop.log WHERE ctid = (SELECT ctid FROM shop.log LIMIT 1 OFFSET %s "
                "FOR UPDATE SKIP LOCKED)",
                (turn,),
            )
        if turn % 5 == 0:
            raise psycopg.Rollback


def eventually(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """What `condition` returns as soon as it is true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)
    return value
