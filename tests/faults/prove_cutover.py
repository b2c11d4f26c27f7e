"""`make prove-cutover`: strike at cutovers under writers; keep account over all runs.

Each migration's life goes to ``proofs/cutover.jsonl``. A lost or doubled commit, two open sides or
a cutover that does not end makes the run end with 1.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from tests.faults.cutover_kills import COMMAND, REST, SETTINGS, Fault, Life, Strikes, end_of
from tests.support.live import LiveMigration
from tests.support.results import Results
from tests.support.stack import fresh_database, running_stack

RESULTS = Results(Path("proofs/cutover.jsonl"))


def main() -> int:
    """Prove for as long as told; 0 if nothing was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=17.0, help="begin no life after these")
    parser.add_argument("--faults", help="only those whose name has this in it")
    arguments = parser.parse_args()
    until = time.monotonic() + arguments.minutes * 60
    fine = True
    with tempfile.TemporaryDirectory(prefix="cdcm-prove-") as base:
        Path(base).chmod(0o755)
        with running_stack(Path(base)) as stack:
            seed = len(RESULTS.stored())
            faults: list[Fault] = []
            while fine and time.monotonic() < until:
                faults = faults or chosen(seed, arguments.faults)
                with (
                    fresh_database(stack.source_dsn) as source,
                    fresh_database(stack.target_dsn) as target,
                ):
                    directory = Path(base) / f"life{seed}"
                    live = LiveMigration(directory, f"cut{seed}", source, target, stack, SETTINGS)
                    try:
                        life = Strikes(live, Path(base) / "stack").live_through(faults, until)
                    finally:
                        end_of(live)
                fine = told(seed, life)
                seed += 1
    tell()
    return 0 if fine else 1


def chosen(seed: int, only: str | None) -> list[Fault]:
    """Every fault once, those first that were had least, in an order of chance."""
    had = Counter(name for line in RESULTS.stored() for name, _ in line["faults"])
    faults = [one for one in (*COMMAND, *REST) if only is None or only in str(one)]
    random.Random(seed).shuffle(faults)
    return sorted(faults, key=lambda one: had[str(one)])


def told(seed: int, life: Life) -> bool:
    """Store and print one life; whether nothing was wrong."""
    RESULTS.append({"seed": seed, **asdict(life)})
    for name, state in life.faults:
        print(f"seed {seed}: {name}: {state}", flush=True)
    for text in life.wrong:
        print(f"seed {seed}: WRONG: {text}", flush=True)
    return not life.wrong


def tell() -> None:
    """What all runs together have shown."""
    lines = RESULTS.stored()
    states = Counter(state for line in lines for _, state in line["faults"])
    had = Counter(name for line in lines for name, _ in line["faults"])
    stalls = sorted(stall for line in lines for stall in line["stalls_ms"])
    least = min((had[str(one)] for one in (*COMMAND, *REST)), default=0)
    print(
        f"\n{RESULTS}: {sum(states.values())} cutovers in {len(lines)} migrations "
        f"({', '.join(f'{n} {s}' for s, n in states.items())}), "
        f"{sum(line['commits'] for line in lines)} commits acknowledged, "
        f"{sum(len(line['wrong']) for line in lines)} things wrong; each of "
        f"{len(COMMAND) + len(REST)} faults at least {least} times"
    )
    if stalls:
        print(f"stall of a writer with its command struck: p50 {statistics.median(stalls):.0f} ms")


if __name__ == "__main__":
    sys.exit(main())
