"""Which columns travel, and when their bytes may travel unread."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cdc_migrator.backfill.columns import passage
from cdc_migrator.errors import Refused
from cdc_migrator.model.tables import Column, ReplicaIdentity, Table, TableName

INT = Column("id", "integer", "pg_catalog.int4", "b", None, None, True, False, "")


def table(*columns: Column) -> Table:
    return Table(TableName("shop", "t"), columns, ("id",), ReplicaIdentity.DEFAULT, None, 0, 0)


def named(
    name: str, type_text: str, base: str, category: str = "b", element: str | None = None
) -> Column:
    return replace(
        INT, name=name, type_text=type_text, base_type=base, category=category, element=element
    )


@pytest.mark.parametrize(
    ("column", "binary"),
    [
        (named("a", "text", "pg_catalog.text"), True),
        (named("a", "numeric(10,2)", "pg_catalog.numeric"), True),
        (named("a", "shop.mood", "shop.mood", "e"), True),
        (named("a", "integer[]", "pg_catalog._int4", "b", "pg_catalog.int4"), True),
        (named("a", "shop.mood[]", "shop._mood", "b", "shop.mood"), False),
        (named("a", "public.citext", "public.citext"), False),
        (named("a", "shop.pair", "shop.pair", "c"), False),
        (named("a", "regclass", "pg_catalog.regclass"), False),
    ],
)
def test_binary_only_where_no_object_id_is_inside(column: Column, binary: bool) -> None:
    """Arrays, composites and names of objects hold ids that mean nothing on another server."""
    same = table(INT, column)

    assert passage(same, same).binary is binary


def test_differing_types_travel_as_text() -> None:
    """A target that widened a column gets its values as text."""
    wider = replace(INT, type_text="bigint", base_type="pg_catalog.int8")

    assert passage(table(INT), table(INT)).binary
    assert not passage(table(INT), table(wider)).binary


def test_generated_columns_stay_and_order_is_the_sources() -> None:
    """The target computes its own; names decide, not places."""
    up = replace(INT, name="up", generated=True)
    note = named("note", "text", "pg_catalog.text")

    assert passage(table(INT, up, note), table(note, up, INT)).columns == ("id", "note")


def test_missing_and_computed_columns_are_refused_by_name() -> None:
    """Nothing is dropped silently: each column that cannot be stored is named."""
    note = named("note", "text", "pg_catalog.text")

    with pytest.raises(Refused, match=r"lacks note.*computes id"):
        passage(table(INT, note), table(replace(INT, generated=True)))
