"""`backup`: a copy of the source elsewhere, before the source is left."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_migrator.cli.context import settings
from cdc_migrator.cli.output import Printer, printer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from rich.console import RenderableType

    from cdc_migrator.control.backups import Backup
    from cdc_migrator.service.backup import BackupOptions, Observe

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="""Have a backup of the source before it is left.

    The verdict on switching over asks for one that is not older than backup.max_age: a dump that
    [bold]create[/bold] made and [bold]verify[/bold] restored for a test, or one of your own that
    you stand for with [bold]note[/bold].

    Example: [bold]cdc-migrator backup create /var/backups/shop[/bold]
    """,
)


@app.command()
def create(
    ctx: typer.Context,
    directory: Annotated[
        Path, typer.Argument(help="A new or empty directory on this machine.", metavar="DIRECTORY")
    ],
) -> None:
    """Dump the source into a directory, with checksums.

    pg_dump takes one snapshot of the whole database, several tables at once (backup.jobs), without
    what belongs to the migration. A list of checksums is written last: a directory without
    MANIFEST.json is no backup, and is left where this command is killed.

    The dump takes no lock that stops a writer. To restore it yourself: [bold]pg_restore
    --use-list=DIRECTORY/restore.list --dbname=… DIRECTORY[/bold].

    Example: [bold]cdc-migrator backup create /var/backups/shop[/bold]
    """
    from cdc_migrator.service import backup

    out = printer(ctx)
    with _telling(out) as observe:
        made = backup.create(_options(ctx), directory, observe)
    out.data(_document(made), lambda: _view([made]))
    out.next("cdc-migrator backup verify", "only then does it count")


@app.command()
def verify(
    ctx: typer.Context,
    directory: Annotated[
        Path | None,
        typer.Argument(help="Which dump. Default: the newest.", metavar="DIRECTORY"),
    ] = None,
    into: Annotated[
        str | None,
        typer.Option(
            metavar="DSN",
            help="A server for the test restore, without a password (PGPASSWORD, ~/.pgpass). "
            "Default: the target's.",
        ),
    ] = None,
) -> None:
    """Check a dump's checksums, and restore it for a test.

    Every file is compared with MANIFEST.json. Then all of it is restored into a database named
    cdcm_restore_…, made for this alone and dropped afterwards; one error ends it. Each table's rows
    are counted there and in the dump. Owners and grants are left out of the test, and so are event
    triggers, publications and subscriptions.

    The server needs the room, the source's extensions, and a role that may CREATE DATABASE. A dump
    that was verified before and now fails counts no longer.

    Exit code 0 when it is whole and came back, 1 when it is damaged or did not.

    Example: [bold]cdc-migrator backup verify /var/backups/shop[/bold]
    """
    from cdc_migrator.service import backup

    out = printer(ctx)
    with _telling(out) as observe:
        done = backup.verify(_options(ctx), directory, into, observe)
    out.data(_document(done), lambda: _view([done]))


@app.command()
def note(
    ctx: typer.Context,
    place: Annotated[
        str, typer.Option(metavar="WHERE", help="Where it is, such as s3://backups/shop.")
    ],
    taken_at: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="As of when the source is in it, such as 2026-01-31T23:00:00Z.",
        ),
    ],
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why it may be relied on; kept in the journal.")
    ],
) -> None:
    """Stand for a backup of your own.

    It is not looked at: place, time and reason are kept with who said so, and the verdict on
    switching over takes your word while it is not older than backup.max_age.

    Example: [bold]cdc-migrator backup note --place s3://backups/shop --taken-at
    2026-01-31T23:00:00Z --reason "nightly, restored weekly"[/bold]
    """
    from cdc_migrator.service import backup

    out = printer(ctx)
    done = backup.note(_options(ctx), place, _time(taken_at), reason)
    out.data(_document(done), lambda: _view([done]))


@app.command("list")
def list_(ctx: typer.Context) -> None:
    """Show the backups that are known, the newest first.

    Those made here with their size and when they were verified, and those that somebody stands
    for; with their age, and whether the verdict on switching over would rely on them now.

    Example: [bold]cdc-migrator backup list -o json[/bold]
    """
    from cdc_migrator.service import backup

    out = printer(ctx)
    max_age = settings(ctx).backup.max_age.total_seconds()
    found = backup.known(_options(ctx))
    rows = [_document(one) for one in found]
    for row in rows:
        row["counts"] = row["usable"] and row["age_seconds"] <= max_age
    out.data({"max_age_seconds": max_age, "backups": rows}, lambda: _view(found))
    if not any(row["counts"] for row in rows):
        out.next("cdc-migrator backup create DIRECTORY", "none counts now")


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise typer.BadParameter("write --taken-at with its offset, such as 2026-01-31T23:00:00Z")
    return found


def _options(ctx: typer.Context) -> BackupOptions:
    from cdc_migrator.service.backup import BackupOptions

    configured = settings(ctx)
    return BackupOptions(
        name=configured.name,
        source_dsn=configured.source.dsn_with_password(),
        target_dsn=configured.target.dsn_with_password(),
        jobs=configured.backup.jobs,
        postgres_bin=configured.postgres_bin,
    )


def _telling(out: Printer) -> AbstractContextManager[Observe]:
    """A line on stderr that says what is being done."""
    from contextlib import contextmanager

    from cdc_migrator.cli.reconcile_view import ProgressLine

    @contextmanager
    def telling() -> Iterator[Observe]:
        line = ProgressLine(out)
        try:
            yield line.tell
        finally:
            line.close()

    return telling()


def _document(one: Backup) -> dict[str, Any]:
    return {
        "id": one.id,
        "kind": one.kind,
        "place": one.place,
        "taken_at": one.taken_at,
        "age_seconds": round((datetime.now(UTC) - one.taken_at).total_seconds(), 1),
        "bytes": one.bytes,
        "verified_at": one.verified_at,
        "usable": one.usable,
        "actor": one.actor,
        "details": one.details,
    }


def _view(found: Sequence[Backup]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    from cdc_migrator.cli.status_view import seconds, size

    if not found:
        return "no backup is known"
    table = Table(box=None, pad_edge=False)
    for title in ("taken", "age", "size", "place", ""):
        table.add_column(
            title,
            justify="right" if title in ("age", "size") else "left",
            no_wrap=title in ("taken", "age", "size"),
            overflow="fold",
        )
    for one in found:
        age = (datetime.now(UTC) - one.taken_at).total_seconds()
        table.add_row(
            one.taken_at.isoformat(timespec="seconds"),
            seconds(age),
            "–" if one.bytes is None else size(one.bytes),
            Text(one.place),
            Text(_told(one), "" if one.usable else "yellow"),
        )
    return table


def _told(one: Backup) -> str:
    if one.verified_at is not None:
        verification = one.details["verification"]
        return f"restored: {verification['tables']} tables, {verification['rows']} rows"
    if one.usable:
        return f"{one.actor} stands for it: {one.details.get('reason')}"
    failed = one.details.get("verification")
    return f"failed: {failed['code']}" if failed else "not verified"
