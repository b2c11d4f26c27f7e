"""The sampler: asks source, target, Connect and Kafka, and puts one `Sample` together.

Reads only, each part under its own time limit; a part that does not answer becomes a note and
leaves its numbers None. The service, `status` and the metrics all use this one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeVar

import psycopg

from cdc_migrator.control import (
    cutover,
    dead_letters,
    fence,
    freshness,
    inspection,
    load,
    migration,
    progress,
    schema,
)
from cdc_migrator.control.dead_letters import Standing
from cdc_migrator.errors import MigratorError
from cdc_migrator.model.naming import Names
from cdc_migrator.model.outside import Brokers, Workers
from cdc_migrator.model.retained import UNLIMITED, Retained
from cdc_migrator.monitor import lag, reading, schema_reading
from cdc_migrator.monitor.facts import SourceFacts, TargetFacts
from cdc_migrator.monitor.ground_facts import GroundSample
from cdc_migrator.monitor.remote import ConnectAsker, KafkaAsker, TopicFacts
from cdc_migrator.monitor.sample import (
    ConnectorSample,
    FenceSample,
    LoadSample,
    Note,
    OwnerSample,
    ProofSample,
    Sample,
    ServerSample,
    ServiceSample,
    StreamSample,
    WayBackSample,
)
from cdc_migrator.monitor.servers import read_server
from cdc_migrator.monitor.session import Paced, Session, clock, unless_slow
from cdc_migrator.monitor.source_side import read_source
from cdc_migrator.monitor.table_sample import TableSample

# Longer than any part's own limits, so that it ends by itself with a reason.
_PATIENCE_SECONDS = 12.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Places:
    """Where to measure. The functions give complete connection strings, read anew each time a
    session is opened; Connect and Kafka are None where there are none. `shall_move` says by its
    names whether a table of the source does; without it nobody looks for new ones.
    `look_at_fence`: also ask whether each table of the target is fenced. `retained`: how much log
    the source may keep for the slot."""

    migration: str
    source_dsn: Callable[[], str]
    target_dsn: Callable[[], str]
    workers: Workers | None
    brokers: Brokers | None
    shall_move: Callable[[Sequence[str]], bool] | None = None
    look_at_fence: bool = False
    retained: Retained = UNLIMITED


@dataclass(frozen=True, slots=True)
class _Dear:
    """What costs the servers more than a glance, or grows with the number of tables."""

    proofs: Paced[ProofSample | None] = field(default_factory=lambda: Paced(5.0))
    fence: Paced[FenceSample | None] = field(default_factory=lambda: Paced(10.0))
    source: Paced[ServerSample | None] = field(default_factory=lambda: Paced(10.0))
    target: Paced[ServerSample | None] = field(default_factory=lambda: Paced(10.0))
    way_back: Paced[WayBackSample | None] = field(default_factory=lambda: Paced(1.0))
    parked: Paced[Standing | None] = field(default_factory=lambda: Paced(2.0))


@dataclass(frozen=True, slots=True)
class _Slopes:
    """What only a second sample tells."""

    applied: lag.Slope = field(default_factory=lag.Slope)
    arriving: lag.Slope = field(default_factory=lag.Slope)
    wal: lag.Slope = field(default_factory=lag.Slope)


class Sampler:
    """Takes samples; keeps its sessions and clients between them. Use as a context manager.

    Not for several threads at once.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._source = Session("source", places.source_dsn)
        self._target = Session("target", places.target_dsn)
        self._dear = _Dear()
        self._slopes = _Slopes()
        self._connect = ConnectAsker(places.workers) if places.workers else None
        self._kafka = KafkaAsker(places.brokers) if places.brokers else None
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="sampler")

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the sessions; waits for a part that is being measured."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._source.close()
        self._target.close()
        if self._connect is not None:
            self._connect.close()

    def sample(self, service: ServiceSample | None = None) -> Sample:
        """Measure now; at most about `_PATIENCE_SECONDS`, whatever does not answer.

        Args:
            service: the calling service's own measurements, newer than the stored ones.
        """
        notes: list[Note] = []
        name = self._places.migration
        target_asked = self._pool.submit(
            self._target.ask,
            lambda conn: _read_target(conn, name, self._places.look_at_fence, self._dear),
        )
        target = _get(target_asked, "target", notes)
        row = target.migration if target else None
        generation = row.generation if row and row.name == name else None
        names = Names(name, generation) if generation is not None else None
        applied = target.stream.source_committed_at if target and target.stream else None
        source_asked = self._pool.submit(
            self._source.ask,
            lambda conn: read_source(
                conn,
                name,
                names,
                self._places.shall_move is not None,
                self._dear.source,
                self._dear.way_back,
                applied,
            ),
        )
        connector: Future[ConnectorSample | None] | None = None
        kafka: Future[TopicFacts] | None = None
        if names and self._connect is not None:
            connector = self._pool.submit(self._connect.state, names)
        # The progress row is made after the topic: before it there is nothing to ask.
        if target and target.stream and names and self._kafka is not None:
            kafka = self._pool.submit(self._kafka.look, target.stream.topic)
        source = _get(source_asked, "source", notes)
        topic = _get(kafka, "kafka", notes) if kafka else None
        waiting, told = target.waiting if target else None, source.told if source else None
        asked = self._pool.submit(schema_reading.changes, waiting, told, self._target.ask)
        schema_changes = _get(asked, "target", notes)
        sample = Sample(
            at=target.now if target else datetime.now(UTC),
            migration=name,
            generation=generation,
            slot=source.slot if source else None,
            connector=_get(connector, "connect", notes) if connector else None,
            end_offset=topic.end_offset if topic else None,
            retention=topic.retention if topic else None,
            target_ahead=target.ahead_of_us - source.ahead_of_us if target and source else None,
            source_ahead=source.ahead_of_us if source else None,
            source_server=source.server if source else None,
            target_server=target.server if target else None,
        )
        if target and row and generation is not None:
            sample = replace(
                sample,
                phase=row.phase,
                last_error=row.last_error,
                tables=target.tables,
                load=target.load,
                stream=target.stream,
                owner=target.owner,
                fence=target.fence,
                proofs=target.proofs,
                freshness=target.freshness,
                inspection=target.inspection,
                parked=target.parked,
                way_back=_whole(source.way_back, target.tables) if source else None,
                not_added=self._not_added(target, source) if source else None,
                ground=self._ground(target, source, topic),
                schema=schema_changes,
            )
        if row and generation is None:
            notes.append(
                Note("target", "CDCM-TARGET-TAKEN", f"it belongs to the migration {row.name!r}")
            )
        if service is not None:
            owner = sample.owner.owner if sample.owner else None
            sample = replace(sample, owner=OwnerSample(owner, 0.0, service))
        sample = self._with_rates(_with_lag(sample), source.wal_written if source else None)
        return replace(sample, notes=tuple(notes))

    def _with_rates(self, sample: Sample, wal_written: int | None) -> Sample:
        """What follows from how fast it moves: by this sampler's own samples, or else by the
        service's word."""
        now, slopes, stream, said = time.monotonic(), self._slopes, sample.stream, sample.service
        slopes.applied.add(now, stream.next_offset if stream else None)
        slopes.arriving.add(now, sample.end_offset)
        slopes.wal.add(now, wal_written)
        applied, arriving = slopes.applied.per_second(), slopes.arriving.per_second()
        wal = slopes.wal.per_second()
        if said is not None:
            if applied is None or arriving is None:
                applied = said.records_applied_per_second
                arriving = said.records_arriving_per_second
            wal = said.wal_bytes_per_second if wal is None else wal
        kept, slot = sample.retention, sample.slot
        committed_at = stream.source_committed_at if stream else None
        return replace(
            sample,
            catch_up=lag.catch_up(applied, arriving, sample.events_pending, sample.lag_seconds),
            wal_bytes_per_second=wal,
            slot_seconds_left=lag.until_used_up(slot.safe_bytes if slot else None, wal),
            retention_seconds_left=lag.retention_left(
                kept.seconds if kept else None, committed_at, sample.at
            ),
        )

    def _ground(
        self, target: TargetFacts, source: SourceFacts | None, topic: TopicFacts | None
    ) -> GroundSample | None:
        row = target.migration
        if row is None or row.consistent_point is None:
            return None
        return GroundSample(
            row.source_system_identifier,
            row.source_timeline,
            target.topic_id,
            source.identity if source else None,
            topic.topic_id if topic else None,
            self._places.retained,
        )

    def _not_added(self, target: TargetFacts, source: SourceFacts) -> tuple[str, ...] | None:
        shall_move, row = self._places.shall_move, target.migration
        # Before capture begins, what the source has is what will be captured.
        if shall_move is None or row is None or row.consistent_point is None:
            return None
        known = {table.source for table in target.tables}
        return tuple(
            called[0] for called in source.tables if called[0] not in known and shall_move(called)
        )


def _whole(back: WayBackSample | None, tables: Sequence[TableSample]) -> WayBackSample | None:
    """With the tables that the way back lacks."""
    if back is None:
        return None
    known = {*back.ways, *back.without}
    wanted = ((one.shaped_from or one.source, one.target) for one in tables)
    return replace(back, missing=tuple(sorted({one[1] for one in wanted if one not in known})))


def _with_lag(sample: Sample) -> Sample:
    """Lag and pending events: the service's own numbers while it lives, else from the rows."""
    said, stream = sample.service, sample.stream
    if said is not None and said.lag_seconds is not None:
        seconds: float | None = said.lag_seconds
    elif stream is not None:
        seconds = lag.lag_seconds(
            stream.source_committed_at, stream.applied_at, sample.at, sample.target_ahead
        )
    else:
        seconds = None
    if said is not None and said.events_pending is not None:
        pending: int | None = said.events_pending
        exact = said.at_end
    else:
        pending, exact = lag.events_pending(
            stream.next_offset if stream else None, sample.end_offset, None
        )
    return replace(sample, lag_seconds=seconds, events_pending=pending, pending_exact=exact)


def _get(future: Future[T], part: str, notes: list[Note]) -> T | None:
    try:
        return future.result(timeout=_PATIENCE_SECONDS)
    except MigratorError as error:
        notes.append(Note(part, error.code, error.cause))
    except TimeoutError:
        notes.append(Note(part, "CDCM-MONITOR-TIMEOUT", f"no answer in {_PATIENCE_SECONDS:g} s"))
    return None


_OWNER = """
SELECT p.owner, extract(epoch FROM clock_timestamp() - s.seen_at)::float8, s.sample
FROM cdc_migrator.stream_progress p
LEFT JOIN cdc_migrator.stream_owner_seen s ON s.stream = p.stream AND s.epoch = p.epoch
WHERE p.stream = %s
"""

_TABLES = """
SELECT source_schema || '.' || source_table, target_schema || '.' || target_table, load_state,
       estimated_rows, rows_loaded, bytes_loaded, inserts, updates, deletes, truncates,
       truncates_ignored, joining,
       (to_jsonb(t) #>> '{route,source,0}') || '.' || (to_jsonb(t) #>> '{route,source,1}')
FROM cdc_migrator.table_progress t ORDER BY 1
"""

_NAMES = "SELECT target_schema, target_table FROM cdc_migrator.table_progress"


def _read_target(
    conn: psycopg.Connection, name: str, look_at_fence: bool, dear: _Dear
) -> TargetFacts:
    now, ahead = clock(conn)
    if not schema.exists(conn, "target"):
        return TargetFacts(now, ahead, None, None, None, (), None)
    row = migration.read(conn)
    stored = progress.read(conn)
    stream = owner = None
    if stored is not None:
        stream = StreamSample(
            stored.topic,
            stored.next_offset,
            stored.commit_position,
            stored.source_committed_at,
            stored.applied_at,
            stored.transactions_applied,
            stored.transactions_redelivered,
            stored.transactions_suspect,
            None if stored.active else cutover.strays(conn),
        )
        seen = conn.execute(_OWNER, (progress.FORWARD,)).fetchone()
        if seen is not None:
            owner = OwnerSample(seen[0], seen[1], ServiceSample.from_json(seen[2]))
    tables = tuple(TableSample(*facts) for facts in conn.execute(_TABLES))
    guard = read = None
    if look_at_fence:
        guard = dear.fence.get(lambda: unless_slow(conn, lambda: _read_fence(conn, name)))
    if schema.has(conn, "reconcile_map"):
        read = dear.proofs.get(lambda: unless_slow(conn, lambda: reading.read_proofs(conn)))
    moved = conn.execute(_NAMES).fetchall()
    server = dear.target.get(lambda: unless_slow(conn, lambda: read_server(conn, moved)))
    topic_id = stored.topic_id if stored else None
    facts = TargetFacts(
        now,
        ahead,
        row,
        stream,
        owner,
        tables,
        _read_load(conn),
        guard,
        read,
        server,
        topic_id=topic_id,
    )
    if schema.has(conn, "parked_key"):
        parked = dear.parked.get(lambda: unless_slow(conn, lambda: dead_letters.standing(conn)))
        facts = replace(facts, parked=parked)
    facts = replace(facts, waiting=schema_reading.read_waiting(conn))
    if not schema.has(conn, "inspection"):
        return facts
    return replace(facts, freshness=freshness.read(conn), inspection=inspection.read(conn))


def _read_fence(conn: psycopg.Connection, name: str) -> FenceSample | None:
    if not schema.has(conn, "fenced_table"):  # what an earlier release has begun
        return None
    found = fence.look(conn, name)
    return FenceSample(
        found.state, tuple(map(str, found.lacking)), tuple(map(str, found.taken_off))
    )


def _read_load(conn: psycopg.Connection) -> LoadSample:
    done, whole = load.weights(conn)
    elapsed = conn.execute(
        "SELECT extract(epoch FROM CASE WHEN bool_and(load_state = 'loaded') "
        "THEN max(load_ended_at) ELSE clock_timestamp() END - min(load_started_at))::float8 "
        "FROM cdc_migrator.table_progress"
    ).fetchone()
    return LoadSample(done / whole if whole else None, elapsed[0] if elapsed else None)
