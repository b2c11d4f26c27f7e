"""`make prove-fence`: raise and lift the source's fence under writers; keep account over all runs.

Each round goes to ``proofs/fence.jsonl``. A change of a row between a fence and its lifting, as
the topic has them, ends the run with 1.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psycopg

from tests.faults import fencing
from tests.integration.capture_rig import Rig
from tests.support.results import Results
from tests.support.stack import fresh_database, running_stack

RESULTS = Results(Path("proofs/fence.jsonl"))
_AT_ONCE = 100


def main() -> int:
    """Prove for as long as told; 0 if nothing changed behind a fence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="begin no round after these")
    arguments = parser.parse_args()
    fine = True
    deadline = time.monotonic() + arguments.minutes * 60
    with tempfile.TemporaryDirectory(prefix="cdcm-prove-") as base:
        Path(base).chmod(0o755)
        with running_stack(Path(base)) as stack:
            while fine and time.monotonic() < deadline:
                with (
                    fresh_database(stack.source_dsn) as source,
                    fresh_database(stack.target_dsn) as target,
                    fencing.bank(source) as role,
                ):
                    rig = Rig(stack, source, target, Path(base) / "state")
                    fine = one_round(rig, role)
    tell()
    return 0 if fine else 1


def one_round(rig: Rig, role: str) -> bool:
    """Some fences on a migration of their own; whether all of them held."""
    seed = len(RESULTS.stored())
    with psycopg.connect(rig.target, autocommit=True) as conn:
        conn.execute(fencing.TARGET.encode())
    rig.start(tables=["bank.*"])
    try:
        with fencing.Writers(rig.source, role, seed) as writers:
            done = fencing.fence_often(
                rig.source, rig.names.migration, _AT_ONCE, pause=0.05, seed=seed
            )
        fences, changes, behind = fencing.changes_behind_fences(
            rig.stack.bootstrap_servers, rig.names.topic, rig.source, rig.names.migration
        )
    finally:
        rig.abort()
    held = statistics.quantiles(done.held, n=100)
    RESULTS.append(
        {
            "seed": seed,
            "fences": fences,
            "behind": behind,
            "changes": changes,
            "committed": dict(writers.committed),
            "refused": dict(writers.refused),
            "obstacles": dict(done.refusals),
            "held_ms_p50": round(held[49], 1),
            "held_ms_p99": round(held[98], 1),
            "tries_max": max(done.tries),
        }
    )
    print(
        f"seed {seed}: {fences} fences, {changes} changes, {behind} of them behind a fence; held "
        f"p50 {held[49]:.1f} ms, p99 {held[98]:.1f} ms; up to {max(done.tries)} tries; "
        f"{sum(writers.refused.values())} writes refused",
        flush=True,
    )
    return fences == _AT_ONCE and behind == 0


def tell() -> None:
    """What all runs together have shown."""
    lines = RESULTS.stored()
    total = {name: sum(line[name] for line in lines) for name in ("fences", "changes", "behind")}
    print(
        f"\n{RESULTS}: {total['fences']} fences in {len(lines)} rounds, {total['changes']} changes "
        f"of rows, {total['behind']} of them behind a fence"
    )


if __name__ == "__main__":
    sys.exit(main())
