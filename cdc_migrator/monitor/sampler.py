"""The sampler: asks source, target, Connect and Kafka, and puts one `Sample` together.

Reads only, each part under its own time limit; a part that does not answer becomes a note and
leaves its numbers None. The service, `status` and the metrics all use this one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc_migrator.control import fence, freshness, inspection, load, migration, progress, schema
from cdc_migrator.control.freshness import Freshness
from cdc_migrator.control.inspection import Part
from cdc_migrator.control.migration import Migration
from cdc_migrator.databases.postgres.catalog import table_names
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Failed, MigratorError
from cdc_migrator.model.naming import Names
from cdc_migrator.monitor import lag, reading
from cdc_migrator.monitor.remote import ConnectAsker, KafkaAsker
from cdc_migrator.monitor.sample import (
    ConnectorSample,
    FenceSample,
    LoadSample,
    Note,
    OwnerSample,
    ProofSample,
    Sample,
    ServiceSample,
    SlotSample,
    StreamSample,
    TableSample,
)

CONNECT_SECONDS = 3
STATEMENT_MILLISECONDS = 4000
# Longer than any part's own limits, so that it ends by itself with a reason.
_PATIENCE_SECONDS = 12.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Places:
    """Where to measure. The functions give complete connection strings, read anew each time a
    session is opened; `kafka` holds librdkafka properties with ``bootstrap.servers``. `shall_move`
    says by its names whether a table of the source does; without it nobody looks for new ones.
    `look_at_fence`: also ask whether each table of the target is fenced."""

    migration: str
    source_dsn: Callable[[], str]
    target_dsn: Callable[[], str]
    connect_url: str | None
    kafka: Mapping[str, str] | None
    shall_move: Callable[[Sequence[str]], bool] | None = None
    look_at_fence: bool = False


@dataclass(frozen=True, slots=True)
class _TargetFacts:
    now: datetime
    ahead_of_us: float
    migration: Migration | None
    stream: StreamSample | None
    owner: OwnerSample | None
    tables: tuple[TableSample, ...]
    load: LoadSample | None
    fence: FenceSample | None = None
    proofs: ProofSample | None = None
    freshness: Freshness | None = None
    inspection: Mapping[str, Part] | None = None


@dataclass(frozen=True, slots=True)
class _SourceFacts:
    ahead_of_us: float
    slot: SlotSample | None
    tables: tuple[tuple[str, ...], ...] = ()


class Sampler:
    """Takes samples; keeps its sessions and clients between them. Use as a context manager.

    Not for several threads at once.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._source = _Session("source", places.source_dsn)
        self._target = _Session("target", places.target_dsn)
        self._connect = ConnectAsker(places.connect_url) if places.connect_url else None
        self._kafka = KafkaAsker(places.kafka) if places.kafka else None
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
            self._target.ask, lambda conn: _read_target(conn, name, self._places.look_at_fence)
        )
        target = _get(target_asked, "target", notes)
        row = target.migration if target else None
        generation = row.generation if row and row.name == name else None
        names = Names(name, generation) if generation is not None else None
        source_asked = self._pool.submit(
            self._source.ask,
            lambda conn: _read_source(conn, name, names, self._places.shall_move is not None),
        )
        connector: Future[ConnectorSample | None] | None = None
        kafka: Future[int] | None = None
        if names and self._connect is not None:
            connector = self._pool.submit(self._connect.state, names.connector)
        # The progress row is made after the topic: before it there is nothing to ask.
        if target and target.stream and names and self._kafka is not None:
            kafka = self._pool.submit(self._kafka.end_offset, target.stream.topic)
        source = _get(source_asked, "source", notes)
        sample = Sample(
            at=target.now if target else datetime.now(UTC),
            migration=name,
            generation=generation,
            slot=source.slot if source else None,
            connector=_get(connector, "connect", notes) if connector else None,
            end_offset=_get(kafka, "kafka", notes) if kafka else None,
            target_ahead=target.ahead_of_us - source.ahead_of_us if target and source else None,
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
                not_added=self._not_added(target, source) if source else None,
            )
        if row and generation is None:
            notes.append(
                Note("target", "CDCM-TARGET-TAKEN", f"it belongs to the migration {row.name!r}")
            )
        if service is not None:
            owner = sample.owner.owner if sample.owner else None
            sample = replace(sample, owner=OwnerSample(owner, 0.0, service))
        return replace(_with_lag(sample), notes=tuple(notes))

    def _not_added(self, target: _TargetFacts, source: _SourceFacts) -> tuple[str, ...] | None:
        shall_move, row = self._places.shall_move, target.migration
        # Before capture begins, what the source has is what will be captured.
        if shall_move is None or row is None or row.consistent_point is None:
            return None
        known = {table.source for table in target.tables}
        return tuple(
            called[0] for called in source.tables if called[0] not in known and shall_move(called)
        )


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


class _Session:
    """One read-only session that is opened when needed and again after it broke."""

    def __init__(self, side: str, dsn: Callable[[], str]) -> None:
        self._side = side
        self._dsn = dsn
        self._conn: psycopg.Connection | None = None

    def ask(self, question: Callable[[psycopg.Connection], T]) -> T:
        """Ask under one snapshot. Raises MigratorError."""
        fresh = self._conn is None
        try:
            return self._ask(question)
        except psycopg.OperationalError:
            self.close()
            # A session that broke while it lay idle says nothing about the server now.
            if fresh:
                raise self._failed("the session broke") from None
        except psycopg.Error as error:
            self.close()
            raise self._failed(f"SQLSTATE {error.sqlstate}") from None
        try:
            return self._ask(question)
        except psycopg.Error as error:
            self.close()
            raise self._failed(f"SQLSTATE {error.sqlstate}") from None

    def _ask(self, question: Callable[[psycopg.Connection], T]) -> T:
        if self._conn is None:
            given = self._dsn()
            if "connect_timeout" not in conninfo_to_dict(given):
                given = make_conninfo(given, connect_timeout=CONNECT_SECONDS)
            self._conn = connect(
                given,
                application_name="cdc-migrator monitor",
                side=self._side,
                read_only=True,
                settings={"statement_timeout": str(STATEMENT_MILLISECONDS), "lock_timeout": "2s"},
            )
            self._conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with self._conn.transaction():
            return question(self._conn)

    def _failed(self, why: str) -> Failed:
        return Failed(
            "CDCM-MONITOR-QUERY",
            f"the {self._side} did not answer a question about the migration ({why})",
            "Look at the server's log; the next measurement tries again.",
        )

    def close(self) -> None:
        if self._conn is not None:
            with suppress(psycopg.Error):
                self._conn.close()
            self._conn = None


def _clock(conn: psycopg.Connection) -> tuple[datetime, float]:
    """The server's clock, and the seconds by which it is ahead of this machine's."""
    started, wall = time.monotonic(), datetime.now(UTC)
    row = conn.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    now: datetime = row[0]
    middle = wall + timedelta(seconds=(time.monotonic() - started) / 2)
    return now, (now - middle).total_seconds()


_OWNER = """
SELECT p.owner, extract(epoch FROM clock_timestamp() - s.seen_at)::float8, s.sample
FROM cdc_migrator.stream_progress p
LEFT JOIN cdc_migrator.stream_owner_seen s ON s.stream = p.stream AND s.epoch = p.epoch
WHERE p.stream = %s
"""

_TABLES = """
SELECT source_schema || '.' || source_table, target_schema || '.' || target_table, load_state,
       estimated_rows, rows_loaded, bytes_loaded, inserts, updates, deletes, truncates,
       truncates_ignored, joining
FROM cdc_migrator.table_progress ORDER BY 1
"""


def _read_target(conn: psycopg.Connection, name: str, look_at_fence: bool) -> _TargetFacts:
    now, ahead = _clock(conn)
    if not schema.exists(conn) or not _has(conn, "migration"):
        return _TargetFacts(now, ahead, None, None, None, (), None)
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
        )
        seen = conn.execute(_OWNER, (progress.FORWARD,)).fetchone()
        if seen is not None:
            owner = OwnerSample(seen[0], seen[1], ServiceSample.from_json(seen[2]))
    tables = tuple(TableSample(*facts) for facts in conn.execute(_TABLES))
    guard = _read_fence(conn, name) if look_at_fence else None
    read = reading.read_proofs(conn) if _has(conn, "reconcile_map") else None
    facts = _TargetFacts(now, ahead, row, stream, owner, tables, _read_load(conn), guard, read)
    if not _has(conn, "inspection"):
        return facts
    return replace(facts, freshness=freshness.read(conn), inspection=inspection.read(conn))


def _read_fence(conn: psycopg.Connection, name: str) -> FenceSample | None:
    if not _has(conn, "fenced_table"):  # what an earlier release has begun
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


def _has(conn: psycopg.Connection, table: str) -> bool:
    row = conn.execute("SELECT to_regclass(%s) IS NOT NULL", (f"cdc_migrator.{table}",)).fetchone()
    return bool(row and row[0])


_SLOT = """
SELECT active, wal_status, safe_wal_size, confirmed_flush_lsn::text,
       greatest(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                                ELSE pg_current_wal_lsn() END, restart_lsn), 0)::bigint
FROM pg_replication_slots WHERE slot_name = %s
"""


def _read_source(
    conn: psycopg.Connection, name: str, names: Names | None, look_at_tables: bool
) -> _SourceFacts:
    _, ahead = _clock(conn)
    if names is None:
        names = _names_on_source(conn, name)
    if names is None:
        return _SourceFacts(ahead, None)
    tables = tuple(table_names(conn)) if look_at_tables else ()
    row = conn.execute(_SLOT, (names.slot,)).fetchone()
    if row is None:
        return _SourceFacts(ahead, SlotSample(names.slot, exists=False), tables)
    active, status, safe, confirmed, retained = row
    slot = SlotSample(names.slot, True, active, status, retained, safe, confirmed)
    return _SourceFacts(ahead, slot, tables)


def _names_on_source(conn: psycopg.Connection, name: str) -> Names | None:
    """While the target does not answer, the source still knows the generation."""
    if not _has(conn, "migration"):
        return None
    row: Any = conn.execute(
        "SELECT generation FROM cdc_migrator.migration WHERE name = %s", (name,)
    ).fetchone()
    return Names(name, row[0]) if row else None
