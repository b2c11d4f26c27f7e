"""What a table's way from one description to the next is made of, as values. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What may change."""

    COLUMN_ADDED = "column added"
    COLUMN_DROPPED = "column dropped"
    COLUMN_RENAMED = "column renamed"
    TYPE_CHANGED = "type changed"
    DEFAULT_CHANGED = "default changed"
    NULL_ALLOWED = "null allowed"
    NULL_REFUSED = "not null"
    NO_LONGER_GENERATED = "no longer generated"
    GENERATED_OTHERWISE = "generated otherwise"
    IDENTITY_CHANGED = "identity changed"
    VALUE_ADDED = "value added"
    VALUE_RENAMED = "value renamed"
    CONSTRAINT_DROPPED = "constraint dropped"
    CONSTRAINT_ADDED = "constraint added"
    TABLE_RENAMED = "table renamed"
    TABLE_DROPPED = "table dropped"
    KEY_CHANGED = "key changed"
    PARTITION_DETACHED = "partition detached"
    PARTITION_ATTACHED = "partition attached"
    BOUND_CHANGED = "partition bound changed"
    REPLICA_IDENTITY = "replica identity"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    Attributes:
        what: the column, constraint, type or table that it is about, as its name is now.
        before, after: names, types or expressions; None where there is none.
        statements: bring the target's table in line.
        needed: the stream cannot go on without it.
        safe: may be done without asking.
        reload: the rows' values differ from what the statements give.
    """

    kind: Kind
    what: str
    before: str | None
    after: str | None
    statements: tuple[str, ...] = ()
    needed: bool = True
    safe: bool = False
    reload: bool = False

    def __str__(self) -> str:
        told = f"{self.kind}: {self.what}"
        if self.before is not None and self.after is not None:
            return f"{told} ({self.before} to {self.after})"
        return told if self.after is None else f"{told} ({self.after})"


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A table was written anew, without events of its rows.

    `reason`: bits as PostgreSQL tells them. `plain`: the statement had no expression of its own.
    """

    reason: int
    plain: bool

    @property
    def of_types(self) -> bool:
        return bool(self.reason & 4)
