"""One record of the ordered topic becomes one typed value; what is not understood halts.

Column values are not looked at: `key`, `before` and `after` go through as the bytes that they
are (`rows` takes them apart later). The shapes are Debezium's change event envelope and
transaction metadata in schemaless JSON. No Kafka here: a record is its offset, key, value and
headers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

from cdc_migrator.errors import StreamHalted
from cdc_migrator.model.changes import Change, Op, Transaction
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


class Rows(_Placed, frozen=True, gc=False):
    """Changes of rows (or truncated tables) that follow each other inside the transaction `xid`.

    Their records lie at `offset` and behind it without a hole; `size` is of all, `sent_ms` of the
    last. `first_order` and `last_order` are the ``total_order`` of the first and the last,
    `committed_at_us` is the source's commit time in microseconds since 1970 UTC. `plain`: each lies
    at a position above the one before, and none is half of a key change.
    """

    xid: int
    first_order: int
    last_order: int
    committed_at_us: int
    changes: Sequence[Change]
    plain: bool


class Tombstone(_Placed, frozen=True, gc=False):
    """A record without a value: compaction's business, nothing to apply."""


# Transactions are such whose records, BEGIN and END included, lie behind each other without a hole;
# their rows are numbered without a gap and plain as in `Rows`, and each is committed behind the one
# before.
Record = Begin | End | Rows | list[Transaction] | Tombstone


class Message(Protocol):
    """`confluent_kafka.Message`, as far as decoding needs it; it has an offset."""

    def offset(self) -> int | None: ...
    def timestamp(self) -> tuple[int, int]: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...
    def headers(self) -> Any: ...


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


_decode_value = msgspec.json.Decoder(_Value).decode
# Numbers as text are accepted: Debezium's documentation shows both forms.
_decode_lax = msgspec.json.Decoder(_Value, strict=False).decode

_OPS = {op.value: op for op in Op}
# An enumeration's member costs more to look up than all else that is done for a change.
_INSERT, _UPDATE = Op.INSERT, Op.UPDATE
_NULL = msgspec.Raw(b"null")
_NULL_LENGTH = len(_NULL)


class Envelope:
    """Decodes the records of one partition; remembers only names, so that equal ones are shared."""

    def __init__(self, topic: str, partition: int = 0) -> None:
        self._topic = topic
        self._partition = partition
        self._tables: dict[tuple[str, str], TableName] = {}
        # Of the event before: the next one's are mostly the same.
        self._table = TableName("", "")
        self._xid = 0
        self._xid_text = ":"

    def another(self) -> Envelope:
        """One of its own for another thread."""
        return Envelope(self._topic, self._partition)

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
        decoded = self._decode(offset, value)
        size = len(value) + len(key) if key else len(value)
        if decoded.op is None:
            if decoded.status is None:
                raise self._undecodable(offset, "neither a row event nor a transaction marker")
            return self._marker(offset, size, sent_ms, decoded)
        change = self._change(offset, key, decoded, headers)
        return self._rows([change], offset, size, sent_ms, decoded, decoded, not headers)

    def decode_many(self, messages: Iterable[Message]) -> Iterator[Record]:
        """The typed values of consecutive messages; rows that follow each other are one record.

        Raises as `decode`, when all in front of that message has been given, save for rows of the
        same transaction.
        """
        # All that is in this loop is done for every row event.
        changes: list[Change] = []
        first = last = _Value()
        start = size = position = 0
        plain = True
        sent: Message | None = None  # the last one of `changes`
        for message in messages:
            key, value = message.key(), message.value()
            offset: int = message.offset()  # type: ignore[assignment]
            decoded = None
            if value is not None:
                try:
                    decoded = _decode_value(value)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    decoded = None  # `decode` looks again
            block = decoded.transaction if decoded is not None else None
            if sent is not None and not (
                block is not None
                and offset == start + len(changes)
                and block.id.startswith(self._xid_text)
            ):
                yield self._rows(changes, start, size, sent.timestamp()[1], first, last, plain)
                changes, sent = [], None
            if decoded is None or decoded.op is None or block is None:
                at_ms = message.timestamp()[1]
                if decoded is not None and decoded.op is None and decoded.status is not None:
                    length = len(value) + len(key) if key else len(value)  # type: ignore[arg-type]
                    yield self._marker(offset, length, at_ms, decoded)
                else:
                    yield self.decode(offset, at_ms, key, value, message.headers())
                continue
            headers = message.headers()
            change = self._change(offset, key, decoded, headers)
            if not changes:
                start, size, first, plain = offset, 0, decoded, True
            elif change.lsn <= position:
                plain = False
            if headers:
                plain = False
            position = change.lsn
            changes.append(change)
            last = decoded
            size += len(value) + len(key) if key else len(value)  # type: ignore[arg-type]
            sent = message
        if sent is not None:
            yield self._rows(changes, start, size, sent.timestamp()[1], first, last, plain)

    def decode_change(
        self, offset: int, key: bytes | None, value: bytes, headers: Headers | None
    ) -> Change:
        """A record that is known to be a row event. Raises as `decode`."""
        return self._change(offset, key, self._decode(offset, value), headers)

    def _decode(self, offset: int, value: bytes) -> _Value:
        try:
            return _decode_lax(value)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            # msgspec names the place and the expected type, never the value.
            raise self._undecodable(offset, str(exc)) from None

    def _change(
        self, offset: int, key: bytes | None, value: _Value, headers: Headers | None
    ) -> Change:
        op = _OPS.get(value.op)  # type: ignore[arg-type]
        source, block = value.source, value.transaction
        if op is None or source is None or block is None:
            raise self._refused(offset, value)
        before: msgspec.Raw | None = value.before
        if len(value.before) == _NULL_LENGTH and value.before == _NULL:
            before = None
        after: msgspec.Raw | None = value.after
        if len(value.after) == _NULL_LENGTH and value.after == _NULL:
            after = None
            if op is _INSERT or op is _UPDATE:
                raise self._undecodable(offset, f"operation '{op}' without a row image")
        table = self._table
        if source.table != table.name or source.schema != table.schema:
            table = self._turn_to(source.schema, source.table)
        if key is None or key == b"null":
            key = b""
        if not block.id.startswith(self._xid_text):
            self._xid = self._xid_of(offset, block.id)
            self._xid_text = f"{self._xid}:"
        change = Change(table, op, key, before, after, source.lsn)
        if headers:
            names = {name for name, _ in headers}
            change.key_moves_on = op is Op.DELETE and KEY_MOVES_ON in names
            change.key_moved_here = op is Op.INSERT and KEY_MOVED_HERE in names
        return change

    def _rows(
        self,
        changes: list[Change],
        offset: int,
        size: int,
        sent_ms: int,
        first: _Value,
        last: _Value,
        plain: bool,
    ) -> Rows:
        """Changes of the transaction that was seen last."""
        begin, end, source = first.transaction, last.transaction, last.source
        assert begin is not None
        assert end is not None
        assert source is not None
        at_us = source.ts_us if source.ts_us is not None else source.ts_ms * 1000
        orders = begin.total_order, end.total_order
        return Rows(offset, size, sent_ms, self._xid, *orders, at_us, changes, plain)

    def _turn_to(self, schema: str, name: str) -> TableName:
        """The table that the next events are of, too: they come in runs."""
        table = self._tables.get((schema, name))
        if table is None:
            table = self._tables[schema, name] = TableName(schema, name)
        self._table = table
        return table

    def _refused(self, offset: int, value: _Value) -> StreamHalted:
        """Why a row event is none."""
        if value.op not in _OPS:
            return self._unknown_operation(offset, value.op or "")
        if value.source is None:
            return self._undecodable(offset, "a row event without its source block")
        return self._no_transaction(offset)

    def _marker(self, offset: int, size: int, sent_ms: int, value: _Value) -> Begin | End:
        xid, lsn = self._split_id(offset, value.id)
        if value.status == "BEGIN":
            return Begin(offset, size, sent_ms, xid, lsn)
        if value.status == "END":
            if value.event_count is None:
                raise self._undecodable(offset, "a transaction's end without its event count")
            return End(offset, size, sent_ms, xid, lsn, value.event_count)
        raise self._undecodable(offset, "a transaction marker that is neither BEGIN nor END")

    def _xid_of(self, offset: int, text: str) -> int:
        """The transaction in front of the colon; behind it is just the row's own position."""
        xid, colon, _ = text.partition(":")
        try:
            if colon:
                return int(xid)
        except ValueError:
            pass
        raise self._undecodable(offset, "a transaction id of unknown form")

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
