"""`backfill`: copy what was there when capture began."""

from __future__ import annotations

import typer

from cdc_migrator.cli.context import settings
from cdc_migrator.cli.output import printer


def backfill(ctx: typer.Context) -> None:
    """Copy what was there when capture began; goes on where a killed load stopped.

    Tables are read under the snapshot of the replication slot, the largest first, in parts that
    are each committed together with their mark: type it again after a kill, and only what is
    missing is copied. It needs the target's tables and a started capture.
    [bold]cdc-migrator migrate[/bold] does all of it in the right order.

    Example: [bold]cdc-migrator backfill --set load.workers=8[/bold]
    """
    from cdc_migrator.cli.steps import migrate_steps, watching

    with watching(printer(ctx)) as observer:
        migrate_steps(settings(ctx), observer).load()
