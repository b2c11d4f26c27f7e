"""The applier knows in front of which transactions it must stop for a change of the schema."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cdc_migrator.apply.batcher import Batch
from cdc_migrator.apply.ddl import SchemaChange, Stops
from cdc_migrator.apply.prepared import Preparer
from cdc_migrator.apply.signals import MARKER
from cdc_migrator.model import described
from cdc_migrator.model.changes import Change, Op, Transaction

TABLE: dict[str, Any] = {
    "oid": 5, "schema": "shop", "name": "item", "replica_identity": "d", "root_schema": None,
    "root": None, "rows": 1, "bytes": 8192, "file": 5, "key": [], "columns": [],
    "constraints": {}, "indexes": {},
}  # fmt: skip
SHAPES = {5: described.read(TABLE)}


def told(number: int, migration: str = "m", **details: Any) -> Transaction:
    """A transaction with a `ddl` marker."""
    row = {
        "id": number, "migration": migration, "kind": "ddl", "token": f"t{number}",
        "details": json.dumps(details), "at": None,
    }  # fmt: skip
    change = Change(MARKER, Op.INSERT, b"{}", None, json.dumps(row).encode(), number)
    return Transaction(
        xid=number, begin_lsn=number, commit_lsn=number, committed_at_us=None, changes=[change],
        first_offset=number, next_offset=number + 1, suspect=False, bytes=1, tables=None,
        sent_ms=0,
    )  # fmt: skip


def ahead(stops: Stops, *transactions: Transaction) -> bool:
    batch = Batch(transactions, 9, 9)
    return stops.ahead(batch, Preparer({}).prepare(batch))


CHANGED = told(1, event="change", tag="ALTER TABLE", oid=5, table=TABLE | {"name": "other"})
SAME = told(2, event="change", tag="ALTER TABLE", oid=5, table=TABLE | {"file": 7, "rows": 3})


def test_it_stops_where_a_table_is_not_what_it_was() -> None:
    """At its own markers, at those that nobody has settled, and only if they say something."""
    stops = Stops("m", ["t3"], SHAPES)
    assert ahead(stops, SAME, CHANGED)
    assert not ahead(stops, SAME)
    assert not ahead(stops, told(3, event="drop", tag="DROP TABLE", oid=5))
    assert ahead(stops, told(4, event="drop", tag="DROP TABLE", oid=5))
    assert ahead(stops, told(4, event="rewrite", tag="ALTER TABLE", oid=5, reason=4, plain=True))
    assert not ahead(Stops("other", [], SHAPES), CHANGED)


def test_what_cannot_be_read_is_not_passed() -> None:
    """Whoever settles it says so."""
    assert ahead(Stops("m", [], SHAPES), told(4, event="change", tag="ALTER TABLE", oid=5))


def test_only_a_transaction_by_itself_is_told() -> None:
    """A batch of several is cut first."""
    stops = Stops("m", [], SHAPES)
    stops.require_none(Batch((SAME, CHANGED), 9, 9), "here")
    with pytest.raises(SchemaChange) as raised:
        stops.require_none(Batch((CHANGED,), 9, 9), "here")
    assert raised.value.before == {"t1": 0}
    assert raised.value.position == "here"
