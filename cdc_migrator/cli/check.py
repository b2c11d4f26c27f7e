"""`check`: the preflight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cdc_migrator.cli.context import settings
from cdc_migrator.cli.output import printer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cdc_migrator.capture.preflight import Preflight


def check(
    ctx: typer.Context,
    measure: Annotated[
        float,
        typer.Option(
            min=0,
            max=600,
            metavar="SECONDS",
            help="For how long the growth of the source's log is watched, at least.",
        ),
    ] = 3.0,
) -> None:
    """Check that source, target, Connect and Kafka are ready for the migration.

    Looks at versions and their known faults, settings, rights, row security, room for a slot,
    tables without a way to tell their rows apart, column types, triggers that would act on what
    arrives, how either side orders and writes text, the target's tables, the brokers and the
    worker. Changes nothing. Each finding comes with its remedy, and all of them are told at once;
    [bold]cdc-migrator migrate[/bold] looks again before it begins.

    It also says how long the load will take, how much room it needs, and for how long the source
    keeps its log, each with what it was measured by. What cannot be known is told as unknown.

    What you answer for is accepted in migration.yaml, by code and with a reason
    ([bold]accept[/bold]); it warns from then on, and [bold]status[/bold] shows it.

    Exit code 0 when nothing stands against the migration (warnings may be told), 3 when
    something does, 1 when a part only did not answer.

    Example: [bold]cdc-migrator check -o json[/bold]
    """
    from cdc_migrator.cli.steps import migrate_steps, watching

    out = printer(ctx)
    with watching(out) as observer:
        found = migrate_steps(settings(ctx), observer).check(measure)
    document = {
        "refused": found.refused,
        "tables": len(found.tables),
        "findings": [finding.as_dict() for finding in found.findings],
        "estimate": found.estimate.as_dict() if found.estimate else None,
    }
    out.data(document, lambda: _view(found))
    if found.refused:
        raise typer.Exit(1 if found.passing else 3)
    out.next("cdc-migrator migrate")


_ORDER = ("refuse", "warn", "info")


def _view(found: Preflight) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    tables = f"{len(found.tables)} table{'' if len(found.tables) == 1 else 's'} to move"
    if not found.findings:
        return f"{tables}, nothing stands against it"
    # Where the source could not be looked at, no table is not a number to show.
    title = f"{tables}; findings: {len(found.findings)}" if found.tables else None
    view = Table(title=title, title_justify="left", box=None, show_header=False, pad_edge=False)
    view.add_column()
    view.add_column(overflow="fold")
    for one in sorted(found.findings, key=lambda one: _ORDER.index(one.severity)):
        style = {"refuse": "red", "warn": "yellow"}.get(one.severity, "cyan")
        told = Text.assemble((f"{one.code}  {one.object}", style), f"\n{one.cause}\n")
        view.add_row(Text(one.severity, style), told.append(f"remedy: {one.remedy}"))
    return view
