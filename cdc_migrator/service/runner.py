"""The long-running consumer: claim the stream, move it, say how it goes, stop in good order.

This is where reader, applier and monitor are wired. Whatever cannot be applied is written down
as the migration's last error before it ends the service.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime

import psycopg
import structlog

from cdc_migrator import __version__
from cdc_migrator.apply.applied import Applied
from cdc_migrator.apply.applier import Applier
from cdc_migrator.apply.batcher import Batch, Batcher
from cdc_migrator.apply.ddl import SchemaChange
from cdc_migrator.apply.fold import UnknownTable
from cdc_migrator.apply.parking import Parking
from cdc_migrator.control import journal, migration, progress, schema
from cdc_migrator.control.migration import Migration, Phase
from cdc_migrator.control.progress import Progress
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.databases.postgres.grants import named
from cdc_migrator.errors import Fenced, MigratorError, Refused
from cdc_migrator.model.logins import Role, login
from cdc_migrator.model.naming import Names
from cdc_migrator.monitor.http import Answers
from cdc_migrator.monitor.metrics import Metrics
from cdc_migrator.monitor.sample import ServiceSample, ServiceState
from cdc_migrator.monitor.sampler import Sampler
from cdc_migrator.service import health, registry
from cdc_migrator.service.begun import Begun
from cdc_migrator.service.comparing import Comparing
from cdc_migrator.service.dead_letters import Settling
from cdc_migrator.service.fencing import fence_target
from cdc_migrator.service.ground import Ground, require_topic
from cdc_migrator.service.inspecting import Inspecting
from cdc_migrator.service.keeper import Keeper
from cdc_migrator.service.options import RunOptions
from cdc_migrator.service.passing import Passing
from cdc_migrator.service.pipeline import Pipeline
from cdc_migrator.service.pruner import Pruner
from cdc_migrator.service.registry import Registry
from cdc_migrator.service.repairing import Repairs
from cdc_migrator.service.responder import Responder
from cdc_migrator.service.resuming import Resuming
from cdc_migrator.service.schema_changes import SchemaChanges
from cdc_migrator.service.schema_poll import SchemaPoll
from cdc_migrator.service.telling import tell_applied, write_down
from cdc_migrator.service.watching import Watching
from cdc_migrator.service.writer import Writer
from cdc_migrator.stream.assembler import Assembler
from cdc_migrator.stream.consumer import StreamConsumer
from cdc_migrator.stream.envelope import Envelope
from cdc_migrator.stream.parts import TableUnproven
from cdc_migrator.stream.reader import StreamReader
from cdc_migrator.stream.rows import OtherShape

_TURN_SECONDS = 0.25
_STANDBY_SECONDS = 1.0
_STOP_SECONDS = 60.0
# Nothing says meanwhile that this process lives.
_FENCE_SECONDS = 20.0

_log = structlog.get_logger("cdc_migrator.service")


class Service:
    """One run of the consumer; `stop` may be called from a signal handler."""

    def __init__(self, options: RunOptions) -> None:
        self._options = options
        self._stop = threading.Event()
        self._state = ServiceState.STARTING
        self._turn = time.monotonic()
        self._transactions = self._events = 0
        self._lost: MigratorError | None = None
        self._begun = Begun(options, self._target, self._stop, self._take_turn)
        self._passing = Passing()
        self._metrics = Metrics(options.migration, __version__)
        self._pipeline: Pipeline | None = None
        self._writer: Writer | None = None
        self._consumer: StreamConsumer | None = None
        self._keeper: Keeper | None = None
        self._comparing: Comparing | None = None
        self._ground: Ground | None = None

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
            health.serve(stack, self._options.http_host, self._options.http_port, self._answers())
            there = self._read_migration()
            try:
                if not self._begun.end():
                    return
            except MigratorError as error:
                write_down(self._target, error)
                raise
            known = self._read_registry()
            stack.enter_context(
                Pruner(self._options.source_dsn, self._options.migration, self._on_lost)
            )
            applier = stack.enter_context(
                Applier(
                    self._options.target_dsn(),
                    known.tables,
                    there.placeholder,
                    sides=known.sides,
                    rereads=known.rereads,
                    routes=known.routes,
                    migration=self._options.migration,
                    stops=known.stops(self._options.migration),
                    truncates=self._options.truncates,
                    parking=Parking(self._options.bad_records, self._options.most_parked),
                    pieces=self._options.pieces,
                    retry_for=self._options.retry_for,
                    stopping=self._stop,
                )
            )
            claimed = self._claim(applier)
            if claimed is None:
                return
            if claimed.generation != there.generation:
                raise Fenced("capture began anew while this process waited for its turn")
            try:
                self._stream(applier, claimed, known)
            except Fenced:
                raise
            except MigratorError as error:
                write_down(self._target, error)
                raise
            finally:
                self._release(applier.epoch)

    def _read_migration(self) -> Migration:
        dsn = self._options.target_dsn()
        with connect(dsn, application_name="cdc-migrator run", side="target") as conn:
            there = None
            if schema.exists(conn, "target"):
                schema.ensure(conn, "target", named=named(dsn))
                there = migration.read(conn)
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

    def _read_registry(self) -> Registry:
        with self._target() as conn:
            return registry.read(conn, self._options.source_dsn, self._options.migration)

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

    def _stream(self, applier: Applier, claimed: Progress, known: Registry) -> None:
        """Apply until stopped; where a table is being added, wait for it, then go on with it."""
        options = self._options
        with self._target() as conn:
            require_topic(options, claimed, conn)
        if claimed.active and not options.way_back:
            self._fence()
        with ExitStack() as stack:
            sampler = stack.enter_context(Sampler(options.places))
            self._keeper = stack.enter_context(
                Keeper(
                    options.target_dsn,
                    applier.epoch,
                    sampler,
                    self._metrics,
                    self._measure,
                    lambda: (self._transactions, self._events),
                    self._on_lost,
                    options.ready,
                )
            )
            keeper = self._keeper
            self._ground = stack.enter_context(
                Ground(options, lambda: keeper.sample, self._on_lost)
            )
            if not options.way_back:
                stack.enter_context(Inspecting(options.inspected, options.inspect_every))
                stack.enter_context(Watching(options.watched, options.roll_back, self._metrics))
            writer = self._writer = Writer(applier, self._on_applied)
            stack.enter_context(
                Responder(
                    options.source_dsn,
                    options.target_dsn,
                    options.migration,
                    writer,
                    Repairs(options.source_dsn, options.target_dsn),
                    Settling(writer),
                )
            )
            if options.continuous is not None:
                self._comparing = stack.enter_context(
                    Comparing(
                        options.source_dsn,
                        options.target_dsn,
                        options.migration,
                        options.continuous,
                    )
                )
            stack.enter_context(SchemaPoll(options))
            resuming = Resuming(
                options, applier, writer, self._read_registry, self._stop, self._take_turn
            )
            changes = SchemaChanges(options, applier, writer, resuming)
            begin = claimed
            if self._state is ServiceState.STANDBY:
                # Who applied until then may have settled changes of the schema.
                if not self._begun.end(alone=True):
                    return
                taken = resuming.take_up(self._read_registry())
                known, begin = taken.known, taken.begin
            while True:
                try:
                    self._flow(applier, writer, begin, known)
                    break
                except SchemaChange as change:
                    resumed = changes.settle(change, known)
                except OtherShape as halt:
                    resumed = changes.settle_found(halt, known)
                except UnknownTable as unknown:
                    resumed = changes.settle_renamed(unknown, known) or resuming.wait_for(unknown)
                except TableUnproven as halt:
                    # What is not written need not be whole; and an open target is not read into.
                    resumed = (
                        resuming.read_again(halt, known)
                        if applier.active
                        else resuming.pass_over(halt, known)
                    )
                if resumed is None:
                    break
                known, begin = resumed.known, resumed.begin
            self._state = ServiceState.STOPPING
            _log.info("stopped", transactions=self._transactions, events=self._events)

    def _fence(self) -> None:
        """Put up what is missing of the target's fence before a row is written behind it."""
        options = self._options
        off = fence_target(options.target_dsn(), options.migration, options.fence, _FENCE_SECONDS)
        if off:
            _log.warning("target-fence-was-off", tables=[str(table) for table in off])

    def _flow(self, applier: Applier, writer: Writer, begin: Progress, known: Registry) -> None:
        """Read and apply from `begin` on. Raises UnknownTable at a table that is not known."""
        options = self._options
        consumer = StreamConsumer(
            options.brokers, begin.topic, Names(options.migration).group, begin.next_offset
        )
        with closing(consumer):
            reader = StreamReader(
                consumer,
                Envelope(begin.topic),
                Assembler(
                    begin.topic,
                    begin.next_offset,
                    begin.commit_position,
                    begin.partition,
                    options.spill,
                    known.covers,
                    begin.applied_ahead,
                ),
                options.inline_rows,
            )
            writer.begin(begin.commit_position)
            pipeline = Pipeline(
                reader,
                Batcher(options.limits, begin.next_offset, begin.commit_position),
                applier.prepare,
                writer.write,
                options.queue_bytes,
            )
            self._consumer, self._pipeline = consumer, pipeline
            self._state = ServiceState.STREAMING
            pipeline.start()
            try:
                while pipeline.alive() and not self._stop.wait(_TURN_SECONDS):
                    self._turn = time.monotonic()
                    if self._lost is not None:
                        raise self._lost
            finally:
                if self._stop.is_set() or self._lost is not None:
                    self._state = ServiceState.STOPPING
                self._wind_up(pipeline)

    def _take_turn(self, state: ServiceState) -> float:
        """Say that the service lives; the monotonic time. Raises what has ended it."""
        self._state = state
        self._turn = time.monotonic()
        if self._lost is not None:
            raise self._lost
        return self._turn

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

    def _on_applied(self, batch: Batch, applied: Applied) -> None:
        self._transactions += applied.transactions
        self._events += applied.changes
        self._passing.note(batch)
        tell_applied(self._metrics, batch, applied)
        if self._consumer is not None:
            self._consumer.hint(batch.next_offset)

    def _measure(self) -> ServiceSample:
        pipeline, consumer, writer = self._pipeline, self._consumer, self._writer
        waiting = consumer.waiting if consumer else None
        state = self._state
        if state is ServiceState.STREAMING and waiting:
            state = ServiceState.WAITING_FOR_KAFKA
        waiting = health.WAITS.get(state, waiting)
        at_end = pipeline.idle and not writer.holding if pipeline and writer else None
        seen = self._keeper.sample if self._keeper else None
        stages = self._passing.stages(at_end, seen.source_ahead if seen else None)
        return ServiceSample(
            at=datetime.now(UTC),
            state=state,
            at_end=at_end,
            queue_bytes=pipeline.queued_bytes if pipeline else None,
            waiting=waiting,
            comparing=self._comparing.state if self._comparing else None,
            connector_restarts=self._ground.restarts if self._ground else None,
            capture_seconds=stages.capture if stages else None,
            delivery_seconds=stages.delivery if stages else None,
        )

    def _on_lost(self, error: MigratorError) -> None:
        self._lost = error

    def _release(self, epoch: int) -> None:
        with suppress(MigratorError, psycopg.Error), self._target() as conn:
            progress.release(conn, epoch)

    def _target(self) -> psycopg.Connection:
        dsn = login(self._options.target_dsn(), Role.APPLY)
        return connect(dsn, application_name="cdc-migrator run", side="target")

    def _answers(self) -> Answers:
        return Answers(
            metrics=self._metrics.render,
            idle_seconds=lambda: time.monotonic() - self._turn,
            checks={
                "stream": lambda: health.stream(self._state),
                "target": lambda: health.target(self._keeper),
                "kafka": lambda: health.kafka(self._consumer),
                "source": lambda: health.part(self._keeper, "source"),
            },
        )
