"""`baseline`: what a side does in ordinary times, and how both sides compare."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_migrator.cli.context import settings
from cdc_migrator.cli.output import printer
from cdc_migrator.config.values import parse_duration, parse_share

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cdc_migrator.config.settings import Settings
    from cdc_migrator.control.watch import Baseline
    from cdc_migrator.service.baseline import BaselineOptions, Comparison

_UNITS = {"ms": " ms", "second": " /s"}
_LEAST_SECONDS = 2.0

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="""Record and compare how fast either side is.

    Latency, throughput and error rate come from PostgreSQL's own counters (docs/watch.md says what
    each means). The source's latest baseline is what the rule [bold]latency[/bold] of
    [bold]watch[/bold] is measured by.

    Example: [bold]cdc-migrator baseline record --window 5m[/bold]
    """,
)


class Side(StrEnum):
    """Which database."""

    SOURCE = "source"
    TARGET = "target"


@app.command()
def record(
    ctx: typer.Context,
    side: Annotated[
        Side, typer.Option(help="Which database: before the cutover the source.")
    ] = Side.SOURCE,
    window: Annotated[
        str, typer.Option(metavar="DURATION", help="For how long it is looked at.")
    ] = "60s",
) -> None:
    """Look at a side for a while, and keep what it does as its baseline.

    Record it while applications do what they usually do. It only reads counters; what was found is
    kept on the target, and each later record replaces it in comparisons.

    Example: [bold]cdc-migrator baseline record --side source --window 60s[/bold]
    """
    from cdc_migrator.service import baseline

    out = printer(ctx)
    seconds = _seconds(window)
    if out.for_people:
        out.say(f"looking at the {side} for {seconds:g} s")
    made = baseline.record(_options(settings(ctx)), side.value, seconds)
    out.data(_document(made), lambda: _view([made]))
    if side is Side.TARGET:
        out.next("cdc-migrator baseline compare")


@app.command()
def compare(
    ctx: typer.Context,
    tolerance: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="By how much the target may be slower, or do less. Default: watch.tolerance.",
        ),
    ] = None,
) -> None:
    """Compare the latest baselines of both sides: latency and throughput.

    A number that is missing on a side, or is of another kind there (pg_stat_statements on one side
    alone), cannot be compared, which is not taken for good.

    Exit code 0 when the target is as good, up to the tolerance; 1 when not, or when it cannot be
    told; 3 when there is no baseline of a side.

    Example: [bold]cdc-migrator baseline compare --tolerance 20%[/bold]
    """
    from cdc_migrator.service import baseline

    configured = settings(ctx)
    allowed = configured.watch.tolerance if tolerance is None else _share(tolerance)
    found = baseline.compare(_options(configured), allowed)
    document = {
        "within": found.within,
        "tolerance": allowed,
        "numbers": [
            {
                "number": one.number,
                "source": one.source,
                "target": one.target,
                "change": one.change,
                "within": one.within,
            }
            for one in found.numbers
        ],
        "source": _document(found.source),
        "target": _document(found.target),
    }
    printer(ctx).data(document, lambda: _compared(found, allowed))
    if not found.within:
        raise typer.Exit(1)


@app.command("list")
def list_(ctx: typer.Context) -> None:
    """Show what was recorded, the newest first.

    Of each side the newest counts.

    Example: [bold]cdc-migrator baseline list[/bold]
    """
    from cdc_migrator.service import baseline

    found = baseline.recorded(_options(settings(ctx)))
    printer(ctx).data({"baselines": [_document(one) for one in found]}, lambda: _view(found))


def _options(configured: Settings) -> BaselineOptions:
    from cdc_migrator.service.baseline import BaselineOptions

    return BaselineOptions(
        configured.name,
        configured.source.dsn_with_password(),
        configured.target.dsn_with_password(),
    )


def _seconds(text: str) -> float:
    try:
        seconds = parse_duration(text).total_seconds()
        if seconds < _LEAST_SECONDS:
            raise ValueError(f"must be {_LEAST_SECONDS:g} s at least")
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--window") from None
    return seconds


def _share(text: str) -> float:
    try:
        return parse_share(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--tolerance") from None


def _document(one: Baseline) -> dict[str, Any]:
    return {
        "id": one.id,
        "side": one.side,
        "latency_of": one.kind,
        "numbers": one.numbers,
        "window_seconds": one.window_seconds,
        "taken_at": one.taken_at,
        "actor": one.actor,
    }


def _view(found: Sequence[Baseline]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    shown = {
        "mean": "latency_mean_ms",
        "p95": "latency_p95_ms",
        "p99": "latency_p99_ms",
        "throughput": "throughput_per_second",
        "errors": "error_rate",
    }
    for title in ("taken at", "side", "window", "latency of", *shown):
        table.add_column(title, justify="right" if title in shown else "left")
    for one in found:
        table.add_row(
            f"{one.taken_at:%Y-%m-%d %H:%M:%S}",
            one.side,
            f"{one.window_seconds:.0f} s",
            one.kind,
            *(Text(_shown(name, one.numbers.get(name))) for name in shown.values()),
        )
    return table


def _compared(found: Comparison, tolerance: float) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("", "source", "target", "change", ""):
        table.add_column(title, justify="right" if title else "left")
    for one in found.numbers:
        verdict, style = {
            True: ("ok", "green"),
            False: ("worse", "red"),
            None: ("cannot be told", "yellow"),
        }[one.within]
        table.add_row(
            one.number,
            _shown(one.number, one.source),
            _shown(one.number, one.target),
            "?" if one.change is None else f"{one.change:+.1%}",
            Text(verdict, style),
        )
    told = (
        "is as good as the source" if found.within else "is not shown to be as good as the source"
    )
    first = Text(f"the target {told}, within {tolerance:.0%}", "green" if found.within else "red")
    return Group(table, first)


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "?"
    if name == "error_rate":
        return f"{value:.2%}"
    return f"{value:.3g}{_UNITS.get(name.rpartition('_')[2], '')}"
