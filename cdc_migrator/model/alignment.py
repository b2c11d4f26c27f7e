"""Both sides at one commit point, and how to ask for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Aligned:
    """Two exported snapshots that show the same.

    Attributes:
        source_snapshot, target_snapshot: names for ``SET TRANSACTION SNAPSHOT`` on either side.
        sees: the source's ``pg_snapshot`` as text.
        at: when it was taken (UTC).
    """

    source_snapshot: str
    target_snapshot: str
    sees: str
    at: datetime
