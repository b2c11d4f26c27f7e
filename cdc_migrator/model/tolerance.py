"""How much may be otherwise: a number, or a share of a whole."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Attributes: amount: rows, or units of what is compared; with `percent` of the whole."""

    amount: Decimal = Decimal(0)
    percent: bool = False

    @classmethod
    def parse(cls, value: Any) -> Tolerance:
        """A number, or text such as ``12`` or ``0.1%``. Raises ValueError for anything else."""
        if isinstance(value, Tolerance):
            return value
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", str(value))
        if match is None or isinstance(value, bool):
            raise ValueError("must be a number, or a percentage such as 0.1%")
        return cls(Decimal(match[1]), bool(match[2]))

    def of(self, whole: Decimal | int) -> Decimal:
        """How much that is of `whole`."""
        return abs(Decimal(whole)) * self.amount / 100 if self.percent else self.amount

    def __str__(self) -> str:
        return f"{self.amount:f}{'%' if self.percent else ''}"


NONE = Tolerance()
