"""`config show|schema|check`: what is in force, what could be said, what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from cdc_migrator.cli import context
from cdc_migrator.cli.output import console, printer, to_json

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Show, check or describe the configuration.\n\n"
    "Settings come from migration.yaml; over it goes the environment (CDC_MIGRATOR_…), over that "
    "go flags.\n\n"
    "Example: cdc-migrator config check",
)


@app.command()
def show(ctx: typer.Context) -> None:
    """Print the settings in force, secrets hidden.

    All three sources and the defaults taken together, as every other command sees them.

    Example: cdc-migrator config show -o yaml
    """
    from cdc_migrator.config.reference import redacted

    values = redacted(context.settings(ctx))
    printer(ctx).data(values, lambda: _table(values))


@app.command()
def schema() -> None:
    """Print the JSON Schema of migration.yaml.

    Editors complete and check the file with it, and so can a CI job.

    Example: cdc-migrator config schema > migration.schema.json
    """
    from cdc_migrator.config.reference import json_schema

    typer.echo(to_json(json_schema(), indent=True), nl=False)


@app.command()
def check(ctx: typer.Context) -> None:
    """Check the configuration without connecting to anything.

    Names every fault at once with its line, and exits with 2 if there is one. Password files
    are opened, so that a missing one is found here.

    Example: cdc-migrator config check
    """
    from cdc_migrator.config.loader import find

    settings = context.settings(ctx)
    for side in (settings.source, settings.target):
        side.dsn_with_password()
    if settings.kafka is not None:
        settings.kafka.other_properties()
    if settings.connect is not None:
        settings.connect.reveal_login()
    path = find(context.session(ctx).config)
    out = printer(ctx)
    if out.for_people:
        console().print(f"{path or 'the environment'} is right", markup=False)
        out.next("cdc-migrator check", "are both databases ready?")
    else:
        out.data({"valid": True, "file": str(path) if path else None})


def _table(values: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table("setting", "value", box=None, pad_edge=False)
    for key, value in _flat("", values):
        table.add_row(key, value)
    return table


def _flat(prefix: str, values: dict[str, Any]) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            rows += _flat(f"{prefix}{key}.", value)
        elif isinstance(value, list):
            rows.append((f"{prefix}{key}", ", ".join(map(str, value))))
        else:
            rows.append((f"{prefix}{key}", "" if value in (None, {}) else str(value)))
    return rows
