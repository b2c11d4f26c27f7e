"""What the long-running consumer works with, out of the settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cdc_migrator.apply.batcher import BatchLimits
from cdc_migrator.apply.pieces import PieceLimits
from cdc_migrator.control.watch import Firing
from cdc_migrator.errors import Refused
from cdc_migrator.model.changes import BadRecords, SchemaPolicy, TruncatePolicy
from cdc_migrator.model.naming import way_back_of
from cdc_migrator.model.outside import Brokers, Workers
from cdc_migrator.model.retained import UNLIMITED, Retained
from cdc_migrator.monitor.limits import Limits
from cdc_migrator.monitor.sampler import Places
from cdc_migrator.service.comparing import Continuous
from cdc_migrator.service.inspection import InspectOptions
from cdc_migrator.service.measuring import WatchOptions
from cdc_migrator.stream.spill import SpillLimits


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the service works with.

    Attributes:
        source_dsn, target_dsn: give complete connection strings, read when connecting.
        inline_rows: see `PieceLimits`.
        limits, queue_bytes, spill: see `Batcher`, `ByteQueue` and `Assembler`.
        ddl: what to do where the source changes its schema. complete: told when the source has
            got indexes, constraints or tables that the target may get beside the stream.
        truncates, retry_for: see `Applier`. bad_records, most_parked: see `Parking`.
        reread: reads these tables again, or ends what was begun of that (none given); the stream
            stands still meanwhile. reread_bytes: of a table that is read again without asking.
        continuous: how both sides are compared all the time; None: only when somebody asks.
        takeover_after: seconds without a sign of life after which an owner is replaced.
        fence: the target's tables are fenced against everybody else.
        shall_move, retained: see `Places`. ready: what the gates measure by.
        inspected: what `inspect` looks at, every `inspect_every` seconds.
        watched, roll_back: see `Watching`.
        http_host, http_port: where metrics and health are served; no port serves nothing.
        way_back: it is the stream from the target to the source, whose fence, inspection and
            readiness are not its own affair.
    """

    migration: str
    source_dsn: Callable[[], str]
    target_dsn: Callable[[], str]
    brokers: Brokers
    workers: Workers
    limits: BatchLimits
    inline_rows: int
    queue_bytes: int
    spill: SpillLimits
    ddl: SchemaPolicy
    complete: Callable[[], None]
    truncates: TruncatePolicy
    bad_records: BadRecords
    most_parked: int
    retry_for: float
    reread: Callable[[Sequence[str]], None]
    reread_bytes: int
    continuous: Continuous | None
    takeover_after: float
    fence: bool
    shall_move: Callable[[Sequence[str]], bool]
    ready: Limits
    inspected: InspectOptions
    inspect_every: float
    watched: WatchOptions
    roll_back: Callable[[Firing], None] | None
    http_host: str
    http_port: int | None
    retained: Retained = UNLIMITED
    way_back: bool = False

    @property
    def pieces(self) -> PieceLimits:
        """What is written at a time."""
        return PieceLimits(self.limits.rows, self.limits.bytes, self.inline_rows)

    @property
    def places(self) -> Places:
        """Where it is measured."""
        return Places(
            self.migration,
            self.source_dsn,
            self.target_dsn,
            self.workers,
            self.brokers,
            self.shall_move,
            look_at_fence=not self.way_back,
            retained=self.retained,
        )

    def mirrored(self) -> RunOptions:
        """Of the way back, whose tables are not read again while nobody asks for it."""
        return replace(
            self,
            migration=way_back_of(self.migration),
            source_dsn=self.target_dsn,
            target_dsn=self.source_dsn,
            ddl=SchemaPolicy.HALT,
            complete=lambda: None,
            # What came over too late would be missing when the source is opened again.
            bad_records=BadRecords.HALT,
            reread=_not_read_again,
            reread_bytes=0,
            continuous=None,
            fence=False,
            http_port=None,
            way_back=True,
        )


def _not_read_again(tables: Sequence[str]) -> None:
    raise Refused(
        "CDCM-WAY-BACK-REREAD",
        f"the source's {', '.join(tables)} cannot be read again from the target by itself",
        "`cdc-migrator status` names the transaction. Compare both sides and decide.",
    )
