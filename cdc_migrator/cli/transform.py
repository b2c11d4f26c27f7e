"""`transform`: show what a mapping makes of rows, count what fails, print the tables it needs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cdc_migrator.cli.context import settings
from cdc_migrator.cli.output import printer

if TYPE_CHECKING:
    from cdc_migrator.service.transforming import TransformOptions

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="""Tables that change their shape on the way, as `mapping` in migration.yaml says.

    Schemas, tables and columns get other names; columns are dropped, cast, computed or masked; rows
    are filtered; a table is split into several, or several are merged into one. docs/transform.md
    explains how to write it, and what is refused.

    These verbs read both servers and write nothing, before a migration begins or while it runs.

    Example: [bold]cdc-migrator transform preview shop.customer[/bold]
    """,
)


@app.command()
def preview(
    ctx: typer.Context,
    table: Annotated[str, typer.Argument(help="A table of the source, as schema.table.")],
    rows: Annotated[
        int, typer.Option("--rows", min=1, max=1000, metavar="N", help="So many rows.")
    ] = 5,
) -> None:
    """Show rows of a table as they are, and beside them as the target will have them.

    Each entry of the mapping for the table is shown on its own, with its key, what it drops and
    which rows its filter leaves out. Where an expression fails on a row, the kind of error stands
    in the value's place. Values of rows are printed: it is what you ask for.

    Example: [bold]cdc-migrator transform preview shop.customer --rows 10[/bold]
    """
    from cdc_migrator.cli import transform_view as view
    from cdc_migrator.service import transforming as service

    out = printer(ctx)
    found = service.previewed(_options(ctx), table, rows)
    document = view.previewed(found)
    out.data(document, lambda: view.rows(document))
    out.next(f"cdc-migrator transform check {table}", "all rows")


@app.command()
def check(
    ctx: typer.Context,
    table: Annotated[
        str | None, typer.Argument(help="Only this table of the source; default: all mapped ones.")
    ] = None,
    show_values: Annotated[
        int,
        typer.Option(
            "--show-values",
            min=0,
            max=1000,
            metavar="N",
            help="Name the keys of so many rows for each kind of failure.",
        ),
    ] = 0,
) -> None:
    """Run all expressions and filters over all rows of the source, and count what fails.

    Failures are counted by column and kind of error: a division by zero, a text that is no number,
    a value that is too long for the target's column, an empty one where it demands one. Each table
    is read at one snapshot. No value of a row is printed; keys are with
    [bold]--show-values[/bold].

    Exit code 0 when nothing fails, 1 when something does.

    Example: [bold]cdc-migrator transform check shop.customer --show-values 3[/bold]
    """
    from cdc_migrator.cli import transform_view as view
    from cdc_migrator.cli.reconcile_view import ProgressLine
    from cdc_migrator.service import transforming as service

    out = printer(ctx)
    line = ProgressLine(out)
    try:
        found = service.tried(
            _options(ctx),
            table,
            show_values,
            lambda way: line.tell(f"{way.route.source} -> {way.route.target}"),
        )
    finally:
        line.close()
    document = view.tried(found)
    out.data(document, lambda: view.failures(document))
    if not document["passed"]:
        if not show_values:
            out.next("cdc-migrator transform check --show-values 5", "names rows")
        raise typer.Exit(1)


@app.command()
def schema(ctx: typer.Context) -> None:
    """Print the statements that make the tables that the mapping goes to and the target lacks.

    [bold]cdc-migrator migrate[/bold] makes them by itself; print them to make them otherwise
    beforehand: a table that is there is taken as it is. Columns have the types of what they are
    made of, and the primary key is that by which rows are told apart. What else the source's table
    has (indexes, foreign keys, defaults, triggers) is named in a comment and not carried over.

    Example: [bold]cdc-migrator transform schema > tables.sql[/bold]
    """
    from cdc_migrator.cli import transform_view as view
    from cdc_migrator.service import transforming as service

    out = printer(ctx)
    found = service.missing(_options(ctx))
    if out.for_people:
        sys.stdout.write(view.script(found))
        if not found:
            out.say("the target has all tables that the mapping goes to")
        return
    out.data(view.missing(found))


def _options(ctx: typer.Context) -> TransformOptions:
    from cdc_migrator.config import mapping
    from cdc_migrator.service.transforming import TransformOptions

    configured = settings(ctx)
    return TransformOptions(
        configured.name,
        configured.source.dsn_with_password(),
        configured.target.dsn_with_password(),
        configured.tables.include,
        configured.tables.exclude,
        [one.wanted() for one in configured.mapping],
        mapping.places(configured.file),
    )
