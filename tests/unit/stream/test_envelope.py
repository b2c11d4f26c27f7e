"""One record, one typed value; nothing that is not understood passes."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from topics import TOPIC, Topic, decode, load

from cdc_migrator.errors import StreamHalted
from cdc_migrator.model.changes import Op
from cdc_migrator.model.tables import TableName
from cdc_migrator.stream.envelope import Begin, End, Envelope, Headers, Record, Rows, Tombstone

SECRET = "4111 1111 1111 1111"


def row_value(**changed: Any) -> dict[str, Any]:
    value = {
        "before": None,
        "after": {"id": 7, "card": SECRET},
        "source": {"schema": "shop", "table": "orders", "lsn": 90, "ts_ms": 5, "ts_us": 5123},
        "transaction": {"id": "31:90", "total_order": 2, "data_collection_order": 1},
        "op": "c",
    }
    value.update(changed)
    return {name: content for name, content in value.items() if content is not ...}


def decode_one(
    value: Any, key: bytes | None = b'{"id":7}', headers: Headers | None = None
) -> Record:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Envelope(TOPIC).decode(41, 9000, key, raw, headers)


def row_of(record: Record) -> Rows:
    assert isinstance(record, Rows)
    return record


def test_markers_carry_transaction_and_position() -> None:
    """BEGIN and END are told by their status, and their id is taken apart at the colon."""
    topic = Topic()
    topic.begin(30804, 363089688)
    topic.end(30804, 363090512, 4)
    begin, end = decode(topic.records)
    assert begin == Begin(0, begin.size, topic.sent_ms, 30804, 363089688)
    assert end == End(1, end.size, topic.sent_ms, 30804, 363090512, 4)


def test_row_passes_its_bytes_through() -> None:
    """Key and images arrive as the very bytes of the event; null is None."""
    after = b'{ "n":1.50 ,"t":"\\u00e4","big":12345678901234567890.000}'
    raw = json.dumps(row_value(after="X", before="Y")).encode()
    raw = raw.replace(b'"X"', after).replace(b'"Y"', b"null")
    row = row_of(decode_one(raw))
    assert row.changes[0].after == msgspec.Raw(after)
    assert row.changes[0].before is None
    assert row.changes[0].key == b'{"id":7}'
    assert (row.offset, row.xid, row.first_order, row.committed_at_us) == (41, 31, 2, 5123)
    assert (row.changes[0].table, row.changes[0].op, row.changes[0].lsn) == (
        TableName("shop", "orders"),
        Op.INSERT,
        90,
    )
    assert row.size == len(raw) + len(b'{"id":7}')


@pytest.mark.parametrize("key", [None, b"null"])
def test_keyless_tables_have_an_empty_key(key: bytes | None) -> None:
    """A null key, in either spelling, is no key."""
    assert row_of(decode_one(row_value(), key)).changes[0].key == b""


def test_commit_time_falls_back_to_milliseconds() -> None:
    """A connector that gives no microseconds gives milliseconds."""
    source = {"schema": "s", "table": "t", "lsn": 9, "ts_ms": 5}
    assert row_of(decode_one(row_value(source=source))).committed_at_us == 5000


def test_numbers_as_text_are_numbers() -> None:
    """The documentation shows numbers as text in places; both forms are accepted."""
    source = {"schema": "s", "table": "t", "lsn": "91", "ts_ms": "5"}
    assert row_of(decode_one(row_value(source=source))).changes[0].lsn == 91


def test_key_change_headers() -> None:
    """Only a delete moves a key on, and only a create is where it moved."""
    new, old = [("__debezium.newkey", b"{}")], [("__debezium.oldkey", b"{}")]
    delete = row_of(decode_one(row_value(op="d", after=None), headers=new)).changes[0]
    create = row_of(decode_one(row_value(), headers=old)).changes[0]
    plain = row_of(decode_one(row_value(), headers=[("traceparent", b"00")])).changes[0]
    assert (delete.key_moves_on, delete.key_moved_here) == (True, False)
    assert (create.key_moves_on, create.key_moved_here) == (False, True)
    assert (plain.key_moves_on, plain.key_moved_here) == (False, False)


def test_tombstone_is_told_from_an_empty_message() -> None:
    """No value at all is a tombstone; a value of no bytes is garbage."""
    assert Envelope(TOPIC).decode(8, 9000, b"{}", None, None) == Tombstone(8, 2, 9000)
    with pytest.raises(StreamHalted):
        Envelope(TOPIC).decode(8, 9000, b"{}", b"", None)


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\x00\x00\x00\x00\x07avro",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b"{}",
        b"[" * 200_000,
        b'{"op":7}',
        b'{"status":"BEGIN"}',
        b'{"status":"BEGIN","id":"12"}',
        b'{"status":"BEGIN","id":"12:13:14"}',
        b'{"status":"BEGIN","id":"a:b"}',
        b'{"status":"END","id":"12:13"}',
        b'{"status":"PAUSE","id":"12:13"}',
        json.dumps({"schema": {}, "payload": row_value()}).encode(),
        json.dumps(row_value(source=...)).encode(),
        json.dumps(row_value(source={"schema": "s", "table": "t", "ts_ms": 1})).encode(),
        json.dumps(row_value(source={"table": "t", "lsn": 1, "ts_ms": 1})).encode(),
        json.dumps(row_value(transaction={"id": "31:9"})).encode(),
        json.dumps(row_value(transaction={"id": "", "total_order": 1})).encode(),
        json.dumps(row_value(after=None)).encode(),
        json.dumps(row_value(op="u", after=...)).encode(),
        json.dumps(row_value())[:-9].encode(),
    ],
)
def test_garbage_halts_and_names_the_place(garbage: bytes) -> None:
    """What is not a change event halts with its offset, and repeats no value."""
    with pytest.raises(StreamHalted) as halted:
        decode_one(garbage)
    assert halted.value.code == "CDCM-STREAM-UNDECODABLE"
    assert halted.value.position == f"{TOPIC}[0]@41"
    assert SECRET not in str(halted.value)


@pytest.mark.parametrize("op", ["r", "m", "x", "", SECRET])
def test_unknown_operations_halt(op: str) -> None:
    """An operation that the applier has no meaning for is never skipped."""
    with pytest.raises(StreamHalted) as halted:
        decode_one(row_value(op=op))
    assert halted.value.code == "CDCM-STREAM-UNKNOWN-OPERATION"
    assert SECRET not in str(halted.value)


def test_a_row_outside_transaction_metadata_halts() -> None:
    """Without the transaction block a row belongs to no transaction; the setting is named."""
    with pytest.raises(StreamHalted, match="exactly-once") as halted:
        decode_one(row_value(transaction=None))
    assert halted.value.code == "CDCM-STREAM-NO-TRANSACTION"
    assert "provide.transaction.metadata" in halted.value.cause


def test_equal_names_are_one_object() -> None:
    """A million rows of a table share its name."""
    envelope = Envelope(TOPIC)
    raw = json.dumps(row_value()).encode()
    first, second = (row_of(envelope.decode(i, 0, b"{}", raw, None)) for i in range(2))
    assert first.changes[0].table is second.changes[0].table


def test_captured_records() -> None:
    """What a real connector sends for each kind of change is understood."""
    records = decode(load("operations.jsonl"))
    seen = {r.changes[0].op for r in records if isinstance(r, Rows)}
    assert seen == set(Op)
    tables = {str(r.changes[0].table) for r in records if isinstance(r, Rows)}
    assert tables == {"shop.item", "shop.line", "shop.audit", "cdc_migrator.heartbeat"}
    moved = [c for r in records if isinstance(r, Rows) for c in r.changes if c.key_moves_on]
    arrived = [c for r in records if isinstance(r, Rows) for c in r.changes if c.key_moved_here]
    assert [c.lsn for c in moved] == [c.lsn for c in arrived] != []
    truncates = [
        c for r in records if isinstance(r, Rows) for c in r.changes if c.op is Op.TRUNCATE
    ]
    assert [(c.key, c.before, c.after) for c in truncates] == [(b"", None, None)] * 2
