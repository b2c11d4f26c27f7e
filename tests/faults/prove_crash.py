"""`make prove-crash`: strike the applier for some minutes, and keep account over all runs.

Each fault goes to ``proofs/crash.jsonl`` once both sides were compared: after every ten faults,
because nothing mends a difference. Between comparisons the reader's invariants hold. What deviates
ends the run with 1; the seeds of the faults since the last comparison tell how it came about.
"""

from __future__ import annotations

import argparse
import random
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from cdc_migrator.stack.local import StackInfo
from tests.faults.crash import CUTS, FAULTS, RESTARTS, STOP, Crash, Fault, Strike
from tests.support.results import Results
from tests.support.stack import fresh_database, running_stack

RESULTS = Results(Path("proofs/crash.jsonl"))
TOGETHER = 10
WANTED = 5
# These choose one of many places each time, or a moment.
_WEIGHTS = {STOP: 3, RESTARTS[0]: 3, RESTARTS[1]: 2, CUTS[4]: 2, CUTS[5]: 2}


def main() -> int:
    """Prove for as long as told; 0 if nothing deviated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=17.0, help="begin no fault after these")
    deadline = time.monotonic() + parser.parse_args().minutes * 60
    with tempfile.TemporaryDirectory(prefix="cdcm-prove-") as base:
        Path(base).chmod(0o755)
        with running_stack(Path(base)) as stack:
            fine = prove(stack, Path(base), deadline)
    tell()
    return 0 if fine else 1


def prove(stack: StackInfo, base: Path, deadline: float) -> bool:
    """Strike until the time is up; whether nothing deviated."""
    name = f"crash_{secrets.token_hex(3)}"
    first_seed = len(RESULTS.stored())
    with (
        fresh_database(stack.source_dsn) as source,
        fresh_database(stack.target_dsn) as target,
        Crash(base / name, name, source, target, stack, first_seed) as crash,
    ):
        while time.monotonic() < deadline:
            if not strike_and_compare(crash, deadline):
                return False
    return True


def strike_and_compare(crash: Crash, deadline: float) -> bool:
    """Some faults, then a comparison; whether all is as it must be."""
    struck: list[Strike] = []
    found: list[str] = []
    states, committed = crash.reader.states, crash.bank.committed
    before = RESULTS.stored()
    counts = Counter((line["kind"], line["what"]) for line in before)
    try:
        while len(struck) < TOGETHER and time.monotonic() < deadline:
            fault, seed = least_struck(counts, len(before)), len(before) + len(struck)
            try:
                done = crash.strike(fault, seed)
            except (AssertionError, subprocess.TimeoutExpired):
                struck.append(Strike(fault.kind, fault.what, seed, fault.what, 0, False, 0.0))
                raise
            counts.update((strike.kind, strike.what) for strike in done)
            struck += done
            for strike in done:
                print(f"seed {strike.seed:4}  {strike.kind:8} {strike.place}", flush=True)
        found = crash.settle()
    except (AssertionError, subprocess.TimeoutExpired) as deviation:
        # Also a stream that does not go on within the time that it has.
        found = [str(deviation)]
    outcome = "; ".join(found[:5]) or "equal"
    store(
        struck,
        outcome=outcome,
        states_seen=crash.reader.states - states,
        transactions=crash.bank.committed - committed,
    )
    if found:
        print(f"seed {len(before) + len(struck)}: {outcome}", file=sys.stderr)
    return not found


def least_struck(counts: Counter[tuple[str, str]], seed: int) -> Fault:
    """The fault with the fewest strikes for its weight; which of several is the seed's choice."""
    chance = random.Random(f"{seed} {counts.total()}")
    faults = chance.sample(FAULTS, len(FAULTS))
    return min(faults, key=lambda fault: counts[fault.kind, fault.what] / _WEIGHTS.get(fault, 1))


def store(struck: list[Strike], **group: object) -> None:
    """One line a fault; what was found is of all that were compared together."""
    RESULTS.append(*(one.as_dict() | {"compared_together": len(struck)} | group for one in struck))
    print(f"{len(struck)} faults compared: {group['outcome']}", flush=True)


def tell() -> None:
    """How often each fault struck, over all runs, and how it ended."""
    lines = RESULTS.stored()
    inside = sum(line["inside"] for line in lines)
    print(f"\n{RESULTS}: {len(lines)} faults so far, {inside} amid an open apply transaction")
    for fault in FAULTS:
        of_fault = [
            line for line in lines if (line["kind"], line["what"]) == (fault.kind, fault.what)
        ]
        outcomes = Counter(line["outcome"] for line in of_fault)
        told = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
        few = "" if len(of_fault) >= WANTED else f"  (fewer than {WANTED})"
        print(f"  {fault.kind:8} {fault.what:32} {told or 'none'}{few}")
    known = {(fault.kind, fault.what) for fault in FAULTS}
    gone = sum((line["kind"], line["what"]) not in known for line in lines)
    if gone:
        print(f"  and {gone} at places that there are no longer")


if __name__ == "__main__":
    sys.exit(main())
