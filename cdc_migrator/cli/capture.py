"""`capture start | status | stop`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from cdc_migrator.cli.context import settings
from cdc_migrator.cli.output import printer

if TYPE_CHECKING:
    from rich.table import Table as View

    from cdc_migrator.capture.start import CaptureStatus
    from cdc_migrator.config.settings import Settings
    from cdc_migrator.model.naming import Names

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="""Start, show or stop the capture of changes.

    Capture is a publication and a replication slot on the source and a Debezium connector that
    writes every committed transaction into one topic. [bold]cdc-migrator migrate[/bold] starts
    it; [bold]cdc-migrator abort[/bold] removes it.

    Example: [bold]cdc-migrator capture status[/bold]
    """,
)


@app.command()
def start(ctx: typer.Context) -> None:
    """Make publication, slot, topics and connector; what is there already stays.

    The slot's snapshot is held by a process of its own, so that the load can read under it
    later, from other processes. Returns when a change was seen to arrive in the topic.

    Example: [bold]cdc-migrator capture start[/bold]
    """
    from cdc_migrator.cli.steps import migrate_steps, watching

    out = printer(ctx)
    with watching(out) as observer:
        started = migrate_steps(settings(ctx), observer).capture()
    if not started.did:
        out.say("nothing to do: capture runs")
    if not out.for_people:
        out.data({"consistent_point": started.consistent_point, "did": list(started.did)})


@app.command()
def status(ctx: typer.Context) -> None:
    """Show the replication slot and the connector with its tasks.

    A slot that nobody reads keeps the source's write-ahead log: see what it retains. A failed
    task is shown with its reason; [bold]cdc-migrator capture start[/bold] restarts it.

    Exit code 0 when changes are being captured, else 1.

    Example: [bold]cdc-migrator capture status -o json[/bold]
    """
    from cdc_migrator.capture.start import capture_status
    from cdc_migrator.cli.endpoints import endpoints

    configured = settings(ctx)
    found = capture_status(
        configured.source.dsn_with_password(),
        endpoints(configured).workers,
        _names(configured),
    )
    document: dict[str, Any] = {
        "slot": asdict(found.slot) if found.slot else None,
        "connector": asdict(found.connector) if found.connector else None,
    }
    printer(ctx).data(document, lambda: _view(found))
    if found.slot is None or found.connector is None or not found.connector.running:
        raise typer.Exit(1)


@app.command()
def stop(ctx: typer.Context) -> None:
    """Stop the connector; the slot stays, so the source keeps its log until `start`.

    For a short rest, such as the maintenance of a Connect worker: nothing is lost, and
    [bold]cdc-migrator capture start[/bold] goes on where it stopped. A source that keeps its log
    for long fills its disk: give the migration up with [bold]cdc-migrator abort[/bold] rather
    than leave it stopped.

    Example: [bold]cdc-migrator capture stop[/bold]
    """
    from cdc_migrator.capture.start import stop_capture
    from cdc_migrator.cli.endpoints import endpoints

    configured = settings(ctx)
    names = _names(configured)
    stopped = stop_capture(
        configured.target.dsn_with_password(), endpoints(configured).workers, names
    )
    out = printer(ctx)
    out.say("the connector is stopped" if stopped else "there is no connector to stop")
    out.next("cdc-migrator capture start", "before the source's disk fills")


def _names(configured: Settings) -> Names:
    from cdc_migrator.control import migration
    from cdc_migrator.databases.postgres.connect import connect

    with connect(
        configured.target.dsn_with_password(),
        application_name=f"cdcm-{configured.name}-capture",
        side="target",
    ) as conn:
        return migration.require(conn, configured.name).names


def _view(found: CaptureStatus) -> View:
    from rich.table import Table as View

    from cdc_migrator.cli.status_view import size

    view = View(box=None, show_header=False, pad_edge=False)
    view.add_column(style="dim")
    view.add_column(overflow="fold")
    slot, connector = found.slot, found.connector
    if slot is None:
        view.add_row("slot", "there is none")
    else:
        reads = "a connector streams from it" if slot.streaming else "nobody streams from it"
        view.add_row("slot", f"{reads}, keeps {size(slot.retained_bytes)} of log")
        view.add_row("", f"confirmed {slot.confirmed_flush}, log {slot.wal_status}")
    if connector is None:
        view.add_row("connector", "there is none")
    else:
        tasks = ", ".join(connector.tasks) or "none"
        view.add_row("connector", f"{connector.state}, tasks: {tasks}")
        if connector.trace:
            view.add_row("", connector.trace)
    return view
