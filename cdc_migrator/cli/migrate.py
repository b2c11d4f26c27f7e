"""`migrate`: schema, capture, load, indexes, stream; the one verb that resumes after any kill."""

from __future__ import annotations

import sys
import threading
import time
from typing import Annotated

import typer

from cdc_migrator.cli.context import session, settings
from cdc_migrator.cli.output import console, printer


def migrate(
    ctx: typer.Context,
    no_run: Annotated[
        bool,
        typer.Option("--no-run", help="Stop before applying changes; `run` goes on from there."),
    ] = False,
) -> None:
    """Move the database: schema, capture, load, indexes, then apply changes until stopped.

    Each step is written down and skipped once it is done, so the same command goes on after
    any kill, of itself or of anything that it works with. Capture starts before the load: what
    the application writes meanwhile waits in Kafka, not in the source's write-ahead log.

    The last step is [bold]cdc-migrator run[/bold] and does not end by itself: stop it with
    Ctrl-C or SIGTERM, and look at it with [bold]cdc-migrator status --watch[/bold].

    Example: [bold]cdc-migrator migrate[/bold]
    """
    from cdc_migrator.cli import logs
    from cdc_migrator.cli.run import run_service
    from cdc_migrator.cli.steps import Logged, migrate_steps, watching

    configured = settings(ctx)
    if no_run or console(stderr=True).is_terminal:
        with watching(printer(ctx)) as observer:
            steps = migrate_steps(configured, observer)
            steps.until_streaming()
    else:
        logs.configure(service=True, verbose=session(ctx).verbose)
        steps = migrate_steps(configured, Logged(time.monotonic))
        steps.until_streaming()
    if no_run:
        printer(ctx).next("cdc-migrator run", "apply the changes; it runs on")
        return
    logs.configure(service=True, verbose=session(ctx).verbose)
    if sys.stdout.isatty():
        printer(ctx).next("cdc-migrator status --watch", "in another terminal")
    stopping = threading.Event()
    keys = threading.Thread(
        target=steps.finish_foreign_keys, args=(stopping,), name="foreign keys", daemon=True
    )
    keys.start()
    try:
        run_service(configured)
    finally:
        stopping.set()
