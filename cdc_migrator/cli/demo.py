"""`demo`: see the whole thing on this machine, with proof."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from cdc_migrator.cli.output import Printer, console, printer


def demo(
    ctx: typer.Context,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Leave stack and migration up, to look around in: no finish."),
    ] = False,
    scale: Annotated[
        float,
        typer.Option(min=0.05, max=100, help="Size of the shop; 1 is about 400,000 rows."),
    ] = 0.8,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir",
            metavar="DIR",
            show_default=".cdc-migrator/demo",
            help="Where it keeps configuration, logs and the stack's data.",
        ),
    ] = None,
) -> None:
    """Move a live shop from one PostgreSQL to another on this machine, and prove the result.

    Starts a real Kafka, Connect with Debezium, and two PostgreSQL servers; makes a shop with
    writers that never stop; moves it with the ordinary commands; kills the applier in the middle
    of a batch and then the Connect worker with SIGKILL, and lets them resume. Then both sides are
    digested by plain SQL, which shares no code with what moved the rows.

    It goes on to the cutover, under writers again: a value is changed on the target behind the
    migration's back, found by [bold]reconcile[/bold] and repaired; [bold]readiness[/bold], a
    rehearsal, and [bold]cutover[/bold]. The writers ask a routing row where to go, and count what
    was acknowledged and how long they had to wait.

    Then something breaks on the target: a rule of [bold]watch[/bold] sees the errors and goes back
    to the source by itself. Nothing is lost; the cause is removed, the shop goes over again, the
    [bold]report[/bold] is written, and [bold]finish[/bold] removes the migration. The writers'
    account is held against both databases.

    Needs no Docker, no root and no configuration, and takes about four minutes; the first time it
    also fetches 62 MB of jars. Everything but the report is removed at the end, unless --keep is
    given.

    Exit code 0 only if every table is equal, the changed value was found and repaired, the rule
    went back, and everything acknowledged is there in the end.

    Example: [bold]cdc-migrator demo --keep[/bold]
    """
    from cdc_migrator.cli.demo_view import document, view
    from cdc_migrator.demo.scene import Scene
    from cdc_migrator.demo.story import Story
    from cdc_migrator.stack import local
    from cdc_migrator.stack.progress import OnStderr

    started = time.monotonic()
    out = printer(ctx)
    place = (directory or Path(".cdc-migrator/demo")).resolve()
    stack_dir = place / "stack"
    # What an earlier demo left would be taken for this one's work.
    local.down(stack_dir, purge=True)
    _clear(place)
    place.mkdir(parents=True, exist_ok=True)
    out.say("starting Kafka, Connect and two PostgreSQL servers")
    try:
        stack = local.up(local.StackOptions(stack_dir), OnStderr())
        with _display(out) as progress:
            report = Story(Scene(place, stack, out.say, progress), scale, not keep).play()
        seconds = time.monotonic() - started
        out.data(document(report, seconds), lambda: view(report, seconds))
    finally:
        if not keep:
            local.down(stack_dir, purge=True)
            shutil.rmtree(place / "backup", ignore_errors=True)
    if report.ended is not None:
        out.say(f"the migration's report: {report.ended.report}")
    if keep:
        out.say(f"left up: cd {place}; cdc-migrator status; cdc-migrator journal show")
        out.next(f"cdc-migrator stack down --purge --state-dir {stack_dir}", "when done")
    else:
        out.next("cdc-migrator demo --keep", "leaves everything up to look around in")
        out.next("cdc-migrator init --source DSN --target DSN", "for your own database")
    if not (report.equal and report.switched):
        raise typer.Exit(1)


def _clear(place: Path) -> None:
    for name in ("migration.yaml", "migrate.log", "workload.log"):
        (place / name).unlink(missing_ok=True)
    for name in ("backup", "report"):
        shutil.rmtree(place / name, ignore_errors=True)


@contextmanager
def _display(out: Printer) -> Iterator[Any]:
    """A line that is always the present state on a terminal, else one now and then."""
    screen = console(stderr=True)
    if screen.is_terminal:
        with screen.status("") as line:
            yield line.update
        return
    last = [time.monotonic()]

    def say(text: str) -> None:
        if text and time.monotonic() - last[0] >= 5:
            last[0] = time.monotonic()
            out.say(f"  … {text}")

    yield say
