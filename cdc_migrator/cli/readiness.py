"""`readiness`: look at everything that stands between the migration and leaving its source."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_migrator.cli import context
from cdc_migrator.cli.output import Printer, printer
from cdc_migrator.config.values import parse_duration

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cdc_migrator.model.gates import Gate
    from cdc_migrator.service.readiness import Readiness

_PAUSE_SECONDS = 2.0
_MARKS = {"pass": ("✓", "green"), "fail": ("✗", "bold red"), "unknown": ("?", "bold yellow")}


def readiness(
    ctx: typer.Context,
    wait: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="Look again and again until it is ready, e.g. 10m; then give up.",
        ),
    ] = None,
) -> None:
    """Say whether it is safe to leave the source now, and why not.

    Each gate is one question: is everything loaded, is the lag small, was it all compared lately,
    are both schemas alike, can every table be fenced, is there a backup, ... Each answers
    [bold]pass[/bold], [bold]fail[/bold] or [bold]unknown[/bold], with its reason and what to do.
    Unknown is never ready. What takes longer (both schemas, sequences, who is in the fence's way)
    is looked at anew; `run` does so every ready.inspect_every, which is what [bold]status[/bold]
    and /metrics show. It reads only, and needs the service to run for a yes.

    The limits are in migration.yaml under [bold]ready[/bold]. What cannot be had is given up
    knowingly, with a reason: cutover.without_way_back, ready.schema_differs, backup.required.

    Exit code 0 when every gate is passed, 3 when not; 1 when the target does not answer.

    Example: [bold]cdc-migrator readiness --wait 10m[/bold]
    """
    from cdc_migrator.cli.measuring import inspect_options, limits, places
    from cdc_migrator.cli.status import measured
    from cdc_migrator.monitor.sampler import Sampler
    from cdc_migrator.service.readiness import look

    settings = context.settings(ctx)
    out = printer(ctx)
    until = time.monotonic() + (_seconds(wait) if wait is not None else 0.0)
    with Sampler(places(settings)) as sampler:
        while True:
            found = look(inspect_options(settings), sampler, limits(settings))
            measured(found.sample)
            if found.ready or time.monotonic() >= until:
                break
            if out.for_people:
                out.say(f"not ready yet: {', '.join(gate.name for gate in found.against)}")
            time.sleep(min(_PAUSE_SECONDS, max(until - time.monotonic(), 0.0)))
    _show(out, found)
    if not found.ready:
        raise typer.Exit(3)


def _seconds(text: str) -> float:
    try:
        return parse_duration(text).total_seconds()
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--wait") from None


def _show(out: Printer, found: Readiness) -> None:
    from cdc_migrator.monitor.status import readiness as verdict

    document = {
        "migration": found.sample.migration,
        **verdict(found.gates),
        "sampled_at": found.sample.at.isoformat(),
    }
    out.data(document, lambda: view(document["verdict"], found.gates))


def view(ready: bool, gates: tuple[Gate, ...]) -> RenderableType:
    """The verdict, then a line for each gate, with the remedy under those that are not passed."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    against = sum(not gate.passed for gate in gates)
    first: Any = Text("safe to cut over: yes", style="bold green")
    if not ready:
        told = f"safe to cut over: no, because {against} of {len(gates)} gates are not passed"
        first = Text(told, style="bold")
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for gate in gates:
        mark, style = _MARKS[gate.verdict]
        table.add_row(Text(mark, style=style), Text(gate.name), Text(gate.reason))
        if not gate.passed and gate.remedy:
            table.add_row("", "", Text(f"→ {gate.remedy}", style="dim"))
    return Group(first, Text(), table)
