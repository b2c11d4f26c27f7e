"""Decide how a table's rows travel in COPY: which columns, and binary or text.

Binary is faster but carries the type's inner form: that is the same on both sides only where
the types are the same and hold no object ids, which differ between servers.
"""

from __future__ import annotations

from dataclasses import dataclass

from cdc_migrator.errors import Refused
from cdc_migrator.model.tables import Column, Table, TableName


@dataclass(frozen=True, slots=True)
class Passage:
    """How the rows of `source` get to `target`: the columns by name, in the source's order."""

    source: TableName
    target: TableName
    columns: tuple[str, ...]
    binary: bool


def passage(source: Table, target: Table) -> Passage:
    """The way of a table's rows.

    Raises:
        Refused: CDCM-LOAD-COLUMNS: the target cannot take some column's values.
    """
    there = {column.name: column for column in target.columns}
    missing = [c.name for c in source.carried if c.name not in there]
    computed = [c.name for c in source.carried if c.name in there and there[c.name].generated]
    if missing or computed:
        told = [f"the target lacks {', '.join(missing)}"] if missing else []
        told += [f"the target computes {', '.join(computed)} itself"] if computed else []
        raise Refused(
            "CDCM-LOAD-COLUMNS",
            f"{source.name} cannot be loaded into {target.name}: {'; '.join(told)}",
            "Give the target's table the source's columns, or let `cdc-migrator schema` make it.",
        )
    return Passage(
        source.name,
        target.name,
        tuple(c.name for c in source.carried),
        all(
            column.type_text == there[column.name].type_text and _portable(column)
            for column in source.carried
        ),
    )


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
