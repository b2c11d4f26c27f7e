"""What a command wants written at a point: worked out before the point, written there.

Reading both catalogs takes longer than the stream should be held back; so it is done first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import psycopg

from cdc_migrator.control import load, proofs, unclaimed
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Failed, Refused
from cdc_migrator.model.alignment import Rebuild, Repair
from cdc_migrator.model.logins import Role, login
from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile import unpark
from cdc_migrator.reconcile.pairs import Pair, only, pairs_of
from cdc_migrator.reconcile.rebuild import RangeWriter
from cdc_migrator.reconcile.snapshot import TableMoved, reading
from cdc_migrator.service.barrier import Repairing


def to_details(repairs: Sequence[Repair], rebuild: Rebuild | None = None) -> dict[str, Any]:
    """Repairs and a rebuild as a request carries them."""
    details: dict[str, Any] = {
        "repairs": [
            {"table": [one.table.schema, one.table.name], "keys": one.keys, "run": one.run}
            for one in repairs
        ]
    }
    if rebuild is not None:
        details["rebuild"] = {
            "table": [rebuild.table.schema, rebuild.table.name],
            "id": rebuild.id,
            "number": rebuild.number,
            "low": rebuild.low,
            "high": rebuild.high,
        }
    return details


def repairs_of(details: dict[str, Any]) -> list[Repair]:
    """The repairs that `to_details` has written."""
    return [
        Repair(TableName(*one["table"]), tuple(tuple(key) for key in one["keys"]), one["run"])
        for one in details.get("repairs", ())
    ]


def rebuild_of(details: dict[str, Any]) -> Rebuild | None:
    """The rebuild that `to_details` has written."""
    one = details.get("rebuild")
    if one is None:
        return None
    low, high = (None if one[edge] is None else tuple(one[edge]) for edge in ("low", "high"))
    return Rebuild(TableName(*one["table"]), one["id"], one["number"], low, high)


class Repairs:
    """Makes of a request's details what is to be written at its point."""

    def __init__(self, source_dsn: Callable[[], str], target_dsn: Callable[[], str]) -> None:
        self._source_dsn = source_dsn
        self._target_dsn = target_dsn

    @contextmanager
    def __call__(self, details: dict[str, Any]) -> Iterator[Repairing | None]:
        """What is to be written, to be used inside the block; None where nothing is.

        Raises MigratorError: a server is away, or a table is not to be compared any more.
        """
        repairs, rebuild = repairs_of(details), rebuild_of(details)
        wanted = {one.table for one in repairs} | ({rebuild.table} if rebuild else set())
        if not wanted:
            yield None
            return
        pairs = self._pairs(wanted)
        for table in sorted(wanted - pairs.keys()):
            raise Failed(
                "CDCM-RECONCILE-UNPAIRED",
                f"{table} can no longer be compared",
                "See `cdc-migrator schema diff` and compare again.",
            )
        if rebuild is None:
            yield _Keys(repairs, pairs)
            return
        with RangeWriter(pairs[rebuild.table], rebuild) as writer:
            yield _Range(writer, rebuild.table)

    def _pairs(self, wanted: set[TableName]) -> dict[TableName, Pair]:
        called = "cdc-migrator repair"
        with (
            connect(
                login(self._source_dsn(), Role.VERIFY), application_name=called, side="source"
            ) as source,
            connect(
                login(self._target_dsn(), Role.APPLY), application_name=called, side="target"
            ) as target,
        ):
            known = load.read_tables(target)
            known += unclaimed.read(target, known)
            tables = [one for one in known if one.source in wanted]
            return only(pairs_of(source, target, tables))


class _Keys:
    """Single rows: few enough to be read at the point."""

    def __init__(self, repairs: Sequence[Repair], pairs: Mapping[TableName, Pair]) -> None:
        self._repairs = repairs
        self._pairs = pairs

    def read(self, source: psycopg.Connection) -> None:
        pass

    def write(self, source: psycopg.Connection, target: psycopg.Connection) -> None:
        todo = list(self._repairs)
        while todo:
            waiting: list[Repair] = []
            for one in todo:
                pair = self._pairs[one.table]
                try:
                    with target.transaction() if pair.shared else nullcontext():
                        self._write(source, target, pair, one)
                except Refused:
                    # A row of another table that is merged may be in the way, and wrong as well.
                    waiting.append(one)
                    if not pair.shared or len(waiting) == len(todo):
                        raise
            todo = waiting

    def _write(
        self, source: psycopg.Connection, target: psycopg.Connection, pair: Pair, one: Repair
    ) -> None:
        with _coded(one.table), reading(source, pair.relation(False)):
            unpark.write(source, target, pair, one)


class _Range:
    """All rows of a range."""

    def __init__(self, writer: RangeWriter, table: TableName) -> None:
        self._writer = writer
        self._table = table

    def read(self, source: psycopg.Connection) -> None:
        with _coded(self._table):
            self._writer.read(source)

    def write(self, source: psycopg.Connection, target: psycopg.Connection) -> None:
        with _coded(self._table):
            unpark.require_none(target, self._table)
            self._writer.write(source, target)
            # Its chunks are proven by reading them, and rows of others may have been in its way.
            proofs.withdraw(target, self._table)


@contextmanager
def _coded(table: TableName) -> Iterator[None]:
    """Raises what ends the target's transaction, so that nothing of it stays."""
    try:
        yield
    except TableMoved as exc:
        # A table that was truncated or rewritten since shows nothing under the snapshot.
        raise Failed(
            "CDCM-RECONCILE-UNSEEN",
            f"{table} was truncated, rewritten or locked on the source meanwhile",
            "Run the same command again.",
        ) from exc
