"""How the rows of a table that has a route travel, and what is sent of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cdc_migrator.backfill.columns import passage
from cdc_migrator.backfill.reading import Job, query
from cdc_migrator.backfill.snapshot import Snapshot
from cdc_migrator.control.load import Chunk
from cdc_migrator.errors import Refused
from cdc_migrator.model.mapping import MappedColumn, Route
from cdc_migrator.model.tables import Column, ReplicaIdentity, Table, TableName

SOURCE, TARGET = TableName("shop", "customer"), TableName("crm", "person")
ID = Column("id", "bigint", "pg_catalog.int8", "b", None, None, True, False, "")
TOTAL = replace(ID, name="total", type_text="numeric(10,2)", base_type="pg_catalog.numeric")
TEXT = replace(ID, name="full_name", type_text="text", base_type="pg_catalog.text")
MOOD = replace(ID, name="mood", type_text="crm.mood", base_type="crm.mood", category="e")


def table(name: TableName, *columns: Column) -> Table:
    return Table(name, columns, ("id",), ReplicaIdentity.DEFAULT, None, 0, 0)


def mapped(column: Column, expression: str, *uses: str, cast: bool = True) -> MappedColumn:
    return MappedColumn(
        column.name, expression, uses, None, column.type_text, column.base_type, cast
    )


PLAIN = MappedColumn("id", "id", ("id",), "id", "bigint", "pg_catalog.int8", cast=False)
SUM = mapped(TOTAL, "price * amount", "price", "amount")
PERSON = Route(SOURCE, TARGET, (PLAIN, SUM), ("id",), "NOT gone", ("gone",))
FROM = table(
    SOURCE,
    ID,
    replace(TOTAL, name="price"),
    replace(ID, name="amount"),
    replace(ID, name="gone", type_text="boolean", base_type="pg_catalog.bool"),
)
TO = table(TARGET, ID, TOTAL)


def asked(route: Route, target: Table, first: int, end: int | None) -> str:
    chunk = Chunk(TableName("shop", "customer -> crm.person"), 0, 0, first, end, 1)
    way = passage(FROM, target, route)
    return query(Job(chunk, way, Snapshot("x", "1:1:"), 1)).as_string()


def test_a_route_sends_what_it_computes_of_the_rows_that_pass() -> None:
    """In the target's base type, whose input rounds it or refuses its length; whole or in part."""
    copy = (
        'COPY (SELECT (id\n), (price * amount\n)::"pg_catalog"."numeric" '
        'FROM ONLY "shop"."customer" WHERE (NOT gone\n)'
    )

    assert asked(PERSON, TO, 0, None) == f"{copy}) TO STDOUT (FORMAT binary)"
    assert asked(PERSON, TO, 3, 9) == (
        f"{copy} AND ctid >= '(3,0)'::tid AND ctid < '(9,0)'::tid) TO STDOUT (FORMAT binary)"
    )


def test_a_table_without_a_route_is_asked_as_ever() -> None:
    """Not by a query where all of it is sent."""
    chunk = Chunk(SOURCE, 0, 0, 0, None, 1)

    one = query(Job(chunk, passage(TO, TO), Snapshot("x", "1:1:"), 1)).as_string()

    assert one == 'COPY "crm"."person" ("id", "total") TO STDOUT (FORMAT binary)'


@pytest.mark.parametrize(
    ("column", "there", "binary"),
    [
        (SUM, TOTAL, True),
        (SUM, replace(TOTAL, type_text="numeric(12,4)"), True),
        (SUM, TEXT, False),
        (mapped(MOOD, "'sad'"), MOOD, False),
        (mapped(MOOD, "mood", "amount", cast=False), MOOD, True),
        (mapped(MOOD, "mood", "amount", cast=False), replace(MOOD, type_text="shop.mood"), False),
    ],
)
def test_binary_where_what_is_sent_has_the_form_that_the_column_takes(
    column: MappedColumn, there: Column, binary: bool
) -> None:
    """A type that only the target has goes as text, and so does what somebody has changed there."""
    route = replace(PERSON, columns=(PLAIN, column))
    target = table(TARGET, ID, replace(there, name=column.name))

    assert passage(FROM, target, route).binary is binary


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [
        (table(SOURCE, ID), TO, "the source lacks amount, gone, price"),
        (FROM, table(TARGET, ID), "the target lacks total"),
        (FROM, table(TARGET, ID, replace(TOTAL, generated=True)), "the target computes total"),
    ],
)
def test_a_route_that_fits_no_longer_is_refused(source: Table, target: Table, told: str) -> None:
    """Both sides must have its columns, by name."""
    with pytest.raises(Refused, match=told) as refused:
        passage(source, target, PERSON)

    assert refused.value.code == "CDCM-LOAD-COLUMNS"
