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
        on_source, on_target: commits that were acknowledged there, from the first writer on.
        unsure: whose answer was lost.
        lost, strange: by side, which "writer/kind" has less, or more, in the database than its
            writer knows of.
    """

    on_source: int
    on_target: int
    unsure: int
    lost: dict[str, tuple[str, ...]]
    strange: dict[str, tuple[str, ...]]

    @property
    def complete(self) -> bool:
        """Everything is where it should be, once, and nothing else is."""
        return not any(self.lost.values()) and not any(self.strange.values())


@dataclass(frozen=True, slots=True)
class Returned:
    """A rule of `watch` has rolled back by itself, after something broke on the target.

    Attributes:
        rule, number, threshold, for_seconds: which rule fired, and by what.
        fired_after, open_after: seconds from the failure until then, and until the source was open.
        failed: transactions that failed meanwhile; none of them is acknowledged.
        switch: the rollback; its seconds from the failure on.
        account, tables: of both sides afterwards, with the writers stopped.
    """

    rule: str
    number: float
    threshold: float
    for_seconds: float
    fired_after: float
    open_after: float
    failed: int
    switch: Switch
    account: Account
    tables: list[Comparison]

    @property
    def good(self) -> bool:
        """The rule did what it is for, and both sides hold everything, and the same."""
        return (
            self.number > self.threshold
            and self.failed > 0
            and self.switch.state == "done"
            and self.account.complete
            and bool(self.tables)
            and all(table.equal for table in self.tables)
        )


@dataclass(frozen=True, slots=True)
class Ended:
    """The target is open for good.

    Attributes:
        switch: the last cutover.
        account: of all writers that there ever were.
        source_unchanged: while writers went on, every table of the source stayed as it was after
            `finish`; None without that, for the way back goes on writing there.
        source_refuses: a write on the source is refused at the end.
        failed: transactions of the last writers that failed.
        status: by the report. report: its page.
        journals: entries of each side's journal; both are as they were written.
        finished: the migration was removed. removed: how many things went.
        left_behind: slots, publications, triggers and control schemas that should not be there.
    """

    switch: Switch
    account: Account
    source_unchanged: bool | None
    source_refuses: bool
    failed: int
    status: str
    report: str
    journals: dict[str, int]
    finished: bool
    removed: int
    left_behind: int

    @property
    def good(self) -> bool:
        """Everything acknowledged is on the target, and nothing else is left."""
        return (
            self.switch.state == "done"
            and self.account.complete
            and self.source_unchanged is not False
            and self.source_refuses
            and self.failed == 0
            and self.status == "COMPLETED"
            and self.left_behind == 0
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

    `workload` is of the writers up to the comparison; `followers` of those that went over and came
    back, then of those that went over for good. `ping_seconds`: down the way back.
    """

    rows_loaded: int = 0
    events_applied: int = 0
    steps: dict[str, float] = field(default_factory=dict)
    kills: list[Kill] = field(default_factory=list)
    committed: dict[str, dict[str, int]] = field(default_factory=dict)
    missing_kinds: dict[str, tuple[str, ...]] = field(default_factory=dict)
    workload: Summary | None = None
    followers: list[Summary] = field(default_factory=list)
    lag_calm: Percentiles | None = None
    lag_all: Percentiles | None = None
    rss_bytes: int = 0
    tables: list[Comparison] = field(default_factory=list)
    corruption: Corruption | None = None
    backup_seconds: float | None = None
    ping_seconds: float | None = None
    readiness: list[Verdict] = field(default_factory=list)
    rehearsal: Switch | None = None
    cutover: Switch | None = None
    returned: Returned | None = None
    ended: Ended | None = None

    @property
    def equal(self) -> bool:
        """Every table is equal on both sides, and there is at least one."""
        return bool(self.tables) and all(table.equal for table in self.tables)

    @property
    def switched(self) -> bool:
        """The corruption was found and repaired, and everything acknowledged went over, came back,
        and went over again."""
        return (
            self.corruption is not None
            and self.corruption.named
            and self.corruption.repaired
            and self.cutover is not None
            and self.cutover.state == "done"
            and self.returned is not None
            and self.returned.good
            and self.ended is not None
            and self.ended.good
        )
