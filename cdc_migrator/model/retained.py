"""How much write-ahead log the source may keep for the slot, and what is done beyond that."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class RetainedAction(StrEnum):
    """What is done when the source keeps more log for the slot than it may."""

    ALERT = "alert"
    DROP_SLOT = "drop-slot"


@dataclass(frozen=True, slots=True)
class Retained:
    """How much log the source may keep for the slot.

    Attributes:
        warn, limit: bytes; None: no such threshold.
        action: beyond `limit`. confirmed: the slot that may be dropped, by its name.
    """

    warn: int | None = None
    limit: int | None = None
    action: RetainedAction = RetainedAction.ALERT
    confirmed: str | None = None

    def may_drop(self, slot: str) -> bool:
        """Whether this very slot is given up for the sake of the source's disk."""
        return self.action is RetainedAction.DROP_SLOT and self.confirmed == slot


UNLIMITED = Retained()
