"""`dead-letters`: look at records that the target did not accept, and settle them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_migrator.cli.context import settings
from cdc_migrator.cli.output import printer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from cdc_migrator.control.dead_letter_list import Listed, Shown
    from cdc_migrator.service.dead_letters import LetterOptions, Settled

app = typer.Typer(add_completion=False, rich_markup_mode="rich", no_args_is_help=True)

# So much of a hash tells keys apart.
_SHORT = 12

TableOption = Annotated[
    list[str] | None,
    typer.Option("--table", metavar="TABLE", help="Of this table of the source; may be repeated."),
]
HashOption = Annotated[
    list[str] | None,
    typer.Option(
        "--key-hash",
        metavar="HASH",
        help="Of the key whose hash begins so, as `list` shows it; may be repeated.",
    ),
]
AllOption = Annotated[bool, typer.Option("--all", help="Everything that is kept back.")]


@app.callback()
def dead_letters() -> None:
    """Look at records that the target did not accept, and settle them.

    With apply.bad_records set to [bold]park[/bold], a row that the target refuses (a constraint, a
    value that does not fit) does not halt the stream: its record is kept back, and all later ones
    of its key, so that their order stays. Until that is settled the target is not exact, and
    [bold]readiness[/bold] says no.

    There are three ways out. Correct what the target demands, then [bold]retry[/bold]. Correct the
    row on the source: its new record is kept back like the others, then [bold]retry[/bold]. Or
    [bold]skip[/bold] it, and have its row written anew later: [bold]reconcile --repair[/bold].

    Example: [bold]cdc-migrator dead-letters retry --all[/bold]
    """


@app.command("list")
def list_(
    ctx: typer.Context,
    table: TableOption = None,
    limit: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many keys at most; the oldest first.")
    ] = 100,
) -> None:
    """Show the keys that are kept back: since when, why, and how many records each has.

    Keys are named by a hash, so that no value of a row is shown. Keys of one chain became one
    another; they are settled together.

    Example: [bold]cdc-migrator dead-letters list -o json[/bold]
    """
    from cdc_migrator.service import dead_letters as service

    found, standing = service.listed(_options(ctx), table or None, limit)
    document = {
        "exact": standing.exact,
        "keys": standing.keys,
        "records": standing.letters,
        "keys_skipped": standing.skipped,
        "records_left_out": standing.left_out,
        "parked": [_key(one) for one in found],
    }
    printer(ctx).data(document, lambda: _keys(found))


@app.command()
def show(
    ctx: typer.Context,
    key_hash: Annotated[
        str, typer.Argument(metavar="HASH", help="The key's hash, or how it begins.")
    ],
    values: Annotated[
        bool, typer.Option("--values", help="With the records' keys and rows as they came.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many records at most.")] = 100,
) -> None:
    """Show the records of a key, in the order of the stream, and why each is kept back.

    Each with its position in the source's log, its transaction, and where that lies in the topic.

    Example: [bold]cdc-migrator dead-letters show 3b1f9c --values[/bold]
    """
    from cdc_migrator.service import dead_letters as service

    found = service.shown(_options(ctx), key_hash, limit)
    document = {"records": [_record(one, values) for one in found]}
    printer(ctx).data(document, lambda: _records(document["records"]))


@app.command()
def retry(
    ctx: typer.Context,
    table: TableOption = None,
    key_hash: HashOption = None,
    all_: AllOption = False,
) -> None:
    """Apply what is kept back, once the target accepts it.

    The records of a key are applied in their order, in one transaction, and the key goes on with
    the stream. Nothing newer is overwritten: all that came for it since is among them. What is
    still refused stays, and says why. Where rows are in each other's way, try them together.

    The running service does it between two batches; where none runs, this command takes the stream
    over for that moment.

    Exit code 0 when all of it is applied, 1 when something is still refused.

    Example: [bold]cdc-migrator dead-letters retry --table shop.orders[/bold]
    """
    done = _carry_out(ctx, table, key_hash, all_, None)
    if any(one.state == "parked" for one in done.left):
        raise typer.Exit(1)


@app.command()
def skip(
    ctx: typer.Context,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; the journal keeps it.")],
    table: TableOption = None,
    key_hash: HashOption = None,
    all_: AllOption = False,
) -> None:
    """Give up what is kept back, under audit.

    It is not applied any more, and neither is what comes later for these keys: that is counted.
    The target stays inexact, and [bold]readiness[/bold] says no, until [bold]reconcile
    --repair[/bold] has written their rows as the source has them; then the stream applies them
    again. What was given up stays to be looked at until then.

    Example: [bold]cdc-migrator dead-letters skip --key-hash 3b1f9c --reason "a test row"[/bold]
    """
    if not reason.strip():
        raise typer.BadParameter("say why", param_hint="--reason")
    _carry_out(ctx, table, key_hash, all_, reason)


def _carry_out(
    ctx: typer.Context,
    tables: list[str] | None,
    hashes: list[str] | None,
    everything: bool,
    reason: str | None,
) -> Settled:
    from cdc_migrator.service import dead_letters as service

    if everything == bool(tables or hashes):
        raise typer.BadParameter("name what: --table, --key-hash, or --all")
    out = printer(ctx)
    done = service.carry_out(_options(ctx), tables or None, hashes or None, reason)
    left = {one.hash for one in done.left if one.state == "parked"}
    document = {
        "settled": [_key(one) for one in done.before if one.hash not in left],
        "left": [_key(one) for one in done.left if one.state == "parked"],
        "by_service": done.by_service,
    }
    out.data(document, lambda: _outcome(document, reason is not None))
    if reason is not None and done.before:
        out.next("cdc-migrator reconcile --repair", "writes these rows as the source has them")
    return done


def _options(ctx: typer.Context) -> LetterOptions:
    from cdc_migrator.service.dead_letters import LetterOptions

    configured = settings(ctx)
    return LetterOptions(
        name=configured.name,
        source_dsn=configured.source.dsn_with_password,
        target_dsn=configured.target.dsn_with_password,
        truncates=configured.apply.truncates,
        inline_rows=configured.apply.inline_rows,
        retry_for=configured.apply.retry_for.total_seconds(),
    )


def _key(one: Listed) -> dict[str, Any]:
    return {
        "table": one.table,
        "key_hash": one.hash,
        "state": one.state,
        "chain": one.chain,
        "records": one.letters,
        "records_left_out": one.left_out,
        "since": one.parked_at,
        "code": one.code,
        "fault": one.fault,
        "sqlstate": one.sqlstate,
        "constraint": one.constraint_name,
        "tries": one.tries,
        "tried_at": one.tried_at,
        "error": one.error,
        "reason": one.reason,
        "changed_by": one.changed_by,
        "changed_at": one.changed_at,
    }


def _record(one: Shown, values: bool) -> dict[str, Any]:
    from cdc_migrator.model.positions import lsn_to_text

    document: dict[str, Any] = {
        "id": one.id,
        "table": one.table,
        "key_hash": one.hash,
        "record_table": one.record_table,
        "op": one.op,
        "key_change": "from" if one.moves_on else "to" if one.moved_here else None,
        "lsn": lsn_to_text(one.lsn),
        "transaction": one.xid,
        "committed_at_lsn": lsn_to_text(one.commit_position),
        "place": one.place,
        "offsets": [one.first_offset, one.next_offset - 1],
        "source_committed_at": one.source_committed_at,
        "code": one.code,
        "fault": one.fault,
        "sqlstate": one.sqlstate,
        "constraint": one.constraint_name,
        "seen_at": one.seen_at,
    }
    if values:
        for name in ("record_key", "before_image", "after_image"):
            raw = getattr(one, name)
            document[name] = None if raw is None else raw.decode(errors="backslashreplace")
    return document


def _keys(found: Sequence[Listed]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    if not found:
        return "nothing is kept back"
    table = Table(box=None, pad_edge=False)
    for title in ("table", "key", "chain", "state", "records", "since", "why"):
        table.add_column(title, overflow="fold", justify="right" if title == "records" else "left")
    for one in found:
        why = one.error or one.fault or ""
        table.add_row(
            Text(one.table),
            one.hash[:_SHORT],
            str(one.chain) if one.chained > 1 else "",
            one.state,
            str(one.letters + one.left_out),
            f"{one.parked_at:%Y-%m-%d %H:%M:%S}",
            Text(f"skipped: {one.reason}" if one.state == "skipped" else why),
        )
    return table


def _records(records: Sequence[dict[str, Any]]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    valued = "record_key" in records[0] if records else False
    titles = ["id", "record of", "key", "op", "lsn", "transaction", "offsets", "why"]
    for title in titles + (["as it came"] if valued else []):
        table.add_column(title, overflow="fold")
    for one in records:
        cells = [
            str(one["id"]),
            Text(one["record_table"]),
            one["key_hash"][:_SHORT],
            one["op"] + (f" ({one['key_change']})" if one["key_change"] else ""),
            one["lsn"],
            f"{one['transaction']}:{one['place']}",
            f"{one['offsets'][0]}-{one['offsets'][1]}",
            Text(one["fault"]),
        ]
        if valued:
            cells.append(Text(one["after_image"] or one["record_key"]))
        table.add_row(*cells)
    return table


def _outcome(document: dict[str, Any], skipped: bool) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    word = "given up" if skipped else "applied"
    lines = [Text(f"{len(document['settled'])} keys {word}, {len(document['left'])} left")]
    lines += [
        Text(f"{one['table']} {one['key_hash'][:_SHORT]}: {one['error'] or one['fault']}", "red")
        for one in document["left"]
    ]
    return Group(*lines)
