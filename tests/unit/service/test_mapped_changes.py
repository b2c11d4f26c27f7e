"""Which changes of a table on the source its routes can bear."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from cdc_migrator.model import described
from cdc_migrator.model.described import Described
from cdc_migrator.model.mapping import Bound, MappedColumn, Route, Wanted
from cdc_migrator.model.tables import TableName
from cdc_migrator.service import altering
from cdc_migrator.service.mapped_changes import misplaced, unbearable
from cdc_migrator.service.schema_step import Step, step
from tests.unit.service.test_altering import BEFORE, column, table, with_column

# Of (id, n, mood) what one route reads is n, of the other id and mood, the latter in its filter.
KEY = MappedColumn("id", "id", ("id",), "id", "integer", "pg_catalog.int4", cast=False)
TWICE = MappedColumn("twice", "n * 2", ("n",), None, "integer", "pg_catalog.int4")
OF_N = Route(TableName("shop", "item"), TableName("crm", "a"), (KEY, TWICE), ("id",))
OF_MOOD = Route(
    TableName("shop", "item"), TableName("crm", "b"), (KEY,), ("id",), "mood = 'glad'", ("mood",)
)
GONE = BEFORE["columns"][:1] + BEFORE["columns"][2:]
NEW_LABEL = {"labels": [[10, "glad"], [11, "sad"], [12, "mad"]]}


def told(after: Described, *routes: Route) -> list[str]:
    return [str(change.kind) for change in unbearable(step(table(), after, ()), routes)]


@pytest.mark.parametrize(
    ("after", "of_n", "of_mood"),
    [
        (table(columns=[*BEFORE["columns"], column(4, "c")]), [], []),
        (table(columns=GONE), ["column dropped"], []),
        (with_column(1, name="m"), ["column renamed"], []),
        (with_column(1, type_text="bigint", base_type="pg_catalog.int8"), ["type changed"], []),
        (with_column(1, expression="7"), [], []),
        (with_column(1, not_null=True), [], []),
        (with_column(2, **NEW_LABEL), [], ["value added"]),
        (table(constraints={"item_pkey": "PRIMARY KEY (id)"}), [], []),
        (table(replica_identity="f"), [], []),
        (table(replica_identity="n"), ["replica identity"], ["replica identity"]),
        (table(name="thing"), ["table renamed"], ["table renamed"]),
        (table(key=["n"]), ["key changed"], ["key changed"]),
    ],
)
def test_a_route_bears_what_it_does_not_read(after: Any, of_n: Any, of_mood: Any) -> None:
    """A table that is split goes on only where all of its routes can."""
    after = described.read(copy.deepcopy(dict(after.document)))

    assert told(after, OF_N) == of_n
    assert told(after, OF_MOOD) == of_mood
    assert set(told(after, OF_N, OF_MOOD)) == {*of_n, *of_mood}


def test_a_partition_that_is_detached_goes_where_its_mapping_says() -> None:
    """It is mapped by its own name."""
    year = {"root": "year", "root_schema": "shop", "ancestors": [[8, "shop", "year", None]]}
    detached = step(table(**year), table(ancestors=[]), ())

    assert [str(one.kind) for one in detached.changes] == ["partition detached"]
    assert unbearable(detached, [OF_N, OF_MOOD]) == []


def test_a_table_that_is_dropped_is_borne_by_none() -> None:
    """Its rows stay on the target."""
    before = table()
    gone = Step(before, None, (altering.dropped(before),), (), reload=False)

    assert [str(one.kind) for one in unbearable(gone, [OF_N])] == ["table dropped"]


SALE = {"root_schema": "shop", "root": "sale", "bounds": "1"}
OF_PART = replace(OF_N, bound=Bound("true", (), TableName("shop", "sale")))


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (SALE, SALE, None),
        (SALE, {"bounds": None}, None),
        (SALE, {**SALE, "bounds": "2"}, "has other bounds in shop.sale now"),
        ({}, SALE, "is a partition of shop.sale now"),
        ({"root_schema": "shop", "root": "sale"}, SALE, None),
    ],
    ids=["as it was", "detached", "attached anew", "attached", "of an earlier release"],
)
def test_a_partition_stays_what_it_was_or_goes(before: Any, after: Any, told: str | None) -> None:
    """With rows of its own it cannot come to a table that is mapped as a whole."""
    one = step(table(**before), table(**after), ())

    assert misplaced(one, [OF_PART], ()) == told
    assert misplaced(one, [], [Wanted("shop.sale", "crm.sale")]) == told
    assert misplaced(one, [], [Wanted("shop.sale", "x.y"), Wanted("shop.item", "x.z")]) is None
    assert misplaced(one, [], ()) is None


def test_a_partition_that_is_dropped_is_borne() -> None:
    """Its rows stay on the target."""
    gone = Step(table(), None, (altering.dropped(table()),), (), reload=False)

    assert unbearable(gone, [OF_PART]) == []
