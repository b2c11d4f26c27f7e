"""Recorded transactions once more, read from a topic as one block."""

from __future__ import annotations

import json

from cdc_migrator.model.changes import Change, Transaction
from cdc_migrator.stream.assembler import Assembler
from cdc_migrator.stream.blocks import BlockDecoder
from cdc_migrator.stream.envelope import Envelope
from tests.oracle.records import Sent

TOPIC = "cdcm.shop.1.stream"


def as_block(*transactions: Transaction) -> list[Transaction]:
    """The same, as `run` gets them when there is much to read."""
    sent: list[Sent] = []
    first, before = transactions[0].first_offset, transactions[0].begin_lsn - 1
    for one in transactions:
        begin = f"{one.xid}:{one.begin_lsn}"
        end = f"{one.xid}:{one.commit_lsn}"
        records = [
            {"status": "BEGIN", "id": begin, "event_count": None},
            *(_row(one, place, change) for place, change in enumerate(one.changes, 1)),
            {"status": "END", "id": end, "event_count": len(one.changes)},
        ]
        keys = [b"{}", *(change.key for change in one.changes), b"{}"]
        for place, (key, record) in enumerate(zip(keys, records, strict=True)):
            value = json.dumps(record, separators=(",", ":")).encode()
            sent.append(Sent(one.first_offset + place, key or None, value))
    assembler = Assembler(TOPIC, first, before)
    read = assembler.assemble(BlockDecoder(Envelope(TOPIC), few=0).decode_many(sent))
    return list(read)


def _row(one: Transaction, order: int, change: Change) -> dict[str, object]:
    return {
        "before": None if change.before is None else json.loads(bytes(change.before)),
        "after": None if change.after is None else json.loads(bytes(change.after)),
        "source": {
            "schema": change.table.schema,
            "table": change.table.name,
            "lsn": change.lsn,
            "ts_ms": 1_700_000_000_000,
        },
        "transaction": {"id": f"{one.xid}:{change.lsn}", "total_order": order},
        "op": change.op.value,
    }
