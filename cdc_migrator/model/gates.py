"""Gates: the questions that stand between a migration and leaving its source, and their answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """The answer of one gate. UNKNOWN is never ready: nobody could look, or nobody has lately."""

    PASS = "pass"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Gate:
    """One question's answer.

    Attributes:
        reason: one sentence without row values: why the verdict is what it is, also where it is
            "pass".
        evidence: the numbers and names that it rests on, fit for JSON.
        remedy: what to do; None where there is nothing to do.
    """

    name: str
    verdict: Verdict
    reason: str
    evidence: dict[str, Any]
    remedy: str | None = None

    @property
    def passed(self) -> bool:
        return self.verdict is Verdict.PASS

    def as_dict(self) -> dict[str, Any]:
        """The machine-readable form."""
        return {
            "name": self.name,
            "verdict": str(self.verdict),
            "reason": self.reason,
            "evidence": self.evidence,
            "remedy": self.remedy,
        }


def passes(name: str, reason: str, **evidence: Any) -> Gate:
    """Nothing stands against it here."""
    return Gate(name, Verdict.PASS, reason, evidence)


def fails(name: str, reason: str, remedy: str, **evidence: Any) -> Gate:
    """This stands against it."""
    return Gate(name, Verdict.FAIL, reason, evidence, remedy)


def unknown(name: str, reason: str, remedy: str | None = None, **evidence: Any) -> Gate:
    """It is not known, so it counts as standing against it."""
    return Gate(name, Verdict.UNKNOWN, reason, evidence, remedy)


def ready(gates: Iterable[Gate]) -> bool:
    """Whether every gate is passed."""
    return all(gate.passed for gate in gates)


def reasons(gates: Iterable[Gate]) -> list[str]:
    """Why not, in the gates' order; what several do not know for one reason is told once."""
    return list(dict.fromkeys(gate.reason for gate in gates if not gate.passed))
