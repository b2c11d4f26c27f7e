"""Whether the target's tables can still take what their routes make of the source's rows."""

from __future__ import annotations

from collections.abc import Iterable

import psycopg

from cdc_migrator.databases.postgres import catalog
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.model.mapping import Route
from cdc_migrator.model.parts import Difference, Severity
from cdc_migrator.model.tables import TableName

_NOTE = "a table of the mapping: compared with what its rows are made to, not with the source's"


def unlike(target: psycopg.Connection, routes: Iterable[Route]) -> list[Difference]:
    """What tables and columns are not there, or are of another type than the routes write.

    Raises:
        MigratorError: a server's error in coded form.
    """
    known = list(routes)
    if not known:
        return []
    with speaking("target", "reading its tables"):
        there = catalog.read_targets(target)
    found: dict[tuple[TableName, str | None], Difference] = {}
    for route in known:
        table = there.get(route.target)
        if table is None:
            found[route.target, None] = _differs(route, None, "presence", "there", None)
            continue
        types = {column.name: column.type_text for column in table.columns}
        for column in route.columns:
            has = types.get(column.name)
            if has is None:
                one = _differs(route, column.name, "presence", column.type_text, None)
            elif has != column.type_text:
                one = _differs(route, column.name, "type", column.type_text, has)
            else:
                continue
            found[route.target, column.name] = one
    return list(found.values())


def _differs(
    route: Route, column: str | None, attribute: str, wanted: str, has: str | None
) -> Difference:
    table = str(route.target)
    return Difference(
        kind="table" if column is None else "column",
        object=table if column is None else f"{table}.{column}",
        table=table,
        attribute=attribute,
        source=wanted,
        target=has,
        severity=Severity.ERROR,
        statements=(),
        note=_NOTE,
    )
