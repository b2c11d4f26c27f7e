"""The command line with small pieces: ``python -m tests.faults.small reconcile ...``.

A test's tables are small; cut like this they have as many chunks and ranges as large ones have.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cdc_migrator.cli.main import main
from cdc_migrator.reconcile.chunks import Sizes
from cdc_migrator.service import rebuild, reconcile

SIZES = Sizes(chunk_rows=50, unit_rows=200, range_chunks=4, piece_blocks=8)
RANGE_ROWS = 1_000


def cut_small() -> None:
    """Have both commands cut tables like this."""
    compare, write = reconcile.run, rebuild.run

    def comparing(options: Any, *rest: Any) -> Any:
        return compare(replace(options, work=replace(options.work, sizes=SIZES)), *rest)

    def writing(options: Any, how: Any, *rest: Any) -> Any:
        return write(options, replace(how, range_rows=RANGE_ROWS), *rest)

    reconcile.run, rebuild.run = comparing, writing


if __name__ == "__main__":
    cut_small()
    main()
