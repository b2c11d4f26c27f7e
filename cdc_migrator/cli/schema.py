"""`schema`: the target's tables before the load, and their indexes and keys after it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from cdc_migrator.cli.context import settings
from cdc_migrator.cli.output import printer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="""Bring the target's schema in line with the source's.

    PostgreSQL's own dump makes it: tables, types, functions and views before the load; keys,
    indexes, triggers and foreign keys after it. [bold]cdc-migrator migrate[/bold] does both.

    Example: [bold]cdc-migrator schema apply pre-data[/bold]
    """,
)


class Section(StrEnum):
    """The part of the schema."""

    PRE_DATA = "pre-data"
    POST_DATA = "post-data"


@app.command()
def apply(
    ctx: typer.Context,
    section: Annotated[Section, typer.Argument(help="What comes before, or after the rows.")],
) -> None:
    """Make what the target lacks of one section; what is there is left alone.

    So a table that was made by hand is kept, and the command can be repeated. Owners and grants
    are not copied.

    Example: [bold]cdc-migrator schema apply pre-data[/bold]
    """
    from cdc_migrator.cli.steps import migrate_steps, watching

    out = printer(ctx)
    with watching(out) as observer:
        steps = migrate_steps(settings(ctx), observer)
        made = steps.schema() if section is Section.PRE_DATA else steps.indexes()
    if not out.for_people:
        out.data(
            {
                "section": section,
                "made": list(made.made),
                "left_out": list(made.left_out),
                "postponed": list(made.postponed),
            }
        )
