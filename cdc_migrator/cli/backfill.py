"""`backfill`: copy what was there when capture began."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cdc_migrator.cli.context import settings
from cdc_migrator.cli.output import printer
from cdc_migrator.cli.throttle import ThrottleFlag, hold_back

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cdc_migrator.backfill.load import Loaded


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
    throttle: ThrottleFlag = None,
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

    Example: [bold]cdc-migrator backfill --throttle rows=50000,replica-lag=5s[/bold]
    Example: [bold]cdc-migrator backfill --again shop.orders --again shop.lines[/bold]
    """
    from cdc_migrator.cli.steps import migrate_steps, watching

    hold_back(ctx, throttle)
    out = printer(ctx)
    with watching(out) as observer:
        steps = migrate_steps(settings(ctx), observer, databases_only=True)
        loaded = steps.load(again or ())
    out.data(
        {
            "rows": loaded.rows,
            "bytes": loaded.bytes,
            "seconds": round(loaded.seconds, 1),
            "tables": [
                {
                    "source": str(table.source),
                    "rows": table.rows_loaded,
                    "bytes": table.bytes_loaded,
                    "seconds": table.seconds and round(table.seconds, 1),
                    "attempt": table.attempt,
                }
                for table in loaded.tables
            ],
        },
        lambda: _view(loaded),
    )


def _view(loaded: Loaded) -> RenderableType:
    from rich.table import Table

    view = Table(box=None, pad_edge=False)
    view.add_column("table", overflow="fold")
    for heading in ("rows", "MB", "seconds", "rows/s"):
        view.add_column(heading, justify="right")
    for one in loaded.tables:
        rate = f"{one.rows_loaded / one.seconds:,.0f}" if one.seconds else ""
        seconds = f"{one.seconds:.1f}" if one.seconds is not None else ""
        view.add_row(
            str(one.source), f"{one.rows_loaded:,}", f"{one.bytes_loaded / 1e6:,.1f}", seconds, rate
        )
    return view
