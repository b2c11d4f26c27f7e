"""One record of the ordered topic becomes one typed value; what is not understood halts.

Column values are not looked at: `key`, `before` and `after` go through as the bytes that they
are (`rows` takes them apart later). The shapes are Debezium's change event envelope and
transaction metadata in schemaless JSON. No Kafka here: a record is its offset, key, value and
headers.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cdc_migrator.errors import StreamHalted
from cdc_migrator.model.changes import Change, Op
from cdc_migrator.model.tables import TableName

Headers = Sequence[tuple[str, bytes | str | None]]

KEY_MOVES_ON = "__debezium.newkey"
KEY_MOVED_HERE = "__debezium.oldkey"

_CONNECTOR_REMEDY = (
    "Compare the connector's settings with `cdc-migrator capture status`; `cdc-migrator abort` "
    "and a new start create a connector with the required ones."
)


class _Placed(msgspec.Struct, frozen=True, gc=False):
    """Where a record lies, its bytes on the wire, and when it was sent (ms since 1970)."""

    offset: int
    size: int
    sent_ms: int


class Begin(_Placed, frozen=True, gc=False):
    """A source transaction starts here; `lsn` is the position in the record's id."""

    xid: int
    lsn: int


class End(_Placed, frozen=True, gc=False):
    """A source transaction ends here.

    `commit_lsn` is its end-of-commit position; `event_count` is how many rows the connector
    believes to have sent under the numbering that its last row belongs to.
    """

    xid: int
    commit_lsn: int
    event_count: int


class Row(_Placed, frozen=True, gc=False):
    """One change of one row (or one truncated table) inside the transaction `xid`.

    `committed_at_us` is the source's commit time in microseconds since 1970 UTC.
    """

    xid: int
    total_order: int
    committed_at_us: int
    change: Change


class Tombstone(_Placed, frozen=True, gc=False):
    """A record without a value: compaction's business, nothing to apply."""


Record = Begin | End | Row | Tombstone


class _Source(msgspec.Struct, gc=False):
    table: str
    lsn: int
    ts_ms: int
    schema: str
    ts_us: int | None = None


class _TransactionBlock(msgspec.Struct, gc=False):
    id: str
    total_order: int


class _Value(msgspec.Struct, gc=False):
    """Row events and transaction markers in one shape: one decode tells them apart."""

    op: str | None = None
    status: str | None = None
    id: str | None = None
    event_count: int | None = None
    before: msgspec.Raw = msgspec.Raw(b"null")
    after: msgspec.Raw = msgspec.Raw(b"null")
    source: _Source | None = None
    transaction: _TransactionBlock | None = None


# Numbers as text are accepted: Debezium's documentation shows both forms.
_decode_value = msgspec.json.Decoder(_Value, strict=False).decode

_OPS = {op.value: op for op in Op}


class Envelope:
    """Decodes the records of one partition; remembers only names, so that equal ones are shared."""

    def __init__(self, topic: str, partition: int = 0) -> None:
        self._topic = topic
        self._partition = partition
        self._tables: dict[tuple[str, str], TableName] = {}

    def position(self, offset: int) -> str:
        """How messages name a record: ``topic[partition]@offset``."""
        return f"{self._topic}[{self._partition}]@{offset}"

    def decode(
        self,
        offset: int,
        sent_ms: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None,
    ) -> Record:
        """The typed value of one record; `sent_ms` is its Kafka timestamp.

        Raises StreamHalted with code CDCM-STREAM-UNDECODABLE (not JSON, or a field is missing),
        CDCM-STREAM-UNKNOWN-OPERATION, or CDCM-STREAM-NO-TRANSACTION (a row without transaction
        metadata).
        """
        if value is None:
            return Tombstone(offset, len(key) if key else 0, sent_ms)
        try:
            decoded = _decode_value(value)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            # msgspec names the place and the expected type, never the value.
            raise self._undecodable(offset, str(exc)) from None
        size = len(value) + len(key) if key else len(value)
        if decoded.op is not None:
            return self._row(offset, size, sent_ms, key, decoded, headers)
        if decoded.status is not None:
            return self._marker(offset, size, sent_ms, decoded)
        raise self._undecodable(offset, "neither a row event nor a transaction marker")

    def _row(
        self,
        offset: int,
        size: int,
        sent_ms: int,
        key: bytes | None,
        value: _Value,
        headers: Headers | None,
    ) -> Row:
        op = _OPS.get(value.op or "")
        if op is None:
            raise self._unknown_operation(offset, value.op or "")
        source, block = value.source, value.transaction
        if source is None:
            raise self._undecodable(offset, "a row event without its source block")
        if block is None:
            raise self._no_transaction(offset)
        before, after = bytes(value.before), bytes(value.after)
        if (op is Op.INSERT or op is Op.UPDATE) and after == b"null":
            raise self._undecodable(offset, f"operation '{op}' without a row image")
        table = self._tables.get((source.schema, source.table))
        if table is None:
            table = TableName(source.schema, source.table)
            self._tables[source.schema, source.table] = table
        change = Change(
            table,
            op,
            b"" if key is None or key == b"null" else key,
            None if before == b"null" else before,
            None if after == b"null" else after,
            source.lsn,
        )
        if headers:
            names = {name for name, _ in headers}
            change.key_moves_on = op is Op.DELETE and KEY_MOVES_ON in names
            change.key_moved_here = op is Op.INSERT and KEY_MOVED_HERE in names
        at_us = source.ts_ms * 1000 if source.ts_us is None else source.ts_us
        xid, _ = self._split_id(offset, block.id)
        return Row(offset, size, sent_ms, xid, block.total_order, at_us, change)

    def _marker(self, offset: int, size: int, sent_ms: int, value: _Value) -> Begin | End:
        xid, lsn = self._split_id(offset, value.id)
        if value.status == "BEGIN":
            return Begin(offset, size, sent_ms, xid, lsn)
        if value.status == "END":
            if value.event_count is None:
                raise self._undecodable(offset, "a transaction's end without its event count")
            return End(offset, size, sent_ms, xid, lsn, value.event_count)
        raise self._undecodable(offset, "a transaction marker that is neither BEGIN nor END")

    def _split_id(self, offset: int, text: str | None) -> tuple[int, int]:
        """``30804:363089688``: the transaction before the colon, a position behind it."""
        try:
            xid, lsn = (text or "").split(":")
            return int(xid), int(lsn)
        except ValueError:
            raise self._undecodable(offset, "a transaction id of unknown form") from None

    def _undecodable(self, offset: int, what: str) -> StreamHalted:
        return StreamHalted(
            "CDCM-STREAM-UNDECODABLE",
            f"This record is not a Debezium change event in schemaless JSON: {what}",
            self.position(offset),
        )

    def _unknown_operation(self, offset: int, letter: str) -> StreamHalted:
        shown = letter if len(letter) == 1 and letter.isalpha() else "(not a letter)"
        return StreamHalted(
            "CDCM-STREAM-UNKNOWN-OPERATION",
            f"The event has operation '{shown}', which this stream must not contain "
            "(known: c, u, d, t)",
            self.position(offset),
            _CONNECTOR_REMEDY,
        )

    def _no_transaction(self, offset: int) -> StreamHalted:
        return StreamHalted(
            "CDCM-STREAM-NO-TRANSACTION",
            "The row event carries no transaction block; applying exactly once needs the "
            "connector setting provide.transaction.metadata=true and an exactly-once source",
            self.position(offset),
            _CONNECTOR_REMEDY,
        )
