"""The audit of repairs: a row for each key or range of keys written anew, in the transaction that
did it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from cdc_migrator.control import journal
from cdc_migrator.model.tables import TableName


class Action(StrEnum):
    """What a repair did to the target's rows of one key; `REBUILT`: of a range of keys."""

    INSERTED = "inserted"
    REPLACED = "replaced"
    DELETED = "deleted"
    NONE = "none"
    REBUILT = "rebuilt"


@dataclass(frozen=True, slots=True)
class Repaired:
    """One key, with the digests of the target's rows before and after.

    Of a keyless table the digest is the key, and only the number of rows tells; of a range of keys
    the number of rows before and after is all.
    """

    table: TableName
    key: Mapping[str, Any]
    action: Action
    before: tuple[str, ...]
    rows_before: int
    after: tuple[str, ...]
    rows_after: int


def record(conn: psycopg.Connection, run: int | None, done: Sequence[Repaired]) -> None:
    """Write the audit, inside the caller's transaction."""
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO cdc_migrator.repair (run, source_schema, source_table, key, action, "
            "before, rows_before, after, rows_after, who) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    run,
                    one.table.schema,
                    one.table.name,
                    Jsonb(dict(one.key)),
                    one.action,
                    list(one.before),
                    one.rows_before,
                    list(one.after),
                    one.rows_after,
                    journal.actor(),
                )
                for one in done
            ],
        )
