"""Which tables of either server the rows of ``table_progress`` stand for.

A table of the source that is split has a row for each of its routes, and a table of the target that
several go to is in as many: whoever asks the servers asks for each table once.
"""

from __future__ import annotations

from collections.abc import Iterable

from cdc_migrator.control.load import Joining, Routes, TableLoad
from cdc_migrator.model.mapping import Route
from cdc_migrator.model.tables import TableName


def of_source(tables: Iterable[TableLoad]) -> list[TableName]:
    """The source's tables, each once."""
    return list(dict.fromkeys(one.relation for one in tables))


def of_target(tables: Iterable[TableLoad]) -> list[TableName]:
    """The target's tables, each once."""
    return list(dict.fromkeys(one.target for one in tables))


def plain(tables: Iterable[TableLoad]) -> list[TableName]:
    """The tables that are on the target what they are on the source."""
    return [one.source for one in tables if one.route is None]


def reshaped(tables: Iterable[TableLoad]) -> list[TableName]:
    """The target's tables that rows come to in another shape, each once."""
    return of_target(one for one in tables if one.route is not None)


def joining(tables: Iterable[TableLoad]) -> dict[TableName, Joining | None]:
    """How far each table of the source is on its way into the stream; None: it is part of it.

    The routes of a table that is split join together.
    """
    return {one.relation: one.joining for one in tables}


def routes(tables: Iterable[TableLoad]) -> Routes:
    """How rows of the source's tables become others, as they were worked out."""
    found: dict[TableName, list[Route]] = {}
    for one in tables:
        if one.route is not None:
            found.setdefault(one.relation, []).append(one.route)
    return found
