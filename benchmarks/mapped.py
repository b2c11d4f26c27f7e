"""`make bench-mapped`: what five expressions, or a Python function, cost while a topic is drained.

One source is captured by three migrations: one leaves its table as it is, another computes five of
ten columns, and the third has two of these five computed by a function. All apply the same changes
in turn, and each target is compared with what the source says that it must hold.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import yaml

from benchmarks import draining
from benchmarks.apply import captured
from benchmarks.draining import OURS, Drained, Scene
from benchmarks.ours import command, database, run
from benchmarks.workloads import WORKLOADS
from cdc_migrator.stack import local
from cdc_migrator.stack.local import StackInfo, StackOptions

_READY = {"mapped": "bench_mapped", "hooked": "bench_hooked"}
_EXPRESSIONS = {
    "cents": "(total * 100)::bigint",
    "taxed": "round(tax, 2)",
    "day": "(placed AT TIME ZONE 'UTC')::date",
    "told": "upper(state) || '/' || items::text",
    "rank": "CASE WHEN items > 5 THEN 'many' WHEN items > 0 THEN 'some' ELSE 'none' END",
}
# The last two in Python.
_FUNCTION = """
def told(rows):
    return [
        {"told": row["state"].upper() + "/" + row["items"], "rank": rank(int(row["items"]))}
        for row in rows
    ]


def rank(items):
    return "many" if items > 5 else "some" if items > 0 else "none"
"""
_HOOK = {
    "call": "bench_function:told",
    "reads": ["state", "items"],
    "gives": {"told": "text", "rank": "text"},
}
_KEPT = ("id", "customer", "changed", "paid", "note")


def main() -> int:
    """Measure, print, append to the results; 1 if some content differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=400_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="cdcm-bench-"))
    base.chmod(0o755)
    try:
        stack = local.up(StackOptions(base / "stack", full_jit=True))
        scenes = _prepare(stack, base, arguments.events, arguments.rows)
        return _measure(scenes, arguments.rounds)
    finally:
        local.down(base / "stack", purge=True)
        shutil.rmtree(base, ignore_errors=True)


def _prepare(stack: StackInfo, base: Path, events: int, rows: int) -> dict[str, Scene]:
    workload = WORKLOADS["uniform"]
    source = database(stack.source_dsn, "bench_source")
    with psycopg.connect(source, autocommit=True) as conn:
        for statement in workload.base(rows):
            conn.execute(statement.encode())
        # Half of a value is not to be had of what an update leaves out.
        conn.execute("ALTER TABLE orders REPLICA IDENTITY FULL")
        plain = command(stack, base, source, database(stack.target_dsn, OURS))
        ways = {"plain": plain}
        for way, ready in _READY.items():
            ways[way] = command(stack, base, source, database(stack.target_dsn, ready))
            _map(ways[way], way == "hooked")
        for cli in ways.values():
            run(cli, "migrate", "--no-run")
        conn.execute("SET synchronous_commit = off")
        conn.execute(workload.changes(events, rows).encode())
        captured(stack, conn, {})
    number = events // workload.each * workload.each + 2
    scene = Scene(stack, workload, source, number, plain, {}, None)
    return {
        way: replace(scene, cli=cli, ready=_READY.get(way, scene.ready))
        for way, cli in ways.items()
    }


def _map(cli: list[str], hooked: bool) -> None:
    config = Path(cli[cli.index("--config") + 1])
    text: dict[str, Any] = yaml.safe_load(config.read_text())
    entry: dict[str, Any] = {"table": "public.orders", "keep": [*_KEPT], "set": _EXPRESSIONS}
    if hooked:
        (config.parent / "bench_function.py").write_text(_FUNCTION)
        given = _HOOK["gives"]
        entry["set"] = {name: of for name, of in _EXPRESSIONS.items() if name not in given}
        entry["hook"] = _HOOK
    text["mapping"] = [entry]
    config.write_text(yaml.safe_dump(text))


def _rows(columns: Iterable[str]) -> tuple[str]:
    return (f"(SELECT {', '.join(columns)} FROM orders)",)


def _measure(scenes: dict[str, Scene], rounds: int) -> int:
    source = scenes["plain"].source
    names = {way: ["*"] if way == "plain" else [*_KEPT, *_EXPRESSIONS] for way in scenes}
    made = {way: ["*"] if way == "plain" else [*_KEPT, *_EXPRESSIONS.values()] for way in scenes}
    wanted = {way: draining.content(source, _rows(columns)) for way, columns in made.items()}
    seen: dict[str, list[Drained]] = {way: [] for way in scenes}
    failed = []
    for round_ in range(rounds):
        for way in sorted(scenes, reverse=bool(round_ % 2)):
            scene = scenes[way]
            seen[way].append(draining.ours(scene))
            target = draining.named(scene.stack.target_dsn, draining.DRAINED)
            if draining.content(target, _rows(names[way])) != wanted[way]:
                failed.append(way)
            print(f"round {round_ + 1}  {way:7} {seen[way][-1].seconds:7.2f} s", flush=True)
    took = {way: [one.seconds for one in all_] for way, all_ in seen.items()}
    middle = {way: statistics.median(seconds) for way, seconds in took.items()}
    for way, seconds in took.items():
        events = scenes[way].events
        print(
            f"{way:7} {events / middle[way]:9,.0f} events/s "
            f"({events / max(seconds):,.0f} to {events / min(seconds):,.0f})"
        )
    for way in _READY:
        print(f"{way} keeps {middle['plain'] / middle[way]:.2f} of the plain rate")
    draining.keep_all("five expressions, two of them in Python", scenes["plain"].events, seen)
    if failed:
        print(f"content differs: {failed}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
