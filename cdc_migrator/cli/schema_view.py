"""The differences of two schemas as people read them: by table, each with what mends it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.console import Group, RenderableType
from rich.text import Text

from cdc_migrator.model.parts import Difference, Severity

_STYLE = {Severity.ERROR: "red", Severity.WARN: "yellow", Severity.INFO: "cyan"}
_LONG = 200


def view(found: Sequence[Difference]) -> RenderableType:
    """Each difference with its statements, under its table; then how many of each severity."""
    if not found:
        return "no difference"
    parts: list[RenderableType] = []
    for table, group in groupby(found, key=lambda one: one.table):
        parts.append(Text(table or "around the tables", style="bold"))
        parts += [_one(one) for one in group]
    counts = [
        f"{sum(one.severity is severity for one in found)} {severity}" for severity in Severity
    ]
    return Group(*parts, Text(", ".join(counts), style="bold"))


def _one(one: Difference) -> Text:
    style = _STYLE[one.severity]
    text = Text.assemble(
        (f"  {one.severity:<5} ", style), f"{one.kind} {one.object}: ", (one.attribute, style)
    )
    if one.attribute != "presence":
        text.append(f"\n        source {_value(one.source)}\n        target {_value(one.target)}")
    else:
        text.append(" (only on the source)" if one.target is None else " (only on the target)")
    if one.note:
        text.append(f"\n        {one.note}", style="dim")
    for statement in one.statements:
        mark = "destructive: " if statement.destructive else ""
        body = statement.sql.rstrip().rstrip(";").replace("\n", "\n        ")
        text.append(f"\n        {mark}{body};", style="red" if mark else "green")
    return text


def _value(value: str | None) -> str:
    if value is None:
        return "–"
    line = " ".join(value.split())
    return line if len(line) <= _LONG else f"{line[:_LONG]}…"
