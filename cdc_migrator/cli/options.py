"""The options that every verb takes, before or after its name; they fill the `Session`.

And those that several take.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command

from cdc_migrator.cli.context import Format, session, set_override

_PANEL = "Shared options"

Grants = Annotated[
    bool,
    typer.Option(
        "--grants",
        help="With who may do what, whatever the setting `grants` says; the roles must be there.",
    ),
]


def shared_options() -> list[Any]:
    """The options as typer's parameter objects; none is passed on to a verb's function."""
    holder = typer.Typer(add_completion=False)
    holder.command()(_shared)
    return list(get_command(holder).params)


def _take_format(ctx: typer.Context, value: Format) -> Format:
    # After the verb it stands at its default where it was given before the verb.
    if value is not Format.TABLE:
        session(ctx).format = value
    return value


def _take_json(ctx: typer.Context, value: bool) -> bool:
    if value:
        session(ctx).format = Format.JSON
    return value


def _take_config(ctx: typer.Context, value: Path | None) -> Path | None:
    if value is not None:
        session(ctx).config = value
    return value


def _take_verbose(ctx: typer.Context, value: bool) -> bool:
    session(ctx).verbose |= value
    return value


def _take_set(ctx: typer.Context, value: list[str]) -> list[str]:
    for assignment in value or ():
        set_override(session(ctx).overrides, assignment)
    return value


def _take_no_color(value: bool) -> bool:
    if value:
        os.environ["NO_COLOR"] = "1"  # which rich and the programs that we start obey
    return value


def _shared(
    output: Annotated[
        Format,
        typer.Option(
            "--output",
            "-o",
            callback=_take_format,
            expose_value=False,
            rich_help_panel=_PANEL,
            help="Form of the data on stdout; errors are told in it on stderr.",
        ),
    ] = Format.TABLE,
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            callback=_take_json,
            expose_value=False,
            rich_help_panel=_PANEL,
            help="Short for -o json.",
        ),
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            callback=_take_config,
            expose_value=False,
            rich_help_panel=_PANEL,
            help="Read this file instead of the nearest migration.yaml.",
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            callback=_take_set,
            expose_value=False,
            rich_help_panel=_PANEL,
            help="Set one setting, such as apply.max_batch_rows=1000; may be repeated.",
        ),
    ] = None,
    no_color: Annotated[
        bool,
        typer.Option(
            "--no-color",
            callback=_take_no_color,
            expose_value=False,
            is_eager=True,
            rich_help_panel=_PANEL,
            help="No colours, as with NO_COLOR=1.",
        ),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            callback=_take_verbose,
            expose_value=False,
            rich_help_panel=_PANEL,
            help="Say more; show where an unexpected error came from.",
        ),
    ] = False,
) -> None:
    """Never called: its options are added to each command."""
