"""`report`: one page for everybody who was not there, and the same for programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_migrator.cli.context import settings
from cdc_migrator.cli.files import write_file
from cdc_migrator.cli.output import SCHEMA_VERSION, printer, to_json

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cdc_migrator.config.settings import Settings


def report(
    ctx: typer.Context,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            metavar="PATH",
            help="A directory for report.html and report.json, or a file that ends in .html or "
            ".json.",
        ),
    ] = None,
) -> None:
    """Write the report on the migration: one HTML page that needs nothing else, and JSON.

    It begins with a summary: status, phase, progress, availability, data, what it costs, issues,
    what to do next, risk, and whether one can go back. Then what that rests on: the timeline of
    both journals, every attempt with the time that writers waited, the gates, counts and digests of
    each table, repairs, sequences, the stream, backups, and whether the journal is as it was
    written. docs/report.md says what each figure means.

    It works at any time, also while a database, Kafka or Connect is away: what is unknown then says
    so. It changes nothing. [bold]finish[/bold] removes what it is made of: write it before.

    Without [bold]--to[/bold] the summary is printed; with -o json the whole report.

    Exit code 0 whatever it says; 3 when there is no migration.

    Example: [bold]cdc-migrator report --to report[/bold]
    """
    configured = settings(ctx)
    out = printer(ctx)
    document = make(configured)
    if to is not None:
        written = save(document, to)
        out.say(f"written: {', '.join(map(str, written))}")
    if to is None or not out.for_people:
        out.data(document, lambda: _summary(document))


def make(configured: Settings) -> dict[str, Any]:
    """The report's document now. Raises as `service.gathering.gather`."""
    from cdc_migrator.cli.evidence import evidence
    from cdc_migrator.service.judging import judge
    from cdc_migrator.service.report import document

    known = evidence(configured)
    return document(known, judge(known))


def save(document: dict[str, Any], to: Path) -> list[Path]:
    """Write the page, the JSON or both; the files that were written.

    Raises Failed: CDCM-OUTPUT-FILE.
    """
    from cdc_migrator.cli.report_page import page

    if to.suffix in (".html", ".json") and not to.is_dir():
        wanted = [to]
    else:
        wanted = [to / "report.html", to / "report.json"]
    for path in wanted:
        if path.suffix == ".html":
            text = page(document)
        else:
            text = to_json({"schema_version": SCHEMA_VERSION, **document}, indent=True)
        write_file(path, text.encode())
    return wanted


def _summary(document: dict[str, Any]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    from cdc_migrator.cli import report_words as words

    summary = document["summary"]
    phase, available = summary["phase"], summary["availability"]
    possible = {True: "possible", False: "not possible", None: words.UNKNOWN}
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    rows = [
        ("status", summary["status"]),
        ("begun", words.when(summary["started_at"])),
        (
            "phase",
            f"{phase['number']} of {phase['of']}: {phase['name']}, {phase['meaning']}"
            if phase["number"]
            else words.UNKNOWN,
        ),
        ("progress", words.share(summary["progress"]["fraction"])),
        (
            "availability",
            f"{words.share(available['fraction'], 5)} ({words.span(available['stalled_seconds'])} "
            f"of {words.span(available['over_seconds'])})",
        ),
        ("risk", f"{summary['risk']['level']}: {'; '.join(summary['risk']['reasons'])}"),
        (
            "going back",
            f"{possible[summary['rollback']['available']]}: {summary['rollback']['why']}",
        ),
        *(("issue", f"{one['level']}: {one['text']}") for one in summary["issues"]),
        *(("next", step) for step in summary["next"]),
    ]
    for label, text in rows:
        table.add_row(label, Text(text))
    return table
