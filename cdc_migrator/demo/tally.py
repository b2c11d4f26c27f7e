"""What the writers count by themselves: what was acknowledged, where, and when they had to wait.

A commit is acknowledged when the server has answered it. This account is kept in the application
and in no database, so it can be held against what the databases say afterwards.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Side = Literal["source", "target"]
SIDES: tuple[Side, Side] = ("source", "target")


@dataclass(frozen=True, slots=True)
class Wait:
    """A writer that was refused and went on.

    Attributes:
        large: it makes the large transactions, with pauses of its own in between.
        left, entered: the sides of its last commit before and of its first one after.
        ms: from that commit to this one, each as it was acknowledged.
        refused: how often it was refused meanwhile.
    """

    writer: int
    large: bool
    left: Side
    entered: Side
    ms: float
    refused: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What the writers did.

    Attributes:
        acknowledged: commits that were answered, by side and then by "writer/kind".
        unsure: commits whose answer was lost with the connection, by "writer/kind": each may be
            there, once, or not.
        retried: transactions that lost a race or were refused, by SQLSTATE.
        missed: tries that found no suitable row, by kind.
        failed: transactions that the database said no to for good, by kind.
        waits: each time that a writer was refused and went on, in the order of the writers.
        seconds: from start to stop.
        cpu_seconds: used by this process meanwhile.
        failure: why the workload ended by itself, without any value of a row, or None.
    """

    acknowledged: dict[Side, dict[str, int]]
    unsure: dict[str, int]
    retried: dict[str, int]
    missed: dict[str, int]
    failed: dict[str, int]
    waits: tuple[Wait, ...]
    seconds: float
    cpu_seconds: float
    failure: str | None

    @classmethod
    def silent(cls, reason: str) -> Summary:
        """Of an application that said nothing."""
        return cls({}, {}, {}, {}, {}, (), 0.0, 0.0, reason)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Summary:
        """What `as_dict` became. Raises KeyError or TypeError where something is missing."""
        return cls(
            **{name: values[name] for name in cls.__slots__ if name != "waits"},
            waits=tuple(Wait(**one) for one in values["waits"]),
        )

    @property
    def committed(self) -> dict[str, int]:
        """Acknowledged transactions by kind; agrees with the ledger."""
        kinds: Counter[str] = Counter()
        for counts in self.acknowledged.values():
            for key, count in counts.items():
                kinds[key.partition("/")[2]] += count
        return dict(sorted(kinds.items()))

    @property
    def per_second(self) -> float:
        """Committed transactions a second."""
        return sum(self.committed.values()) / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        derived = {"committed": self.committed, "per_second": round(self.per_second, 1)}
        return derived | asdict(self)


@dataclass(slots=True)
class Tally:
    """What one writer did; only its own thread writes here.

    `patience` is how many seconds may pass between two commits.
    """

    writer: int
    large: bool
    patience: float
    acknowledged: dict[Side, Counter[str]] = field(
        default_factory=lambda: {side: Counter() for side in SIDES}
    )
    unsure: Counter[str] = field(default_factory=Counter)
    retried: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    waits: list[Wait] = field(default_factory=list)
    progressed_at: float = field(default_factory=time.monotonic)
    _side: Side = "source"
    _refused: int = 0

    def refuse(self) -> None:
        """Count a transaction that was refused, or that lost its connection."""
        self._refused += 1

    def commit(self, kind: str, side: Side) -> None:
        """Count a commit that was just acknowledged."""
        now = time.monotonic()
        if self._refused:
            ms = round((now - self.progressed_at) * 1000, 1)
            self.waits.append(Wait(self.writer, self.large, self._side, side, ms, self._refused))
        self._side, self._refused, self.progressed_at = side, 0, now
        self.acknowledged[side][kind] += 1

    def lose(self, kind: str) -> None:
        """Count a commit that was never answered."""
        self.unsure[kind] += 1


def summarize(
    tallies: Iterable[Tally], seconds: float, cpu_seconds: float, failure: str | None
) -> Summary:
    """All writers together."""
    mine = list(tallies)

    def total(part: Callable[[Tally], Counter[str]]) -> dict[str, int]:
        return dict(sorted(sum((part(t) for t in mine), Counter[str]()).items()))

    def by_writer(counters: Iterable[Counter[str]]) -> dict[str, int]:
        pairs = zip(mine, counters, strict=True)
        return {f"{t.writer}/{kind}": n for t, count in pairs for kind, n in sorted(count.items())}

    return Summary(
        acknowledged={side: by_writer(t.acknowledged[side] for t in mine) for side in SIDES},
        unsure=by_writer(t.unsure for t in mine),
        retried=total(lambda t: t.retried),
        missed=total(lambda t: t.missed),
        failed=total(lambda t: t.failed),
        waits=tuple(wait for t in mine for wait in t.waits),
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        failure=failure,
    )
