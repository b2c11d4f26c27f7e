"""`journal`: show what was decided and done, export it, and verify that nobody changed it since."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cdc_migrator.cli.context import settings
from cdc_migrator.cli.files import write_file
from cdc_migrator.cli.output import printer, to_json
from cdc_migrator.config.values import parse_duration

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cdc_migrator.control.chain import Checked, Entry
    from cdc_migrator.service.journal import Journals

app = typer.Typer(add_completion=False, rich_markup_mode="rich", no_args_is_help=True)

Side = Literal["target", "source"]
OneSide = Annotated[
    Side,
    typer.Option("--side", help="Whose journal: the source has one of the way back."),
]
Head = Annotated[
    str | None,
    typer.Option(
        "--head",
        metavar="HASH",
        help="The hash of an entry that was there once; then it must still be.",
    ),
]


@app.callback()
def journal() -> None:
    """Show, export and verify the journal of the migration.

    Whatever changes the state of the migration is written to the journal before it is done: when,
    by whom, what. Each entry holds the hash of the entry before it. The target has the journal of
    the migration; where a way back was prepared, the source has one of its own.

    Example: [bold]cdc-migrator journal show[/bold]
    """


@app.command()
def show(
    ctx: typer.Context,
    last: Annotated[
        int, typer.Option("--last", min=1, metavar="NUMBER", help="So many entries at most.")
    ] = 20,
    action: Annotated[
        str | None, typer.Option(metavar="ACTION", help="Only entries of this action.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Only the last, e.g. 2h.")
    ] = None,
    side: OneSide = "target",
) -> None:
    """Show the last entries of the journal.

    Times are UTC, by the database's clock. With -o json the hashes come along.

    Example: [bold]cdc-migrator journal show --action cutover-state --since 2h[/bold]
    """
    from cdc_migrator.service.journal import latest

    found = latest(_where(ctx), side, last, action, _duration(since))
    document = {"side": side, "entries": [_entry(one) for one in found]}
    printer(ctx).data(document, lambda: _table(found))


@app.command()
def export(
    ctx: typer.Context,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", dir_okay=False, help="Write it there, not to stdout."),
    ] = None,
    side: OneSide = "target",
) -> None:
    """Write the journal out as JSON lines that can be verified anywhere.

    The first line says which migration and side it is of, how many entries follow, and the hash of
    the last one: note that hash where nobody who can write to the database can change it. The file
    holds names of tables, people and machines, and positions of sequences; no rows, no passwords.

    Example: [bold]cdc-migrator journal export --to journal.jsonl[/bold]
    """
    from cdc_migrator.control.journal_file import dump
    from cdc_migrator.service.journal import require

    found = require(_where(ctx), side)
    content = b"".join(dump(found.migration, side, found.read_at, found.entries))
    if to is None:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return
    write_file(to, content)
    out = printer(ctx)
    out.say(f"{len(found.entries)} entries in {to}; the last one's hash: {found.checked.head}")
    out.next(f"cdc-migrator journal verify {to}", "on any machine")


@app.command()
def verify(
    ctx: typer.Context,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE]...",
            exists=True,
            dir_okay=False,
            readable=True,
            help="Exported journals. Left out: the journals in the databases.",
        ),
    ] = None,
    head: Head = None,
    side: Annotated[
        Side | None,
        typer.Option("--side", help="Only this database's journal. Left out: both."),
    ] = None,
) -> None:
    """Say whether the journal is as it was written: nothing altered, removed, added or moved.

    With files it needs neither a database nor a configuration. What it cannot see by itself: an
    end that was cut off, or a journal that somebody wrote anew with all its hashes. Both are found
    with [bold]--head[/bold], the hash of an entry that was noted before.

    Exit code 0 when all is as it was written; 1 when not, or when a journal could not be read.

    Example: [bold]cdc-migrator journal verify journal.jsonl[/bold]
    """
    from cdc_migrator.control import chain, journal_file
    from cdc_migrator.service.journal import SIDES, read

    found: list[tuple[str, Checked]] = []
    if files:
        for path in files:
            found.append((str(path), journal_file.verify(path.read_bytes(), head).checked))
    else:
        where = _where(ctx)
        for one in (side,) if side else SIDES:
            there = read(where, one)
            if there is not None:
                found.append((one, chain.check(there.entries, head)))
    document = {"whole": all(checked.fault is None for _, checked in found), "journals": []}
    document["journals"] = [_told(place, checked) for place, checked in found]
    printer(ctx).data(document, lambda: _verdict(found))
    if not document["whole"]:
        raise typer.Exit(1)


def _where(ctx: typer.Context) -> Journals:
    from cdc_migrator.service.journal import Journals

    configured = settings(ctx)
    return Journals(
        configured.name,
        configured.source.dsn_with_password(),
        configured.target.dsn_with_password(),
    )


def _duration(text: str | None) -> Any:
    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "number": entry.number,
        "at": entry.at,
        "actor": entry.actor,
        "action": entry.action,
        "details": entry.details,
        "hash": entry.hash,
    }


def _told(place: str, checked: Checked) -> dict[str, Any]:
    fault = checked.fault
    return {
        "journal": place,
        "entries": checked.entries,
        "head": checked.head,
        "fault": None if fault is None else {"entry": fault.entry, "reason": fault.reason},
    }


def _table(entries: list[Entry]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("", "at (UTC)", "action", "details", "by"):
        table.add_column(title, overflow="fold", no_wrap=title == "at (UTC)")
    for one in entries:
        table.add_row(
            str(one.number),
            f"{one.at:%Y-%m-%d %H:%M:%S}",
            one.action,
            Text(_short(one.details)),
            Text(one.actor),
        )
    return table


def _short(details: Any) -> str:
    """One line of it; -o json has the whole."""
    if not isinstance(details, dict):
        return to_json(details).strip()
    parts = [f"{k}={v if isinstance(v, str) else to_json(v).strip()}" for k, v in details.items()]
    text = " ".join(parts)
    return text if len(text) <= 160 else f"{text[:159]}…"


def _verdict(found: list[tuple[str, Checked]]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    lines = []
    for place, checked in found:
        if checked.fault is None:
            whole = f"{place}: whole, {checked.entries} entries, the last one's hash {checked.head}"
            lines.append(Text(whole, style="green"))
        else:
            lines.append(Text(f"{place}: not as it was written: {checked.fault.reason}", "red"))
    return Group(*lines)
