"""Rows of the service's own tables on the source: they tell the applier something, in order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from cdc_migrator.errors import StreamHalted
from cdc_migrator.model.changes import Change, Op, Transaction
from cdc_migrator.model.naming import CONTROL_SCHEMA
from cdc_migrator.model.positions import lsn_to_text
from cdc_migrator.model.tables import TableName

MARKER = TableName(CONTROL_SCHEMA, "marker")
HEARTBEAT = TableName(CONTROL_SCHEMA, "heartbeat")
TABLES = frozenset({MARKER, HEARTBEAT})
# The kind of marker behind which the source is written to again.
UNFENCE = "unfence"
# The kind behind which the changes count of a stream that was passed over until then.
START = "start"
# Ours; a transaction that has more is somebody else's.
_FEW = 4


@dataclass(frozen=True, slots=True)
class Marker:
    """A row that was inserted into ``cdc_migrator.marker`` on the source.

    `details` is the JSON text of the column, or None; `xid` and `commit_lsn` are those of the
    transaction that wrote it.
    """

    id: int
    migration: str
    kind: str
    token: str
    details: str | None
    xid: int
    commit_lsn: int

    @property
    def leg(self) -> int | None:
        """Of a start: the way between the two sides that begins with it."""
        if self.kind != START or self.details is None:
            return None
        leg = msgspec.json.decode(self.details, type=dict[str, Any]).get("leg")
        return leg if isinstance(leg, int) else None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A touch of the one row of ``cdc_migrator.heartbeat``.

    `committed_at_us` is the source's commit time, microseconds since 1970 UTC.
    """

    migration: str
    beat: int
    committed_at_us: int | None


def signals(
    control: Iterable[tuple[Transaction, Change]],
) -> tuple[list[Marker], list[Heartbeat]]:
    """The markers and heartbeats among the changes of `TABLES`, in order.

    Deletes are ignored: markers are pruned by them.

    Raises:
        StreamHalted: CDCM-STREAM-UNDECODABLE.
    """
    markers, heartbeats = [], []
    for transaction, change in control:
        if change.after is None:
            continue
        try:
            if change.table == MARKER and change.op is Op.INSERT:
                row = msgspec.json.decode(change.after, type=dict[str, Any])
                markers.append(
                    Marker(
                        id=row["id"],
                        migration=row["migration"],
                        kind=row["kind"],
                        token=row["token"],
                        details=row.get("details"),
                        xid=transaction.xid,
                        commit_lsn=transaction.commit_lsn,
                    )
                )
            elif change.table == HEARTBEAT:
                row = msgspec.json.decode(change.after, type=dict[str, Any])
                heartbeats.append(
                    Heartbeat(row["migration"], row["beat"], transaction.committed_at_us)
                )
        except (msgspec.DecodeError, KeyError) as exc:
            raise StreamHalted(
                "CDCM-STREAM-UNDECODABLE",
                f"a row of {change.table} cannot be read: {type(exc).__name__}",
                f"change at {lsn_to_text(change.lsn)}",
            ) from None
    return markers, heartbeats


def begins(transaction: Transaction) -> bool:
    """Whether it is one in which a side was opened: it holds a start, and no row of a table."""
    if transaction.tables is not None or len(transaction.changes) > _FEW:
        return False
    control = [(transaction, one) for one in transaction.changes if one.table == MARKER]
    return bool(control) and any(one.kind == START for one in signals(control)[0])
