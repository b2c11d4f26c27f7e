"""`make prove-memory`: the most memory that `run` takes, case by case, under a limit that is told.

Each run goes to ``proofs/memory.jsonl``: the case, how much of it there was, the peak of `run`'s
resident memory and of Connect's worker, in MiB, and the outcome. A peak above the limit, or a
target that does not equal the source, ends it with 1. Without a case it takes the one that was
proven least often.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
from pathlib import Path

import psycopg

from cdc_migrator.stack.local import StackInfo
from tests.memory.cases import CASES, Case
from tests.memory.scene import PATIENCE, Scene
from tests.support.live import LiveMigration
from tests.support.results import Results
from tests.support.stack import fresh_database, running_stack

RESULTS = Results(Path("proofs/memory.jsonl"))
# With the settings' defaults; docs/deployment.md tells it.
LIMIT_MIB = 512


def main() -> int:
    """Prove one case, or several; 0 if each stayed below the limit and ended equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=list(CASES))
    parser.add_argument("--events", type=int, help="row events; default: by the case")
    parser.add_argument("--limit-mib", type=int, default=LIMIT_MIB)
    options = parser.parse_args()
    fine = True
    with tempfile.TemporaryDirectory(prefix="cdcm-prove-") as base:
        Path(base).chmod(0o755)
        for name in options.cases or [_least()]:
            with running_stack(Path(base), full_jit=True) as stack:
                fine &= prove(stack, Path(base), name, options.events, options.limit_mib)
    tell()
    return 0 if fine else 1


def _least() -> str:
    stored = [line["case"] for line in RESULTS.stored()]
    return min(CASES, key=stored.count)


def prove(stack: StackInfo, base: Path, name: str, events: int | None, limit: int) -> bool:
    """One case on a migration of its own; whether it held."""
    case = CASES[name]
    began = time.monotonic()
    with fresh_database(stack.source_dsn) as source, fresh_database(stack.target_dsn) as target:
        live = LiveMigration(base / name, f"memory_{secrets.token_hex(3)}", source, target, stack)
        scene = Scene(live, events or case.events)
        try:
            _make(live, case)
            case.prove(scene)
            outcome = "equal" if scene.equal() else "differs"
        except AssertionError as error:
            outcome = f"AssertionError: {error}"
        finally:
            worker = scene.worker_mib()
            live.close()
    peak = max(scene.peaks.values(), default=0)
    held = outcome == "equal" and 0 < peak <= limit
    RESULTS.append(
        {
            "case": name,
            "events": scene.events,
            "limit_mib": limit,
            **{f"{one}_mib": value for one, value in scene.peaks.items()},
            "worker_mib": worker,
            **scene.told,
            "seconds": round(time.monotonic() - began),
            "outcome": outcome,
        }
    )
    print(f"{name:12} {peak:5} MiB of {limit} MiB  {outcome}", flush=True)
    return held


def _make(live: LiveMigration, case: Case) -> None:
    with psycopg.connect(live.source, autocommit=True) as conn:
        conn.execute("CREATE SCHEMA memory")
        for statement in case.made.split(";\n"):
            conn.execute(statement.encode())
        conn.execute("VACUUM ANALYZE")
    migrating = live.start("migrate", "--no-run", log="migrate.log")
    assert migrating.wait(PATIENCE) == 0, live.log("migrate.log")[-2000:]


def tell() -> None:
    """Each case's highest peak over all runs that ended equal."""
    lines = [line for line in RESULTS.stored() if line["outcome"] == "equal"]
    print(f"\n{RESULTS}: {len(lines)} runs that ended equal")
    for name, case in CASES.items():
        peaks = [
            value
            for line in lines
            for key, value in line.items()
            if line["case"] == name and key.startswith("peak") and key.endswith("_mib")
        ]
        print(f"  {name:12} {max(peaks, default=0):5} MiB  {case.told}")


if __name__ == "__main__":
    sys.exit(main())
