"""Which objects of a database stay behind, because their tables are not migrated."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import psycopg

from cdc_migrator.backfill.toc import ObjectId
from cdc_migrator.errors import Refused
from cdc_migrator.model.tables import TableName


def staying(
    source: psycopg.Connection, tables: Sequence[TableName]
) -> tuple[set[ObjectId], list[str]]:
    """The source's objects that stay behind, and which of them are not part of such a table.

    Raises:
        Refused: CDCM-SCHEMA-DEPENDS: one of `tables` cannot be without a table that stays.
    """
    excluded: set[ObjectId] = set()
    told = []
    for catalog, oid, own, needed, kind, identity in _rows(source, tables):
        if needed:
            raise Refused(
                "CDCM-SCHEMA-DEPENDS",
                f"{identity} is to be migrated, but depends on a table that is not",
                "Include that table too (it is inherited from, or its row type is used), or "
                "exclude both.",
            )
        excluded.add((catalog, oid))
        if not own and kind in _TOLD and not identity.startswith(_INNER):
            told.append(f"{kind} {identity}")
    return excluded, sorted(told)


def beside(target: psycopg.Connection, tables: Sequence[TableName]) -> set[ObjectId]:
    """The target's objects that are of tables other than these, or depend on such."""
    return {(row[0], row[1]) for row in _rows(target, tables) if not row[3]}


def _rows(conn: psycopg.Connection, tables: Sequence[TableName]) -> list[tuple[Any, ...]]:
    query = files(__package__).joinpath("excluded.sql").read_text().encode()
    parameters = {"schemas": [t.schema for t in tables], "names": [t.name for t in tables]}
    return conn.execute(query, parameters).fetchall()


# The rest (a row type, a view's rule, a key's triggers) goes without saying.
_INNER = ('"RI_ConstraintTrigger_', '"_RETURN"', "cdc_migrator_")
_TOLD = frozenset(
    {
        "view",
        "materialized view",
        "function",
        "procedure",
        "aggregate",
        "table constraint",
        "trigger",
        "rule",
        "policy",
        "default value",
        "sequence",
    }
)
