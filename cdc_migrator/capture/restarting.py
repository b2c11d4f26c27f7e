"""When a failed connector is started again: a few times, ever later, where its reason may pass.

Decides only. What does not pass by itself (a password, a privilege, a slot that is gone) is left to
a person, who is told the reason.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Seconds to wait before each attempt; then a person has to look.
WAITS = (5.0, 15.0, 45.0, 120.0, 300.0)
# Running for so long, it is well again, and a later failure is a new one.
WELL_SECONDS = 300.0

_PASSES = re.compile(
    r"connection to .* refused|connection attempt failed|connection reset|broken pipe|"
    r"i/o error|timed? ?out|unknownhost|no route to host|eof|"
    # How pgjdbc speaks of a connection that had ended before this call; which of its two words for
    # a cut one comes is a matter of microseconds.
    r"(connection|stream|statement) (has been|is) closed|"
    r"terminating connection|the database system is (starting up|shutting down|in recovery)|"
    r"too many (clients|connections)|remaining connection slots|"
    r"database connection failed|could not obtain|unable to obtain|"
    r"is active for pid|all replication slots are in use|"
    r"disconnect|not.?leader|notenoughreplicas|network ?exception|coordinator|"
    r"producer ?fenced|invalid ?producer ?epoch|transaction.*(abort|timed)",
    re.IGNORECASE,
)
_LASTS = re.compile(
    r"password authentication|authentication failed|permission denied|no pg_hba\.conf entry|"
    r"must be superuser or replication|does not exist|no longer available|can no longer|"
    r"invalidat|outofmemory|insufficient privilege|must have the REPLICATION|"
    r"recordtoolarge|when serialized which is larger",
    re.IGNORECASE,
)


def passes(trace: str) -> bool:
    """Whether the reason of a failure may be gone at the next attempt."""
    return _LASTS.search(trace) is None and _PASSES.search(trace) is not None


@dataclass(slots=True)
class Restarts:
    """The attempts so far at one connector; times are a monotonic clock's seconds."""

    attempts: int = 0
    due: float | None = None
    running_since: float | None = None

    def runs(self, now: float) -> None:
        """The connector is seen running."""
        self.due = None
        if self.running_since is None:
            self.running_since = now
        if now - self.running_since >= WELL_SECONDS:
            self.attempts = 0

    def failed(self, now: float, trace: str) -> bool:
        """The connector is seen failed: whether it is to be started again now."""
        self.running_since = None
        if self.attempts >= len(WAITS) or not passes(trace):
            self.due = None
            return False
        if self.due is None:
            self.due = now + WAITS[self.attempts]
        if now < self.due:
            return False
        self.due = None
        self.attempts += 1
        return True
