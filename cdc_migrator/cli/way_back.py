"""`way-back`: have the way back to the source ready before the target is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_migrator.cli.context import settings
from cdc_migrator.cli.output import printer

if TYPE_CHECKING:
    from cdc_migrator.config.settings import Settings
    from cdc_migrator.service.way_back import WayBackOptions

app = typer.Typer(add_completion=False, rich_markup_mode="rich", no_args_is_help=True)


@app.callback()
def way_back() -> None:
    """Have the way back to the source ready before the target is opened, or look at it.

    A stream in the other direction, from the target to the source, with a slot, a connector and a
    topic of its own. It is made and proven before the cutover, passes over what the migration
    itself writes, and counts from the commit on that opens the target. With it
    [bold]rollback[/bold] loses no write.

    Example: [bold]cdc-migrator way-back prepare[/bold]
    """


@app.command()
def prepare(
    ctx: typer.Context,
    wait: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="For how long a ping on the target may take to be applied on the source.",
        ),
    ] = 60.0,
) -> None:
    """Capture what will be written on the target, and prove that it comes to the source.

    Makes a replication slot and a publication on the target, a connector and a topic, and the
    control tables that applying needs on the source. Whatever the migration itself writes on the
    target is passed over there; what applications write counts from the commit on that opens the
    target. A running [bold]cdc-migrator run[/bold] applies it. Prepare it when the target is
    loaded and streaming: the target's log is decoded from then on.

    Of tables that change their shape (mapping) it is worked out what their rows become on the
    source. What cannot be is refused, with every reason and what [bold]back[/bold] can say to it.

    A ping shows that it works: a marker that is committed on the target, and seen by whoever
    applies on the source.

    Exit code 0 when the ping arrived; 1 when it did not, or a part was away; 3 when the target
    cannot be captured, with a remedy.

    Example: [bold]cdc-migrator way-back prepare[/bold]
    """
    from cdc_migrator.service import way_back

    options = way_back_options(settings(ctx))
    out = printer(ctx)
    did = way_back.prepare(options, lambda text: out.say(f"  {text}"))
    out.say("  a ping down the way back")
    seconds = way_back.prove(options, wait)
    if not out.for_people:
        out.data({"made": did, "ping_seconds": round(seconds, 3)})
    out.say(f"the way back is ready: a ping took {seconds * 1000:.0f} ms", "green")
    out.next("cdc-migrator readiness")


@app.command()
def status(ctx: typer.Context) -> None:
    """Whether there is a way back, whether it counts already, and how far it is behind.

    Exit code 0 whatever it says; 1 where the source does not answer.

    Example: [bold]cdc-migrator way-back status -o json[/bold]
    """
    from cdc_migrator.cli.way_back_view import view
    from cdc_migrator.service.way_back import look

    configured = settings(ctx)
    document: dict[str, Any] = look(configured.name, configured.source.dsn_with_password())
    printer(ctx).data(document, lambda: view(document))


@app.command()
def drop(
    ctx: typer.Context,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask for the migration's name.")
    ] = False,
) -> None:
    """Remove the way back: its slot, connector, topics and control tables. Fences stay.

    Exit code 0 when nothing of it is left; 1 when a part could not be reached: type it again.

    Example: [bold]cdc-migrator way-back drop[/bold]
    """
    from cdc_migrator.cli.abort import confirm, tell_removed
    from cdc_migrator.service import way_back

    configured = settings(ctx)
    out = printer(ctx)
    if not yes:
        confirm(configured.name, "give the way back up")
    done = way_back.drop(way_back_options(configured), lambda what: out.say(f"removed {what}"))
    tell_removed(out, done)


def way_back_options(configured: Settings) -> WayBackOptions:
    """What `service.way_back` works with under these settings."""
    from dataclasses import replace

    from cdc_migrator.cli.endpoints import endpoints
    from cdc_migrator.cli.steps import capture_options
    from cdc_migrator.service.capturing import Capturing
    from cdc_migrator.service.way_back import WayBackOptions

    places = endpoints(configured)
    capture = configured.capture
    return WayBackOptions(
        configured.name,
        configured.source.dsn_with_password(),
        configured.target.dsn_with_password(),
        Capturing(
            places.workers,
            places.brokers,
            replace(
                capture_options(configured, places),
                source_host=capture.target_host,
                source_port=capture.target_port,
                connector={
                    key: value
                    for key, value in capture.connector.items()
                    if not key.startswith("database.")
                },
            ),
        ),
        configured.accept,
        tuple(one.wanted() for one in configured.mapping),
    )
