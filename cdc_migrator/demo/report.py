"""What the demo saw, and what it makes of it: pure data, for people and programs alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from cdc_migrator.demo.digest import Comparison
from cdc_migrator.demo.probe import Percentiles
from cdc_migrator.demo.tally import Summary, Wait


@dataclass(frozen=True, slots=True)
class Kill:
    """One process that was killed.

    Attributes:
        amid: what was open at that moment.
        recovery_seconds: until the applier committed again (for the applier: counted from its
            restart).
    """

    what: str
    pid: int
    amid: str
    recovery_seconds: float


@dataclass(frozen=True, slots=True)
class Corruption:
    """A value that was changed on the target behind the migration's back.

    Attributes:
        key: the row's key, by column. column: that was changed.
        named: `reconcile` named this row and column, and nothing else.
        repaired: `reconcile --repair` wrote it anew, and both sides are the same there.
        find_seconds, repair_seconds: of these commands.
    """

    table: str
    key: dict[str, str]
    column: str
    named: bool
    repaired: bool
    find_seconds: float
    repair_seconds: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `readiness` said: how many gates, and which of them were not passed."""

    gates: int
    against: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Switch:
    """A cutover or its rehearsal.

    Attributes:
        state: in which it ended.
        open_ms: from the source's fence to the target being open; None for a rehearsal.
        waits: of each writer that was refused, as it saw it itself.
        verified: what was written to lately was compared while nobody could write.
        seconds: of the whole command.
    """

    state: str
    open_ms: float | None
    waits: tuple[Wait, ...]
    verified: bool
    seconds: float

    def stalls(self) -> tuple[float, ...]:
        """Milliseconds of each writer of small transactions, in the order of the writers."""
        return tuple(wait.ms for wait in self.waits if not wait.large)


@dataclass(frozen=True, slots=True)
class Account:
    """The writers' own count of what was acknowledged, held against both databases.

    Attributes:
        on_source, on_target: commits that were acknowledged there.
        unsure: whose answer was lost.
        lost, strange: by side, which "writer/kind" has less, or more, in the database than its
            writer knows of.
        source_unchanged: every table of the source is at the end as it was when it was left.
    """

    on_source: int
    on_target: int
    unsure: int
    lost: dict[str, tuple[str, ...]]
    strange: dict[str, tuple[str, ...]]
    source_unchanged: bool

    @property
    def complete(self) -> bool:
        """Everything is there, once, and nothing was written on both sides."""
        return (
            self.source_unchanged and not any(self.lost.values()) and not any(self.strange.values())
        )


def held_against(
    ledger: Mapping[str, int], acknowledged: Mapping[str, int], unsure: Mapping[str, int]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which keys have less in the ledger than was acknowledged, and which have more.

    What is unsure may be there or not.
    """
    keys = sorted(ledger.keys() | acknowledged.keys())
    lost = tuple(key for key in keys if ledger.get(key, 0) < acknowledged.get(key, 0))
    strange = tuple(
        key for key in keys if ledger.get(key, 0) > acknowledged.get(key, 0) + unsure.get(key, 0)
    )
    return lost, strange


def together(*counts: Mapping[str, int]) -> dict[str, int]:
    """The sum, key by key."""
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)


@dataclass(slots=True)
class Report:
    """What the demo saw; seconds, bytes, and row counts.

    `workload` is of the writers up to the comparison, `followers` of those that went over.
    """

    rows_loaded: int = 0
    events_applied: int = 0
    steps: dict[str, float] = field(default_factory=dict)
    kills: list[Kill] = field(default_factory=list)
    committed: dict[str, dict[str, int]] = field(default_factory=dict)
    missing_kinds: dict[str, tuple[str, ...]] = field(default_factory=dict)
    workload: Summary | None = None
    followers: Summary | None = None
    lag_calm: Percentiles | None = None
    lag_all: Percentiles | None = None
    rss_bytes: int = 0
    tables: list[Comparison] = field(default_factory=list)
    corruption: Corruption | None = None
    backup_seconds: float | None = None
    readiness: list[Verdict] = field(default_factory=list)
    rehearsal: Switch | None = None
    cutover: Switch | None = None
    account: Account | None = None

    @property
    def equal(self) -> bool:
        """Every table is equal on both sides, and there is at least one."""
        return bool(self.tables) and all(table.equal for table in self.tables)

    @property
    def switched(self) -> bool:
        """The corruption was found and repaired, and everything acknowledged went over."""
        return (
            self.corruption is not None
            and self.corruption.named
            and self.corruption.repaired
            and self.cutover is not None
            and self.cutover.state == "done"
            and self.account is not None
            and self.account.complete
        )
