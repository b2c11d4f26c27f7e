"""What the stream hands to the applier: whole source transactions of row changes."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from cdc_migrator.model.tables import TableName


class Op(StrEnum):
    """Debezium's operation letters (documentation, PostgreSQL connector, data change events)."""

    INSERT = "c"
    UPDATE = "u"
    DELETE = "d"
    TRUNCATE = "t"


class TruncatePolicy(StrEnum):
    """What to do where the source truncates a table.

    APPLY: truncate the target's as well. HALT: stop there. IGNORE: leave the target's rows;
    counted, and the two sides differ from then on.
    """

    APPLY = "apply"
    HALT = "halt"
    IGNORE = "ignore"


class SchemaPolicy(StrEnum):
    """What to do where the source changes its schema and the target needs the change.

    HALT: tell it, and wait until somebody has made it. APPLY: make what is safe.
    """

    HALT = "halt"
    APPLY = "apply"


class BadRecords(StrEnum):
    """What to do with a record that the target does not accept.

    HALT: stop in front of it. PARK: keep it and all later ones of its key aside, and go on.
    """

    HALT = "halt"
    PARK = "park"


# A row image: the JSON text of an object. A Raw shows a part of the record's value without copying
# it, and keeps the whole value in memory; `bytes` of it is a copy of that part alone.
Image = bytes | msgspec.Raw


def copied(image: Image | None) -> bytes | None:
    """An image in bytes of its own."""
    return None if image is None else bytes(image)


class Change(msgspec.Struct, gc=False):
    """One row event, values still in the event's own bytes.

    One is made for every event of the stream: a dataclass takes ten times as long.

    Attributes:
        key: the record's key, a JSON object of the key columns as raw bytes; empty where the
            table has none. Byte equality of keys is equality of rows within one table.
        before, after: the row images as raw JSON bytes, or None where the event has none.
            Under the default replica identity `before` holds invented values: use the key only.
        lsn: position of this change in the source's log; rows of one COPY share it.
        key_moves_on: a delete that is the first half of a key change (header
            ``__debezium.newkey``); the very next change is its create.
        key_moved_here: a create that is the second half (header ``__debezium.oldkey``).
    """

    table: TableName
    op: Op
    key: bytes
    before: Image | None
    after: Image | None
    lsn: int
    key_moves_on: bool = False
    key_moved_here: bool = False


class Transaction(msgspec.Struct, gc=False):
    """One complete source transaction, in the order in which the stream delivers commits.

    Attributes:
        xid: 32-bit source transaction id (``source.txId``).
        begin_lsn: position in the BEGIN record's id.
        commit_lsn: end-of-commit position from the END record's id; strictly increasing.
        committed_at_us: source commit time, microseconds since 1970 UTC; None without rows.
        changes: in source order; for a huge transaction not in memory.
        first_offset, next_offset: the transaction lies in [first_offset, next_offset) of the
            topic; next_offset is where reading goes on once it is applied.
        suspect: its first row is not where its BEGIN says (an unpublished write or a row lock
            may be the innocent cause): applied, counted, and shown.
        bytes: size of its records on the wire, for the memory bound.
        tables: the tables of changes that are not in memory; None where they are.
        sent_ms: when its END was sent to the topic, milliseconds since 1970 UTC by Connect's clock.
    """

    xid: int
    begin_lsn: int
    commit_lsn: int
    committed_at_us: int | None
    changes: Sequence[Change] = msgspec.field(default_factory=list)
    first_offset: int = 0
    next_offset: int = 0
    suspect: bool = False
    bytes: int = 0
    tables: frozenset[TableName] | None = None
    sent_ms: int | None = None
