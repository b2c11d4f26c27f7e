"""`abort`: give a migration up and leave nothing behind that could fill a disk."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cdc_migrator.cli.context import settings
from cdc_migrator.cli.output import Printer, printer
from cdc_migrator.errors import ConfigurationError

if TYPE_CHECKING:
    from cdc_migrator.capture.abort import Aborted
    from cdc_migrator.config.settings import Settings


def abort(
    ctx: typer.Context,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask for the migration's name; for scripts.")
    ] = False,
) -> None:
    """Give the migration up, at any phase: remove all it made beside the target's own tables.

    Removes the connector with its offsets, the replication slot, the publication, the topics,
    the secrets file and the control schemas on both sides, and ends the snapshot holder. The
    target's tables and their rows stay; a new start wants them empty. An abandoned slot fills
    the source's disk, so do not leave a migration lying: abort it.

    Exit code 0 when nothing of it is left; 1 when a part could not be reached: it is named, type
    the command again later.

    Example: [bold]cdc-migrator abort --yes[/bold]
    """
    configured = settings(ctx)
    out = printer(ctx)
    if not yes:
        confirm(configured.name, "remove it")
    remove_all(out, configured, after_cutover=False)


def remove_all(
    out: Printer, configured: Settings, after_cutover: bool, keep_fence: bool = False
) -> None:
    """Remove what the migration made, and tell it. Raises typer.Exit with 1 where a part stays."""
    from cdc_migrator.capture.abort import abort as remove
    from cdc_migrator.capture.abort import require_left, together
    from cdc_migrator.cli.endpoints import endpoints
    from cdc_migrator.cli.way_back import way_back_options
    from cdc_migrator.service import way_back

    places = endpoints(configured)
    options = way_back_options(configured)
    require_left(configured.target.dsn_with_password(), configured.name, after_cutover)
    gone = []
    if way_back.may_be_there(options):
        # First, for the control schema of the target, which goes last, knows the tables of both.
        gone.append(way_back.drop(options, lambda what: out.say(f"removed {what}")))
    gone.append(
        remove(
            configured.source.dsn_with_password(),
            configured.target.dsn_with_password(),
            places.workers,
            places.brokers,
            configured.name,
            places.secrets_dir,
            lambda what: out.say(f"removed {what}"),
            after_cutover=after_cutover,
            keep_fence=keep_fence,
        )
    )
    done = together(gone)
    tell_removed(out, done)
    if not done.removed:
        out.say("there was nothing to remove")
    elif not after_cutover:
        out.say("to start over: empty or drop those tables, then `cdc-migrator migrate`")


def tell_removed(out: Printer, done: Aborted) -> None:
    """Tell what is gone and what is not. Raises typer.Exit with 1 where a part stays."""
    if not out.for_people:
        out.data(
            {
                "removed": list(done.removed),
                "kept": [{"what": k.what, **k.error.as_dict()} for k in done.kept],
                "left": list(done.left),
            }
        )
    for what in done.left:
        out.say(f"left as it is: {what}")
    for kept in done.kept:
        out.say(f"still there: {kept.what} ({kept.error.code}: {kept.error.cause})", "red")
        out.say(f"remedy: {kept.error.remedy}")
    if not done.complete:
        raise typer.Exit(1)


def confirm(name: str, what: str) -> None:
    """Have the migration's name typed. Raises ConfigurationError: CDCM-ABORT-CONFIRM."""
    if not sys.stdin.isatty():
        raise ConfigurationError(
            "CDCM-ABORT-CONFIRM",
            f"to {what} asks for the migration's name, and there is no terminal to type it on",
            "Add --yes.",
        )
    typed = typer.prompt(f"Type the migration's name ({name}) to {what}", err=True)
    if typed != name:
        raise ConfigurationError(
            "CDCM-ABORT-CONFIRM",
            "that is not the migration's name; nothing was done",
            "Type the name as it stands in migration.yaml.",
        )
