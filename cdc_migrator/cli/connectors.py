"""`connectors lint | rules`: a connector's configuration held against what a migration needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_migrator.cli.context import settings
from cdc_migrator.cli.output import printer
from cdc_migrator.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from cdc_migrator.capture.lint.rule import Broken
    from cdc_migrator.config.settings import Settings

app = typer.Typer(add_completion=False, rich_markup_mode="rich", no_args_is_help=True)

_STYLES = {"refuse": "red", "warn": "yellow", "info": "cyan"}


@app.callback()
def connectors() -> None:
    """Look at a Debezium connector's configuration before it costs you data.

    Debezium's defaults are made for feeds that may lose a little: truncates are left out, values
    that cannot be converted become NULL, intervals are rounded, two connectors share a slot. A
    migration may lose nothing. [bold]lint[/bold] tells which settings of a connector stand
    against that, and what to set instead; [bold]rules[/bold] lists all that it looks for.

    Example: [bold]cdc-migrator connectors lint orders.json[/bold]
    """


@app.command()
def lint(
    ctx: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="JSON as Connect takes it, .properties, or YAML. Default: what the migration of "
            "migration.yaml would make.",
        ),
    ] = None,
    connector: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="One that the Connect worker of migration.yaml has, by its name."
        ),
    ] = None,
) -> None:
    """Hold a connector's configuration against what an exact migration needs.

    Of a file, of a connector that your Connect worker has, or of the one that this migration
    would make. Each finding names its rule, the setting with the value in force (many are
    Debezium's defaults), what happens, and what to set. [bold]refuse[/bold]: changes are lost or
    altered. [bold]warn[/bold]: they can be, or the source suffers. No secret is shown.

    Exit code 0 when nothing stands against it (warnings may be told), 3 when something does, 1
    when the worker does not answer, 2 when the file cannot be read.

    Example: [bold]cdc-migrator connectors lint --connector inventory-connector -o json[/bold]
    """
    from cdc_migrator.capture.findings import Severity
    from cdc_migrator.capture.lint.rules import lint as held_against

    if file is not None and connector is not None:
        raise typer.BadParameter("give FILE or --connector, not both")
    if file is not None:
        from cdc_migrator.capture.lint.files import read

        subject, found = str(file), held_against(read(file))
    elif connector is not None:
        subject, found = connector, held_against(_stored(settings(ctx), connector))
    else:
        subject, found = "the migration's connector", held_against(_ours(settings(ctx)))
    refused = any(one.rule.severity is Severity.REFUSE for one in found)
    document = {
        "subject": subject,
        "refused": refused,
        "findings": [one.as_dict() for one in found],
    }
    printer(ctx).data(document, lambda: _view(subject, found))
    if refused:
        raise typer.Exit(3)


@app.command()
def rules(ctx: typer.Context) -> None:
    """List every rule of `lint`: what it is about, what happens, what to set.

    They are for Debezium's connector for PostgreSQL, 3.x, as a source of an exact migration.

    Example: [bold]cdc-migrator connectors rules -o json[/bold]
    """
    from cdc_migrator.capture.lint.rules import RULES

    rows = [rule.as_dict() for rule in RULES]
    printer(ctx).data({"rules": rows}, lambda: _entries("", rows))


def _stored(configured: Settings, name: str) -> Mapping[str, str]:
    from cdc_migrator.capture.connect_rest import ConnectClient
    from cdc_migrator.cli.endpoints import endpoints

    with ConnectClient(endpoints(configured).workers) as client:
        found = client.config(name)
        names = ", ".join(sorted(client.names())) if found is None else ""
    if found is None:
        raise Refused(
            "CDCM-LINT-CONNECTOR",
            f"the Connect worker has no connector {name}",
            f"It has: {names or 'none'}.",
        )
    return found


def _ours(configured: Settings) -> Mapping[str, str]:
    """As `capture start` makes it; nothing is asked for it."""
    import secrets

    from cdc_migrator.capture.connector import PASSWORD_KEY, configuration
    from cdc_migrator.model.naming import Names

    given, names = configured.source.parameters(), Names(configured.name)
    directory = configured.connect.secrets_path if configured.connect else "/secrets"
    way_in = {
        "database.hostname": configured.capture.source_host or given.get("host", "localhost"),
        "database.port": str(configured.capture.source_port or given.get("port", "5432")),
        "database.user": given.get("user", ""),
        "database.dbname": given.get("dbname", ""),
        "database.password": f"${{file:{directory}/{names.connector}.properties:{PASSWORD_KEY}}}",
    }
    return configuration(
        names,
        way_in,
        secrets.token_hex(16),
        configured.kafka.replication_factor if configured.kafka else 1,
        configured.capture.connector,
    )


def _view(subject: str, found: Sequence[Broken]) -> RenderableType:
    if not found:
        return f"{subject}: nothing stands against it"
    return _entries(f"{subject}; findings: {len(found)}", [one.as_dict() for one in found])


def _entries(title: str, rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    view = Table(
        title=title or None, title_justify="left", box=None, show_header=False, pad_edge=False
    )
    view.add_column()
    view.add_column(overflow="fold")
    for row in rows:
        style = _STYLES[row["severity"]]
        shown = "" if row.get("value") is None else f"={row['value']}"
        told = Text.assemble(
            (f"{row['code']}  {row['setting']}{shown}", style), f"\n{row['why']}\n"
        )
        view.add_row(Text(row["severity"], style), told.append(f"remedy: {row['remedy']}"))
    return view
