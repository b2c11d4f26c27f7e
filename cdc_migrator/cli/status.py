"""`status`: phase, progress, lag, and what is wrong; once or again and again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_migrator.cli import context
from cdc_migrator.cli.output import Printer, console, printer
from cdc_migrator.errors import Failed, MigratorError, Refused

if TYPE_CHECKING:
    from cdc_migrator.config.settings import Settings
    from cdc_migrator.monitor.sample import Sample


def status(
    ctx: typer.Context,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it again and again until Ctrl-C.")
    ] = False,
    every: Annotated[
        float, typer.Option(min=0.2, max=3600, metavar="SECONDS", help="How often, with --watch.")
    ] = 2.0,
) -> None:
    """Show phase, progress, lag and what is wrong.

    Asks both databases, Connect and Kafka from wherever it is typed; the service need not run on
    this machine, or at all. What could not be measured is shown as unknown and told. The verdict
    says whether it is safe to switch over, and if not, why; [bold]readiness[/bold] looks at
    everything for it anew, and tells what to do.

    With --watch and -o json each line is one document.

    Exit code 0 when the migration could be shown, whatever the verdict; 1 when the target does
    not answer or nothing was started on it.

    Example: [bold]cdc-migrator status --watch[/bold]
    """
    from cdc_migrator.cli.measuring import places
    from cdc_migrator.monitor.sampler import Sampler

    settings = context.settings(ctx)
    out = printer(ctx)
    with Sampler(places(settings)) as sampler:
        if not watch:
            _show(out, settings, measured(sampler.sample()))
            return
        try:
            _watch(out, settings, lambda: measured(sampler.sample()), every)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def measured(sample: Sample) -> Sample:
    """The sample, where it is one of this migration.

    Raises:
        MigratorError: the target did not answer; CDCM-TARGET-TAKEN: it belongs to another one;
            CDCM-MIGRATION-NONE: nothing was started on it.
    """
    if sample.phase is not None:
        return sample
    for note in sample.notes:
        if note.part != "target":
            continue
        if note.code == "CDCM-TARGET-TAKEN":
            raise Refused(
                note.code,
                f"the target cannot be shown: {note.cause}",
                "Look at `name` and `target` in migration.yaml.",
            )
        raise _unanswered(note.code, note.cause)
    raise Failed(
        "CDCM-MIGRATION-NONE",
        f"no migration was started on the target yet (its name would be {sample.migration!r})",
        "Start it with `cdc-migrator migrate`.",
    )


def _unanswered(code: str, cause: str) -> MigratorError:
    return Failed(code, cause, "All progress is kept on the target: bring it back, look again.")


def _show(out: Printer, settings: Settings, sample: Sample) -> None:
    from cdc_migrator.cli.measuring import limits
    from cdc_migrator.monitor.status import document

    whole = document(sample, limits(settings))
    out.data(whole, lambda: _view(whole))


def _watch(out: Printer, settings: Settings, measure: Any, every: float) -> None:
    from cdc_migrator.cli.measuring import limits
    from cdc_migrator.monitor.status import document

    screen = console()
    live: Any = None
    if out.for_people and screen.is_terminal:
        from rich.live import Live

        live = Live(console=screen, auto_refresh=False)
        live.start()
    try:
        while True:
            whole = document(measure(), limits(settings))
            if live is not None:
                live.update(_view(whole), refresh=True)
            elif out.for_people:
                screen.print(_one_line(whole), markup=False, soft_wrap=True)
            else:
                out.line(whole)
            time.sleep(every)
    finally:
        if live is not None:
            live.stop()


def _view(whole: dict[str, Any]) -> Any:
    from cdc_migrator.cli.status_view import view

    return view(whole)


def _one_line(whole: dict[str, Any]) -> str:
    from cdc_migrator.cli.status_view import one_line

    return one_line(whole)
