"""`backfill`: copy what was there when capture began."""

from __future__ import annotations

from typing import Annotated

import typer

from cdc_migrator.cli.context import settings
from cdc_migrator.cli.output import printer


def backfill(
    ctx: typer.Context,
    again: Annotated[
        list[str] | None,
        typer.Option(
            "--again",
            metavar="SCHEMA.TABLE",
            help="Read this table again from the source as it is now; can be repeated.",
        ),
    ] = None,
) -> None:
    """Copy what was there when capture began; goes on where a killed load stopped.

    Tables are read under the snapshot of the replication slot, the largest first, in parts that
    are each committed together with their mark: type it again after a kill, and only what is
    missing is copied. It needs the target's tables and a started capture.
    [bold]cdc-migrator migrate[/bold] does all of it in the right order.

    With [bold]--again[/bold] tables that are loaded already are emptied on the target and read
    anew. That is the way out where [bold]run[/bold] has halted because the connector may have lost
    changes of a table: afterwards [bold]run[/bold] leaves out, for these tables, whatever the new
    reading has seen. Nothing may apply the stream meanwhile, and until it has caught up these
    tables are ahead of the others.

    Example: [bold]cdc-migrator backfill --set load.workers=8[/bold]
    Example: [bold]cdc-migrator backfill --again shop.orders --again shop.lines[/bold]
    """
    from cdc_migrator.cli.steps import migrate_steps, watching

    with watching(printer(ctx)) as observer:
        migrate_steps(settings(ctx), observer).load(again or ())
