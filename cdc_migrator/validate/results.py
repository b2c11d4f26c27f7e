"""What came of a rule: values that every form of the result is made of. Standard library only.

A reason and a part's numbers hold no value of a row; examples do, and are there only where somebody
asked for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

Row = tuple[str | None, ...]
Side = Literal["source", "target"]


class Status(StrEnum):
    """ERROR: it could not be asked. SKIPPED: nobody looked, for a reason that is told."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one side returned: texts as the server writes them.

    Attributes:
        numeric: by column, whether its type is one of numbers.
        more: there were more rows than were fetched.
    """

    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: Sequence[Row]
    more: bool = False


@dataclass(frozen=True, slots=True)
class Example:
    """A row that breaks a rule.

    Attributes:
        side: where it was seen; None: it differs between both.
        source, target: values by column, as far as that side has the row.
    """

    key: Mapping[str, str | None]
    side: Side | None = None
    columns: tuple[str, ...] = ()
    source: Mapping[str, str | None] = field(default_factory=dict)
    target: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that a rule asks: of a column, a foreign key, a number.

    Attributes:
        source, target: what was found on either side, fit to be shown; None: not to be shown, or
            nobody asked there.
        look: a statement by which a person looks closer.
    """

    what: str
    passed: bool
    source: str | None
    target: str | None
    look: str | None = None
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class Judged:
    """`reason`: one sentence, also where it is passed."""

    status: Status
    reason: str
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one rule.

    Attributes:
        code, remedy: of what kept it from being asked.
        at: the moment of the point at which both sides were read.
    """

    name: str
    kind: str
    table: str | None
    severity: str
    told: str
    judged: Judged
    seconds: float = 0.0
    at: datetime | None = None
    code: str | None = None
    remedy: str | None = None

    @property
    def status(self) -> Status:
        return self.judged.status

    @property
    def passed(self) -> bool:
        return self.status is Status.PASSED

    @property
    def blocks(self) -> bool:
        """Whether it stands against the whole: a blocker that was not seen to be kept."""
        return self.severity == "blocker" and not self.passed
