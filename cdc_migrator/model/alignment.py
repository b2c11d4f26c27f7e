"""Alignment: two snapshots, one of the source and one of the target, of the same commit point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cdc_migrator.model.tables import TableName


@dataclass(frozen=True, slots=True)
class Aligned:
    """One alignment point, for as long as the sessions live that exported its snapshots.

    Attributes:
        source_snapshot, target_snapshot: names for SET TRANSACTION SNAPSHOT on either side.
        sees: the source's ``pg_snapshot`` as text.
        at: UTC time at which the source's snapshot was taken.
    """

    source_snapshot: str
    target_snapshot: str
    sees: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Repair:
    """Rows of one table that are to be made on the target what they are on the source.

    Attributes:
        table: by the source's name.
        keys: the rows' keys as text, in the order of the table's key columns; of a keyless
            table one digest of the whole row each (see `reconcile.expressions.row_digest`).
        run: the comparison that found them.
    """

    table: TableName
    keys: tuple[tuple[str, ...], ...]
    run: int | None = None


@dataclass(frozen=True, slots=True)
class Rebuild:
    """A range of one table that is to be written anew on the target from the source.

    Attributes:
        table: by the source's name.
        id, number: which rebuild it belongs to, and its place in there, from 0.
        low, high: keys as text: rows from `low` on and below `high`; None is the open end.
    """

    table: TableName
    id: int
    number: int
    low: tuple[str, ...] | None
    high: tuple[str, ...] | None


class Aligner(Protocol):
    """Where alignment points come from. Called by one thread at a time."""

    def align(self, repairs: Sequence[Repair] = (), rebuild: Rebuild | None = None) -> Aligned:
        """Wait for a new point, at which all that has been written. Raises MigratorError."""

    def release(self) -> None:
        """The sessions that hold the point may go; harmless where there is none."""
