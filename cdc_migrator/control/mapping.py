"""What the user had said of tables' new shapes when their routes were worked out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from cdc_migrator.control import journal
from cdc_migrator.model.mapping import Wanted, WantedHook
from cdc_migrator.model.tables import TableName


def say(conn: psycopg.Connection, wanted: Sequence[Wanted]) -> None:
    """Keep it, from before a route rests on it."""
    documents = [asdict(one) for one in wanted]
    with conn.transaction():
        journal.write(conn, "mapping", tables=[one.table for one in wanted])
        conn.execute("UPDATE cdc_migrator.migration SET mapping = %s", (Jsonb(documents),))


def leave(conn: psycopg.Connection, left: Sequence[tuple[TableName, TableName]]) -> None:
    """Keep which tables' rows do not come back, inside the caller's transaction.

    Args:
        conn: on the source, which is the way back's target. left: with the target's tables.
    """
    documents = [
        {"left": [here.schema, here.name], "there": [there.schema, there.name]}
        for here, there in left
    ]
    conn.execute("UPDATE cdc_migrator.migration SET mapping = %s", (Jsonb(documents),))


def left(conn: psycopg.Connection) -> list[tuple[TableName, TableName]]:
    """What `leave` has kept; nothing on the way there, which brings all of its tables."""
    return [
        (TableName(*one["left"]), TableName(*one["there"]))
        for one in _documents(conn)
        if "left" in one
    ]


def said(conn: psycopg.Connection) -> list[Wanted]:
    """What was kept last; empty where nothing was said."""
    return [_wanted(document) for document in _documents(conn) if "table" in document]


def _documents(conn: psycopg.Connection) -> list[dict[str, Any]]:
    row = conn.execute(
        "SELECT nullif(to_jsonb(m) -> 'mapping', 'null') FROM cdc_migrator.migration m"
    ).fetchone()
    return list(row[0]) if row and row[0] else []


def _wanted(document: dict[str, Any]) -> Wanted:
    hook = document.get("hook")
    return Wanted(
        **{
            **document,
            "keep": tuple(document["keep"]),
            "drop": tuple(document["drop"]),
            "hook": WantedHook(**{**hook, "reads": tuple(hook["reads"])}) if hook else None,
        }
    )
