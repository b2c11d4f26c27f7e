"""Builds records in the connector's documented form, and reads them from fixture files.

A fixture file holds one JSON object a line: first what it shows (``about``, and ``captured``:
where it was recorded, or null when it is built to the documented form), then records with
``offset``, ``sent_ms``, ``key``, ``value`` (texts or null) and ``headers``.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from cdc_migrator.errors import StreamHalted
from cdc_migrator.model.changes import Transaction
from cdc_migrator.stream.assembler import Assembler
from cdc_migrator.stream.envelope import Envelope, Record
from cdc_migrator.stream.spill import SpillLimits

FIXTURES = Path(__file__).parents[2] / "fixtures" / "stream"
TOPIC = "cdcm.shop.1.stream"
COMMITTED_AT_US = 1_795_262_594_121_322


@dataclass(frozen=True)
class RawRecord:
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] | None = None
    sent_ms: int = 0

    def to_json(self) -> str:
        return json.dumps(
            {
                "offset": self.offset,
                "sent_ms": self.sent_ms,
                "key": self.key and self.key.decode(),
                "value": self.value and self.value.decode(),
                "headers": [(name, value.decode()) for name, value in self.headers or ()],
            },
            ensure_ascii=False,
        )


@dataclass
class Topic:
    """A topic that is written record by record, as the connector would."""

    records: list[RawRecord] = field(default_factory=list)
    next_offset: int = 0
    sent_ms: int = COMMITTED_AT_US // 1000

    def put(self, key: Any, value: Any, headers: list[tuple[str, bytes]] | None = None) -> int:
        offset = self.next_offset
        self.records.append(RawRecord(offset, _json(key), _json(value), headers, self.sent_ms))
        self.next_offset += 1
        return offset

    def hole(self, width: int = 1) -> None:
        """Offsets that no consumer sees: transaction control records."""
        self.next_offset += width

    def cut(self, pause_ms: int = 1400) -> None:
        """The connector loses its connection and goes on after a retry, somewhere."""
        self.hole()
        self.sent_ms += pause_ms

    def begin(self, xid: int, lsn: int) -> int:
        marker = f"{xid}:{lsn}"
        value = {"status": "BEGIN", "id": marker, "event_count": None, "data_collections": None}
        return self.put({"id": marker}, value)

    def end(self, xid: int, lsn: int, count: int) -> int:
        marker = f"{xid}:{lsn}"
        value = {"status": "END", "id": marker, "event_count": count, "data_collections": []}
        return self.put({"id": marker}, value)

    def row(
        self,
        xid: int,
        lsn: int,
        order: int,
        row_id: int = 0,
        op: str = "c",
        table: str = "orders",
        moves_to: int | None = None,
        moved_from: int | None = None,
        keyless: bool = False,
    ) -> int:
        """One row event; `row_id` stands for its key and all of its content."""
        image = {"id": row_id, "note": f"row {row_id}"}
        value = {
            "before": {"id": row_id, "note": None} if op == "d" else None,
            "after": image if op in "cu" else None,
            "source": {
                "version": "3.7.0.Final",
                "ts_ms": COMMITTED_AT_US // 1000,
                "ts_us": COMMITTED_AT_US,
                "schema": "shop",
                "table": table,
                "txId": xid,
                "lsn": lsn,
            },
            "transaction": {
                "id": f"{xid}:{lsn}",
                "total_order": order,
                "data_collection_order": order,
            },
            "op": op,
            "ts_ms": COMMITTED_AT_US // 1000 + 20,
        }
        headers = []
        if moves_to is not None:
            headers.append(("__debezium.newkey", b'{"id":%d}' % moves_to))
        if moved_from is not None:
            headers.append(("__debezium.oldkey", b'{"id":%d}' % moved_from))
        key = None if op == "t" or keyless else {"id": row_id}
        return self.put(key, value, headers or None)

    def transaction(self, xid: int, lsns: Iterable[int], commit: int, first_id: int = 0) -> None:
        """A whole one of inserts: BEGIN, a row at each position, END."""
        lsns = list(lsns)
        self.begin(xid, lsns[0] if lsns else commit - 1)
        for i, lsn in enumerate(lsns):
            self.row(xid, lsn, i + 1, first_id + i)
        self.end(xid, commit, len(lsns))

    def empty(self, xid: int, commit: int) -> None:
        """How a transaction that was delivered before comes again after a retry."""
        self.transaction(xid, [], commit)


def _json(value: Any) -> bytes | None:
    return None if value is None else json.dumps(value, separators=(",", ":")).encode()


def load(name: str) -> list[RawRecord]:
    """The records of a fixture file."""
    raw = (FIXTURES / name).read_bytes()
    text = gzip.decompress(raw) if name.endswith(".gz") else raw
    _about, *lines = text.decode().rstrip("\n").split("\n")
    return [
        RawRecord(
            record["offset"],
            None if record["key"] is None else record["key"].encode(),
            None if record["value"] is None else record["value"].encode(),
            [(header, value.encode()) for header, value in record["headers"]] or None,
            record["sent_ms"],
        )
        for record in map(json.loads, lines)
    ]


def decode(records: Iterable[RawRecord]) -> list[Record]:
    envelope = Envelope(TOPIC)
    return [envelope.decode(r.offset, r.sent_ms, r.key, r.value, r.headers) for r in records]


class _Message:
    """A record as a consumer gives it."""

    def __init__(self, record: RawRecord) -> None:
        self._record = record

    def offset(self) -> int:
        return self._record.offset

    def timestamp(self) -> tuple[int, int]:
        return 1, self._record.sent_ms

    def key(self) -> bytes | None:
        return self._record.key

    def value(self) -> bytes | None:
        return self._record.value

    def headers(self) -> list[tuple[str, bytes]] | None:
        return self._record.headers


def assemble(
    records: Iterable[RawRecord], next_offset: int = 0, last_commit_lsn: int = 0
) -> tuple[list[Transaction], Assembler]:
    """All transactions of the records, and the assembler behind them. Raises StreamHalted.

    The same must come out where a transaction keeps one or three of its rows in memory, and where
    records are decoded together.
    """
    records = list(records)
    decoded = decode(records)
    in_runs = list(Envelope(TOPIC).decode_many(map(_Message, records)))
    plain, *others = [
        _outcome(given, Assembler(TOPIC, next_offset, last_commit_lsn, spill=limits))
        for given in (decoded, in_runs)
        for limits in (
            SpillLimits(),
            SpillLimits(rows=1),
            SpillLimits(rows=3),
            SpillLimits(bytes=2000),
        )
    ]
    assert all(_seen(one) == _seen(plain) for one in others)
    transactions, assembler, halt = plain
    if halt is not None:
        raise halt
    return transactions, assembler


_Outcome = tuple[list[Transaction], Assembler, StreamHalted | None]


def _outcome(records: list[Record], assembler: Assembler) -> _Outcome:
    given: list[Transaction] = []
    try:
        for transaction in assembler.assemble(records):
            given.append(transaction)
    except StreamHalted as halt:
        return given, assembler, halt
    return given, assembler, None


def _seen(outcome: _Outcome) -> object:
    given, assembler, halt = outcome
    return (
        [msgspec.structs.replace(one, changes=list(one.changes), tables=None) for one in given],
        replace(assembler.counters, spilled=0),
        assembler.resume_offset,
        None if halt is None else (halt.code, halt.cause, halt.position),
    )


def row_ids(transaction: Transaction) -> list[int]:
    """Which rows a transaction of `Topic.row` events touches, in order."""
    return [json.loads(change.key)["id"] for change in transaction.changes]
