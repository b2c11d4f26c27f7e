"""`watch`: the rules that look after the target once it is open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_migrator.cli.context import settings
from cdc_migrator.cli.output import printer

if TYPE_CHECKING:
    from rich.console import RenderableType

_STYLES = {"fired": "bold red", "pending": "yellow", "unknown": "yellow", "fine": "green"}

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="""The rules that watch the target once it is open.

    `run` measures the number of each rule every watch.every, from the opening until the source is
    the open side again or the migration is finished. A rule fires when its number was beyond its
    threshold for all of its time ([bold]for[/bold]); it then tells, or goes back to the source.
    The rules are in migration.yaml under [bold]watch[/bold]; docs/watch.md has examples.

    Example: [bold]cdc-migrator watch list[/bold]
    """,
)


@app.command("list")
def list_(
    ctx: typer.Context,
    now: Annotated[
        bool,
        typer.Option(
            "--now", help="Measure each number here and now, whether the target is open or not."
        ),
    ] = False,
) -> None:
    """Show each rule with its number, how it stands and since when, and what has fired.

    What is shown is what `run` has found last. A number that is not known is told with its reason:
    it neither fires a rule nor clears it.

    With [bold]--now[/bold] the numbers are measured from here, so that you see before the cutover
    whether each query, statement and program gives one. Nothing fires by that.

    Example: [bold]cdc-migrator watch list --now[/bold]
    """
    from cdc_migrator.cli.measuring import watch_options
    from cdc_migrator.service.watch_status import read

    document = read(watch_options(settings(ctx)), now)
    printer(ctx).data(document, lambda: view(document))


def view(document: dict[str, Any]) -> RenderableType:
    """The document for people."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("rule", "number", "fires", "for", "then", "state", "since", ""):
        justify: Any = "right" if title == "number" else "left"
        table.add_column(title, overflow="fold", justify=justify)
    for row in document["rules"]:
        state = _state(row)
        table.add_row(
            Text(row["rule"]),
            Text("?" if row["number"] is None else _number(row["number"])),
            Text(_threshold(row)),
            Text(f"{row['for_seconds']:g} s"),
            Text(row["action"]),
            Text(state, _STYLES.get(state, "")),
            Text((row["since"] or "")[:19]),
            Text(_told(row)),
        )
    fired = [
        Text(
            f"{one['at']:%Y-%m-%d %H:%M:%S} {one['rule']} fired: {_number(one['number'])}, "
            f"{'below' if one['below'] else 'above'} {_number(one['threshold'])} for "
            f"{one['for_seconds']:g} s; {_done(one)}"
        )
        for one in document["firings"]
    ]
    return Group(Text(_first(document), "bold"), Text(), table, *fired)


def _first(document: dict[str, Any]) -> str:
    if not document["open"]:
        return "the target is not open: nothing is watched yet"
    if not document["watching"]:
        return "the target is open, and nobody watches it: start cdc-migrator run"
    if document["settling"]:
        return "the target was opened a moment ago: no rule counts yet (watch.settle)"
    return "the target is open and watched"


def _state(row: dict[str, Any]) -> str:
    if "beyond" in row and row["state"] is None:
        return {True: "beyond", False: "fine", None: "unknown"}[row["beyond"]]
    return row["state"] or ""


def _threshold(row: dict[str, Any]) -> str:
    if row["threshold"] is None:
        return "?"
    return f"{'below' if row['below'] else 'above'} {_number(row['threshold'])}"


def _told(row: dict[str, Any]) -> str:
    if row["error"]:
        return f"not done: {row['error']['code']}: {row['error']['cause']}"
    return row["why"] or ""


def _done(firing: dict[str, Any]) -> str:
    if firing["error"]:
        return f"{firing['action']} failed ({firing['error']['code']})"
    if firing["acted_at"] is None:
        return f"{firing['action']} is due"
    return "told" if firing["action"] == "alert" else "went back"


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 10000 else f"{value:.0f}"
