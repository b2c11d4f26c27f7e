"""Decide how a table's rows travel in COPY: which columns, and binary or text.

Binary is faster but carries the type's inner form: that is the same on both sides only where
the types are the same and hold no object ids, which differ between servers. What a route computes
is sent in the base type of its column, whose input checks and rounds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cdc_migrator.errors import Refused
from cdc_migrator.hook.calling import Caller
from cdc_migrator.model.mapping import MappedColumn, Route
from cdc_migrator.model.tables import Column, Table, TableName


@dataclass(frozen=True, slots=True)
class Passage:
    """How the rows of `source` get to `target`.

    Attributes:
        columns: of the target, in the order in which they travel.
        route: what makes them of the source's row; None: they are its columns of these names.
    """

    source: TableName
    target: TableName
    columns: tuple[str, ...]
    binary: bool
    route: Route | None = None

    @property
    def belongs(self) -> str | None:
        """SQL over the target's rows, true of those that come this way; None: all of them do."""
        return None if self.route is None else self.route.belongs


def passage(source: Table, target: Table, route: Route | None = None) -> Passage:
    """The way of a table's rows.

    Raises:
        Refused: CDCM-LOAD-COLUMNS: the target cannot take some column's values, or the source lacks
            what the route makes them of. As `hook.calling.Caller`.
    """
    if route is not None:
        return _routed(route, source, target)
    names = [column.name for column in source.carried]
    there = _taking(source.name, target, names, "the source's columns")
    return Passage(
        source.name,
        target.name,
        tuple(c.name for c in source.carried),
        all(
            column.type_text == there[column.name].type_text and _portable(column)
            for column in source.carried
        ),
    )


def _routed(route: Route, source: Table, target: Table) -> Passage:
    carried = {column.name for column in source.carried}
    if gone := sorted(route.reads - carried):
        raise Refused(
            "CDCM-LOAD-COLUMNS",
            f"{route.source} cannot be loaded into {route.target}: the source lacks "
            f"{', '.join(gone)}",
            "Its columns are not those that the mapping was made for: begin anew with a mapping "
            "that fits (`cdc-migrator abort`, then `migrate`).",
        )
    names = [column.name for column in route.columns]
    there = _taking(route.source, target, names, "the columns of its mapping")
    if route.hook is not None:
        Caller(route)  # which sees that it is there, and the one that it was
    return Passage(
        route.source,
        route.target,
        tuple(names),
        # A hook reads and gives texts.
        route.hook is None and all(_alike(one, there[one.name]) for one in route.columns),
        route,
    )


def _taking(
    source: TableName, target: Table, names: Sequence[str], wanted: str
) -> dict[str, Column]:
    """The target's columns by their names, if it can take values for `names`."""
    there = {column.name: column for column in target.columns}
    missing = [name for name in names if name not in there]
    computed = [name for name in names if name in there and there[name].generated]
    if missing or computed:
        told = [f"the target lacks {', '.join(missing)}"] if missing else []
        told += [f"the target computes {', '.join(computed)} itself"] if computed else []
        raise Refused(
            "CDCM-LOAD-COLUMNS",
            f"{source} cannot be loaded into {target.name}: {'; '.join(told)}",
            f"Give the target's table {wanted}, or let `cdc-migrator schema` make it.",
        )
    return there


def _alike(column: MappedColumn, there: Column) -> bool:
    """Whether what is sent for a column (`mapped.written`) has the binary form that it takes."""
    if not _portable(there):
        return False
    if column.cast:
        return column.common and column.base_type == there.base_type
    return column.type_text == there.type_text


def _portable(column: Column) -> bool:
    """Whether the type's binary form means the same on every server of the same type."""
    if column.element is not None:
        # An array's binary form names its element type by object id.
        return _builtin(column.element) and column.base_type.partition(".")[2] not in _NO_BINARY
    if column.category == "e":
        return True  # the label
    return column.category in ("b", "r", "m") and _builtin(column.base_type)


def _builtin(name: str) -> bool:
    schema, _, bare = name.partition(".")
    # regclass and its like are object ids that read as names only in text; some types have no
    # binary form at all.
    return schema == "pg_catalog" and not bare.startswith("reg") and bare not in _NO_BINARY


# An empty int2vector or oidvector is sent in a form that the same server does not take.
_NO_BINARY = frozenset(
    {
        "aclitem",
        "gtsvector",
        "int2vector",
        "oidvector",
        "pg_dependencies",
        "pg_mcv_list",
        "pg_ndistinct",
    }
)
