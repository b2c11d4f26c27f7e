"""What a sample has of one table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TableSample:
    """One table: the load's state, and the changes that the stream has applied to it.

    Attributes:
        source: the name that the migration has for it.
        joining: how far it is, while it is added to a stream that runs (`control.load.Joining`).
        shaped_from: the source's table whose rows come to `target` in another shape; None: they
            stay what they are.
    """

    source: str
    target: str
    load_state: str
    estimated_rows: int
    rows_loaded: int
    bytes_loaded: int
    inserts: int
    updates: int
    deletes: int
    truncates: int
    truncates_ignored: int = 0
    joining: str | None = None
    shaped_from: str | None = None

    @property
    def events_applied(self) -> int:
        return self.inserts + self.updates + self.deletes + self.truncates
