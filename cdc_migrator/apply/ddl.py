"""Where a change of the schema lies in the stream: the applier stops exactly in front of it.

A `ddl` marker lies in the transaction that changed the schema, among its rows. What is in front of
that transaction has the former shape; so it is never applied together with another, and not before
somebody has settled the change.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from cdc_migrator.apply.batcher import Batch
from cdc_migrator.apply.prepared import Prepared
from cdc_migrator.apply.signals import MARKER, Marker, signals
from cdc_migrator.errors import StreamHalted
from cdc_migrator.model import described
from cdc_migrator.model.changes import Transaction
from cdc_migrator.model.described import Described

DDL = "ddl"


class SchemaChange(StreamHalted):
    """A transaction that changes the schema, as markers of this kind tell; it is not applied.

    `before`: by token, how many changes of the transaction lie in front of the marker.
    """

    def __init__(
        self,
        transaction: Transaction,
        markers: Sequence[Marker],
        before: dict[str, int],
        position: str,
    ) -> None:
        super().__init__(
            "CDCM-SCHEMA-CHANGED",
            "the source changes its schema here",
            position,
            "`cdc-migrator status` names the difference and the statement for the target.",
        )
        self.transaction = transaction
        self.markers = tuple(markers)
        self.before = before


class Stops:
    """Knows where the stream must stop.

    Args:
        migration: whose markers count; None: everybody's.
        settled: tokens of those that are passed.
        shapes: what the tables are, by oid: a marker that says just that is passed, too.
    """

    def __init__(
        self,
        migration: str | None = None,
        settled: Collection[str] = (),
        shapes: Mapping[int, Described] | None = None,
    ) -> None:
        self._migration = migration
        self._settled = frozenset(settled)
        self._shapes = shapes or {}

    def ahead(self, batch: Batch, prepared: Prepared) -> bool:
        """Whether some transaction of the batch changes the schema, by what was prepared of it."""
        if batch.spilled:
            return any(self._of(one) for one in batch.transactions if _may(one))
        return any(self._stops(one) for piece in prepared.pieces for one in piece.markers)

    def require_none(self, batch: Batch, position: str) -> None:
        """Raise SchemaChange where the batch is one transaction that changes the schema."""
        if len(batch.transactions) != 1 or not _may(batch.transactions[0]):
            return
        found = self._of(batch.transactions[0])
        if found:
            before = {marker.token: place for place, marker in found}
            markers = [marker for _, marker in found]
            raise SchemaChange(batch.transactions[0], markers, before, position)

    def _stops(self, marker: Marker) -> bool:
        return (
            marker.kind == DDL
            and marker.token not in self._settled
            and self._migration in (None, marker.migration)
            and not self._says_nothing(marker)
        )

    def _says_nothing(self, marker: Marker) -> bool:
        try:
            said = msgspec.json.decode(marker.details or "", type=dict[str, Any])
        except (msgspec.DecodeError, ValueError):
            return False  # whoever settles it says what is wrong with it
        return described.says_nothing(said, self._shapes)

    def _of(self, transaction: Transaction) -> list[tuple[int, Marker]]:
        found = []
        for place, change in enumerate(transaction.changes):
            if change.table == MARKER:
                markers, _ = signals([(transaction, change)])
                found += [(place, one) for one in markers if self._stops(one)]
        return found


def _may(transaction: Transaction) -> bool:
    return transaction.tables is None or MARKER in transaction.tables
