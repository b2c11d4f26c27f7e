"""What a pass is told, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass, field

from cdc_migrator.model.differences import RowDifference
from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile.chunks import Sizes

BEHIND_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class PassOptions:
    """How a pass goes about it.

    Attributes:
        workers: sessions on either side.
        share: of the time in which a worker keeps the servers busy, above 0 up to 1.
        max_lag: seconds. While whoever applies the stream is further behind, all workers' shares
            together are at most `BEHIND_SHARE`: it has to catch up.
        seconds: after which the pass stops, to be resumed; None: when it is through.
        max_age: seconds for which one alignment point is used.
        most: differences of one table that are named.
        values: whether differences carry the values.
    """

    workers: int = 2
    share: float = 1.0
    max_lag: float = 5.0
    seconds: float | None = None
    max_age: float = 570.0
    most: int = 10_000
    values: bool = False
    sizes: Sizes = field(default_factory=Sizes)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pass is: rows as far as they were estimated."""

    tables: int
    tables_done: int
    rows: int
    rows_done: int
    differences: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a pass.

    Attributes:
        finished: False: it was stopped before it was through.
        unproven: tables that could not be read, and why.
        values: with `PassOptions.values`: the differences with their values, of this process.
    """

    finished: bool
    unproven: dict[TableName, str]
    values: list[RowDifference]
