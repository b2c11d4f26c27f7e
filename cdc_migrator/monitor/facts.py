"""What either server says of itself, before it is put together with what the others say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cdc_migrator.control.dead_letters import Standing
from cdc_migrator.control.freshness import Freshness
from cdc_migrator.control.inspection import Part
from cdc_migrator.control.migration import Migration
from cdc_migrator.monitor.ground_facts import SourceIdentity
from cdc_migrator.monitor.sample import (
    FenceSample,
    LoadSample,
    OwnerSample,
    ProofSample,
    ServerSample,
    SlotSample,
    StreamSample,
    WayBackSample,
)
from cdc_migrator.monitor.schema_reading import Told
from cdc_migrator.monitor.schema_sample import WaitedFor
from cdc_migrator.monitor.table_sample import TableSample


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """What the target says at one moment."""

    now: datetime
    ahead_of_us: float
    migration: Migration | None
    stream: StreamSample | None
    owner: OwnerSample | None
    tables: tuple[TableSample, ...]
    load: LoadSample | None
    fence: FenceSample | None = None
    proofs: ProofSample | None = None
    server: ServerSample | None = None
    freshness: Freshness | None = None
    inspection: Mapping[str, Part] | None = None
    parked: Standing | None = None
    topic_id: str | None = None
    waiting: tuple[WaitedFor, ...] | None = None


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What the source says at one moment."""

    ahead_of_us: float
    slot: SlotSample | None
    tables: tuple[tuple[str, ...], ...] = ()
    wal_written: int | None = None
    server: ServerSample | None = None
    way_back: WayBackSample | None = None
    identity: SourceIdentity | None = None
    told: Told | None = None
