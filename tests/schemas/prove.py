"""`make prove-schemas`: take real schemas from one server to another, and keep account.

Each schema goes to ``proofs/schemas.jsonl``: where it comes from, how much is in it, what the diff,
the dumps and the rows said afterwards, and how long each step took. One that does not arrive alike
ends the run with 1 when all have been tried. A package whose client is not on this machine is told
and left out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cdc_migrator.errors import MigratorError
from cdc_migrator.stack.local import StackInfo
from tests.schemas.sources import PACKAGED, RealSchema, given
from tests.schemas.trip import Trip, trip
from tests.support.results import Results
from tests.support.stack import running_stack

RESULTS = Results(Path("proofs/schemas.jsonl"))


def main() -> int:
    """Prove every schema that can be had; 0 if all arrived alike."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, help="schemas of yours: name.sql or name/*.sql")
    parser.add_argument("--only", nargs="*", help="names of the schemas to take")
    arguments = parser.parse_args()
    fine = True
    with tempfile.TemporaryDirectory(prefix="cdcm-prove-") as base:
        Path(base).chmod(0o755)
        with running_stack(Path(base)) as stack:
            for schema in _schemas(arguments.directory, arguments.only):
                fine &= prove(stack, schema)
    return 0 if fine else 1


def prove(stack: StackInfo, schema: RealSchema) -> bool:
    """One schema from the source's server to the target's."""
    with trip(schema, stack.source_dsn, stack.target_dsn) as way:
        objects, outcome = way.objects(), _outcome(way)
        line = {
            "schema": schema.name,
            "origin": schema.origin,
            "licence": schema.licence,
            "outcome": outcome,
            "tables": len(way.tables),
            "filled": way.filled,
            "objects": dict(objects),
            "refused_by_source": way.refused,
            "seconds": way.seconds,
        }
    RESULTS.append(line)
    size = f"{len(way.tables):5} tables {objects.total():6} objects"
    print(f"{schema.name:24} {size}  {outcome}", flush=True)
    return outcome == "alike"


def _outcome(way: Trip) -> str:
    try:
        way.go()
        for what, found in (
            ("diff", way.differences()),
            ("dump", way.dumps_unlike()),
            ("rows", way.rows_unlike()),
        ):
            if found:
                return f"{what}: {len(found)}, such as {found[0][:300]}"
    except MigratorError as error:
        return str(error)[:300]
    if way.schema.refused not in (None, way.refused):
        return f"the source refused {way.refused} statements"
    return "alike"


def _schemas(directory: Path | None, only: list[str] | None) -> Iterator[RealSchema]:
    for name, make in PACKAGED.items():
        if only is None or name in only:
            try:
                yield make()
            except (OSError, subprocess.CalledProcessError) as error:
                print(f"{name:24} not to be had here: {type(error).__name__}", flush=True)
    if directory is not None:
        yield from (one for one in given(directory) if only is None or one.name in only)


if __name__ == "__main__":
    sys.exit(main())
