"""What is known of a migration at one moment, as values: what reports and plans are made of.

A part that did not answer is None, with a note that says why; it is never empty and never zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cdc_migrator.control.backups import Backup
from cdc_migrator.control.cutover import Attempt, Copied
from cdc_migrator.control.migration import Migration
from cdc_migrator.control.proofs import TableProof
from cdc_migrator.control.reconcile import Run
from cdc_migrator.model.gates import Gate
from cdc_migrator.model.tables import TableName
from cdc_migrator.model.wording import few
from cdc_migrator.monitor.sample import Note, Sample
from cdc_migrator.service.journal import Journal


@dataclass(frozen=True, slots=True)
class Said:
    """What the settings say that evidence and plans repeat.

    Attributes:
        hooks: their names. throttle: the load's limits that are set, by name.
        budget_seconds: of a cutover. without_way_back: why there need be none.
        watch: what is watched once the target is open, one sentence a rule.
        decide, tell: people.
    """

    hooks: tuple[str, ...] = ()
    throttle: tuple[tuple[str, str], ...] = ()
    budget_seconds: float = 10.0
    without_way_back: str | None = None
    watch: tuple[str, ...] = ()
    decide: tuple[str, ...] = ()
    tell: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Side:
    """One database.

    Attributes:
        address: host, port and database. route: the side that its routing row names.
        silent: why it did not answer; None: it did.
    """

    side: str
    address: str
    version: str | None = None
    bytes: int | None = None
    route: str | None = None
    silent: str | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """How many of one kind there are in a table; `at`: when the last one came about."""

    table: TableName
    kind: str
    count: int
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Back:
    """The way back, as the source has it.

    Attributes:
        prepared: whether there is one. attempts: to go back, rehearsals too.
    """

    prepared: bool
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known at one moment. None: not known; `notes` say why.

    Attributes:
        gates: each question's answer; empty where it makes no sense to ask any more.
        tables: that move, by the source's name and the target's.
        attempts: to leave the source, rehearsals too, in their order.
        copied: how far the source itself says that it was left.
        journals: those that were read; `unread`: sides whose journal could not be.
    """

    at: datetime
    name: str
    said: Said
    source: Side
    target: Side
    sample: Sample
    gates: tuple[Gate, ...] = ()
    migration: Migration | None = None
    tables: tuple[tuple[TableName, TableName], ...] | None = None
    attempts: tuple[Attempt, ...] | None = None
    back: Back | None = None
    copied: Copied | None = None
    journals: tuple[Journal, ...] = ()
    unread: tuple[str, ...] = ()
    proofs: tuple[TableProof, ...] | None = None
    differences: tuple[Counted, ...] | None = None
    repairs: tuple[Counted, ...] | None = None
    runs: tuple[Run, ...] | None = None
    backups: tuple[Backup, ...] | None = None
    notes: tuple[Note, ...] = ()

    @property
    def reverse_stream(self) -> str:
        """What there is to go back by, and what of the target it leaves out knowingly."""
        back = self.sample.way_back
        left = [there for _, there in back.without] if back is not None else []
        told = "a reverse stream brings what is written on the target back to the source"
        return f"{told}, but for {few(left)} (`back: none`)" if left else told
