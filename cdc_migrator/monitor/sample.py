"""One measurement of a migration, as values. What could not be measured is None, never 0.

`ServiceSample` is what the running service knows about itself; it travels through the control
schema, so that a command on another machine shows the same numbers. `Sample` is everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any

from cdc_migrator.control.dead_letters import Standing
from cdc_migrator.control.freshness import Freshness
from cdc_migrator.control.inspection import Part
from cdc_migrator.control.migration import Phase
from cdc_migrator.monitor.ground_facts import GroundSample
from cdc_migrator.monitor.schema_sample import SchemaSample
from cdc_migrator.monitor.table_sample import TableSample


class ServiceState(StrEnum):
    """What the service is doing."""

    STARTING = "starting"
    STANDBY = "standby"
    STREAMING = "streaming"
    WAITING_FOR_KAFKA = "waiting-for-kafka"
    WAITING_FOR_TARGET = "waiting-for-target"
    WAITING_FOR_TABLE = "waiting-for-table"
    WAITING_FOR_SCHEMA = "waiting-for-schema"
    REREADING = "rereading"
    STOPPING = "stopping"
    HALTED = "halted"


@dataclass(frozen=True, slots=True)
class ServiceSample:
    """The service's own measurements.

    Attributes:
        at: when, with its time zone.
        lag_seconds: from source commit to target commit, see `lag.lag_seconds`.
        events_pending: events between what is applied and the end of the log; exact where
            `at_end`, else an upper bound.
        at_end: the reader has seen the end of the log, and all that it read is applied.
        transactions_per_second, events_per_second: applied, over the last seconds.
        rss_bytes: resident memory of the process.
        queue_bytes: events read and not yet applied.
        capture_seconds, delivery_seconds: how the lag divides, see `lag.stages`.
        records_applied_per_second, records_arriving_per_second: of the topic, over the last half
            minute.
        wal_bytes_per_second: what the source writes to its log.
        waiting: why it does not go on, by the error's name.
        comparing: what its own comparing is doing; None where it does not compare by itself.
        connector_restarts: how often it started the failed connector again, since that was well.
    """

    at: datetime
    state: ServiceState
    lag_seconds: float | None = None
    events_pending: int | None = None
    at_end: bool | None = None
    transactions_per_second: float | None = None
    events_per_second: float | None = None
    rss_bytes: int | None = None
    queue_bytes: int | None = None
    waiting: str | None = None
    comparing: str | None = None
    connector_restarts: int | None = None
    capture_seconds: float | None = None
    delivery_seconds: float | None = None
    records_applied_per_second: float | None = None
    records_arriving_per_second: float | None = None
    wal_bytes_per_second: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values for a jsonb column."""
        return {**asdict(self), "at": self.at.isoformat(), "state": str(self.state)}

    @classmethod
    def from_json(cls, document: Any) -> ServiceSample | None:
        """Read back what `to_json` gave; None where it is not one. Unknown keys of another
        release are left aside."""
        try:
            known = {f.name: document[f.name] for f in fields(cls) if f.name in document}
            return cls(
                **{
                    **known,
                    "at": datetime.fromisoformat(known["at"]),
                    "state": ServiceState(known["state"]),
                }
            )
        except (KeyError, TypeError, ValueError):
            return None


@dataclass(frozen=True, slots=True)
class OwnerSample:
    """Who applies the stream, and what it said of itself last.

    Attributes:
        owner: user, host and process id; None where nobody ever applied.
        seen_seconds: since it last said something (`said`), by the target's clock; None where it
            has given the stream up in good order, or never was there.
    """

    owner: str | None
    seen_seconds: float | None
    said: ServiceSample | None


@dataclass(frozen=True, slots=True)
class SlotSample:
    """The replication slot on the source.

    Attributes:
        retained_bytes: write-ahead log that the source keeps because of it.
        safe_bytes: what may still be written before the source gives the slot up; None where
            no limit is set.
        unconfirmed_bytes: log that the connector has not confirmed yet, from its last confirmed
            position to the present; it confirms with its commits, so some is usual.
    """

    name: str
    exists: bool
    active: bool | None = None
    wal_status: str | None = None
    retained_bytes: int | None = None
    safe_bytes: int | None = None
    confirmed_flush_lsn: str | None = None
    unconfirmed_bytes: int | None = None

    @property
    def usable(self) -> bool | None:
        """False where the source has given up, or will at its next checkpoint, what it needs."""
        if not self.exists:
            return False
        return None if self.wal_status is None else self.wal_status not in ("unreserved", "lost")


@dataclass(frozen=True, slots=True)
class ConnectorSample:
    """The connector by Connect's REST API. RUNNING with a FAILED task happens: look at both.

    `trace`: why it or a task has failed, shortened, without rows' values. `worker`: where it runs.
    """

    name: str
    exists: bool
    state: str | None = None
    tasks: tuple[str, ...] = ()
    trace: str | None = None
    worker: str | None = None

    @property
    def running(self) -> bool:
        """The connector and every one of its tasks (at least one) run."""
        return bool(self.tasks) and {self.state, *self.tasks} == {"RUNNING"}


@dataclass(frozen=True, slots=True)
class StreamSample:
    """The stream's progress row.

    `ignored_since_left`: changes that were written on the source after the target was opened; None
    before.
    """

    topic: str
    next_offset: int
    commit_position: int
    source_committed_at: datetime | None
    applied_at: datetime | None
    transactions_applied: int
    transactions_redelivered: int
    transactions_suspect: int
    ignored_since_left: int | None = None


@dataclass(frozen=True, slots=True)
class WayBackSample:
    """The stream from the target to the source, as the source has it.

    Attributes:
        prepared: it captures and could be applied. active: what comes over is written.
        lag_seconds: or for how long nobody has applied it; None: not known.
        tables: those that it captures. missing: those of the migration that it does not.
        ways: the source's tables, each with the target's that rows come back from.
        without: the same of those whose rows do not, knowingly.
        error: what it has stopped for. within: there can be none, inside one database.
    """

    prepared: bool
    active: bool = False
    leg: int = 0
    lag_seconds: float | None = None
    tables: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    error: str | None = None
    ways: frozenset[tuple[str, str]] = frozenset()
    without: tuple[tuple[str, str], ...] = ()
    within: bool = False


@dataclass(frozen=True, slots=True)
class LoadSample:
    """The load as a whole: shares of the chunks' bytes, seconds since its first table began."""

    done_fraction: float | None
    elapsed_seconds: float | None


@dataclass(frozen=True, slots=True)
class FenceSample:
    """The target's fence: ``up``, ``partial`` or ``off``; the tables that lack it, and those of
    them from which somebody took it."""

    state: str
    lacking: tuple[str, ...]
    taken_off: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProofSample:
    """What comparisons have proven so far.

    Attributes:
        verified_as_of: the oldest proof of any chunk of any table; None while one has none.
        chunks: of all tables that were ever compared. dirty: those not proven, or written to
            since.
        unproven_tables: those of which some chunk was never proven.
        open, accepted: differences.
    """

    verified_as_of: datetime | None
    chunks: int
    dirty: int
    unproven_tables: int
    open: int
    accepted: int


@dataclass(frozen=True, slots=True)
class RetentionSample:
    """What the topic keeps: its limits (None: it has none), whether older records of a key are
    deleted, and the offset of the oldest record that is still there."""

    seconds: float | None
    bytes: int | None
    compacted: bool
    start_offset: int

    @property
    def unlimited(self) -> bool:
        """Nothing is ever deleted, as the stream needs it."""
        return self.seconds is None and self.bytes is None and not self.compacted


@dataclass(frozen=True, slots=True)
class ServerSample:
    """How full a database server is.

    Attributes:
        connections: of clients, to all of its databases; max_connections: how many there may be.
        database_bytes: of this database.
        lock_waiters: sessions that wait for a lock on a table of the migration, and ours that wait
            for any; lock_wait_seconds: the longest of them, 0 where none waits.
    """

    connections: int
    max_connections: int
    database_bytes: int
    lock_waiters: int | None = None
    lock_wait_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Until nothing is pending, with what it rests on: records of the topic a second.

    `seconds` is None while no less arrives than is applied.
    """

    seconds: float | None
    applied_per_second: float
    arriving_per_second: float


@dataclass(frozen=True, slots=True)
class Note:
    """A part that could not be measured, with the error's code and cause."""

    part: str
    code: str
    cause: str


@dataclass(frozen=True, slots=True)
class Sample:
    """Everything that is known at one moment.

    Attributes:
        at: the target's clock where it answered, else this machine's.
        lag_seconds, events_pending: see `ServiceSample`; `pending_exact` tells which it is.
        end_offset: offset behind the last committed record of the topic.
        target_ahead: seconds by which the target's clock is ahead of the source's; source_ahead:
            the source's of that of the machine that measured.
        wal_bytes_per_second, slot_seconds_left: what the source writes; until `safe_bytes` are.
        catch_up: see `lag.catch_up`. retention: of the stream's topic.
        retention_seconds_left: at least so long is the next record to apply still kept; None
            where that is unlimited, or unknown.
        source_server, target_server: how full they are. proofs: what is known of both sides' rows.
        freshness: how recent that is. inspection: what takes longer, as it was found last.
        not_added: tables of the source that shall move and are not part of the migration; None
            where nobody looked.
        fence: None where nobody looked. way_back: None where the source did not say.
        parked: what the stream keeps back. ground: None before capture has begun.
        schema: changes of the source's schema that the target does not have yet.
        notes: what could not be measured, and why.
    """

    at: datetime
    migration: str
    generation: int | None = None
    phase: Phase | None = None
    last_error: dict[str, Any] | None = None
    tables: tuple[TableSample, ...] | None = None
    load: LoadSample | None = None
    stream: StreamSample | None = None
    owner: OwnerSample | None = None
    slot: SlotSample | None = None
    connector: ConnectorSample | None = None
    end_offset: int | None = None
    target_ahead: float | None = None
    lag_seconds: float | None = None
    events_pending: int | None = None
    pending_exact: bool | None = None
    not_added: tuple[str, ...] | None = None
    fence: FenceSample | None = None
    proofs: ProofSample | None = None
    freshness: Freshness | None = None
    inspection: Mapping[str, Part] | None = None
    source_ahead: float | None = None
    wal_bytes_per_second: float | None = None
    slot_seconds_left: float | None = None
    catch_up: CatchUp | None = None
    retention: RetentionSample | None = None
    retention_seconds_left: float | None = None
    source_server: ServerSample | None = None
    target_server: ServerSample | None = None
    way_back: WayBackSample | None = None
    parked: Standing | None = None
    ground: GroundSample | None = None
    schema: SchemaSample | None = None
    notes: tuple[Note, ...] = ()

    @property
    def measured(self) -> dict[str, bool]:
        """Of each part that was asked, whether it answered."""
        failed = {note.part for note in self.notes}
        answers = {
            "target": self.phase,
            "source": self.source_ahead,
            "connect": self.connector,
            "kafka": self.end_offset,
        }
        return {
            part: part not in failed
            for part, answer in answers.items()
            if answer is not None or part in failed
        }

    @property
    def service(self) -> ServiceSample | None:
        """What the service said, while it shows signs of life."""
        if self.owner is None or self.owner.seen_seconds is None:
            return None
        return self.owner.said if self.owner.seen_seconds <= ALIVE_SECONDS else None


ALIVE_SECONDS = 5.0
