"""In what the rows of a table differ between source and target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from cdc_migrator.model.tables import TableName

DIGEST = "row digest"  # stands for the key of a row of a keyless table


class DifferenceKind(StrEnum):
    """What is wrong on the target."""

    MISSING = "missing_in_target"
    EXTRA = "extra_in_target"
    DIFFERENT = "different"


class DifferenceState(StrEnum):
    """What became of a difference.

    OPEN: it was there when it was last looked at. REPAIRED: written anew, and seen equal.
    ACCEPTED: a person said so. GONE: a later comparison no longer found it.
    """

    OPEN = "open"
    REPAIRED = "repaired"
    ACCEPTED = "accepted"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class RowDifference:
    """One row that is not the same on both sides.

    Attributes:
        table: by the source's name.
        key: the text of each key column; of a keyless table `DIGEST` and the row's digest.
        columns: where the row is different: in which columns.
        source_count, target_count: how many rows of this key, or of this content, there are.
        values: only on request: the column's text on the source and on the target.
    """

    table: TableName
    kind: DifferenceKind
    key: Mapping[str, str]
    columns: tuple[str, ...] = ()
    source_count: int = 1
    target_count: int = 1
    values: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)
