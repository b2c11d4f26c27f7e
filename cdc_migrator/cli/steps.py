"""What the verbs of a migration share: its steps made from the settings, and their display."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from cdc_migrator.cli.output import Printer, console

if TYPE_CHECKING:
    from cdc_migrator.backfill.progress import LoadProgress
    from cdc_migrator.capture.rotating import Rotating
    from cdc_migrator.capture.start import CaptureOptions
    from cdc_migrator.cli.endpoints import Endpoints
    from cdc_migrator.config.settings import Settings
    from cdc_migrator.service.migrate import Migrate
    from cdc_migrator.service.migrate_options import MigrateOptions, Observer

_LINE_SECONDS = 5.0


def migrate_steps(
    configured: Settings,
    observer: Observer,
    *,
    existing_schema: bool = False,
    grants: bool = False,
    databases_only: bool = False,
) -> Migrate:
    """The steps of the configured migration, with `migrate_options` of the same arguments."""
    from cdc_migrator.service.migrate import Migrate

    options = migrate_options(
        configured, existing_schema=existing_schema, grants=grants, databases_only=databases_only
    )
    return Migrate(options, observer)


def migrate_options(
    configured: Settings,
    *,
    existing_schema: bool = False,
    grants: bool = False,
    databases_only: bool = False,
) -> MigrateOptions:
    """How the configured migration's steps are done; `grants`: even where the settings do not say
    so.

    Args:
        databases_only: no step that needs Connect or Kafka will be asked for; there may be none.

    Raises:
        Failed: CDCM-STACK-NONE. ConfigurationError: CDCM-CONFIG-PASSWORD-FILE, CDCM-MAPPING-PARK.
    """
    from cdc_migrator.backfill.load import LoadOptions
    from cdc_migrator.backfill.schema_options import SchemaOptions
    from cdc_migrator.backfill.throttle import ThrottleOptions
    from cdc_migrator.capture.checks.estimate import Stated
    from cdc_migrator.cli.endpoints import endpoints
    from cdc_migrator.config import mapping
    from cdc_migrator.service.capturing import Capturing
    from cdc_migrator.service.mapping import require_halting
    from cdc_migrator.service.migrate_options import MigrateOptions

    wanted = tuple(one.wanted() for one in configured.mapping)
    require_halting(wanted, configured.apply.bad_records)
    capturing = None
    if not databases_only:
        places = endpoints(configured)
        capturing = Capturing(
            places.workers,
            places.brokers,
            capture_options(configured, places),
        )
    lag = configured.load.max_replica_lag
    return MigrateOptions(
        name=configured.name,
        source_dsn=configured.source.dsn_with_password(),
        target_dsn=configured.target.dsn_with_password(),
        include=configured.tables.include,
        exclude=configured.tables.exclude,
        accept=configured.accept,
        capturing=capturing,
        stated=Stated(
            free_bytes=configured.target.free_bytes,
            max_bytes_per_second=configured.load.max_bytes_per_second,
            min_runway=configured.ready.min_runway.total_seconds(),
        ),
        takeover_after=configured.service.takeover_after.total_seconds(),
        load=LoadOptions(
            workers=configured.load.workers,
            chunk_bytes=configured.load.chunk_bytes,
            freeze_bytes=configured.load.freeze_bytes,
            throttle=ThrottleOptions(
                configured.load.max_rows_per_second,
                configured.load.max_bytes_per_second,
                lag.total_seconds() if lag is not None else None,
                configured.load.max_active_sessions,
            ),
            fence=configured.target.fence,
        ),
        schema=SchemaOptions(
            jobs=configured.load.index_jobs or configured.load.workers,
            memory=configured.load.index_memory,
            parallel=configured.load.index_workers,
            postgres_bin=configured.postgres_bin,
            grants=grants or configured.grants,
        ),
        existing_schema=existing_schema,
        way_back=configured.cutover.without_way_back is None,
        wanted=wanted,
        place=mapping.places(configured.file if wanted else None),
    )


def capture_options(configured: Settings, places: Endpoints) -> CaptureOptions:
    """How capture is set up under these settings."""
    from pathlib import Path

    from cdc_migrator.capture.start import CaptureOptions

    return CaptureOptions(
        secrets_dir=places.secrets_dir,
        state_dir=configured.state_dir,
        worker_secrets_dir=Path(places.secrets_dir_in_worker),
        secrets_mode=places.secrets_mode,
        source_host=configured.capture.source_host,
        source_port=configured.capture.source_port,
        replication_factor=places.replication_factor,
        slot_patience=configured.capture.slot_patience.total_seconds(),
        streaming_patience=configured.capture.streaming_patience.total_seconds(),
        connector=configured.capture.connector,
    )


def rotations(configured: Settings, places: Endpoints) -> list[Rotating]:
    """What keeps the worker's files new, for the way there and the way back."""
    from pathlib import Path

    from cdc_migrator.capture.rotating import Rotating
    from cdc_migrator.model.naming import Names, way_back_of

    capture, name = configured.capture, configured.name
    sides = (
        (name, configured.source, capture.source_host, capture.source_port),
        (way_back_of(name), configured.target, capture.target_host, capture.target_port),
    )
    return [
        Rotating(
            Names(called),
            database.dsn_with_password,
            places.workers,
            places.secrets_dir,
            Path(places.secrets_dir_in_worker),
            places.secrets_mode,
            host,
            port,
        )
        for called, database, host, port in sides
    ]


class Counted:
    """Passes everything on, and counts the steps: none means that all was done before."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.steps = 0

    def step(self, text: str) -> None:
        self.steps += 1
        self._observer.step(text)

    def loading(self, progress: LoadProgress) -> None:
        self._observer.loading(progress)


class Lines:
    """Steps as lines on stderr, the load as one line every few seconds: for pipes."""

    def __init__(self, out: Printer, clock: Callable[[], float]) -> None:
        self._out = out
        self._clock = clock
        self._next = 0.0

    def step(self, text: str) -> None:
        self._out.say(text)

    def loading(self, progress: LoadProgress) -> None:
        if self._clock() >= self._next:
            self._next = self._clock() + _LINE_SECONDS
            self._out.say(f"load: {load_line(progress)}")


class Logged:
    """Steps as log events: for `migrate`, which goes on as a service."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._log = structlog.get_logger("cdc_migrator.migrate")
        self._clock = clock
        self._next = 0.0

    def step(self, text: str) -> None:
        self._log.info("step", text=text)

    def loading(self, progress: LoadProgress) -> None:
        if self._clock() >= self._next:
            self._next = self._clock() + _LINE_SECONDS
            self._log.info(
                "loading",
                rows=progress.rows,
                bytes=progress.bytes,
                fraction=round(progress.fraction, 3),
                rows_per_second=round(progress.rows_per_second),
                seconds_left=progress.seconds_left and round(progress.seconds_left),
                waits=progress.waits,
            )


class Bar:
    """Steps as lines above a live bar of the load: for terminals."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._bar = Progress(
            TextColumn("load"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.description}"),
            console=console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("", total=1.0, visible=False)

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def step(self, text: str) -> None:
        self._bar.console.print(text, markup=False, soft_wrap=True)
        self._bar.update(self._task, visible=False)

    def loading(self, progress: LoadProgress) -> None:
        self._bar.update(
            self._task,
            visible=True,
            completed=progress.fraction,
            description=load_line(progress),
        )


@contextmanager
def watching(out: Printer) -> Iterator[Observer]:
    """Show steps in the way that fits where stderr goes."""
    import time

    if console(stderr=True).is_terminal:
        with Bar() as bar:
            yield bar
    else:
        yield Lines(out, time.monotonic)


def load_line(progress: LoadProgress) -> str:
    """Rows, bytes, rate and the time left, with what is being copied."""
    of = f" of about {progress.estimated_rows:,}" if progress.estimated_rows else ""
    left = f", {progress.seconds_left:.0f} s left" if progress.seconds_left is not None else ""
    now = f"  ({', '.join(str(name) for name in progress.tables[:3])})" if progress.tables else ""
    return (
        f"{progress.fraction:.0%}  {progress.rows:,}{of} rows, {progress.bytes / 1e6:,.1f} MB, "
        f"{progress.rows_per_second:,.0f} rows/s, {progress.bytes_per_second / 1e6:.1f} MB/s"
        f"{left}{now}" + (f"; waits: {progress.waits}" if progress.waits else "")
    )
