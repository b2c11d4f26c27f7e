"""`make prove-mapping`: kill migrations whose tables change their shape, and keep account.

Two kinds of lives take turns: one between two databases, whose load and stream are struck; one
inside a database, whose cutovers are struck at each of their steps. Each goes to
``proofs/mapping.jsonl``: seed, the faults that struck, commits, outcome. A target that does not
hold what plain SQL makes of the source, or a lost or doubled commit, makes the run end with 1; its
seed is then to become a test.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cdc_migrator.stack.local import StackInfo
from tests.faults import mapped_shop, within
from tests.faults.cutover_kills import end_of
from tests.faults.mapping_kills import LOAD, STREAM, MappedLife
from tests.faults.within_kills import FAULTS, WithinStrikes
from tests.support.live import LiveMigration
from tests.support.results import Results
from tests.support.stack import fresh_database, running_stack

RESULTS = Results(Path("proofs/mapping.jsonl"))
CUTOVER = tuple(dict.fromkeys(map(str, FAULTS)))
KINDS = {"between": (*LOAD, *STREAM), "within": CUTOVER}
_LOADS, _STREAMS = 3, 8  # faults of a life between two databases, at most


def main() -> int:
    """Prove for as long as told; 0 if every life ended as it must."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=17.0, help="begin no life after these")
    parser.add_argument("--kind", choices=KINDS, help="only such lives")
    parser.add_argument("--seed", type=int, help="of the first life; default: the next one")
    arguments = parser.parse_args()
    until = time.monotonic() + arguments.minutes * 60
    seed = arguments.seed if arguments.seed is not None else len(RESULTS.stored())
    fine = True
    with tempfile.TemporaryDirectory(prefix="cdcm-prove-") as base:
        Path(base).chmod(0o755)
        with running_stack(Path(base)) as stack:
            while fine and time.monotonic() < until:
                kind = arguments.kind or list(KINDS)[seed % len(KINDS)]
                line = (between if kind == "between" else inside)(stack, Path(base), seed, until)
                fine = told({"seed": seed, "kind": kind, **line})
                seed += 1
    tell()
    return 0 if fine else 1


def between(stack: StackInfo, base: Path, seed: int, until: float) -> dict[str, Any]:
    """A life between two databases; what of it is kept."""
    load, stream = chosen(LOAD, seed)[:_LOADS], chosen(STREAM, seed)[:_STREAMS]
    with fresh_database(stack.source_dsn) as source, fresh_database(stack.target_dsn) as target:
        directory = base / f"life{seed}"
        settings = mapped_shop.SETTINGS
        live = LiveMigration(directory, f"map{seed}", source, target, stack, settings)
        life = MappedLife(live, base / "stack", seed)
        outcome = "equal"
        try:
            life.run(load, stream, until)
        except AssertionError as error:
            outcome = str(error)[-2000:]
        finally:
            live.close()
    return {
        "tried": life.tried,
        "struck": life.struck,
        "commits": life.commits,
        "outcome": outcome,
    }


def inside(stack: StackInfo, base: Path, seed: int, until: float) -> dict[str, Any]:
    """A life inside one database; what of it is kept."""
    first = chosen(CUTOVER, seed)
    faults = sorted(FAULTS, key=lambda fault: first.index(str(fault)))
    with fresh_database(stack.source_dsn) as database:
        live = within.made(base / f"life{seed}", f"map{seed}", database, stack)
        try:
            life = WithinStrikes(live, base / "stack", seed).live_to_the_end(faults, until)
        finally:
            end_of(live)
    struck = [name for name, _ in life.faults]
    return {
        "tried": struck,
        "struck": struck,
        "ended": [state for _, state in life.faults],
        "commits": life.commits,
        "outcome": "; ".join(life.wrong) or "equal",
    }


def chosen(among: Sequence[str], seed: int) -> list[str]:
    """All faults, those first that were had least, in an order of chance."""
    lines = RESULTS.stored()
    tried = Counter(name for line in lines for name in line["tried"])
    struck = Counter(name for line in lines for name in line["struck"])
    faults = list(among)
    random.Random(seed).shuffle(faults)
    # Those that were tried in vain cost time: to some places nothing ever comes.
    return sorted(faults, key=lambda one: 3 * tried[one] - 2 * struck[one])


def told(line: dict[str, Any]) -> bool:
    """Store and print one life; whether it ended as it must."""
    RESULTS.append(line)
    print(f"seed {line['seed']} {line['kind']}: {', '.join(line['struck'])}", flush=True)
    print(f"seed {line['seed']}: {line['commits']} commits, {line['outcome']}", flush=True)
    return bool(line["outcome"] == "equal")


def tell() -> None:
    """How often each fault struck, over all runs, and how the lives ended."""
    lines = RESULTS.stored()
    had = Counter(name for line in lines for name in line["struck"])
    for kind, faults in KINDS.items():
        lives = [line for line in lines if line["kind"] == kind]
        struck = sum(had[one] for one in faults)
        print(
            f"\n{RESULTS}: {kind}: {len(lives)} lives, {struck} faults struck, "
            f"{sum(had[one] > 0 for one in faults)} of {len(faults)} kinds of them, "
            f"{sum(line['commits'] for line in lives)} commits, "
            f"{sum(line['outcome'] == 'equal' for line in lives)} lives equal"
        )


if __name__ == "__main__":
    sys.exit(main())
