"""`check`: the preflight."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from cdc_migrator.cli.context import settings
from cdc_migrator.cli.output import printer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cdc_migrator.capture.preflight import Preflight


def check(ctx: typer.Context) -> None:
    """Check that source, target, Connect and Kafka are ready for the migration.

    Looks at versions, settings, rights, room for a slot, tables without a way to tell their
    rows apart, column types, and the target's tables. Changes nothing. Each finding comes with
    its remedy, and all of them are told at once; [bold]cdc-migrator migrate[/bold] looks again
    before it begins.

    Exit code 0 when nothing stands against the migration (warnings may be told), 3 when
    something does, 1 when a part only did not answer.

    Example: [bold]cdc-migrator check -o json[/bold]
    """
    from cdc_migrator.cli.steps import migrate_steps, watching

    out = printer(ctx)
    with watching(out) as observer:
        found = migrate_steps(settings(ctx), observer).check()
    document = {
        "refused": found.refused,
        "tables": len(found.tables),
        "findings": [finding.as_dict() for finding in found.findings],
    }
    out.data(document, lambda: _view(found))
    if found.refused:
        raise typer.Exit(1 if found.passing else 3)
    out.next("cdc-migrator migrate")


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
    for one in found.findings:
        style = {"refuse": "red", "warn": "yellow"}.get(one.severity, "cyan")
        told = Text.assemble((f"{one.code}  {one.object}", style), f"\n{one.cause}\n")
        view.add_row(Text(one.severity, style), told.append(f"remedy: {one.remedy}"))
    return view
