"""`sequences`: where the target's sequences stand, and setting them past the source's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_migrator.backfill.sequences import DEFAULT_MARGIN
from cdc_migrator.cli.context import session, settings
from cdc_migrator.cli.output import printer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from cdc_migrator.backfill.sequence_sync import Synced
    from cdc_migrator.backfill.sequences import Decision
    from cdc_migrator.model.sequences import SequenceState
    from cdc_migrator.service.sequences import SequencesOptions

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="""Set the target's sequences past the source's.

    The stream carries rows, not sequences: before the application writes to the target, its
    sequences must be past every value that was given. [bold]plan[/bold] shows both sides,
    [bold]sync[/bold] sets the target and proves it.

    Example: [bold]cdc-migrator sequences sync[/bold]
    """,
)

Margin = Annotated[
    int,
    typer.Option(
        min=0,
        max=1_000_000_000,
        metavar="CALLS",
        help="How many calls of nextval the source may make meanwhile.",
    ),
]


@app.command()
def plan(ctx: typer.Context, margin: Margin = DEFAULT_MARGIN) -> None:
    """Show the sequences of both sides, and what sync would do.

    All that the schema step brings over: owned, used by a default, identity, free-standing. For
    each one its parameters, the source's value, the outermost value of its columns on the target,
    where sync would set it, what differs and what is missing. Changes nothing and consumes no
    value. A column without an index is read whole for its outermost value.

    Exit code 0 when sync can do all of it, 1 when something stands against it.

    Example: [bold]cdc-migrator sequences plan -o json[/bold]
    """
    from cdc_migrator.service import sequences

    out = printer(ctx)
    decisions = sequences.plan(_options(ctx, margin))
    failed = any(decision.failed for decision in decisions)
    document = {"margin": margin, "ok": not failed, "sequences": [_row(d) for d in decisions]}
    out.data(document, lambda: _view(document))
    if failed:
        raise typer.Exit(1)
    if any(decision.changes for decision in decisions):
        out.next("cdc-migrator sequences sync")


@app.command()
def sync(ctx: typer.Context, margin: Margin = DEFAULT_MARGIN) -> None:
    """Set the target's sequences past every value that was given, and prove it.

    Each one goes past the source's next value and past what its columns hold on the target, in
    its own direction and step, and then by the margin further; parameters that differ are put
    right. None is moved back: what is far enough is left alone, so it can be repeated. Then both
    sides are looked at again, without consuming a value.

    The margin is for a source that still gives values: it is counted in calls of nextval from
    new sessions, each of which takes as many values as the sequence's cache holds, so the target
    is margin x cache x increment ahead. A source that makes more calls than that before the
    switch overtakes it: sync again, last of all when the application has stopped writing and
    the stream has caught up. Near a sequence's limit half of what is left is taken. A sequence
    that cycles follows the source's value alone, by a quarter of its range at most.

    Exit code 0 when all are proven (warnings may be told), 1 when one differs or cannot be set.

    Example: [bold]cdc-migrator sequences sync --margin 100000[/bold]
    """
    from cdc_migrator.service import sequences

    out = printer(ctx)
    done = sequences.sync(_options(ctx, margin))
    proven = all(one.proven for one in done)
    document = {
        "margin": margin,
        "proven": proven,
        "changed": sum(one.moved or one.altered for one in done),
        "sequences": [_synced(one) for one in done],
    }
    out.data(document, lambda: _view(document))
    if not proven:
        raise typer.Exit(1)


def _options(ctx: typer.Context, margin: int) -> SequencesOptions:
    from cdc_migrator.service.sequences import SequencesOptions

    configured = settings(ctx)
    if session(ctx).verbose:
        _say_what_takes_time()
    return SequencesOptions(
        name=configured.name,
        source_dsn=configured.source.dsn_with_password(),
        target_dsn=configured.target.dsn_with_password(),
        include=configured.tables.include,
        exclude=configured.tables.exclude,
        margin=margin,
        wanted=tuple(one.wanted() for one in configured.mapping),
    )


def _say_what_takes_time() -> None:
    """Each column that is read, with its seconds, on stderr."""
    import logging

    log = logging.getLogger("cdc_migrator.sequences")
    log.addHandler(logging.StreamHandler())
    log.setLevel(logging.DEBUG)


def _row(decision: Decision) -> dict[str, Any]:
    from cdc_migrator.backfill.sequences import next_value

    wanted = decision.move_to
    return {
        "sequence": str(decision.name),
        "columns": [str(fed) for fed in decision.source.feeds],
        "source": None if decision.alone else _side(decision.source),
        "target": _side(decision.target),
        "column_value": decision.furthest,
        "differs": list(decision.differs),
        "set_to": wanted
        and {
            "last_value": wanted.last,
            "is_called": wanted.called,
            "next_value": next_value(decision.source.parameters, wanted),
        },
        "findings": [finding.as_dict() for finding in decision.findings],
    }


def _synced(one: Synced) -> dict[str, Any]:
    return {
        **_row(one.decision),
        "target_after": _side(one.target),
        "moved": one.moved,
        "altered": one.altered,
        "proven": one.proven,
    }


def _side(state: SequenceState | None) -> dict[str, Any] | None:
    """One side's sequence; value and next value are null where they cannot be read."""
    from dataclasses import asdict

    from cdc_migrator.backfill.sequences import next_value

    if state is None:
        return None
    position = state.position
    return {
        "name": str(state.name),
        **asdict(state.parameters),
        "last_value": position and position.last,
        "is_called": position and position.called,
        "next_value": position and next_value(state.parameters, position),
    }


def _view(document: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    rows = document["sequences"]
    if not rows:
        return "no sequence goes to the target"
    table = Table(box=None, pad_edge=False)
    for title in ("sequence", "source", "columns", "target"):
        table.add_column(title, overflow="fold", justify="left" if title == "sequence" else "right")
    table.add_column("", overflow="fold")
    for row in rows:
        table.add_row(
            Text(row["sequence"]),
            _value(row["source"]),
            "–" if row["column_value"] is None else str(row["column_value"]),
            _value(row.get("target_after", row["target"])),
            Text(_told(row), "red" if _failed(row) else ""),
        )
    return Group(table, *_findings(rows), _sum(document))


def _value(side: dict[str, Any] | None) -> str:
    """The last value that may have been given; an arrow before one that is still to come."""
    if side is None or side["last_value"] is None:
        return "–"
    return f"{'' if side['is_called'] else '→'}{side['last_value']}"


def _told(row: dict[str, Any]) -> str:
    """What was done, or would be."""
    parts = []
    planned = "proven" not in row
    if row["target"] is None:
        return "missing on the target"
    if row["differs"]:
        done = "" if planned or not row["altered"] else "put right: "
        changes = [
            f"{name} {row['target'][name]} → {row['source'][name]}" for name in row["differs"]
        ]
        parts.append(done + ", ".join(changes))
    if planned and row["set_to"]:
        parts.append(f"would be set to {row['set_to']['last_value']}")
    if not planned and row["moved"]:
        parts.append("set")
    if not parts and not _failed(row):
        parts.append("far enough")
    if not planned:
        parts.append("proven" if row["proven"] else "not proven")
    return "; ".join(parts)


def _failed(row: dict[str, Any]) -> bool:
    return any(finding["severity"] == "error" for finding in row["findings"])


def _findings(rows: Iterable[dict[str, Any]]) -> list[RenderableType]:
    from rich.text import Text

    told: list[RenderableType] = []
    for row in rows:
        for one in row["findings"]:
            style = "red" if one["severity"] == "error" else "yellow"
            told.append(
                Text.assemble(
                    (f"\n{one['severity']} {one['code']}: {one['cause']}", style),
                    f"\nremedy: {one['remedy']}",
                )
            )
    return told


def _sum(document: dict[str, Any]) -> RenderableType:
    from rich.text import Text

    rows = document["sequences"]
    if "proven" not in document:
        count = sum(bool(row["set_to"] or row["differs"]) for row in rows)
        return Text(f"\n{len(rows)} sequences, {count} to set")
    proven = sum(row["proven"] for row in rows)
    changed = document["changed"] or "none"
    return Text(f"\n{len(rows)} sequences, {changed} changed, {proven} proven")
