"""Some rows of a table as they are, and as each of its routes would have them. Reads the source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from cdc_migrator.databases.postgres import mapped, names
from cdc_migrator.databases.postgres.coded import coded
from cdc_migrator.databases.postgres.sqlstate import Disposition, disposition
from cdc_migrator.model.mapping import Route
from cdc_migrator.model.tables import Table
from cdc_migrator.transform.errors import said

Row = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Shown:
    """What one route makes of one row.

    Attributes:
        passes: the filter lets it through; None: the filter fails on it.
        after: values by the target's names; None where the row is not on the target.
        failing: what fails, by the target's column (``where``: the filter), and how.
    """

    passes: bool | None
    after: Row | None
    failing: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Previewed:
    """One row of the source. `shown` has an entry for each route."""

    before: Row
    shown: tuple[Shown, ...]


def preview(
    source: psycopg.Connection, table: Table, routes: Sequence[Route], rows: int
) -> list[Previewed]:
    """The first rows of a table, before and after; values are texts as PostgreSQL writes them.

    Raises:
        MigratorError: the source failed, or does not let us read.
    """
    doing = f"reading rows of {table.name}"
    columns = [one.name for one in table.columns]
    query = sql.SQL("SELECT ctid::text, {} FROM ONLY {} LIMIT {}").format(
        sql.SQL(", ").join(_text(sql.Identifier(name)) for name in columns),
        names.table(table.name),
        sql.Literal(rows),
    )
    found = []
    try:
        with source.transaction():
            source.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            for place, *values in source.execute(query).fetchall():
                shown = tuple(_shown(source, one, place) for one in routes)
                found.append(Previewed(dict(zip(columns, values, strict=True)), shown))
    except psycopg.Error as exc:
        raise coded(exc, "source", doing) from exc
    return found


def _shown(source: psycopg.Connection, route: Route, place: str) -> Shown:
    """What a route makes of the row that lies there."""
    answer = _try(source, route, place, {"where": mapped.passing(route)})
    if isinstance(answer, str):
        return Shown(None, None, {"where": answer})
    if answer["where"] not in ("t", "true"):
        return Shown(False, None, {})
    values = {one.name: mapped.stored(one) for one in route.columns}
    whole = _try(source, route, place, values)
    if not isinstance(whole, str):
        return Shown(True, whole, {})
    after: dict[str, str | None] = {}
    failing: dict[str, str] = {}
    for name, value in values.items():
        alone = _try(source, route, place, {name: value})
        if isinstance(alone, str):
            failing[name] = alone
        else:
            after |= alone
    return Shown(True, after, failing)


def _try(
    source: psycopg.Connection, route: Route, place: str, values: Mapping[str, sql.Composable]
) -> dict[str, str | None] | str:
    """Values of one row by name, or what the server says instead."""
    query = sql.SQL("SELECT {} FROM ONLY {} WHERE ctid = {}::tid").format(
        sql.SQL(", ").join(_text(one) for one in values.values()),
        names.table(route.source),
        sql.Literal(place),
    )
    try:
        with source.transaction():
            row = source.execute(query).fetchone()
    except psycopg.Error as exc:
        if disposition(exc) in (Disposition.RETRY, Disposition.CONFLICT):
            raise
        return said(exc)
    assert row is not None
    return dict(zip(values, row, strict=True))


def _text(value: sql.Composable) -> sql.Composable:
    """What the type's output function writes; a row of nothing but nulls is not null."""
    return sql.SQL("CASE WHEN num_nulls({0}) = 0 THEN concat({0}) END").format(value)
