"""The long-running consumer: claim the stream, move it, say how it goes, stop in good order.

This is where reader, applier and monitor are wired. Whatever cannot be applied is written down
as the migration's last error before it ends the service.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
import structlog

from cdc_migrator import __version__
from cdc_migrator.apply.applier import Applier
from cdc_migrator.apply.batcher import Batcher, BatchLimits
from cdc_migrator.apply.pieces import PieceLimits
from cdc_migrator.apply.shape import Reread
from cdc_migrator.control import journal, load, migration, progress, schema
from cdc_migrator.control.load import LoadState
from cdc_migrator.control.migration import Migration, Phase
from cdc_migrator.control.progress import Progress
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.databases.postgres.side import sides
from cdc_migrator.errors import (
    ConfigurationError,
    Fenced,
    MigratorError,
    Refused,
    StreamHalted,
)
from cdc_migrator.model.changes import Op, TruncatePolicy
from cdc_migrator.model.positions import Snapshot, lsn_to_int
from cdc_migrator.model.tables import Table, TableName
from cdc_migrator.monitor.http import Answers, Check, HealthServer
from cdc_migrator.monitor.metrics import Metrics
from cdc_migrator.monitor.sample import ServiceSample, ServiceState
from cdc_migrator.monitor.sampler import Places, Sampler
from cdc_migrator.service.keeper import Keeper
from cdc_migrator.service.pipeline import Pipeline, Work
from cdc_migrator.service.pruner import Pruner
from cdc_migrator.stream.assembler import Assembler
from cdc_migrator.stream.consumer import StreamConsumer
from cdc_migrator.stream.envelope import Envelope
from cdc_migrator.stream.reader import StreamReader
from cdc_migrator.stream.spill import SpillLimits

_TURN_SECONDS = 0.25
_STANDBY_SECONDS = 1.0
_STOP_SECONDS = 60.0
_OPS = (Op.INSERT, Op.UPDATE, Op.DELETE, Op.TRUNCATE)

_log = structlog.get_logger("cdc_migrator.service")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the service works with.

    Attributes:
        source_dsn, target_dsn: give complete connection strings, read when connecting.
        kafka: librdkafka properties with ``bootstrap.servers``.
        limits, queue_bytes, spill: see `Batcher`, `ByteQueue` and `Assembler`.
        truncates, retry_for: see `Applier`.
        takeover_after: seconds without a sign of life after which an owner is replaced.
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
    takeover_after: float
    http_host: str
    http_port: int | None


class Service:
    """One run of the consumer; `stop` may be called from a signal handler."""

    def __init__(self, options: RunOptions) -> None:
        self._options = options
        self._stop = threading.Event()
        self._state = ServiceState.STARTING
        self._turn = time.monotonic()
        self._transactions = 0
        self._events = 0
        self._lost: MigratorError | None = None
        self._metrics = Metrics(options.migration, __version__)
        self._pipeline: Pipeline | None = None
        self._consumer: StreamConsumer | None = None
        self._keeper: Keeper | None = None

    def stop(self) -> None:
        """Finish the batch under way and end."""
        self._stop.set()

    def run(self) -> None:
        """Apply until stopped.

        Raises:
            StreamHalted: something cannot be applied; nothing past it was.
            Fenced: another process took over.
            MigratorError: the stream cannot be started.
        """
        with ExitStack() as stack:
            self._serve(stack)
            there = self._read_migration()
            tables, rereads = self._read_tables()
            beside = sides(tables, self._options.migration)
            pruned = [one.name for one in beside.values()]
            stack.enter_context(
                Pruner(self._options.source_dsn, self._options.migration, pruned, self._on_lost)
            )
            applier = stack.enter_context(
                Applier(
                    self._options.target_dsn(),
                    tables,
                    there.placeholder,
                    sides=beside,
                    rereads=rereads,
                    truncates=self._options.truncates,
                    pieces=PieceLimits(self._options.limits.rows, self._options.limits.bytes),
                    retry_for=self._options.retry_for,
                    stopping=self._stop,
                )
            )
            claimed = self._claim(applier)
            if claimed is None:
                return
            try:
                self._stream(applier, claimed, rereads)
            except Fenced:
                raise
            except MigratorError as error:
                self._write_down(error)
                raise
            finally:
                self._release(applier.epoch)

    def _read_migration(self) -> Migration:
        with self._target() as conn:
            there = migration.read(conn) if schema.exists(conn) else None
        if there is None or there.name != self._options.migration:
            raise migration.missing(self._options.migration)
        if not there.phase.reached(Phase.STREAM):
            raise Refused(
                "CDCM-RUN-TOO-EARLY",
                f"the migration is in its phase {there.phase!s}: applying changes begins "
                "when the load and its indexes are done",
                "Type `cdc-migrator migrate`, which goes on where it stopped.",
            )
        return there

    def _read_tables(self) -> tuple[list[Table], dict[TableName, Reread]]:
        with self._target() as conn:
            loads = load.read_tables(conn)
        unread = [str(one.source) for one in loads if one.state is not LoadState.LOADED]
        if unread:
            raise Refused(
                "CDCM-RUN-TOO-EARLY",
                f"{', '.join(unread)} is to be read again, and is not yet",
                f"Type `cdc-migrator backfill --again '{unread[0]}'`, which ends what was begun.",
            )
        wanted = {one.source for one in loads}
        with connect(
            self._options.source_dsn(), application_name="cdc-migrator run", side="source"
        ) as conn:
            tables = [table for table in read_tables(conn) if table.name in wanted]
        missing = sorted(str(name) for name in wanted - {table.name for table in tables})
        if missing:
            raise Refused(
                "CDCM-SOURCE-TABLE-GONE",
                f"the source has no longer: {', '.join(missing)}",
                "A table that moves must not be dropped or renamed. `cdc-migrator abort`, then "
                "`cdc-migrator migrate` starts over.",
            )
        rereads = {
            one.source: Reread(Snapshot.parse(one.reread_snapshot), lsn_to_int(one.reread_until))
            for one in loads
            if one.reread_snapshot and one.reread_until
        }
        return tables, rereads

    def _claim(self, applier: Applier) -> Progress | None:
        owner = journal.actor()
        while not self._stop.is_set():
            self._turn = time.monotonic()
            claimed = applier.start(owner, self._options.takeover_after)
            if claimed is not None:
                _log.info(
                    "stream-claimed",
                    topic=claimed.topic,
                    offset=claimed.next_offset,
                    epoch=claimed.epoch,
                )
                with self._target() as conn:
                    migration.update(conn, "run-started", last_error=None)
                return claimed
            if self._state is not ServiceState.STANDBY:
                self._state = ServiceState.STANDBY
                _log.info("standby", reason="another process applies this stream")
            self._stop.wait(_STANDBY_SECONDS)
        return None

    def _stream(
        self, applier: Applier, claimed: Progress, rereads: Mapping[TableName, Reread]
    ) -> None:
        options = self._options
        security = {k: v for k, v in options.kafka.items() if k != "bootstrap.servers"}
        with ExitStack() as stack:
            consumer = StreamConsumer(
                options.kafka["bootstrap.servers"],
                claimed.topic,
                f"cdcm-{options.migration}",
                claimed.next_offset,
                security,
            )
            stack.callback(consumer.close)
            self._consumer = consumer
            reader = StreamReader(
                consumer,
                Envelope(claimed.topic),
                Assembler(
                    claimed.topic,
                    claimed.next_offset,
                    claimed.commit_position,
                    claimed.partition,
                    options.spill,
                    lambda table, xid, commit: (
                        table in rereads and rereads[table].covers(xid, commit)
                    ),
                ),
            )
            pipeline = Pipeline(
                reader,
                Batcher(options.limits, claimed.next_offset, claimed.commit_position),
                applier.prepare,
                lambda work: self._apply(applier, work),
                options.queue_bytes,
            )
            self._pipeline = pipeline
            sampler = stack.enter_context(
                Sampler(
                    Places(
                        options.migration,
                        options.source_dsn,
                        options.target_dsn,
                        options.connect_url,
                        options.kafka,
                    )
                )
            )
            self._keeper = stack.enter_context(
                Keeper(
                    options.target_dsn,
                    applier.epoch,
                    sampler,
                    self._metrics,
                    self._measure,
                    lambda: (self._transactions, self._events),
                    self._on_lost,
                )
            )
            self._state = ServiceState.STREAMING
            pipeline.start()
            try:
                while pipeline.alive() and not self._stop.wait(_TURN_SECONDS):
                    self._turn = time.monotonic()
                    if self._lost is not None:
                        raise self._lost
            finally:
                self._state = ServiceState.STOPPING
                self._wind_up(pipeline)
            _log.info("stopped", transactions=self._transactions, events=self._events)

    def _wind_up(self, pipeline: Pipeline) -> None:
        """Wait for the batch under way; after a halt, for all that lies in front of it."""
        deadline: float | None = None
        while not pipeline.join(_TURN_SECONDS):
            self._turn = time.monotonic()
            if self._stop.is_set() or self._lost is not None:
                pipeline.stop()
                deadline = deadline or self._turn + _STOP_SECONDS
                if self._turn > deadline:
                    return

    def _apply(self, applier: Applier, work: Work) -> None:
        applied = applier.apply(work.batch, work.prepared)
        self._transactions += applied.transactions
        self._events += applied.changes
        self._metrics.batch_applied(
            applied.seconds,
            applied.transactions,
            {
                (str(name), op): count
                for name, of_table in applied.counts.items()
                for op, count in zip(_OPS, of_table[:4], strict=True)
                if count
            },
            work.batch.redelivered,
            work.batch.suspect,
        )
        if applied.retries:
            _log.warning("applied-after-retries", retries=applied.retries, seconds=applied.seconds)
        if self._consumer is not None:
            self._consumer.hint(work.batch.next_offset)

    def _measure(self) -> ServiceSample:
        pipeline, consumer = self._pipeline, self._consumer
        waiting = consumer.waiting if consumer else None
        state = self._state
        if state is ServiceState.STREAMING and waiting:
            state = ServiceState.WAITING_FOR_KAFKA
        return ServiceSample(
            at=datetime.now(UTC),
            state=state,
            at_end=pipeline.idle if pipeline else None,
            queue_bytes=pipeline.queued_bytes if pipeline else None,
            waiting=waiting,
        )

    def _on_lost(self, error: MigratorError) -> None:
        self._lost = error

    def _write_down(self, error: MigratorError) -> None:
        document = error.as_dict() | {"at": datetime.now(UTC).isoformat()}
        if isinstance(error, StreamHalted):
            document["position"] = error.position
        _log.error("halted", **document)
        with suppress(MigratorError, psycopg.Error), self._target() as conn:
            migration.update(conn, "run-failed", last_error=document)

    def _release(self, epoch: int) -> None:
        with suppress(MigratorError, psycopg.Error), self._target() as conn:
            progress.release(conn, epoch)

    def _target(self) -> psycopg.Connection:
        return connect(
            self._options.target_dsn(), application_name="cdc-migrator run", side="target"
        )

    def _serve(self, stack: ExitStack) -> None:
        if self._options.http_port is None:
            return
        answers = Answers(
            metrics=self._metrics.render,
            idle_seconds=lambda: time.monotonic() - self._turn,
            checks={
                "stream": self._check_stream,
                "target": self._check_target,
                "kafka": self._check_kafka,
                "source": lambda: self._check_part("source"),
            },
        )
        try:
            server = HealthServer(self._options.http_host, self._options.http_port, answers)
        except ConfigurationError as error:
            # A standby beside the owner finds the port taken; applying matters more.
            _log.warning("http-not-served", code=error.code, reason=error.cause)
            return
        stack.enter_context(server)
        _log.info("http-served", host=self._options.http_host, port=server.port)

    def _check_stream(self) -> Check:
        return Check(self._state is ServiceState.STREAMING, str(self._state))

    def _check_kafka(self) -> Check:
        consumer = self._consumer
        if consumer is None:
            return Check(False, "not connected")
        return Check(consumer.waiting is None, consumer.waiting or "")

    def _check_target(self) -> Check:
        keeper = self._keeper
        if keeper is None:
            return Check(False, "no stream is claimed")
        silent = time.monotonic() - keeper.seen_at
        return Check(silent < 10, f"answered {silent:.0f} s ago")

    def _check_part(self, part: str) -> Check:
        sample = self._keeper.sample if self._keeper else None
        if sample is None:
            return Check(False, "not measured yet")
        note = next((note for note in sample.notes if note.part == part), None)
        return Check(note is None, note.code if note else "")
