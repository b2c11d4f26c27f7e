"""How `cutover status` and `cutover --dry-run` look."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text


def status_view(document: dict[str, Any]) -> RenderableType:
    """The last attempt, line by line, and what follows."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    last = document["cutover"]
    if last is None:
        table.add_row("cutover", "none was begun yet")
    else:
        kind = "rehearsal" if last["rehearsal"] else "cutover"
        table.add_row("attempt", f"{last['attempt']} ({kind}), by {last['by']}")
        table.add_row("state", Text(last["state"]))
        for key in ("started_at", "fenced_at", "opened_at", "ended_at"):
            if last[key] is not None:
                table.add_row(key.replace("_at", ""), f"{last[key]:%Y-%m-%d %H:%M:%S.%f} UTC")
        for step, seconds in last["details"].get("seconds", {}).items():
            table.add_row(f"  {step}", f"{seconds * 1000:,.0f} ms")
        if (stall := last["details"].get("stall_ms")) is not None:
            table.add_row("stall", f"{stall:,.1f} ms from the fence to the target being open")
        if last["error"] is not None:
            table.add_row("error", Text(f"{last['error']['code']}: {last['error']['cause']}"))
            table.add_row("remedy", Text(last["error"]["remedy"]))
    for side in ("source", "target"):
        if side in document:
            table.add_row(side, Text(document[side] or "not fenced, or does not answer"))
    if document["written_on_source_since"]:
        table.add_row(
            "alarm",
            Text(
                f"{document['written_on_source_since']} changes were written on the source "
                "after it was left",
                style="red",
            ),
        )
    table.add_row("typed again", Text(document["again"]))
    return table


def plan_view(document: dict[str, Any]) -> RenderableType:
    """The steps in order, with the seconds that a rehearsal took."""
    table = Table(box=None, pad_edge=False)
    for title in ("step", "does", "last time"):
        table.add_column(title, justify="right" if title == "last time" else "left")
    for step in document["steps"]:
        took = "" if step["seconds"] is None else f"{step['seconds'] * 1000:,.0f} ms"
        style = "yellow" if step["stalls"] else ""
        table.add_row(Text(step["step"], style=style), Text(step["does"]), took)
    lines: list[RenderableType] = [table, Text()]
    for hook in document["hooks"]:
        lines.append(Text(f"hook: {hook}"))
    if not document["hooks"]:
        lines.append(Text("no hook: people send the applications over"))
    if document["without_way_back"]:
        told = ", ".join(document["without_way_back"])
        lines.append(Text(f"rows that do not come back (`back: none`): {told}", style="yellow"))
    expected = document["expected_stall_seconds"]
    if expected is None:
        lines.append(
            Text(
                f"expected stall: unknown; `cdc-migrator {document['command']} --rehearse` shows it"
            )
        )
    else:
        lines.append(Text(f"expected stall: {expected * 1000:,.0f} ms, as in {document['basis']}"))
    return Group(*lines)
