"""Read which changes of the source's schema the target does not have yet, as `sampler` shows it.

Those at which the stream stands are in the target's control schema. Those that it has not come to
are markers on the source, sent after the last commit that was applied, which nobody has settled.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import psycopg

from cdc_migrator.control import markers, schema, shapes
from cdc_migrator.model import described
from cdc_migrator.model.described import Described
from cdc_migrator.monitor.schema_sample import Ahead, SchemaSample, WaitedFor

# Token and details of each.
Told = tuple[tuple[str, dict[str, Any]], ...]
Ask = Callable[[Callable[[psycopg.Connection], tuple[Ahead, ...]]], tuple[Ahead, ...]]


def read_waiting(conn: psycopg.Connection) -> tuple[WaitedFor, ...] | None:
    """What the stream waits for; None where an earlier release keeps no account of it."""
    if not schema.has(conn, "schema_change"):
        return None
    return tuple(_waited_for(one) for one in shapes.pending(conn))


def read_told(conn: psycopg.Connection, migration: str, since: datetime | None) -> Told | None:
    """What the source has told since its commit at this moment, the last one that was applied.

    None where that is not known, or nothing is told here.
    """
    if since is None or not schema.has(conn, "marker"):
        return None
    return tuple(markers.told_since(conn, migration, "ddl", since))


def changes(
    waiting: tuple[WaitedFor, ...] | None, told: Told | None, ask: Ask
) -> SchemaSample | None:
    """Both together; `ask` puts a question to the target, where there is one left.

    Raises what `ask` raises.
    """
    if waiting is None:
        return None
    if not told:
        return SchemaSample(waiting, None if told is None else ())
    stands_at = {one.table for one in waiting}
    found = ask(lambda conn: _ahead(conn, told))
    return SchemaSample(waiting, tuple(one for one in found if one.table not in stands_at))


def _ahead(conn: psycopg.Connection, told: Told) -> tuple[Ahead, ...]:
    """Those that are not settled, and say something."""
    passed = shapes.passed(conn, [token for token, _ in told])
    left = [(token, said) for token, said in told if token not in passed]
    known = shapes.of(conn, [int(said["oid"]) for _, said in left if "oid" in said])
    return tuple(
        Ahead(_name(said, known), str(said.get("tag") or ""), token)
        for token, said in left
        if not described.says_nothing(said, known)
    )


def _name(said: dict[str, Any], known: dict[int, Described]) -> str:
    """As the migration knows the table; one that it does not know yet as the source does."""
    oid, table = said.get("oid"), said.get("table") or {}
    if oid in known:
        return str(known[oid].name)
    return f"{table['schema']}.{table['name']}" if "name" in table else f"oid {oid}"


def _waited_for(one: shapes.Open) -> WaitedFor:
    needed = [change for change in one.changes if change.get("needed", True)]
    statements = (text for change in needed for text in change["statements"])
    return WaitedFor(
        f"{one.source_schema}.{one.source_table}",
        one.position,
        tuple(_worded(change) for change in needed),
        tuple(dict.fromkeys(statements)),
    )


def _worded(change: dict[str, Any]) -> str:
    return f"{change['kind']}: {change['what']}"
