"""`finish`: after the cutover, remove what the migration made; there is no way back then."""

from __future__ import annotations

from typing import Annotated

import typer

from cdc_migrator.cli.abort import confirm, remove_all
from cdc_migrator.cli.context import settings
from cdc_migrator.cli.output import printer


def finish(
    ctx: typer.Context,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask for the migration's name; for scripts.")
    ] = False,
    unfence_source: Annotated[
        bool,
        typer.Option(
            "--unfence-source", help="Let applications write to the old source again, for itself."
        ),
    ] = False,
) -> None:
    """End a migration whose target is open: remove all it made, on both sides and in Kafka.

    Removes the connector with its offsets, the replication slot, the publication, the topics, the
    secrets file, the target's control schema with the journal, and the triggers of its fence. The
    source's fence stays, so that an application that was forgotten is refused there and not
    heard of too late; [bold]DROP SCHEMA cdc_migrator CASCADE[/bold] removes it.

    Exit code 0 when nothing else is left; 1 when a part could not be reached: type it again; 3
    when the target was not opened.

    Example: [bold]cdc-migrator finish[/bold]
    """
    configured = settings(ctx)
    out = printer(ctx)
    if not yes:
        confirm(configured.name, "end it for good")
    remove_all(out, configured, after_cutover=True, keep_fence=not unfence_source)
