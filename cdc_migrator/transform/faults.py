"""What is wrong with a mapping: collected, so that all of it is told at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cdc_migrator.errors import ConfigurationError, MigratorError, Refused

# What no change of migration.yaml alone mends: something on a server has to change, or may.
_REFUSED = frozenset({"CDCM-MAPPING-IDENTITY", "CDCM-MAPPING-TYPE", "CDCM-MAPPING-UNLIKE"})


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: its code, where it stands in migration.yaml, why, what helps."""

    code: str
    where: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


def refusal(faults: Sequence[Fault]) -> MigratorError:
    """The one error that tells them all, under the first one's code."""
    first = faults[0]
    if len(faults) == 1:
        cause = str(first)
    else:
        lines = [str(one) if one.code == first.code else f"{one.code}: {one}" for one in faults]
        cause = "\n  ".join([f"{len(faults)} faults", *lines])
    kind = Refused if all(one.code in _REFUSED for one in faults) else ConfigurationError
    return kind(first.code, cause, " ".join(dict.fromkeys(one.remedy for one in faults)))
