"""A number that was measured, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found. `evidence`: what it rests on, fit for the journal.

    Attributes:
        number: None: it is not known, for the reason `why`.
    """

    number: float | None
    why: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


def unknown(why: str, **evidence: Any) -> Measured:
    """No number, and why."""
    return Measured(None, why, evidence)


class Number(Protocol):
    """One number that can be measured again and again, by one thread at a time."""

    def take(self) -> Measured:
        """Measure now, within a time limit of its own. Never raises for what goes wrong there."""

    def close(self) -> None:
        """Close what it keeps open; a measurement under way in another thread ends soon."""
