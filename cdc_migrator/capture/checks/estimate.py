"""How long the load will take, how much room it needs, and whether the log is kept so long.

Every number names its basis; what could not be measured is unknown, and said to be.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from cdc_migrator.capture.findings import Finding, inform, refuse, warn
from cdc_migrator.model.wording import amount, lasting

# Below, everything is over before a number could help.
WORTH_SAYING = 16 << 20
# A second says something about a rate of writing, less does not.
LEAST_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Stated:
    """What the user says, and by what the measured numbers are judged.

    Attributes:
        measure: seconds for which the source's log is watched, at least; what the check takes
            by itself counts.
        free_bytes: on the target's disk; None: not said.
        max_bytes_per_second: to which the load is held.
        min_runway: seconds for which the log must be kept at the present rate of writing.
    """

    measure: float = 0.0
    free_bytes: int | None = None
    max_bytes_per_second: int | None = None
    min_runway: float = 3600.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """What was measured, and what follows. None is unknown.

    Attributes:
        tables, rows: that move; rows by the source's statistics.
        bytes: of the tables with what is stored out of line; indexes are not read.
        bytes_with_indexes: the same with indexes: room that the target needs.
        read_bytes, read_seconds, read_table: a sample that one session read of a table.
        held_to: bytes a second that the load is held to by the settings.
        log_bytes, log_seconds: what the source wrote into its log, in which time.
        log_limit: bytes of log that it keeps for a slot, at most.
        free_bytes, free_basis: on the target's disk, and who says so.
    """

    tables: int
    rows: int
    bytes: int
    bytes_with_indexes: int
    read_bytes: int | None = None
    read_seconds: float | None = None
    read_table: str | None = None
    held_to: int | None = None
    log_bytes: int | None = None
    log_seconds: float | None = None
    log_limit: int | None = None
    free_bytes: int | None = None
    free_basis: str | None = None

    @property
    def load_seconds(self) -> float | None:
        """By the slower of what was measured and what the load is held to."""
        rates = [float(self.held_to)] if self.held_to else []
        if self.read_bytes and self.read_seconds:
            rates.append(self.read_bytes / self.read_seconds)
        return self.bytes / min(rates) if rates else None

    @property
    def log_rate(self) -> float | None:
        """Bytes of log a second."""
        if self.log_bytes is None or not self.log_seconds or self.log_seconds < LEAST_SECONDS:
            return None
        return self.log_bytes / self.log_seconds

    @property
    def runway_seconds(self) -> float | None:
        """For how long a slot that nobody reads keeps its log at this rate; None: no limit."""
        if not self.log_limit or not self.log_rate:
            return None
        return self.log_limit / self.log_rate

    @property
    def basis(self) -> str:
        """Where the estimate of the load comes from."""
        told = []
        if self.read_bytes and self.read_seconds:
            told.append(
                f"one session read {amount(self.read_bytes)} of {self.read_table} in "
                f"{self.read_seconds:.2f} s"
            )
        if self.held_to:
            told.append(f"load.max_bytes_per_second holds it to {amount(self.held_to)}/s")
        return ", ".join(told) or "nothing large enough to be measured"

    def as_dict(self) -> dict[str, Any]:
        """The machine-readable form: all of it, with what follows."""
        return {
            **asdict(self),
            "load_seconds": _round(self.load_seconds),
            "log_bytes_per_second": _round(self.log_rate),
            "runway_seconds": _round(self.runway_seconds),
            "basis": self.basis,
        }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def expected(estimate: Estimate, min_runway: float) -> list[Finding]:
    """What follows from the numbers: how long, whether there is room, whether the log is kept.

    Args:
        min_runway: see `Stated`.
    """
    return [*_load(estimate), *_space(estimate), *_log(estimate, min_runway)]


def _load(estimate: Estimate) -> list[Finding]:
    seconds = estimate.load_seconds
    if seconds is None or estimate.bytes < WORTH_SAYING:
        return []
    return [
        inform(
            "CDCM-ESTIMATE-LOAD",
            "source",
            f"copying the rows will take about {lasting(seconds)}: {amount(estimate.bytes)} in "
            f"{estimate.tables} tables ({estimate.basis}; more workers make up for what writing "
            "costs). Indexes and keys come on top, often as much again",
            "Nothing; the load can be ended and goes on where it was. `cdc-migrator status` shows "
            "the time that is left, by what is done.",
        )
    ]


def _space(estimate: Estimate) -> list[Finding]:
    needed = amount(estimate.bytes_with_indexes)
    if estimate.free_bytes is None:
        if estimate.bytes < WORTH_SAYING:
            return []
        return [
            inform(
                "CDCM-TARGET-SPACE-UNKNOWN",
                "target",
                f"the tables and indexes take {needed} on the source; how much is free on the "
                "target is not known from here",
                "See that there is room for it and for the log of writing it; say how much is "
                "free in `target.free_bytes`, and it is compared.",
            )
        ]
    if estimate.free_bytes >= estimate.bytes_with_indexes:
        return []
    return [
        refuse(
            "CDCM-TARGET-SPACE",
            "target",
            f"the tables and indexes take {needed} on the source, and "
            f"{amount(estimate.free_bytes)} are free on the target ({estimate.free_basis})",
            "Give the target more room; or `accept` it, where the source's tables are mostly "
            "empty space, which does not move.",
        )
    ]


def _log(estimate: Estimate, min_runway: float) -> list[Finding]:
    runway, load = estimate.runway_seconds, estimate.load_seconds or 0.0
    if runway is None or runway >= max(min_runway, load):
        return []
    assert estimate.log_rate is not None
    assert estimate.log_limit is not None
    return [
        warn(
            "CDCM-SOURCE-SLOT-RUNWAY",
            "source",
            f"the source writes {amount(estimate.log_rate)}/s of log (measured for "
            f"{estimate.log_seconds:.1f} s) and keeps {amount(estimate.log_limit)} for a slot "
            f"(max_slot_wal_keep_size): a connector that stands still loses it after "
            f"{lasting(runway)}, the load takes "
            f"{'about ' + lasting(load) if load else 'an unknown time'}",
            f"Raise max_slot_wal_keep_size, so that it lasts for {lasting(max(min_runway, load))} "
            "or longer (`ready.min_runway`), or set it to -1 during the migration.",
        )
    ]
