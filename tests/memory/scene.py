"""A migration under some load, and the most memory that was ever resident while it was applied."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psycopg
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from psycopg import sql

from cdc_migrator.stack import local
from tests.support.live import LiveMigration, one, wait_for

PATIENCE = 1_100.0
_HTTP = re.compile(r'"port":(\d+).*"http-served"')


def peak_mib(pid: int) -> int:
    """The most that was ever resident of a process, in MiB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None, f"no process {pid}"
    return int(found[1]) >> 10


class Scene:
    """One migration, captured and loaded; nobody applies it yet.

    Args:
        events: about so many row events are asked for.
    """

    def __init__(self, live: LiveMigration, events: int) -> None:
        self.live = live
        self.events = events
        self.peaks: dict[str, int] = {}
        self.told: dict[str, Any] = {}
        self._log = ""

    @contextmanager
    def applying(self, name: str) -> Iterator[None]:
        """`run` for the length of the block; what it took at most is kept under this name."""
        self._log = f"{name}.log"
        process = self.live.start("run", log=self._log)
        began = time.monotonic()
        try:
            yield
            self.peaks[name] = peak_mib(process.pid)
            self.told[f"{name}_seconds"] = round(time.monotonic() - began)
        finally:
            self.live.stop(process, 90)

    def commit(self, *statements: str) -> None:
        """Have the source run these in one transaction."""
        with psycopg.connect(self.live.source) as conn:
            for statement in statements:
                conn.execute(statement.encode())

    def each(self, count: int, statement: str) -> None:
        """Have the source run a statement `count` times, each a transaction; ``one`` is which."""
        with psycopg.connect(self.live.source, autocommit=True) as conn:
            conn.execute("SET synchronous_commit = off")
            conn.execute(
                f"DO $$ BEGIN FOR one IN 0..{count - 1} LOOP {statement}; COMMIT; END LOOP; "
                "END $$".encode()
            )

    def captured(self) -> None:
        """Wait until everything committed until now is in the topic."""
        position = one(self.live.source, "SELECT pg_current_wal_insert_lsn()::text")
        wait_for(
            "everything captured",
            lambda: one(
                self.live.source,
                "SELECT confirmed_flush_lsn >= %s::pg_lsn FROM pg_replication_slots "
                "WHERE slot_name = %s",
                position,
                self.live.slot,
            ),
            PATIENCE,
            0.5,
        )

    def applied(self) -> None:
        """Wait until everything committed until now is applied; look at `/metrics` meanwhile."""
        self.scrape()
        assert self.live.drain(PATIENCE), f"halted: {self.live.halted()}"
        self.scrape()

    def set_topic(self, name: str, value: str) -> None:
        """Change a setting of the stream's topic."""
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        topic = ConfigResource(ResourceType.TOPIC, self.live.topic, incremental_configs=[entry])
        admin = AdminClient({"bootstrap.servers": self.live.stack.bootstrap_servers})
        admin.incremental_alter_configs([topic])[topic].result(20)

    def scrape(self) -> int:
        """Bytes of the page that Prometheus would take, once it is served."""
        found = wait_for("metrics are served", lambda: _HTTP.findall(self.live.log(self._log)), 60)
        with urlopen(f"http://127.0.0.1:{found[-1]}/metrics", timeout=20) as page:
            return len(page.read())

    def worker_mib(self) -> int:
        """The most that Connect's worker ever took."""
        return peak_mib(local.status(self.live.stack.state_dir).pids["connect"])

    def equal(self) -> bool:
        """Whether both sides hold the same rows, by a digest that the product does not know."""
        return digests(self.live.source) == digests(self.live.target)


def digests(dsn: str) -> dict[str, tuple[Any, ...]]:
    """Rows and a sum of hashes of each table in the schema ``memory``."""
    with psycopg.connect(dsn) as conn:
        conn.execute("SET TimeZone = 'UTC'")
        names = [
            row[0]
            for row in conn.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'memory' ORDER BY 1"
            )
        ]
        return {
            name: conn.execute(
                sql.SQL(
                    "SELECT count(*), sum(hashtextextended(t::text, 7)::numeric) FROM memory.{} t"
                ).format(sql.Identifier(name))
            ).fetchone()
            or ()
            for name in names
        }
