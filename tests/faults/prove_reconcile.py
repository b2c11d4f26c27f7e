"""`make prove-reconcile`: compare, corrupt and repair for some minutes; keep account over all runs.

With ``--kills`` whoever does that is killed again and again, and goes on.

Each comparison goes to ``proofs/reconcile.jsonl``. A corruption that is missed, a false alarm or a
side that is not equal in the end ends the run with 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from tests.faults import alignment
from tests.faults.reconcile_kills import FAULTS, Kills
from tests.faults.reconciling import Reconciling
from tests.support.results import Results
from tests.support.stack import fresh_database, running_stack

RESULTS = Results(Path("proofs/reconcile.jsonl"))
_CORRUPTED = 14
_ALIGNED = 200


def main() -> int:
    """Prove for as long as told; 0 if nothing was missed or invented."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0, help="begin no round after these")
    parser.add_argument("--aligned", type=int, default=_ALIGNED, help="alignments measured first")
    parser.add_argument("--kills", action="store_true", help="kill and resume instead")
    arguments = parser.parse_args()
    seed = len(RESULTS.stored())
    fine = True
    with tempfile.TemporaryDirectory(prefix="cdcm-prove-") as base:
        Path(base).chmod(0o755)
        with (
            running_stack(Path(base)) as stack,
            fresh_database(stack.source_dsn) as source,
            fresh_database(stack.target_dsn) as target,
            Reconciling(Path(base) / "live", stack, source, target, seed) as work,
        ):
            deadline = time.monotonic() + arguments.minutes * 60
            if arguments.kills:
                fine = kill(work, seed, deadline)
                different = work.settle()
                RESULTS.append({"seed": seed, "kind": "end", "wrong": different})
                tell()
                return 0 if fine and not different else 1
            aligned = alignment.align_often(source, target, arguments.aligned, pause=0.02)
            print(f"seed {seed}: {aligned}", flush=True)
            fine = not aligned.false_alarms and not aligned.refused
            RESULTS.append({"seed": seed, "kind": "aligned", **aligned.summary()})
            while fine and time.monotonic() < deadline:
                done = work.rounds(_CORRUPTED)
                RESULTS.append(*({"seed": seed, **asdict(one)} for one in done))
                for one in done:
                    fine = fine and not one.wrong
                    print(
                        f"  {one.kind:9} {one.seconds:5.1f} s  planted {one.planted:2} found "
                        f"{one.found:2} overwritten {one.overwritten:2} {'; '.join(one.wrong)}",
                        flush=True,
                    )
            different = work.settle()
            RESULTS.append({"seed": seed, "kind": "end", "wrong": different})
            print(f"  in the end: {different or 'equal'}", flush=True)
            fine = fine and not different
    tell()
    return 0 if fine else 1


def kill(work: Reconciling, seed: int, deadline: float) -> bool:
    """Strike at what was struck least so far, until the time is up; whether all was well."""
    kills = Kills(work, seed)
    while time.monotonic() < deadline:
        counts = Counter(line.get("fault") for line in RESULTS.stored() if line.get("kills"))
        done = kills.strike(min(FAULTS, key=lambda fault: counts[str(fault)]))
        RESULTS.append({"seed": seed, "kind": "killed", **asdict(done)})
        print(
            f"  {done.fault:50} kills {done.kills} parts {done.parts:3} repaired "
            f"{done.repaired:2} {'; '.join(done.wrong)}",
            flush=True,
        )
        if done.wrong:
            return False
    return True


def tell() -> None:
    """What all runs together have shown."""
    lines = RESULTS.stored()
    by_kind = Counter(line["kind"] for line in lines)
    total = {
        name: sum(line.get(name, 0) for line in lines)
        for name in ("planted", "found", "overwritten")
    }
    wrong = sum(len(line.get("wrong", ())) for line in lines)
    points = [line for line in lines if line["kind"] == "aligned"]
    print(
        f"\n{RESULTS}: {by_kind['clean']} clean, {by_kind['planted']} planted, "
        f"{by_kind['repaired']} repaired comparisons in {by_kind['end']} runs; {total['planted']} "
        f"corruptions, {total['found']} found, {total['overwritten']} overwritten by the stream; "
        f"{sum(p['aligned'] for p in points)} alignments; "
        f"{sum(line.get('kills', 0) for line in lines)} kills; {wrong} wrong"
    )


if __name__ == "__main__":
    sys.exit(main())
