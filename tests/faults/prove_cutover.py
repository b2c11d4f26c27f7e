"""`make prove-cutover`, `make prove-way-back`: strike at cutovers, or at cutovers and rollbacks,
under writers; keep account over all runs.

Each migration's life goes to ``proofs/cutover.jsonl`` or ``proofs/way_back.jsonl``; a cutover that
was struck at counts wherever it stands. A lost or doubled commit, two open sides, different rows or
a way that does not end makes the run end with 1.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.faults.cutover_kills import (
    BACK,
    COMMAND,
    REST,
    SETTINGS,
    Fault,
    Life,
    Strikes,
    end_of,
)
from tests.support.live import LiveMigration
from tests.support.results import Results
from tests.support.stack import fresh_database, running_stack

THERE = (*COMMAND, *REST)
# A life is so many ways long at most: what it leaves behind must not matter, and is looked at.
_WAYS = 12


def main() -> int:
    """Prove for as long as told; 0 if nothing was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=17.0, help="begin no way after these")
    parser.add_argument("--faults", help="only those whose name has this in it")
    parser.add_argument("--back", action="store_true", help="strike at rollbacks as well")
    arguments = parser.parse_args()
    cutovers, ways_back = (Results(Path(f"proofs/{one}.jsonl")) for one in ("cutover", "way_back"))
    results = ways_back if arguments.back else cutovers
    faults = (*THERE, *BACK) if arguments.back else THERE
    until = time.monotonic() + arguments.minutes * 60
    fine = True
    with tempfile.TemporaryDirectory(prefix="cdcm-prove-") as base:
        Path(base).chmod(0o755)
        with running_stack(Path(base)) as stack:
            seed = len(results.stored())
            while fine and time.monotonic() < until:
                had = struck(cutovers, ways_back)
                due = chosen(had, faults, seed, arguments.faults)
                there = [one for one in due if one in THERE][:_WAYS]
                back = [one for one in due if one in BACK]
                with (
                    fresh_database(stack.source_dsn) as source,
                    fresh_database(stack.target_dsn) as target,
                ):
                    directory = Path(base) / f"life{seed}"
                    live = LiveMigration(directory, f"cut{seed}", source, target, stack, SETTINGS)
                    try:
                        life = Strikes(live, Path(base) / "stack").live_through(there, back, until)
                    finally:
                        end_of(live)
                fine = told(results, seed, life)
                seed += 1
    tell([results] if arguments.back else [cutovers, ways_back], faults)
    return 0 if fine else 1


def struck(*files: Results) -> Counter[str]:
    """How often each fault was had."""
    return Counter(name for file in files for line in file.stored() for name, _ in line["faults"])


def chosen(had: Counter[str], among: Sequence[Fault], seed: int, only: str | None) -> list[Fault]:
    """Every fault once, those first that were had least, in an order of chance."""
    faults = [one for one in among if only is None or only in str(one)]
    random.Random(seed).shuffle(faults)
    return sorted(faults, key=lambda one: had[str(one)])


def told(results: Results, seed: int, life: Life) -> bool:
    """Store and print one life; whether nothing was wrong."""
    results.append({"seed": seed, **asdict(life)})
    for name, state in life.faults:
        print(f"seed {seed}: {name}: {state}", flush=True)
    for text in life.wrong:
        print(f"seed {seed}: WRONG: {text}", flush=True)
    return not life.wrong


def tell(files: Sequence[Results], faults: Sequence[Fault]) -> None:
    """What all runs together have shown of these faults."""
    lines = [line for file in files for line in file.stored()]
    had = struck(*files)
    wanted = {str(one) for one in faults}
    places = Counter[str]()
    for fault in faults:
        places[fault.state] += had[str(fault)]
    ends = Counter(state for line in lines for name, state in line["faults"] if name in wanted)
    stalls = sorted(stall for line in lines for stall in line["stalls_ms"])
    least = min(places, key=lambda state: places[state])
    print(
        f"\n{' and '.join(map(str, files))}: {sum(ends.values())} ways struck at in "
        f"{len(lines)} migrations ({', '.join(f'{n} {s}' for s, n in ends.items())}), "
        f"{sum(line.get('ways', 0) // 2 for line in lines)} times there and back, "
        f"{sum(line['commits'] for line in lines)} commits acknowledged, "
        f"{sum(len(line['wrong']) for line in lines)} things wrong; each of {len(places)} states "
        f"struck at {places[least]} times or more ({least}), each of {len(faults)} faults had "
        f"{min(had[one] for one in wanted)} times or more"
    )
    if stalls:
        print(f"stall of a writer with its command struck: p50 {statistics.median(stalls):.0f} ms")


if __name__ == "__main__":
    sys.exit(main())
