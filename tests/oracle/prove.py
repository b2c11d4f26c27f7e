"""`make prove-apply`: random workloads against the oracles for some minutes; account over all runs.

Every fifty workloads are a line of ``proofs/apply.jsonl``: their seeds, what they came to, how
they were delivered, the outcome. The first workload after which a follower is not equal to the
source ends the run with 1 and names its seed, which ``--seed`` runs again.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cdc_migrator.stack import local
from cdc_migrator.stack.local import StackInfo, StackOptions
from tests.oracle.world import Outcome, World, world
from tests.support.results import Results
from tests.support.stack import KEPT_VARIABLE, running_stack

RESULTS = Results(Path("proofs/apply.jsonl"))
CHUNK = 50
_SHOWN = 20


def main() -> int:
    """Prove for as long as told; 0 if every follower was equal after every workload."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=17.0, help="begin no workload after these")
    parser.add_argument("--worlds", type=int, default=2, help="how many at the same time")
    parser.add_argument("--seed", type=int, help="run this one again, and keep no account")
    options = parser.parse_args()
    deadline = time.monotonic() + options.minutes * 60
    with (
        tempfile.TemporaryDirectory(prefix="cdcm-prove-") as base,
        _stack(Path(base)) as stack,
    ):
        if options.seed is not None:
            with world(stack, Path(base)) as made:
                return _show(made.round(options.seed))
        account = Account(deadline)
        with ThreadPoolExecutor(options.worlds) as pool:
            runs = [pool.submit(_run, stack, Path(base), account) for _ in range(options.worlds)]
        for run in runs:
            run.result()
    tell()
    return 0 if account.fine else 1


def _run(stack: StackInfo, base: Path, account: Account) -> None:
    try:
        with world(stack, base) as made:
            while account.goes_on():
                prove(made, account)
    except BaseException:
        account.fine = False
        raise


class Account:
    """Which seeds are next, and whether to go on; shared by the worlds of a run."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._lock = threading.Lock()
        self._next = max((line["first_seed"] + CHUNK for line in RESULTS.stored()), default=1)
        self.fine = True

    def goes_on(self) -> bool:
        return self.fine and time.monotonic() < self._deadline

    def seeds(self) -> range:
        """The seeds of a chunk, given once."""
        with self._lock:
            first, self._next = self._next, self._next + CHUNK
        return range(first, first + CHUNK)

    def enter(self, first: int, sums: Counter[str], seconds: float, last: Outcome) -> None:
        """Store a chunk, whose last workload is the only one that may have failed."""
        with self._lock:
            store(first, sums, seconds, last)
            if not last.equal:
                self.fine = False
                _show(last)


@contextmanager
def _stack(base: Path) -> Iterator[StackInfo]:
    if kept := os.environ.get(KEPT_VARIABLE):
        yield local.up(StackOptions(Path(kept)))
        return
    base.chmod(0o755)
    with running_stack(base) as info:
        yield info


def prove(made: World, account: Account) -> None:
    """One chunk; less of it when the time is up or a workload has failed."""
    began = time.monotonic()
    sums: Counter[str] = Counter()
    done: Outcome | None = None
    seeds = account.seeds()
    try:
        for seed in seeds:
            if not account.goes_on():
                break
            done = made.round(seed)
            sums.update({"count": 1, **_figures(done)})
            if not done.equal:
                break
    finally:
        if done is not None:
            account.enter(seeds[0], sums, time.monotonic() - began, done)


def _figures(done: Outcome) -> dict[str, int]:
    ran = asdict(done.ran)
    del ran["marker"]
    return ran | asdict(done.ways)


def store(first: int, sums: Counter[str], seconds: float, last: Outcome) -> None:
    """Append a chunk to the results."""
    line: dict[str, Any] = {
        "first_seed": first,
        **sums,
        "seconds": round(seconds, 1),
        "outcome": "equal" if last.equal else "differs",
    }
    if not last.equal:
        line |= {"failed_seed": last.seed, "faults": last.faults[:_SHOWN]}
    RESULTS.append(line)
    print(
        f"seeds {first} to {last.seed}: {line['outcome']}, {sums['statements']} statements, "
        f"{sums['count'] / seconds:.1f} workloads a second",
        flush=True,
    )


def _show(done: Outcome) -> int:
    print(f"seed {done.seed}: {'equal' if done.equal else 'DIFFERS'}\n  {done.ran}\n  {done.ways}")
    for fault in done.faults[:_SHOWN]:
        print(f"  {fault}")
    if not done.equal:
        print(f"again: python -m tests.oracle.prove --seed {done.seed}", flush=True)
    return 0 if done.equal else 1


def tell() -> None:
    """The sums over all runs."""
    sums: Counter[str] = Counter()
    for line in RESULTS.stored():
        sums.update({k: v for k, v in line.items() if isinstance(v, int) and "seed" not in k})
        sums[line["outcome"]] += 1
    print(f"\n{RESULTS}: {sums['count']} workloads so far")
    for name in (
        "transactions", "statements", "refused", "rolled_back",
        "batches", "redelivered", "torn", "restarts", "spilled",
    ):  # fmt: skip
        print(f"  {name:13} {sums[name]:8}")
    print(f"  chunks        {sums['equal']} equal, {sums['differs']} not")


if __name__ == "__main__":
    sys.exit(main())
