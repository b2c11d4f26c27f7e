"""What the long-running consumer works with, out of the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cdc_migrator.apply.batcher import BatchLimits
from cdc_migrator.model.changes import TruncatePolicy
from cdc_migrator.monitor.limits import Limits
from cdc_migrator.service.comparing import Continuous
from cdc_migrator.service.inspection import InspectOptions
from cdc_migrator.stream.spill import SpillLimits


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the service works with.

    Attributes:
        source_dsn, target_dsn: give complete connection strings, read when connecting.
        kafka: librdkafka properties with ``bootstrap.servers``.
        limits, queue_bytes, spill: see `Batcher`, `ByteQueue` and `Assembler`.
        truncates, retry_for: see `Applier`.
        reread: reads these tables again, or ends what was begun of that (none given); the stream
            stands still meanwhile. reread_bytes: of a table that is read again without asking.
        continuous: how both sides are compared all the time; None: only when somebody asks.
        takeover_after: seconds without a sign of life after which an owner is replaced.
        fence: the target's tables are fenced against everybody else.
        shall_move: see `Places`. ready: what the gates measure by.
        inspected: what `inspect` looks at, every `inspect_every` seconds.
        http_host, http_port: where metrics and health are served; no port serves nothing.
    """

    migration: str
    source_dsn: Callable[[], str]
    target_dsn: Callable[[], str]
    kafka: Mapping[str, str]
    connect_url: str
    limits: BatchLimits
    queue_bytes: int
    spill: SpillLimits
    truncates: TruncatePolicy
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
    http_host: str
    http_port: int | None
