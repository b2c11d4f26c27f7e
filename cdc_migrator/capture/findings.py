"""What a finding of the preflight is. What is found, and when, is decided in `checks`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cdc_migrator.errors import Failed, MigratorError


class Severity(StrEnum):
    """REFUSE: the migration cannot be exact. WARN: it can, but somebody should know.

    INFO: how something is done that leaves a trace on the source, or what is to be expected.
    """

    REFUSE = "refuse"
    WARN = "warn"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of the set-up: what it is about, why it matters, what to do.

    `passing`: it may be gone by itself at the next look, such as a server that does not answer.
    `accepted`: the user's reason for going on all the same.
    """

    code: str
    severity: Severity
    object: str
    cause: str
    remedy: str
    passing: bool = False
    accepted: str | None = None

    def as_dict(self) -> dict[str, str | None]:
        """The machine-readable form."""
        return {
            "code": self.code,
            "severity": self.severity.value,
            "object": self.object,
            "cause": self.cause,
            "remedy": self.remedy,
            "accepted": self.accepted,
        }


def from_error(error: MigratorError, what: str) -> Finding:
    """A finding of an error that kept something from being looked at."""
    passing = isinstance(error, Failed)
    return Finding(error.code, Severity.REFUSE, what, error.cause, error.remedy, passing)


def refuse(code: str, what: str, cause: str, remedy: str) -> Finding:
    """A finding that stands against the migration."""
    return Finding(code, Severity.REFUSE, what, cause, remedy)


def warn(code: str, what: str, cause: str, remedy: str) -> Finding:
    """A finding that somebody should know of."""
    return Finding(code, Severity.WARN, what, cause, remedy)


def inform(code: str, what: str, cause: str, remedy: str) -> Finding:
    """A finding that says what will be done, or is to be expected."""
    return Finding(code, Severity.INFO, what, cause, remedy)
