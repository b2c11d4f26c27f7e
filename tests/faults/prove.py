"""`make prove-resume`: kill and resume for some minutes, and keep account over all runs.

Each round goes to ``proofs/resume.jsonl``: seed, fault, what was open, outcome. A round that
ends neither equal nor in an allowed halt ends the run with 1; its seed is then to become a test.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from cdc_migrator.stack.local import StackInfo
from tests.faults.resume import FAULTS, Resume, Round
from tests.support.live import LiveMigration
from tests.support.results import Results
from tests.support.stack import fresh_database, running_stack

RESULTS = Results(Path("proofs/resume.jsonl"))
# Mass key changes, in every other round, make it likely that a dying connector loses an event.
_FEW_KEYS, _MANY_KEYS = 500, 3


def main() -> int:
    """Prove for as long as told; 0 if every round ended as it may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=17.0, help="begin no round after these")
    minutes = parser.parse_args().minutes
    deadline = time.monotonic() + minutes * 60
    with tempfile.TemporaryDirectory(prefix="cdcm-prove-") as base:
        Path(base).chmod(0o755)
        with running_stack(Path(base)) as stack:
            fine = True
            while fine and time.monotonic() < deadline:
                fine = prove(stack, Path(base), deadline)
    tell()
    return 0 if fine else 1


def prove(stack: StackInfo, base: Path, deadline: float) -> bool:
    """Rounds on one migration until the time is up or it has halted; whether all was allowed."""
    name = f"prove_{secrets.token_hex(3)}"
    with fresh_database(stack.source_dsn) as source, fresh_database(stack.target_dsn) as target:
        migration = LiveMigration(
            base / name, name, source, target, stack, {"tables": {"include": ["shop.*"]}}
        )
        resume = Resume(migration, stack.state_dir)
        try:
            resume.begin()
            while time.monotonic() < deadline:
                counts = Counter(line["fault"] for line in RESULTS.stored())
                fault = min(FAULTS, key=lambda fault: counts[fault])
                seed = len(RESULTS.stored())
                done = resume.round(fault, seed, _MANY_KEYS if seed % 2 else _FEW_KEYS)
                store(done)
                if done.outcome != "equal":
                    return done.allowed
        finally:
            migration.close()
    return True


def store(done: Round) -> None:
    RESULTS.append(done.as_dict())
    print(f"{done.fault:10} seed {done.seed:4}  {done.outcome}", flush=True)


def tell() -> None:
    """How often each fault ran, over all runs, and how it ended."""
    lines = RESULTS.stored()
    print(f"\n{RESULTS}: {len(lines)} rounds so far")
    for fault in FAULTS:
        of_fault = [line for line in lines if line["fault"] == fault]
        outcomes = Counter(line["outcome"] for line in of_fault)
        hits = sum(line["hit"] for line in of_fault)
        told = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
        print(f"  {fault:10} {len(of_fault):3} rounds, {hits} amid an open transaction: {told}")


if __name__ == "__main__":
    sys.exit(main())
