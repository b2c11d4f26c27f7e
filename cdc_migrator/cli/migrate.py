"""`migrate`: schema, capture, load, indexes, stream; the one verb that resumes after any kill."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from cdc_migrator.cli.context import session, settings
from cdc_migrator.cli.options import Grants
from cdc_migrator.cli.output import console, printer
from cdc_migrator.cli.throttle import ThrottleFlag, hold_back

if TYPE_CHECKING:
    from cdc_migrator.config.settings import Settings
    from cdc_migrator.service.migrate_options import Observer


def migrate(
    ctx: typer.Context,
    no_run: Annotated[
        bool,
        typer.Option("--no-run", help="Stop before applying changes; `run` goes on from there."),
    ] = False,
    existing_schema: Annotated[
        bool,
        typer.Option(
            "--existing-schema",
            help="Take the target's tables as they are, if every row can arrive in them.",
        ),
    ] = False,
    grants: Grants = False,
    throttle: ThrottleFlag = None,
    new_capture: Annotated[
        bool,
        typer.Option(
            "--new-capture",
            help="Changes were lost: capture anew, keep the target's rows, write what differs.",
        ),
    ] = False,
    force: Annotated[
        str | None,
        typer.Option(
            metavar="REASON",
            help="With --new-capture: also where nothing is lost. The reason is journalled.",
        ),
    ] = None,
) -> None:
    """Move the database: schema, capture, load, indexes, then apply changes until stopped.

    Each step is written down and skipped once it is done, so the same command goes on after
    any kill, of itself or of anything that it works with. Capture starts before the load: what
    the application writes meanwhile waits in Kafka, not in the source's write-ahead log.

    The last step is [bold]cdc-migrator run[/bold] and does not end by itself: stop it with
    Ctrl-C or SIGTERM, and look at it with [bold]cdc-migrator status --watch[/bold]. The steps
    can also be typed one by one: schema apply pre-data, capture start, backfill, schema apply
    post-data, run.

    Where other tools make the target's schema (Flyway, Liquibase, Alembic), make it first and
    type [bold]--existing-schema[/bold]: it is compared, not made, and the migration goes on
    unless rows could not arrive. Keys and indexes that are there are kept; missing ones are made
    after the load. That is kept with the migration and need not be said again.

    Type it again when the source has got tables that shall move, or [bold]tables.include[/bold]
    was widened ([bold]cdc-migrator status[/bold] names them): they are made, loaded and join the
    stream, also while [bold]run[/bold] applies it ([bold]--no-run[/bold] in that case). From the
    first change of such a table on, the stream waits until the table is loaded.

    Where changes are lost for good (the slot is gone or given up, the source has failed over, the
    topic was cut or made anew: [bold]cdc-migrator status[/bold] says so, and [bold]run[/bold] its
    log), type [bold]--new-capture[/bold]: another slot, connector and topic; every table is
    compared with the source as the new slot shows it, range by range, and what differs is written.
    The target's rows stay, and the application writes on. It ends whoever applies the stream, and
    refuses where nothing is lost. Killed and typed again it goes on.

    Exit codes as those of [bold]cdc-migrator run[/bold]; with --no-run 0 once the changes can be
    applied.

    Example: [bold]cdc-migrator migrate --no-run[/bold]
    Example: [bold]cdc-migrator migrate --new-capture[/bold]
    """
    from cdc_migrator.cli import logs
    from cdc_migrator.cli.run import run_service
    from cdc_migrator.cli.steps import Logged, watching

    if force is not None and not new_capture:
        raise typer.BadParameter("it belongs to --new-capture", param_hint="--force")
    hold_back(ctx, throttle)
    wanted = _Wanted(existing_schema, grants, new_capture, force)
    configured = settings(ctx)
    if no_run or console(stderr=True).is_terminal:
        with watching(printer(ctx)) as observer:
            _until_streaming(configured, observer, wanted)
    else:
        logs.configure(service=True, verbose=session(ctx).verbose)
        _until_streaming(configured, Logged(time.monotonic), wanted)
    if no_run:
        printer(ctx).next("cdc-migrator run", "apply the changes; it runs on")
        return
    logs.configure(service=True, verbose=session(ctx).verbose)
    if sys.stdout.isatty():
        printer(ctx).next("cdc-migrator status --watch", "in another terminal")
    run_service(configured)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the command line asks for beyond the settings."""

    existing_schema: bool
    grants: bool
    new_capture: bool
    force: str | None


def _until_streaming(configured: Settings, observer: Observer, wanted: _Wanted) -> None:
    from cdc_migrator.cli.measuring import places
    from cdc_migrator.cli.steps import Counted, migrate_options
    from cdc_migrator.service.migrate import Migrate
    from cdc_migrator.service.recapture import Recapture

    counted = Counted(observer)
    options = migrate_options(
        configured, existing_schema=wanted.existing_schema, grants=wanted.grants
    )
    recapture = Recapture(options, places(configured), counted)
    if wanted.new_capture:
        recapture.begin(wanted.force)
    recapture.finish()
    Migrate(options, counted).until_streaming()
    if not counted.steps:
        observer.step("nothing to do before the stream: schema, load and indexes are done")
