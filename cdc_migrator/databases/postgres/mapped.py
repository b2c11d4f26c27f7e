"""The SQL of a route: the source's row as the target has it. Builds text only; runs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from psycopg import sql

from cdc_migrator.databases.postgres import names
from cdc_migrator.model import mapping
from cdc_migrator.model.mapping import MappedColumn, Returning, Route
from cdc_migrator.model.tables import Column

# A column of `rows_of_target`.
PARTITION = "cdcm_partition"


def expression(text: str) -> sql.Composable:
    """An expression of the user's, which may end with a comment."""
    return sql.SQL("({}\n)").format(sql.SQL(text))


def text_of(value: sql.Composable) -> sql.Composable:
    """What the type's output function writes; a cast to text is not that for every type.

    A row type with nothing but nulls in it IS NULL, but is not null.
    """
    return sql.SQL("CASE WHEN num_nulls({0}) = 0 THEN concat({0}) END").format(value)


def written(column: MappedColumn) -> sql.Composable:
    """A column's value as it is handed over, over the source's row.

    Of the target's type without length or scale: the assignment checks a length, where a cast would
    cut the value in silence. As text where the source does not have the type.
    """
    value = expression(column.expression)
    if not column.cast:
        return value
    base = sql.Identifier(*column.base_type.split(".", 1))
    return sql.SQL("{}::{}").format(value, base if column.common else sql.SQL("text"))


def stored(column: MappedColumn) -> sql.Composable:
    """The same as the target holds it once it is assigned: rounded to its scale.

    What is too long, and so never assigned, is left at its length.
    """
    if not column.cast or not column.common:
        return written(column)
    value = expression(column.expression)
    made = sql.SQL("{}::{}").format(value, names.type_name(column.type_text))
    fitting = fits(column)
    if fitting is None:
        return made
    return sql.SQL("CASE WHEN {} THEN {} ELSE {} END").format(fitting, made, written(column))


def fits(column: MappedColumn) -> sql.Composable | None:
    """Whether a value is not too long to be assigned; None: it is of no type that has a length."""
    fitting = _FITS.get(column.base_type)
    length = column.type_text.rpartition("(")[2].removesuffix(")")
    if fitting is None or not length.isdecimal():
        return None
    return sql.SQL(fitting).format(value=expression(column.expression), length=sql.SQL(length))


# Of types that a cast cuts in silence: what may be assigned.
_FITS = {
    "pg_catalog.varchar": "rtrim(substr({value}::text, {length} + 1), ' ') = ''",
    "pg_catalog.bpchar": "rtrim(substr({value}::text, {length} + 1), ' ') = ''",
    "pg_catalog.bit": "length({value}::varbit) = {length}",
    "pg_catalog.varbit": "length({value}::varbit) <= {length}",
}


def shown(column: MappedColumn, have: Mapping[str, Column], there: Column) -> Column:
    """A mapped column as `rows_of_source` shows it.

    Args:
        have: the source's columns. there: the target's column.
    """
    plain = have.get(column.of) if column.of is not None else None
    made = replace(
        there,
        type_text=column.type_text,
        not_null=plain is not None and plain.not_null,
        generated=False,
        identity="",
    )
    if column.common and column.base_type == there.base_type:
        return made
    base = column.base_type if column.common else "pg_catalog.text"
    return replace(made, base_type=base, category="b", element=None, element_category=None)


def passing(route: Route) -> sql.Composable:
    """Whether a row of the source is on the target at all."""
    return sql.SQL("true") if route.where is None else expression(route.where)


def belonging(route: Route) -> sql.Composable:
    """Whether a row of the target is this route's."""
    return sql.SQL("true") if route.belongs is None else expression(route.belongs)


def hook_read(place: int) -> str:
    """The name under which `rows_of_source` has what the hook reads at this place."""
    return f"cdcm_read_{place}"


def rows_of_source(
    route: Route,
    sampled: sql.Composable | None = None,
    beside: Iterable[tuple[str, str]] = (),
    given: bool = False,
) -> sql.Composable:
    """The source's rows as the target holds them, by the target's names and with ``ctid``: a row
    source without a name.

    What a hook gives is not among their columns, but what it reads.

    Args:
        sampled: a TABLESAMPLE clause; None: all of its rows.
        beside: further columns, each with the column of the source that it is.
        given: with what the hook gives, which comes along: the statement's parameters are arrays of
            the rows' places (``$1``), then of texts for each of its columns.
    """
    table: sql.Composable = names.table(route.source)
    columns = list(route.columns if given else route.made)
    values = [(one.name, stored(one)) for one in columns]
    values += [(name, sql.Identifier(column)) for name, column in beside]
    reads = route.hook.reads if route.hook is not None and not given else ()
    values += [(hook_read(place), stored(one)) for place, one in enumerate(reads)]
    return sql.SQL("(SELECT ctid, {} FROM {}ONLY {} WHERE {})").format(
        sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(value, sql.Identifier(name)) for name, value in values
        ),
        _coming_along(route) if given else sql.SQL(""),
        table if sampled is None else sql.SQL("{} {}").format(table, sampled),
        sql.SQL("ctid = cdcm_place AND {}").format(passing(route)) if given else passing(route),
    )


def _coming_along(route: Route) -> sql.Composable:
    """The places and columns that parameters have, in front of a further row source."""
    number = len(route.given)
    return sql.SQL("unnest($1::tid[], {}) AS cdcm_given (cdcm_place, {}), ").format(
        sql.SQL(", ").join(sql.SQL(f"${place + 2}::text[]") for place in range(number)),
        names.columns(mapping.given(place) for place in range(number)),
    )


def rows_of_target(route: Route) -> sql.Composable:
    """The target's rows that are this route's: a row source without a name.

    Those of a partitioned table have their partition as `PARTITION`: in each places begin anew.
    """
    if route.back is not None and route.back.turned:
        return _returned(route, route.back)
    if route.divided:
        return sql.SQL("(SELECT ctid, tableoid AS {}, * FROM {} WHERE {})").format(
            sql.Identifier(PARTITION), names.table(route.target), belonging(route)
        )
    if route.belongs is None:
        return sql.SQL("ONLY {}").format(names.table(route.target))
    return sql.SQL("(SELECT ctid, * FROM ONLY {} WHERE {})").format(
        names.table(route.target), expression(route.belongs)
    )


def _returned(route: Route, back: Returning) -> sql.Composable:
    """What its rows would come back as, had they gone: a value that nobody changed is equal then,
    whatever going there and back makes of it."""
    again = {one.name: one.again for one in back.turned}
    named = [*(one.name for one in route.columns), *(one.name for one in back.kept)]
    return sql.SQL("(SELECT ctid, {} FROM ONLY {} WHERE {})").format(
        sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(expression(again[name]), sql.Identifier(name))
            if name in again
            else sql.Identifier(name)
            for name in named
        ),
        names.table(route.target),
        belonging(route),
    )


def emptied(route: Route) -> sql.Composed:
    """The statement that removes this route's rows of the target, and no others'."""
    target, belongs = names.alone(route.target, route.divided), belonging(route)
    if route.back is None or not route.back.part:
        return sql.SQL("DELETE FROM {} WHERE {}").format(target, belongs)
    own = [one.name for one in route.columns if one.name not in route.key]
    return sql.SQL("UPDATE {} SET {} WHERE {}").format(
        target,
        sql.SQL(", ").join(sql.SQL("{} = NULL").format(sql.Identifier(name)) for name in own),
        belongs,
    )
