"""What the load costs the source: its transactions a second while we load, against without.

Writers of pgbench change two rows a transaction, once as fast as they can (closed loop) and once at
an offered rate. Each is measured alone, with capture running but no load, and during the load, at
full speed and throttled. All servers, Kafka and Connect share one machine here: at full speed in a
closed loop everybody gets his share of the processors, which is the worst case.
"""

from __future__ import annotations

import re
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from benchmarks.ours import command, database, run
from cdc_migrator.stack.local import StackInfo

_SCRIPT = """
\\set id random(1, {rows})
BEGIN;
UPDATE shop.orders SET total = total + 1 WHERE id = :id;
UPDATE shop.lines SET price = price + 1 WHERE order_id = :id;
END;
"""
_CLIENTS = 4
_WINDOW = 10.0
_RATE = 300
_THROTTLE = {"max_bytes_per_second": "4MiB"}
_LINE = re.compile(r"progress: ([\d.]+) s, ([\d.]+) tps")


class Writers:
    """pgbench at work; its rate over any time that has passed."""

    def __init__(self, process: subprocess.Popen[bytes], said: IO[bytes]) -> None:
        self._process = process
        self._said = said

    def rate(self, begin: float, end: float) -> float:
        """Transactions a second between two moments of the wall clock, from whole half seconds."""
        self._said.seek(0)
        samples = [
            float(tps)
            for at, tps in _LINE.findall(self._said.read().decode())
            if begin + 0.5 <= float(at) <= end
        ]
        assert samples, "too short to be measured"
        return statistics.fmean(samples)

    def alone(self) -> float:
        """The rate over a window in which the caller does nothing."""
        begin = time.time()
        time.sleep(_WINDOW)
        return self.rate(begin, time.time())


@contextmanager
def writers(tools: Path, base: Path, source: str, rows: int, rate: int | None) -> Iterator[Writers]:
    """pgbench for the length of the block, warmed up."""
    script = base / "traffic.sql"
    script.write_text(_SCRIPT.format(rows=rows))
    offered = [f"--rate={rate}"] if rate else []
    with (base / "traffic.log").open("w+b") as said:
        process = subprocess.Popen(
            [
                tools / "pgbench",
                "--no-vacuum",
                f"--file={script}",
                f"--client={_CLIENTS}",
                "--time=3600",
                "--progress=1",
                "--progress-timestamp",
                *offered,
                source,
            ],
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        try:
            time.sleep(2)
            yield Writers(process, said)
            assert process.poll() is None, "pgbench has ended"
        finally:
            process.kill()
            process.wait()


def measure(
    stack: StackInfo, base: Path, source: str, rows: int, rounds: int, tools: Path
) -> dict[str, dict[str, list[float]]]:
    """Print and return transactions a second by kind of writers and by what we do meanwhile."""
    seen: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for kind, rate in (("closed loop", None), (f"{_RATE}/s offered", _RATE)):
            for load in ({}, _THROTTLE):
                took = _one(stack, base, source, rows, tools, rate, load)
                for what, tps in took.items():
                    seen.setdefault(kind, {}).setdefault(what, []).append(round(tps, 1))
    for kind, by in seen.items():
        print(f"\nsource transactions a second, {kind}, {_CLIENTS} clients")
        alone = statistics.median(by["alone"])
        for what, values in by.items():
            middle = statistics.median(values)
            print(
                f"  {what:20} {middle:8.1f} ({min(values):.1f} to {max(values):.1f})  "
                f"{middle / alone:5.2f} x alone"
            )
    return seen


def _one(
    stack: StackInfo,
    base: Path,
    source: str,
    rows: int,
    tools: Path,
    rate: int | None,
    load: dict[str, str],
) -> dict[str, float]:
    """Alone, with capture, and with a load, one after the other."""
    target = database(stack.target_dsn, "bench_traffic")
    cli = command(stack, base, source, target, tools, workers=2, **load)
    took = {}
    with writers(tools, base, source, rows, rate) as at_work:
        took["alone"] = at_work.alone()
    run(cli, "schema", "apply", "pre-data")
    run(cli, "capture", "start")
    try:
        with writers(tools, base, source, rows, rate) as at_work:
            took["captured"] = at_work.alone()
            begin = time.time()
            loading = subprocess.Popen(
                [*cli, "backfill"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            try:
                ended = loading.wait(2 * _WINDOW if load else None)
                assert ended == 0, "the load failed"
            except subprocess.TimeoutExpired:
                # Throttled it would take its time; the window is long enough.
                loading.send_signal(signal.SIGINT)
                loading.wait()
            rate_now = at_work.rate(begin, time.time())
            took["throttled load" if load else "load at full speed"] = rate_now
    finally:
        run(cli, "abort", "--yes")
    return took
