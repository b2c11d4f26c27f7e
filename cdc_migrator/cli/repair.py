"""`repair`: write whole tables, or ranges of their keys, anew from the source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_migrator.cli.context import settings
from cdc_migrator.cli.output import printer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from cdc_migrator.service.rebuild import Rebuilt


def repair(
    ctx: typer.Context,
    rebuild: Annotated[
        list[str],
        typer.Option(
            metavar="PATTERN", help="Write this table anew, such as shop.orders; may be repeated."
        ),
    ],
    low: Annotated[
        list[str] | None,
        typer.Option(
            "--from", metavar="VALUE", help="From this key on; once for each column of the key."
        ),
    ] = None,
    high: Annotated[
        list[str] | None,
        typer.Option("--to", metavar="VALUE", help="Up to, and without, this key; likewise."),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="From the beginning, also after a kill.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; say what would be written.")
    ] = False,
) -> None:
    """Write tables of the target anew from the source while the stream runs.

    For where more is wrong than single rows: [bold]reconcile --repair[/bold] mends those. The
    table is taken range by range of its key. At a commit point at which both sides are the same
    but for what is wrong, the target's rows of a range are deleted and the source's are copied
    in; then the stream goes on until the next range. Nothing newer is overwritten, no lock is kept
    on the source, rows that the source does not have go, and each range is compared afterwards.

    A table without a key, or with one that both servers do not sort alike, is written at one
    point, up to 64 MiB. It needs a running [bold]cdc-migrator run[/bold]. Killed at any moment and
    typed again, it goes on behind the last range. Each range is audited in cdc_migrator.repair.

    Of a table that is split each half may be chosen: [bold]'shop.customer -> crm.address'[/bold].

    Exit code 0 when all is written and was seen equal.

    Example: [bold]cdc-migrator repair --rebuild shop.orders --from 1000 --to 2000[/bold]
    """
    from cdc_migrator.cli.reconcile_view import ProgressLine
    from cdc_migrator.service import rebuild as service
    from cdc_migrator.service import reconcile
    from cdc_migrator.service.direction import direction

    configured = settings(ctx)
    out = printer(ctx)
    way = direction(
        configured.name,
        configured.source.dsn_with_password(),
        configured.target.dsn_with_password(),
    )
    options = reconcile.ReconcileOptions(
        name=way.name, source_dsn=way.source_dsn, target_dsn=way.target_dsn, tables=rebuild
    )
    how = service.RebuildOptions(
        low=tuple(low) if low else None,
        high=tuple(high) if high else None,
        restart=restart,
        dry_run=dry_run,
    )
    line = ProgressLine(out)

    def observe(progress: service.Progress) -> None:
        line.tell(
            f"{progress.table}: about {100 * progress.rows_done // max(progress.rows, 1)} % of "
            f"{progress.rows} rows, {progress.ranges_done} ranges"
        )

    try:
        with reconcile.aligning(options) as aligner:
            done = service.run(options, how, aligner, observe)
    finally:
        line.close()
    out.data({"dry_run": dry_run, "tables": [_document(one) for one in done]}, lambda: _view(done))


def _document(one: Rebuilt) -> dict[str, Any]:
    return {
        "table": str(one.table),
        "ranges": one.ranges,
        "rows_before": one.rows_before,
        "rows_after": one.rows_after,
        "verified_as_of": one.since,
        "resumed": one.resumed,
    }


def _view(done: Sequence[Rebuilt]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("table", "ranges", "rows before", "rows after", ""):
        table.add_column(title, justify="right" if title not in ("table", "") else "left")
    for one in done:
        told = "would be written anew" if one.since is None else "written anew and seen equal"
        table.add_row(
            Text(str(one.table)),
            str(one.ranges),
            str(one.rows_before),
            str(one.rows_after),
            told + (", resumed" if one.resumed else ""),
        )
    return table
