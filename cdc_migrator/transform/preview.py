"""Some rows of a table as they are, and as each of its routes would have them. Reads the source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from cdc_migrator.databases.postgres import mapped, names
from cdc_migrator.databases.postgres.coded import coded
from cdc_migrator.databases.postgres.sqlstate import Disposition, disposition
from cdc_migrator.hook.calling import Caller, Cells, HookRefused
from cdc_migrator.model import mapping
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
        sql.SQL(", ").join(mapped.text_of(sql.Identifier(name)) for name in columns),
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
    after, failing = _each(source, route, place, {c.name: mapped.stored(c) for c in route.made})
    if route.hook is not None:
        given, wrong = _given(source, route, place)
        after |= given
        failing |= wrong
    return Shown(True, after, failing)


def _given(
    source: psycopg.Connection, route: Route, place: str
) -> tuple[dict[str, str | None], dict[str, str]]:
    """What the hook gives for one row, and what fails."""
    hook = route.hook
    assert hook is not None
    read, failing = _each(source, route, place, {c.name: mapped.stored(c) for c in hook.reads})
    if failing:
        told = f"the hook reads {', '.join(failing)}, which fails"
        return {}, dict.fromkeys(hook.gives, told)
    try:
        (cells,) = Caller(route).run([tuple(read[one.name] for one in hook.reads)])
    except HookRefused as refused:
        return {}, dict.fromkeys(hook.gives, f"the hook {refused.why}")
    values = {c.name: mapped.stored(c) for c in route.given}
    return _each(source, route, place, values, cells)


def _each(
    source: psycopg.Connection,
    route: Route,
    place: str,
    values: Mapping[str, sql.Composable],
    given: Cells = (),
) -> tuple[dict[str, str | None], dict[str, str]]:
    """Values of one row by name, and what the server says of those that it has not."""
    whole = _try(source, route, place, values, given)
    if not isinstance(whole, str):
        return whole, {}
    after: dict[str, str | None] = {}
    failing: dict[str, str] = {}
    for name, value in values.items():
        alone = _try(source, route, place, {name: value}, given)
        if isinstance(alone, str):
            failing[name] = alone
        else:
            after |= alone
    return after, failing


def _try(
    source: psycopg.Connection,
    route: Route,
    place: str,
    values: Mapping[str, sql.Composable],
    given: Cells = (),
) -> dict[str, str | None] | str:
    """Values of one row by name, or what the server says instead.

    Args:
        given: by the hook, in the order of its columns.
    """
    beside = [
        sql.SQL(", (SELECT {}::text AS {}) AS {}").format(
            sql.Literal(cell),
            sql.Identifier(mapping.given(number)),
            sql.Identifier(f"cdcm_{number}"),
        )
        for number, cell in enumerate(given)
    ]
    query = sql.SQL("SELECT {} FROM ONLY {}{} WHERE ctid = {}::tid").format(
        sql.SQL(", ").join(mapped.text_of(one) for one in values.values()),
        names.table(route.source),
        sql.SQL("").join(beside),
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
