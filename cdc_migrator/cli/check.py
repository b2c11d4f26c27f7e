"""`check`: the preflight."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from cdc_migrator.cli.context import settings
from cdc_migrator.cli.output import printer

if TYPE_CHECKING:
    from rich.table import Table as View

    from cdc_migrator.capture.preflight import Preflight


def check(ctx: typer.Context) -> None:
    """Check that source, target, Connect and Kafka are ready for the migration.

    Looks at versions, settings, rights, room for a slot, tables without a way to tell their
    rows apart, column types, and the target's tables. Changes nothing. Each finding comes with
    its remedy. Exit code 3 when one of them stands against the migration.

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
        raise typer.Exit(3)
    out.next("cdc-migrator migrate")


def _view(found: Preflight) -> View:
    from rich.table import Table as View

    view = View(
        title=f"{len(found.tables)} tables, {len(found.findings)} findings", title_justify="left"
    )
    for column in ("severity", "code", "object", "cause", "remedy"):
        view.add_column(column, overflow="fold")
    for finding in found.findings:
        view.add_row(*map(str, (finding.severity, finding.code, finding.object, finding.cause,
                                finding.remedy)))  # fmt: skip
    return view
