"""From a commit on the source to the row being visible on the target, by us and by PostgreSQL.

Writers in processes of their own commit one row each time at a fixed rate and note when they sent
the statement: waiting for the disk is part of what is measured. A reader on the target asks without
pause for the newest row of each writer.
"""

from __future__ import annotations

import multiprocessing
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.ours import command, database, run
from cdc_migrator.stack.local import StackInfo

RATES = (500, 2000)
_EACH = 500  # transactions a second of one writer
_WARM = 4.0  # seconds at the start that are not counted
# Uncounted seconds before all else: so long the compilers of the broker and the worker of a fresh
# stack work on the paths of small transactions, and again when a second connector takes the first
# one's place, as what they took to be of one kind only is of two.
_COLD = (120.0, 60.0)
_Way = Callable[[StackInfo, Path, str, str], AbstractContextManager[None]]
_TABLE = "CREATE TABLE beats (writer int, n bigint, note text, PRIMARY KEY (writer, n))"


def measure(stack: StackInfo, base: Path, seconds: float, rounds: int) -> dict[str, Any]:
    """Milliseconds by way and rate, p50 and p99: the rounds' middle and extremes; also printed."""
    seen: dict[str, list[tuple[float, float]]] = {}
    for uncounted in _COLD:
        _once(_ours, stack, base, RATES[0], uncounted)
    for _ in range(rounds):
        for rate in RATES:
            for name, way in (("ours", _ours), ("native", _native)):
                took = [1e3 * one for one in _once(way, stack, base, rate, seconds)]
                middle, high = statistics.median(took), statistics.quantiles(took, n=100)[98]
                seen.setdefault(f"{name} {rate}", []).append((middle, high))
                print(
                    f"{name:7} {rate:5} tx/s: commit to visible p50 {middle:.1f} ms, "
                    f"p99 {high:.1f} ms ({len(took)} transactions)",
                    flush=True,
                )
    return {name: _spread(found) for name, found in seen.items()}


def _spread(found: list[tuple[float, float]]) -> dict[str, Any]:
    told: dict[str, Any] = {"rounds": len(found)}
    for part, values in zip(("p50_ms", "p99_ms"), zip(*found, strict=True), strict=True):
        told[part] = round(statistics.median(values), 1)
        told[f"{part}_range"] = [round(min(values), 1), round(max(values), 1)]
    return told


def _once(way: _Way, stack: StackInfo, base: Path, rate: int, seconds: float) -> list[float]:
    source = database(stack.source_dsn, "bench_source")
    target = database(stack.target_dsn, "bench_target")
    with psycopg.connect(source) as conn:
        conn.execute(_TABLE)
    with way(stack, base, source, target):
        return _observe(source, target, rate, seconds)


@contextmanager
def _ours(stack: StackInfo, base: Path, source: str, target: str) -> Iterator[None]:
    cli = command(stack, base, source, target)
    run(cli, "migrate", "--no-run")
    process = subprocess.Popen([*cli, "run"], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
        run(cli, "abort", "--yes")


@contextmanager
def _native(stack: StackInfo, base: Path, source: str, target: str) -> Iterator[None]:
    with (
        psycopg.connect(source, autocommit=True) as there,
        psycopg.connect(target, autocommit=True) as here,
    ):
        there.execute("CREATE PUBLICATION bench FOR TABLE beats")
        here.execute(_TABLE)
        here.execute(f"CREATE SUBSCRIPTION bench CONNECTION '{source}' PUBLICATION bench".encode())
        yield
        here.execute("DROP SUBSCRIPTION bench")


def _observe(source: str, target: str, rate: int, seconds: float) -> list[float]:
    """Seconds from commit to visible of every transaction behind the warm-up."""
    context = multiprocessing.get_context("spawn")
    writers = rate // _EACH
    begin = time.monotonic() + 2.0
    with context.Pool(writers) as pool:
        sent = [
            pool.apply_async(_write, (source, one, begin, _WARM + seconds))
            for one in range(writers)
        ]
        visible = _watch(target, writers, int(_EACH * (_WARM + seconds)), begin + 10 * seconds)
        found = []
        for writer, result in enumerate(sent):
            for number, at in enumerate(result.get()):
                if at - begin >= _WARM:
                    found.append(visible[writer][number] - at)
    return found


def _write(dsn: str, writer: int, begin: float, seconds: float) -> list[float]:
    """Commit at the fixed rate; when each was sent, on the machine's monotonic clock."""
    sent = []
    with psycopg.connect(dsn, autocommit=True) as conn:
        for number in range(int(_EACH * seconds)):
            due = begin + number / _EACH
            pause = due - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            sent.append(time.monotonic())
            conn.execute("INSERT INTO beats VALUES (%s, %s, 'note')", (writer, number))
    return sent


def _watch(dsn: str, writers: int, number: int, deadline: float) -> list[list[float]]:
    """When each row of each writer was seen first. Raises TimeoutError past the deadline."""
    newest = ", ".join(
        f"(SELECT coalesce(max(n), -1) FROM beats WHERE writer = {one})" for one in range(writers)
    )
    query = f"SELECT {newest}".encode()
    visible: list[list[float]] = [[] for _ in range(writers)]
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=1) as conn:
        # The plan is made while the table is empty: it must not grow with the table.
        conn.execute("SET enable_seqscan = off")
        conn.execute("SET enable_bitmapscan = off")
        while any(len(one) < number for one in visible):
            row = conn.execute(query).fetchone()
            now = time.monotonic()
            for one, last in zip(visible, row or (), strict=True):
                one.extend([now] * (last + 1 - len(one)))
            if now > deadline:
                raise TimeoutError("rows are missing on the target")
            time.sleep(0.0005)
    return visible
