"""`schema`: make the target's tables, keys and indexes; show what would be made; compare."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_migrator.cli.context import settings
from cdc_migrator.cli.options import Grants
from cdc_migrator.cli.output import printer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cdc_migrator.backfill.schema import Planned
    from cdc_migrator.model.parts import Difference
    from cdc_migrator.service.compare import Sides

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="""Bring the target's schema in line with the source's.

    PostgreSQL's own dump makes it: tables, types, functions and views before the load; keys,
    indexes, triggers and foreign keys after it. [bold]cdc-migrator migrate[/bold] does both.
    plan shows what is missing, diff compares both sides attribute by attribute.

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
    existing_schema: Annotated[
        bool,
        typer.Option(
            "--existing-schema",
            help="pre-data: make nothing; refuse where rows could not arrive in what is there.",
        ),
    ] = False,
    grants: Grants = False,
) -> None:
    """Make what the target lacks of one section; what is there is left alone.

    So a table that was made by hand is kept, and the command can be repeated. Owners are not
    copied; grants where [bold]--grants[/bold] or the setting of that name asks for them.

    Example: [bold]cdc-migrator schema apply pre-data[/bold]
    """
    from cdc_migrator.cli.steps import migrate_steps, watching

    out = printer(ctx)
    with watching(out) as observer:
        steps = migrate_steps(
            settings(ctx),
            observer,
            existing_schema=existing_schema,
            grants=grants,
            databases_only=True,
        )
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


@app.command()
def plan(ctx: typer.Context, grants: Grants = False) -> None:
    """Show what apply would make on the target as it is now, and change nothing.

    Example: [bold]cdc-migrator schema plan[/bold]
    """
    from cdc_migrator.service.compare import plan_schema

    out = printer(ctx)
    planned = plan_schema(_sides(ctx, grants))
    document = {
        "pre_data": list(planned.before),
        "post_data": list(planned.after),
        "left_out": list(planned.left_out),
    }
    out.data(document, lambda: _planned(planned))


@app.command()
def diff(
    ctx: typer.Context,
    sql: Annotated[
        bool,
        typer.Option("--sql", help="Print only the statements that mend, in order, for psql."),
    ] = False,
    destructive: Annotated[
        bool,
        typer.Option("--destructive", help="With --sql: print what drops things, too."),
    ] = False,
    grants: Grants = False,
) -> None:
    """Compare both schemas, and show each difference with the statement that mends it.

    Compared are the migrated tables with all that belongs to them, and the types, functions,
    views and sequences around them; owners are not, grants only with
    [bold]--grants[/bold]. [bold]error[/bold]: rows cannot arrive or would differ.
    [bold]warn[/bold]: the target would behave differently. [bold]info[/bold]: nobody would
    notice, or it comes by itself after the load. A statement
    that drops something of the target for good is marked [bold]destructive[/bold], and is a
    comment in the output of [bold]--sql[/bold] unless [bold]--destructive[/bold] is given, too.

    Changes nothing. Exit code 0 when nothing but information is told, 1 when the schemas differ.

    Example: [bold]cdc-migrator schema diff --sql > mend.sql[/bold]
    """
    from cdc_migrator.backfill.diff.compare import counts
    from cdc_migrator.backfill.diff.run import script
    from cdc_migrator.service.compare import diff_schemas

    out = printer(ctx)
    found = diff_schemas(_sides(ctx, grants))
    if sql:
        sys.stdout.write("".join(f"{line}\n" for line in _psql(script(found), destructive)))
    else:
        from cdc_migrator.cli.schema_view import view

        document = {"differs": counts(found), "differences": [_document(one) for one in found]}
        out.data(document, lambda: view(found))
    if counts(found):
        raise typer.Exit(1)


def _sides(ctx: typer.Context, grants: bool) -> Sides:
    from cdc_migrator.backfill.schema_options import SchemaOptions
    from cdc_migrator.service.compare import Sides

    configured = settings(ctx)
    return Sides(
        configured.name,
        configured.source.dsn_with_password(),
        configured.target.dsn_with_password(),
        configured.tables.include,
        configured.tables.exclude,
        SchemaOptions(postgres_bin=configured.postgres_bin, grants=grants or configured.grants),
        tuple(one.wanted() for one in configured.mapping),
    )


def _psql(statements: list[tuple[str, bool]], all_of_them: bool) -> list[str]:
    if not statements:
        return []
    # What pinned the statements' words when they were read; bodies may name what comes later.
    lines = [
        "SET search_path = pg_catalog;",
        "SET check_function_bodies = off;",
        "SET standard_conforming_strings = on;",
        "SET client_encoding = 'UTF8';",
    ]
    for statement, drops in statements:
        text = f"{statement.rstrip().rstrip(';')};"
        if drops and not all_of_them:
            text = "\n".join(f"-- destructive: {line}" for line in text.splitlines())
        lines.append(text)
    return lines


def _document(one: Difference) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "object": one.object,
        "table": one.table,
        "attribute": one.attribute,
        "source": one.source,
        "target": one.target,
        "severity": one.severity,
        "destructive": one.destructive,
        "note": one.note or None,
        "statements": [statement.sql for statement in one.statements],
    }


def _planned(planned: Planned) -> RenderableType:
    from rich.text import Text

    text = Text()
    for title, labels in (
        ("before the rows", planned.before),
        ("after the rows", planned.after),
        ("left out", planned.left_out),
    ):
        text.append(f"{title}: {len(labels)}\n", style="bold")
        text.append("".join(f"  {label}\n" for label in labels))
    text.rstrip()
    return text
