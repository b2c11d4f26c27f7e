"""`make prove-load`: kill loads for some minutes, and keep account over all runs.

Each load goes to ``proofs/load.jsonl``: seed, the faults that struck, outcome. A load that does
not end equal ends the run with 1; its seed is then to become a test.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from cdc_migrator.stack.local import StackInfo
from tests.faults.load_kills import FAULTS, LoadKills
from tests.integration.capture_rig import Rig
from tests.support.results import Results
from tests.support.stack import fresh_database, running_stack

RESULTS = Results(Path("proofs/load.jsonl"))
_PER_LOAD = 4


def main() -> int:
    """Prove for as long as told; 0 if every load ended equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=17.0, help="begin no load after these")
    deadline = time.monotonic() + parser.parse_args().minutes * 60
    fine = True
    with tempfile.TemporaryDirectory(prefix="cdcm-prove-") as base:
        Path(base).chmod(0o755)
        with running_stack(Path(base)) as stack:
            while fine and time.monotonic() < deadline:
                fine = prove(stack, Path(base))
    tell()
    return 0 if fine else 1


def prove(stack: StackInfo, base: Path) -> bool:
    """One load, struck by the faults that were had least."""
    lines = RESULTS.stored()
    counts = Counter(fault for line in lines for fault in line["struck"])
    seed = len(lines)
    # Turned by the seed, so that they come in another order each time.
    turned = FAULTS[seed % len(FAULTS) :] + FAULTS[: seed % len(FAULTS)]
    faults = sorted(turned, key=lambda fault: counts[fault])[:_PER_LOAD]
    struck: list[str] = []
    outcome = "equal"
    with fresh_database(stack.source_dsn) as source, fresh_database(stack.target_dsn) as target:
        rig = Rig(stack, source, target, base / f"state{seed}")
        try:
            struck = LoadKills(rig, stack.state_dir, seed).run(faults)
        except AssertionError as error:
            outcome = f"{type(error).__name__}: {error}"
        finally:
            rig.abort()
    RESULTS.append({"seed": seed, "faults": faults, "struck": struck, "outcome": outcome})
    print(f"seed {seed:3}  {outcome}: {', '.join(struck)}", flush=True)
    return outcome == "equal"


def tell() -> None:
    """How often each fault struck, over all runs, and how the loads ended."""
    lines = RESULTS.stored()
    counts = Counter(fault for line in lines for fault in line["struck"])
    equal = sum(line["outcome"] == "equal" for line in lines)
    print(f"\n{RESULTS}: {len(lines)} loads, {sum(counts.values())} kills, {equal} loads equal")
    for fault in FAULTS:
        print(f"  {fault:28} {counts[fault]:4}")


if __name__ == "__main__":
    sys.exit(main())
