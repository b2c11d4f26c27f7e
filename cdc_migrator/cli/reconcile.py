"""`reconcile`: compare both sides' rows while they move, and repair what differs."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_migrator.cli.context import settings
from cdc_migrator.cli.output import printer, to_json

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cdc_migrator.cli.output import Printer
    from cdc_migrator.service.reconcile import ReconcileOptions
    from cdc_migrator.service.reconcile_report import Report

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


class Mode(StrEnum):
    """How much is compared."""

    FULL = "full"
    SAMPLE = "sample"
    INCREMENTAL = "incremental"


@app.callback(invoke_without_command=True)
def reconcile(
    ctx: typer.Context,
    tables: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="Only tables that match, such as shop.*; may be repeated."
        ),
    ] = None,
    mode: Annotated[
        Mode,
        typer.Option(
            help="All rows, some chunks of each table by chance, or what the stream has written "
            "to since it was proven."
        ),
    ] = Mode.FULL,
    repair: Annotated[
        bool, typer.Option("--repair", help="Write what differs anew, as the source has it.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; write the plan of a repair.")
    ] = False,
    plan: Annotated[
        Path, typer.Option(metavar="FILE", help="Where --dry-run writes its plan.")
    ] = Path("reconcile-plan.json"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that was stopped or killed.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Compare again and again until interrupted.")
    ] = False,
    every: Annotated[
        float,
        typer.Option(min=0.0, metavar="SECONDS", help="With --watch: the pause between two."),
    ] = 60.0,
    values: Annotated[
        bool,
        typer.Option("--values", help="Show the values that differ; they are never stored."),
    ] = False,
    workers: Annotated[
        int, typer.Option(min=1, max=64, metavar="N", help="Sessions on either side.")
    ] = 2,
    throttle: Annotated[
        float,
        typer.Option(
            min=0.01, max=1.0, metavar="SHARE", help="Share of the time in which a worker works."
        ),
    ] = 1.0,
    max_lag: Annotated[
        float,
        typer.Option(
            min=0.0,
            metavar="SECONDS",
            help="While the stream is further behind than this, all workers together work at most "
            "2 % of the time, so that it catches up.",
        ),
    ] = 5.0,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.0, metavar="SECONDS", help="Stop after this time, to be resumed."),
    ] = None,
) -> None:
    """Compare the rows of source and target while both move, and name each one that differs.

    Both sides are read at one commit point, so nothing that is only on its way is reported. Equal
    means that the text of every column is the same. A row that differs is named by its key, as
    missing_in_target, extra_in_target or different with its columns; a row of a keyless table by
    a digest and its number. Differences are kept in cdc_migrator.difference on the target, with
    keys but without other values.

    A repair writes the rows at such a commit point as the source has them there, takes no lock on
    the source, overwrites nothing newer, is audited in cdc_migrator.repair, and is looked at again
    before it is called repaired. What was proven is kept: a run that was killed goes on with
    --resume. [bold]history[/bold] shows since when something differs, [bold]accept[/bold] lets it
    stand, [bold]sql[/bold] prints a statement for a person.

    [bold]--mode incremental[/bold] reads the chunks that the stream has written to since they were
    last proven, those that differed, and those whose proof is older than
    reconcile.max_proof_age; all others keep their proof, and the report says of when it is. What
    somebody else changes on the target is not seen in a chunk that stands on its proof: compare
    in full now and then.

    A table that is mapped is compared as what the target should hold of it, by the target's
    columns. Of one that is split each half may be chosen: 'shop.customer -> crm.address'; of those
    that are merged each goes by its own name, and no row of another is touched. Rows of the
    target's table that none of them claims are compared as a table of their own, 'crm.customer (of
    no table)': each is extra_in_target, and a repair deletes it.

    Once the target is open and there is a way back, everything is the other way round: the target
    is the measure, and a repair writes to the source.

    Exit code 0 when all rows are equal, or what differs is accepted; 1 when something differs, or
    could not be compared to its end.

    Example: [bold]cdc-migrator reconcile --tables shop.* --repair[/bold]
    """
    if ctx.invoked_subcommand is not None:
        return
    from dataclasses import replace

    from cdc_migrator.reconcile.options import PassOptions

    out = printer(ctx)
    work = PassOptions(
        workers=workers, share=throttle, max_lag=max_lag, seconds=seconds, values=values
    )
    options = replace(
        _options(ctx),
        tables=tables or None,
        mode=mode.value,
        resume=resume,
        repair=repair,
        dry_run=dry_run,
        work=work,
    )
    while True:
        report = _once(out, options, plan, watch)
        if not watch:
            break
        time.sleep(every)
        options = replace(options, resume=not report.finished)
    if not report.equal:
        raise typer.Exit(1)


def _once(out: Printer, options: ReconcileOptions, plan: Path, watch: bool) -> Report:
    from cdc_migrator.cli import reconcile_view
    from cdc_migrator.service import reconcile as service

    line = reconcile_view.ProgressLine(out)
    try:
        with service.aligning(options) as aligner:
            report = service.run(options, aligner, line)
    finally:
        line.close()
    document = reconcile_view.document(report)
    if options.dry_run:
        plan.write_text(to_json(reconcile_view.plan(report.planned, report.run.id), indent=True))
        document["plan"] = str(plan)
    if watch and not out.for_people:
        out.line(document)
    else:
        out.data(document, lambda: reconcile_view.view(document))
    if nobodys := [str(one.table) for one in report.tables if one.of_nobody and not one.equal]:
        out.say(
            f"{', '.join(nobodys)}: a repair deletes these rows; if they are meant to be there, "
            "say `others: true` in the entries of `mapping` that go there, and start `run` again"
        )
    if options.dry_run:
        keys = sum(len(one.keys) for one in report.planned)
        out.say(f"{keys} rows would be written anew: see {plan}")
    elif not report.finished:
        out.next("cdc-migrator reconcile --resume")
    elif any(one.more and not one.of_nobody for one in report.tables):
        tables = " ".join(
            f"--rebuild {quote(str(one.table))}"
            for one in report.tables
            if one.more and not one.of_nobody
        )
        out.next(f"cdc-migrator repair {tables}", "more differs than is named")
    elif not report.equal and not options.repair:
        out.next("cdc-migrator reconcile --repair")
    return report


@app.command()
def history(
    ctx: typer.Context,
    table: Annotated[
        str | None, typer.Argument(metavar="[TABLE]", help="Only this table, as schema.table.")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many runs and differences at most.")
    ] = 50,
) -> None:
    """Show the latest runs, and since when which row differs or differed.

    Each difference with the moments at which it was first and last seen, and what became of it:
    open, repaired, accepted (by whom and why), or gone.

    Example: [bold]cdc-migrator reconcile history shop.orders -o json[/bold]
    """
    from cdc_migrator.cli import reconcile_view
    from cdc_migrator.service import reconcile as service

    options = _options(ctx)
    runs, known = service.history(
        options.name, options.target_dsn, _table(table) if table else None, limit
    )
    document = {
        "runs": [
            {
                "run": one.id,
                "mode": one.mode,
                "tables": [str(name) for name in one.tables],
                "state": one.state,
                "by": one.actor,
                "started_at": one.started_at,
                "ended_at": one.ended_at,
            }
            for one in runs
        ],
        "differences": [
            {"table": str(one.table), **reconcile_view.difference(one)} for one in known
        ],
    }
    printer(ctx).data(document, lambda: _history(document))


@app.command()
def accept(
    ctx: typer.Context,
    ids: Annotated[list[int], typer.Argument(metavar="ID...", help="As history shows them.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why they may stand.")],
    by: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who says so; the user of this machine.")
    ] = None,
) -> None:
    """Let open differences stand, with a reason and a name.

    They no longer count as unequal, as long as the row differs in the same way and in the same
    columns. Journalled.

    Exit code 1 when one of them is not open.

    Example: [bold]cdc-migrator reconcile accept 17 18 --reason "test rows"[/bold]
    """
    from cdc_migrator.control.journal import actor
    from cdc_migrator.service import reconcile as service

    options = _options(ctx)
    done = service.accept(options.name, options.target_dsn, ids, reason, by or actor())
    refused = sorted(set(ids) - set(done))
    out = printer(ctx)
    out.data(
        {"accepted": done, "not_open": refused},
        lambda: f"accepted: {', '.join(map(str, done)) or 'none'}",
    )
    if refused:
        out.say(f"not open: {', '.join(map(str, refused))}")
        raise typer.Exit(1)


@app.command("sql")
def sql_(
    ctx: typer.Context,
    table: Annotated[str, typer.Argument(metavar="TABLE", help="As schema.table.")],
) -> None:
    """Print the statement by which a person compares a table.

    For where one server shows both sides, for example the target's table as a foreign table: the
    same texts of the same columns, each row that is on one side only.

    Example: [bold]cdc-migrator reconcile sql shop.orders[/bold]
    """
    import sys

    from cdc_migrator.service import reconcile as service

    sys.stdout.write(service.statement(_options(ctx), _table(table)))


def _options(ctx: typer.Context) -> ReconcileOptions:
    from cdc_migrator.service.direction import direction
    from cdc_migrator.service.reconcile import ReconcileOptions

    configured = settings(ctx)
    way = direction(
        configured.name,
        configured.source.dsn_with_password(),
        configured.target.dsn_with_password(),
    )
    if way.back:
        printer(ctx).say("on the way back: the target is the measure, and the source is compared")
    return ReconcileOptions(
        name=way.name,
        source_dsn=way.source_dsn,
        target_dsn=way.target_dsn,
        proof_age=configured.reconcile.max_proof_age,
    )


def _table(text: str) -> Any:
    from cdc_migrator.model.tables import TableName

    schema, dot, name = text.partition(".")
    if not dot:
        raise typer.BadParameter("write it as schema.table")
    return TableName(schema, name)


def _history(document: dict[str, Any]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("id", "table", "key", "what", "first seen", "last seen", "state"):
        table.add_column(title, overflow="fold")
    for one in document["differences"]:
        what = " ".join([one["kind"], *one["columns"]])
        state = one["state"] + (f": {one['reason']}" if one["reason"] else "")
        table.add_row(
            str(one["id"]),
            Text(one["table"]),
            Text(", ".join(f"{name}={value}" for name, value in one["key"].items())),
            Text(what),
            f"{one['first_seen']:%Y-%m-%d %H:%M:%S}",
            f"{one['last_seen']:%Y-%m-%d %H:%M:%S}",
            Text(state),
        )
    return table if document["differences"] else "nothing was ever seen to differ"
