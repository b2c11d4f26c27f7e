"""`plan`: documents that are read before something is done, or while it is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cdc_migrator.cli.context import settings
from cdc_migrator.cli.files import write_file
from cdc_migrator.cli.output import printer

app = typer.Typer(add_completion=False, rich_markup_mode="rich", no_args_is_help=True)


@app.callback()
def plan() -> None:
    """Write the documents that a team reads before something is done, or in the night while it is.

    They hold the commands to be typed, the times that were measured, and the names of people from
    migration.yaml.

    Example: [bold]cdc-migrator plan rollback[/bold]
    """


@app.command()
def rollback(
    ctx: typer.Context,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", dir_okay=False, help="Write it there, not to stdout."),
    ] = None,
) -> None:
    """Write the plan to go back to the source, as Markdown: print it, and keep it within reach.

    Where things stand, when to go back and who decides (people.decide), each step with its exact
    command and how long it took when it was tried, the queries that verify it, and messages for the
    users. Where there is no way back it says so first, and why. Write it anew after each rehearsal.

    It changes nothing, and works while a database is away: what is unknown then says so.

    Example: [bold]cdc-migrator plan rollback --to rollback.md[/bold]
    """
    from cdc_migrator.cli.evidence import evidence
    from cdc_migrator.cli.report_page import markdown
    from cdc_migrator.service import rollback_plan
    from cdc_migrator.service.judging import judge

    known = evidence(settings(ctx))
    document = rollback_plan.plan(known, judge(known))
    out = printer(ctx)
    if to is not None:
        write_file(to, markdown("rollback.md.j2", document).encode())
        out.say(f"written: {to}")
    if not out.for_people:
        out.data(document)
    elif to is None:
        sys.stdout.write(markdown("rollback.md.j2", document))
