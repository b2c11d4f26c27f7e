"""What a comparison costs the applier: events a second of a filled topic, alone and beside one.

The service is held still at an alignment point while changes fill the topic. Then it goes on, and
applies them all, in turn alone and while both sides' tables are compared whole, again and again, at
the point's snapshots: those keep, and a new point could only be had behind the changes.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import yaml
from confluent_kafka import Consumer, TopicPartition

from benchmarks import ours
from cdc_migrator.errors import MigratorError
from cdc_migrator.model.alignment import Aligned, Rebuild, Repair
from cdc_migrator.model.naming import Names
from cdc_migrator.reconcile.passes import PassOptions
from cdc_migrator.service import reconcile
from cdc_migrator.service.alignment import RequestedAlignment
from cdc_migrator.service.reconcile import ReconcileOptions
from cdc_migrator.stack.local import StackInfo
from tests.support.stack import running_stack

_STEP = 500  # rows of one transaction
_QUIET_SECONDS = 3.0


def measure(table: str, rows: int, events: int, rounds: int, shares: Sequence[float]) -> Any:
    """Events a second, alone and beside a comparison that works so much of its time.

    Args:
        table: statements that make ``shop.orders`` with so many rows.
        events: updates in each round.
    """
    with tempfile.TemporaryDirectory(prefix="cdcm-bench-") as name, ExitStack() as closing:
        base = Path(name)
        base.chmod(0o755)
        stack = closing.enter_context(running_stack(base))
        source = ours.database(stack.source_dsn, "bench_source")
        target = ours.database(stack.target_dsn, "bench_target")
        with psycopg.connect(source, autocommit=True) as conn:
            for statement in filter(None, table.split(";\n")):
                conn.execute(statement.encode())
        work = _Draining(stack, base, source, target, rows, events)
        closing.callback(work.close)
        taken: dict[float | None, list[float]] = {}
        for number in range(rounds + 1):
            for share in (None, *shares):
                seconds = work.drain(share)
                if number:  # the first round warms the caches
                    taken.setdefault(share, []).append(seconds)
    alone = taken[None]
    return {
        "applied_events_a_second": round(events / statistics.median(alone)),
        "applied_beside_a_comparison": {
            str(share): round(
                statistics.median(a / b for a, b in zip(alone, taken[share], strict=True)), 3
            )
            for share in shares
        },
    }


class _Draining:
    """A migration of one table whose service is stopped and continued."""

    def __init__(
        self, stack: StackInfo, base: Path, source: str, target: str, rows: int, events: int
    ) -> None:
        self._stack, self._source, self._target = stack, source, target
        self._rows, self._events = rows, events
        self._cli = ours.command(stack, base, source, target)
        ours.run(self._cli, "migrate", "--no-run")
        self.name = str(yaml.safe_load(Path(self._cli[4]).read_text())["name"])
        with (base / "run.log").open("wb") as out:
            self._service = subprocess.Popen([*self._cli, "run"], stdout=out, stderr=out)

    def close(self) -> None:
        self._service.send_signal(signal.SIGCONT)
        self._service.terminate()
        self._service.wait(30)
        ours.run(self._cli, "abort", "--yes")

    def drain(self, share: float | None) -> float:
        """Seconds for which the service applies the events of one round."""
        with RequestedAlignment(self._target) as asking, ExitStack() as closing:
            point = _patiently(asking)
            os.kill(self._service.pid, signal.SIGSTOP)
            try:
                end = self._fill()
                if share is not None:
                    closing.enter_context(self._comparing(point, share))
            finally:
                os.kill(self._service.pid, signal.SIGCONT)
            began = time.monotonic()
            with psycopg.connect(self._target, autocommit=True) as conn:
                while not _reached(conn, end):
                    assert self._service.poll() is None, "the service has ended"
                    time.sleep(0.05)
            return time.monotonic() - began

    def _fill(self) -> int:
        """Change rows until the topic has all events; the position of the last one's commit."""
        before = self._end()
        with psycopg.connect(self._source, autocommit=True) as conn:
            for first in range(1, self._events, _STEP):
                low = first % self._rows
                conn.execute(
                    "UPDATE shop.orders SET items = items + 1 WHERE id BETWEEN %s AND %s",
                    (low, low + _STEP - 1),
                )
            row = conn.execute("SELECT (pg_current_wal_insert_lsn() - '0/0')::int8").fetchone()
            assert row is not None
            # A last one, which is behind that position.
            conn.execute("UPDATE shop.orders SET items = items WHERE id = 1")
        seen, since = before, time.monotonic()
        while time.monotonic() - since < _QUIET_SECONDS or seen - before < self._events:
            time.sleep(0.2)
            if (now := self._end()) != seen:
                seen, since = now, time.monotonic()
        return int(row[0])

    def _end(self) -> int:
        consumer = Consumer(
            {"bootstrap.servers": self._stack.bootstrap_servers, "group.id": "bench"}
        )
        try:
            place = TopicPartition(Names(self.name).topic, 0)
            return int(consumer.get_watermark_offsets(place, timeout=10)[1])
        finally:
            consumer.close()

    @contextmanager
    def _comparing(self, point: Aligned, share: float) -> Any:
        """Compare whole tables at this point until left."""
        ending = threading.Event()
        failed: list[BaseException] = []
        done = 0
        options = ReconcileOptions(
            self.name, self._source, self._target, work=PassOptions(share=share)
        )

        def compare() -> None:
            nonlocal done
            try:
                while not ending.is_set():
                    report = reconcile.run(options, _Same(point))
                    assert not any(one.standing for one in report.tables), "a false alarm"
                    done += 1
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=compare, name="comparing")
        thread.start()
        try:
            yield
        finally:
            busy = thread.is_alive()
            ending.set()
            thread.join()
            assert not failed, failed
            assert busy, "nothing was compared meanwhile"


class _Same:
    """Always the same point."""

    def __init__(self, point: Aligned) -> None:
        self._point = point

    def align(self, repairs: Sequence[Repair] = (), rebuild: Rebuild | None = None) -> Aligned:
        assert not repairs
        assert rebuild is None
        return self._point

    def release(self) -> None:
        pass


def _patiently(asking: RequestedAlignment) -> Aligned:
    """A point as soon as the service is there and has applied what it must."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return asking.align()
        except MigratorError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _reached(conn: psycopg.Connection, position: int) -> bool:
    row = conn.execute("SELECT commit_position FROM cdc_migrator.stream_progress").fetchone()
    return row is not None and row[0] >= position
