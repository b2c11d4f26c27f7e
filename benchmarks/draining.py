"""Ways to apply one and the same run of changes to a fresh copy of the target, and what each takes.

    ours     `cdc-migrator run`
    native   a subscription (binary)
    sink     Debezium's JDBC sink, a connector for each table
    folded   the same with its reduction buffer
    copy     COPY of the rows that the changes inserted, into the table with its key

Every way but `copy` is timed from the moment at which the first transaction's row is visible to
that at which the last one's is: how long a program takes to start is no part of draining.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg

from benchmarks import sink
from benchmarks.ours import keep
from benchmarks.workloads import Workload
from cdc_migrator.stack import local
from cdc_migrator.stack.local import StackInfo

_LOOK_SECONDS = 0.005
_PATIENCE = 600.0
RESULTS = Path("benchmarks/results/apply.jsonl")
PUBLICATION = SLOT = "bench_native"
# Databases of the target: as the source was before the changes, with our control schema and ready
# to stream, and without; and the copy that the last way has changed.
OURS, PLAIN, DRAINED = "bench_ours", "bench_plain", "bench_drained"


@dataclass(frozen=True, slots=True)
class Drained:
    """Seconds until all was there; processor seconds of whoever applied, and of the target.

    `peak` is the largest resident memory of the process that applied, in bytes, where it is ours.
    """

    seconds: float
    client: float
    server: float
    peak: int = 0


@dataclass(frozen=True, slots=True)
class Scene:
    """What all ways share: the source after its changes, and target databases to copy.

    Attributes:
        events: row events of the changes.
        cli: the command line of the migration whose target is `OURS`.
        topics: of the sink's events, by table.
        inserted: the inserted rows in COPY's text form, where the workload has only such.
        ready: the database of the target that our migration is ready to stream into.
    """

    stack: StackInfo
    workload: Workload
    source: str
    events: int
    cli: list[str]
    topics: dict[str, str]
    inserted: Path | None
    ready: str = OURS


class Processors:
    """Processor seconds of process trees since this was made; of what ended meanwhile as well."""

    def __init__(self, *pids: int) -> None:
        self._roots = [psutil.Process(pid) for pid in pids]
        self._before = self._now()

    def seconds(self) -> float:
        """User and system time."""
        return self._now() - self._before

    def _now(self) -> float:
        total = 0.0
        for root in self._roots:
            for process in (root, *root.children(recursive=True)):
                try:
                    times = process.cpu_times()
                except psutil.NoSuchProcess:
                    continue
                total += sum(times[:4] if process == root else times[:2])
        return total


def named(dsn: str, name: str) -> str:
    """The same server's database of this name."""
    return urlsplit(dsn)._replace(path=f"/{name}").geturl()


def copy_of(stack: StackInfo, template: str, name: str = DRAINED) -> str:
    """A fresh database, file by file as the template is."""
    with psycopg.connect(named(stack.target_dsn, "postgres"), autocommit=True) as conn:
        conn.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
        conn.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY".encode())
        conn.execute("CHECKPOINT")
    os.sync()
    return named(stack.target_dsn, name)


def content(dsn: str, tables: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """Rows and digest of each table, or subquery."""
    with psycopg.connect(dsn) as conn:
        conn.execute("SET TimeZone = 'UTC'")
        return [
            conn.execute(
                f"SELECT count(*), sum(hashtextextended(t::text, 7)::numeric) FROM {one} t".encode()
            ).fetchone()
            or ()
            for one in tables
        ]


def keep_all(workload: str, events: int, seen: Mapping[str, Sequence[Drained]]) -> None:
    """Append what every way has taken in each round to the results."""
    kept = {
        name: {
            "seconds": [round(one.seconds, 3) for one in all_],
            "client_cpu": [round(one.client, 2) for one in all_],
            "target_cpu": [round(one.server, 2) for one in all_],
            "peak_mib": max(one.peak for one in all_) >> 20,
        }
        for name, all_ in seen.items()
    }
    keep(RESULTS, {"workload": workload, "events": events, "ways": kept})


def until(dsn: str, query: str, watch: Callable[[], None] = lambda: None) -> float:
    """Wait until a query is true; when that was, on the monotonic clock."""
    began = time.monotonic()
    with psycopg.connect(dsn, autocommit=True) as conn:
        while True:
            row = conn.execute(query.encode()).fetchone()
            if row is not None and row[0]:
                return time.monotonic()
            watch()
            if time.monotonic() - began > _PATIENCE:
                raise TimeoutError(f"not true after {_PATIENCE:.0f} s: {query}")
            time.sleep(_LOOK_SECONDS)


def ours(scene: Scene) -> Drained:
    """`cdc-migrator run` with its defaults."""
    dsn = copy_of(scene.stack, scene.ready)
    process = subprocess.Popen(
        [*scene.cli, "--set", f"target.dsn={dsn}", "run"], stdout=subprocess.PIPE, text=True
    )
    claimed = threading.Event()
    said: list[str] = []

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if "stream-claimed" in line:
                claimed.set()

    listening = threading.Thread(target=listen)
    listening.start()

    def watch() -> None:
        if process.poll() is not None:
            raise RuntimeError(f"run ended with {process.returncode}: {''.join(said[-5:])}")

    try:
        while not claimed.wait(0.001):
            watch()
        client, server = Processors(process.pid), Processors(_pid(scene.stack, "target"))
        began = until(dsn, scene.workload.seen("begin"), watch)
        ended = until(dsn, scene.workload.seen("end"), watch)
        told = Drained(ended - began, client.seconds(), server.seconds(), _peak(process.pid))
    finally:
        process.terminate()
        process.wait()
        listening.join()
    return told


def native(scene: Scene) -> Drained:
    """A subscription on a copy of the slot that was made before the changes."""
    dsn = copy_of(scene.stack, PLAIN)
    with psycopg.connect(scene.source, autocommit=True) as conn:
        conn.execute("SELECT pg_copy_logical_replication_slot(%s, 'bench_round')", (SLOT,))
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            f"CREATE SUBSCRIPTION bench CONNECTION '{scene.source}' PUBLICATION {PUBLICATION} "
            "WITH (create_slot = false, slot_name = bench_round, copy_data = false, "
            "enabled = false, binary = true)".encode()
        )
        client = Processors(_pid(scene.stack, "source"))
        server = Processors(_pid(scene.stack, "target"))
        conn.execute("ALTER SUBSCRIPTION bench ENABLE")
        began = until(dsn, scene.workload.seen("begin"))
        ended = until(dsn, scene.workload.seen("end"))
        told = Drained(ended - began, client.seconds(), server.seconds())
        conn.execute("DROP SUBSCRIPTION bench")
    return told


def sink_of(reduced: bool) -> Callable[[Scene], Drained]:
    """Debezium's JDBC sink, with its reduction buffer or without it."""

    def way(scene: Scene) -> Drained:
        dsn = copy_of(scene.stack, PLAIN)
        with psycopg.connect(dsn, autocommit=True) as conn:
            sink.without_foreign_keys(conn)
        client = Processors(_pid(scene.stack, "connect"))
        server = Processors(_pid(scene.stack, "target"))
        with sink.running(scene.stack, dsn, scene.topics, reduced) as failures:
            began = until(dsn, scene.workload.seen("begin"), failures)
            ended = until(dsn, scene.workload.seen("end"), failures)
            return Drained(ended - began, client.seconds(), server.seconds())

    return way


def copy(scene: Scene) -> Drained:
    """One COPY of all inserted rows."""
    assert scene.inserted is not None
    dsn = copy_of(scene.stack, PLAIN)
    text = scene.inserted.read_bytes()
    with psycopg.connect(dsn) as conn:
        client, server = Processors(os.getpid()), Processors(_pid(scene.stack, "target"))
        began = time.monotonic()
        with conn.cursor().copy(f"COPY {scene.workload.tables[0]} FROM STDIN".encode()) as out:
            for start in range(0, len(text), 1 << 20):
                out.write(text[start : start + (1 << 20)])
        conn.commit()
        told = Drained(time.monotonic() - began, client.seconds(), server.seconds())
        conn.execute(f"UPDATE {scene.workload.tables[0]} SET note = 'end' WHERE id = 0".encode())
    return told


def _pid(stack: StackInfo, name: str) -> int:
    return local.status(stack.state_dir).pids[name]


def _peak(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0
