"""What a command wants repaired at a point: worked out before the point, written there.

Reading both catalogs takes longer than the stream should be held back; so it is done first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from cdc_migrator.control import load
from cdc_migrator.databases.postgres.coded import coded
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Failed
from cdc_migrator.model.alignment import Repair
from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile import repair
from cdc_migrator.reconcile.marking import mark_keys
from cdc_migrator.reconcile.pairs import Pair, only, read_pairs
from cdc_migrator.reconcile.snapshot import same_file
from cdc_migrator.service.barrier import Repairing


def to_details(repairs: Sequence[Repair]) -> dict[str, Any]:
    """Repairs as a request carries them."""
    return {
        "repairs": [
            {"table": [one.table.schema, one.table.name], "keys": one.keys, "run": one.run}
            for one in repairs
        ]
    }


def from_details(details: dict[str, Any]) -> list[Repair]:
    """What `to_details` has written."""
    return [
        Repair(TableName(*one["table"]), tuple(tuple(key) for key in one["keys"]), one["run"])
        for one in details.get("repairs", ())
    ]


class Repairs:
    """Makes of a request's details what is to be written at its point."""

    def __init__(self, source_dsn: Callable[[], str], target_dsn: Callable[[], str]) -> None:
        self._source_dsn = source_dsn
        self._target_dsn = target_dsn

    def __call__(self, details: dict[str, Any]) -> Repairing | None:
        """None where nothing is to be repaired.

        Raises MigratorError: a server is away, or a table is not to be compared any more.
        """
        repairs = from_details(details)
        if not repairs:
            return None
        pairs = self._pairs({one.table for one in repairs})
        for one in repairs:
            if one.table not in pairs:
                raise Failed(
                    "CDCM-RECONCILE-UNPAIRED",
                    f"{one.table} can no longer be compared",
                    "See `cdc-migrator schema diff` and compare again.",
                )

        def write(source: psycopg.Connection, target: psycopg.Connection) -> None:
            for one in repairs:
                _write(source, target, pairs[one.table], one)

        return write

    def _pairs(self, wanted: set[TableName]) -> dict[TableName, Pair]:
        called = "cdc-migrator repair"
        with (
            connect(self._source_dsn(), application_name=called, side="source") as source,
            connect(self._target_dsn(), application_name=called, side="target") as target,
        ):
            names = {
                one.source: one.target for one in load.read_tables(target) if one.source in wanted
            }
            return only(read_pairs(source, target, names))


def _write(
    source: psycopg.Connection, target: psycopg.Connection, pair: Pair, wanted: Repair
) -> None:
    """Raises what ends the target's transaction, so that nothing of it stays."""
    try:
        done = repair.write(source, target, pair, wanted)
        mark_keys(target, pair, [tuple(one.key.values()) for one in done])
        unchanged = same_file(source, pair.source.name)
    except psycopg.Error as exc:
        if source.broken or source.info.transaction_status == psycopg.pq.TransactionStatus.INERROR:
            raise coded(exc, "source", f"reading {pair.source.name}") from exc
        raise
    if not unchanged:
        # A table that was truncated or rewritten since shows nothing under the snapshot.
        raise Failed(
            "CDCM-RECONCILE-UNSEEN",
            f"{pair.source.name} was truncated or rewritten on the source meanwhile",
            "Compare again.",
        )
