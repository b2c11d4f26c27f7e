"""`make bench-cutover`: how long each writer stands still, by us and by a scripted switchover.

Ten writers commit 500 transactions a second and follow a routing row (`applications`). What counts
is each writer's stall: from the last commit that the old side acknowledged to the first on the new
one. In each round a fresh database is switched over in every way in turn:

    inside    `cdc-migrator cutover`: what was written to last is compared while nobody writes
    after     the same, compared after the target is open
    theirs    PostgreSQL's logical replication and a script (`switchover`), which compares nothing

Fence, hook, probes and writers are the same in all. After each round every acknowledged commit
must be on the target once, and no moment found at which both sides took writes.

The floor is what no operator can save: from the routing row's change a writer must read it, connect
and commit; and before the fence it was between two transactions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.applications import Outcome, Running, Task
from benchmarks.switchover import Switchover
from cdc_migrator.stack.local import StackInfo
from tests.faults.cutover_kills import end_of
from tests.faults.switching import SCHEMA
from tests.support.live import LiveMigration
from tests.support.stack import fresh_database, running_stack

RESULTS = Path("benchmarks/results/cutover.jsonl")
TABLES = ["entry", "total", "log"]
# Of a writer's stall, at the 99th percentile.
WANTED_MS = 250.0
_WARM_SECONDS = 3.0
_TRIES = 5
_REFUSED = 3
# What the command does while writers wait, in its order.
_STEPS = ("draining", "verifying", "sequences", "opening")


@dataclass(frozen=True, slots=True)
class Round:
    """One switchover: what the writers saw, and where its time went, in milliseconds."""

    outcome: Outcome
    steps: dict[str, float]
    switched_ms: float


@dataclass
class Rounds:
    """All rounds of one way."""

    rounds: list[Round] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        """Percentiles over all writers of all rounds, and medians of the rounds' steps."""
        crossings = [(c, r) for r in self.rounds for c in r.outcome.crossings]
        stalls = [c.stall for c, _ in crossings]
        names = dict.fromkeys(name for r in self.rounds for name in r.steps)
        after_route = [c.connected + c.written for c, _ in crossings]
        return {
            "stalls": len(stalls),
            "p50_ms": percentile(stalls, 50),
            "p99_ms": percentile(stalls, 99),
            "max_ms": max(stalls),
            "switched_ms": middle(r.switched_ms for r in self.rounds),
            "steps_ms": {
                name: middle(r.steps[name] for r in self.rounds if name in r.steps)
                for name in names
            },
            "floor_ms": {
                "all": middle(c.stall - r.switched_ms for c, r in crossings),
                "pause and reading the row": middle(
                    c.stall - r.switched_ms - after
                    for (c, r), after in zip(crossings, after_route, strict=True)
                ),
                "connecting": middle(c.connected for c, _ in crossings),
                "first commit": middle(c.written for c, _ in crossings),
            },
            "commits": sum(r.outcome.commits for r in self.rounds),
            "rate": middle(r.outcome.rate for r in self.rounds),
        }


def main() -> int:
    """Measure, tell, and add a line to the results; 1 where something is wrong or too slow."""
    parser = argparse.ArgumentParser(description="Switch over under writers, by us and by script.")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--writers", type=int, default=10)
    parser.add_argument("--rate", type=float, default=500.0, help="commits a second of all")
    parser.add_argument("--keep", action="store_true", help="add the result to the file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cdcm-bench-") as name:
        base = Path(name)
        base.chmod(0o755)
        with running_stack(base) as stack:
            bench = Bench(base, stack, options.writers, options.rate)
            ways = bench.measure(options.rounds)
    result = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "busy": round(os.getloadavg()[1], 1),
        "rounds": options.rounds,
        "writers": options.writers,
        "offered_rate": options.rate,
        **{name: way.told() for name, way in ways.items()},
    }
    for name in ("inside", "after"):
        result[f"{name}_over_theirs"] = {
            of: round(result[name][of] / result["theirs"][of], 2)
            for of in ("p50_ms", "p99_ms", "switched_ms")
        }
    result["wrong"] = bench.wrong
    print(json.dumps(result, indent=2))
    if options.keep:
        with RESULTS.open("a") as file:
            file.write(json.dumps(result) + "\n")
    return 0 if not bench.wrong and result["inside"]["p99_ms"] <= WANTED_MS else 1


class Bench:
    """One stack, and every way to switch a fresh database over on it."""

    def __init__(self, base: Path, stack: StackInfo, writers: int, rate: float) -> None:
        self._base = base
        self._stack = stack
        self._writers = writers
        self._rate = rate
        self._made = 0
        self.wrong: list[str] = []

    def measure(self, rounds: int) -> dict[str, Rounds]:
        """All ways in turn; the first round, which warms everybody up, is not counted."""
        ways: dict[str, Callable[[str, str], Round]] = {
            "inside": partial(self.ours, "inside"),
            "theirs": self.theirs,
            "after": partial(self.ours, "after"),
        }
        had = {name: Rounds() for name in ways}
        for number in range(rounds + 1):
            order = list(ways)
            for name in order[number % len(order) :] + order[: number % len(order)]:
                with (
                    fresh_database(self._stack.source_dsn) as source,
                    fresh_database(self._stack.target_dsn) as target,
                ):
                    with psycopg.connect(source, autocommit=True) as conn:
                        conn.execute(SCHEMA.encode())
                    one = ways[name](source, target)
                self.wrong += [f"{name}, round {number}: {text}" for text in one.outcome.wrong]
                if number:
                    had[name].rounds.append(one)
                told = sorted(c.stall for c in one.outcome.crossings)
                print(
                    f"round {number}  {name:7} stall {told[0]:6.1f} to {told[-1]:6.1f} ms, "
                    f"switched after {one.switched_ms:6.1f} ms  {one.steps}",
                    file=sys.stderr,
                    flush=True,
                )
        return had

    def ours(self, verify: str, source: str, target: str) -> Round:
        """A migration's whole life; writers are there from before the first comparison."""
        settings = {
            "tables": {"include": ["app.*"]},
            "backup": {"required": False},
            "cutover": {
                "verify": verify,
                "hooks": [{"kind": "route"}],
                "without_way_back": "a measurement",
            },
        }
        name = self._name()
        live = LiveMigration(self._base / name, name, source, target, self._stack, settings)
        try:
            live.prepare()
            live.start("run")
            assert live.drain(), live.halted()
            with Running(self._task(source, target)) as applications:
                live.cli("reconcile")
                self._until_ready(live, "--rehearse")
                details = self._until_ready(live, "--yes")
                outcome = applications.outcome()
        finally:
            end_of(live)
        if not details["verified"]:
            self.wrong.append(f"{name}: not all was compared: {details}")
        steps = {"held": details["fence_held_ms"]}
        steps |= {one: round(details["seconds"][one] * 1000, 2) for one in _STEPS}
        steps["writing down"] = round(details["stall_ms"] - sum(steps.values()), 2)
        steps["switching"] = round(details["switched_ms"] - details["stall_ms"], 2)
        return Round(outcome, steps, details["switched_ms"])

    def _until_ready(self, live: LiveMigration, how: str) -> dict[str, Any]:
        """Cut over; where a gate refuses, first compare again, as its remedy says; the details.

        On a machine that is short of processors the connector may pause inside a transaction for
        so long that it could have been cut there. Nobody has waited for an attempt that is refused.
        """
        for _ in range(_TRIES):
            done = live.cli("cutover", how, "-o", "json", check=None)
            if done.returncode != _REFUSED:
                break
            live.cli("reconcile")
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        details: dict[str, Any] = json.loads(done.stdout)["details"]
        return details

    def theirs(self, source: str, target: str) -> Round:
        """A subscription's whole life."""
        name = self._name()
        with psycopg.connect(target, autocommit=True) as conn:
            for statement in SCHEMA.strip().split(";\n"):
                if statement.startswith(("CREATE", "ALTER")):
                    conn.execute(statement.encode())
        with closing(Switchover(name, source, target, TABLES)) as switchover:
            switchover.prepare()
            with Running(self._task(source, target)) as applications:
                applications.work(_WARM_SECONDS)
                switched = switchover.switch()
                outcome = applications.outcome()
        steps = {one: ms for one, ms in switched.steps.items() if one != "fencing"}
        return Round(outcome, steps, switched.switched_ms)

    def _task(self, source: str, target: str) -> Task:
        return Task(source, target, self._writers, self._rate)

    def _name(self) -> str:
        self._made += 1
        return f"bench{self._made}"


def middle(values: Iterable[float]) -> float:
    """The median, to a hundredth."""
    return round(statistics.median(values), 2)


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that so many of them do not exceed."""
    ordered = sorted(values)
    return round(ordered[max(0, -(-len(ordered) * percent // 100) - 1)], 2)


if __name__ == "__main__":
    sys.exit(main())
