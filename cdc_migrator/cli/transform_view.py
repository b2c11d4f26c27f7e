"""How a mapping looks: documents for programs, tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cdc_migrator.model.mapping import Route
    from cdc_migrator.service.transforming import Preview
    from cdc_migrator.transform.making import Missing
    from cdc_migrator.transform.preview import Previewed
    from cdc_migrator.transform.trial import Failing, Tried


def previewed(found: Preview) -> dict[str, Any]:
    """Rows before and after, for programs."""
    return {
        "table": str(found.ways[0].route.source),
        "routes": [
            {
                **_route(way.route),
                "exists": way.there is not None,
                "rows": [_row(one, at) for one in found.rows],
            }
            for at, way in enumerate(found.ways)
        ],
    }


def _route(route: Route) -> dict[str, Any]:
    return {
        "target": str(route.target),
        "key": list(route.key),
        "where": route.where,
        "belongs": route.belongs,
        "hook": None
        if route.hook is None
        else {"call": route.hook.call, "reads": [one.name for one in route.hook.reads]},
        "columns": [
            {
                "name": one.name,
                "type": one.type_text,
                "of": one.of,
                "expression": None if one in route.given else one.expression,
                "uses": list(one.uses),
            }
            for one in route.columns
        ],
    }


def _row(one: Previewed, at: int) -> dict[str, Any]:
    shown = one.shown[at]
    return {
        "before": dict(one.before),
        "passes": shown.passes,
        "after": None if shown.after is None else dict(shown.after),
        "failing": dict(shown.failing),
    }


def rows(document: dict[str, Any]) -> RenderableType:
    """Each row of each route, its columns side by side with what they become."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    for route in document["routes"]:
        title = f"{document['table']} -> {route['target']}"
        if not route["exists"]:
            title += "   (a table that migrate makes)"
        parts.append(Text(title, "bold"))
        hook = route["hook"] and f"{route['hook']['call']} ({', '.join(route['hook']['reads'])})"
        key = ", ".join(route["key"])
        for name, said in (("key", key), ("where", route["where"]), ("hook", hook)):
            if said:
                parts.append(Text(f"{name}: {said}"))
        parts += [_side_by_side(route, row) for row in route["rows"]]
        if not route["rows"]:
            parts.append(Text("the table is empty"))
        parts.append(Text(""))
    return Group(*parts)


def _side_by_side(route: dict[str, Any], row: dict[str, Any]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for _ in range(5):
        table.add_column(overflow="fold")
    into: dict[str | None, list[dict[str, Any]]] = {}
    for column in route["columns"]:
        into.setdefault(column["of"], []).append(column)
    for name, value in row["before"].items():
        found = into.get(name, [])
        if row["passes"] is not True or not found:
            table.add_row(Text(name), _value(value), Text(""), Text(""), Text(""))
            continue
        for at, column in enumerate(found):
            before = (Text(name), _value(value)) if at == 0 else (Text(""), Text(""))
            table.add_row(*before, Text("->"), Text(column["name"]), _after(row, column["name"]))
    if row["passes"] is True:
        for column in into.get(None, []):
            new = Text(column["name"]), _after(row, column["name"])
            table.add_row(Text(""), Text(""), Text("->"), *new)
    elif row["passes"] is None:
        failing = Text(f"the filter fails: {row['failing']['where']}", "bold red")
        table.add_row(Text("->"), failing, Text(""), Text(""), Text(""))
    else:
        left = Text("not on the target: the filter leaves it out", "yellow")
        table.add_row(Text("->"), left, Text(""), Text(""), Text(""))
    table.add_row(*[Text("")] * 5)
    return table


def _value(value: str | None) -> RenderableType:
    from rich.text import Text

    return Text("null", "dim") if value is None else Text(value)


def _after(row: dict[str, Any], name: str) -> RenderableType:
    from rich.text import Text

    if name in row["failing"]:
        return Text(f"fails: {row['failing'][name]}", "bold red")
    return _value(row["after"].get(name))


def tried(found: Sequence[Tried]) -> dict[str, Any]:
    """What fails, for programs."""
    return {
        "passed": not any(one.failing for one in found),
        "failed": sum(fails.rows for one in found for fails in one.failing),
        "routes": [
            {
                "table": str(one.route.source),
                "target": str(one.route.target),
                "rows": one.rows,
                "passing": one.passing,
                "failing": [_failing(fails) for fails in one.failing],
            }
            for one in found
        ],
    }


def _failing(one: Failing) -> dict[str, Any]:
    from cdc_migrator.transform.errors import kind

    return {
        "column": one.column,
        "sqlstate": one.sqlstate or None,
        "error": one.said or kind(one.sqlstate),
        "rows": one.rows,
        "keys": [dict(key) for key in one.keys],
    }


def failures(document: dict[str, Any]) -> RenderableType:
    """One line a route, and one for each way in which one fails."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("table", "to", "rows", "on the target", "fails"):
        table.add_column(title, overflow="fold")
    lines = []
    for route in document["routes"]:
        names = route["table"], route["target"]
        table.add_row(
            *(Text(name) for name in names),
            Text(f"{route['rows']:,}"),
            Text(f"{route['passing']:,}"),
            Text("nothing", "green") if not route["failing"] else Text("see below", "bold red"),
        )
        for one in route["failing"]:
            what = {"where": "the filter", "hook": "the hook"}.get(one["column"], one["column"])
            told = ", ".join(filter(None, (one["sqlstate"], one["error"])))
            lines.append(
                Text(f"{names[0]} -> {names[1]}: {what}: {one['rows']:,} rows: {told}", "bold red")
            )
            for key in one["keys"]:
                lines.append(Text("  " + ", ".join(f"{name}={key[name]}" for name in key)))
    return Group(table, *lines)


def missing(found: Sequence[Missing]) -> dict[str, Any]:
    """The tables that are to be made, for programs."""
    return {
        "tables": [
            {
                "table": str(one.target),
                "of": [str(name) for name in one.sources],
                "statement": one.statement,
                "without": list(one.without),
            }
            for one in found
        ]
    }


def script(found: Sequence[Missing]) -> str:
    """The statements as psql takes them."""
    from psycopg import sql

    schemas = sorted({one.target.schema for one in found})
    parts = [
        sql.SQL("CREATE SCHEMA IF NOT EXISTS {};\n").format(sql.Identifier(name)).as_string()
        for name in schemas
    ]
    for one in found:
        without = "".join(f"-- without: {left}\n" for left in one.without)
        parts.append(f"\n{without.replace(chr(13), ' ')}{one.statement};\n")
    return "".join(parts)
