"""From two descriptions of a table follow the differences and the statements for the target."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cdc_migrator.model import described
from cdc_migrator.model.described import Described
from cdc_migrator.service import altering
from cdc_migrator.service.alter_words import constant, literal, name, widens
from cdc_migrator.service.alteration import Kind, Rewrite
from cdc_migrator.service.schema_step import UNSEEN, step


def column(number: int, called: str, **said: Any) -> dict[str, Any]:
    return {
        "number": number, "name": called, "type_text": "integer", "base_type": "pg_catalog.int4",
        "category": "b", "element": None, "element_category": None, "not_null": False,
        "generated": False, "identity": "", "length": None, "collation": None,
        "expression": None, "enumeration": None, "labels": None, **said,
    }  # fmt: skip


BEFORE: dict[str, Any] = {
    "oid": 5, "schema": "shop", "name": "item", "replica_identity": "d", "root_schema": None,
    "root": None, "rows": 1, "bytes": 8192, "file": 5, "key": ["id"],
    "columns": [
        column(1, "id", not_null=True),
        column(2, "n"),
        column(3, "mood", type_text="shop.mood", base_type="shop.mood", category="e",
               enumeration="shop.mood", labels=[[10, "glad"], [11, "sad"]]),
    ],
    "constraints": {"item_pkey": "PRIMARY KEY (id)", "n_up": "CHECK ((n > 0))"},
    "indexes": {},
}  # fmt: skip


def table(**changed: Any) -> Described:
    return described.read(copy.deepcopy(BEFORE) | changed)


def with_column(place: int, **changed: Any) -> Described:
    columns = copy.deepcopy(BEFORE["columns"])
    columns[place] |= changed
    return table(columns=columns)


def told(after: Described, *rewrites: Rewrite) -> list[tuple[Kind, tuple[str, ...], bool, bool]]:
    found = altering.changes(table(), after, rewrites)
    return [(one.kind, one.statements, one.safe, one.reload) for one in found]


@pytest.mark.parametrize(
    ("said", "statement", "reload"),
    [
        ({}, "ALTER TABLE shop.item ADD COLUMN c integer", False),
        ({"expression": "7"}, "ALTER TABLE shop.item ADD COLUMN c integer DEFAULT 7", False),
        (
            {"expression": "7", "not_null": True},
            "ALTER TABLE shop.item ADD COLUMN c integer DEFAULT 7 NOT NULL",
            False,
        ),
        (
            {"expression": "random()"},
            "ALTER TABLE shop.item ADD COLUMN c integer DEFAULT random()",
            True,
        ),
        (
            {"expression": "(n * 2)", "generated": True},
            "ALTER TABLE shop.item ADD COLUMN c integer GENERATED ALWAYS AS ((n * 2)) STORED",
            False,
        ),
    ],
)
def test_a_column_is_added(said: dict[str, Any], statement: str, reload: bool) -> None:
    """Rows that are there get the same value on both sides only from one that is written out."""
    after = table(columns=[*BEFORE["columns"], column(4, "c", **said)])
    assert told(after) == [(Kind.COLUMN_ADDED, (statement,), True, reload)]


def test_a_new_name_is_told_from_a_new_column() -> None:
    """By the column's number."""
    assert told(with_column(1, name="m")) == [
        (Kind.COLUMN_RENAMED, ("ALTER TABLE shop.item RENAME COLUMN n TO m",), True, False)
    ]
    columns = [*BEFORE["columns"][:1], *BEFORE["columns"][2:], column(4, "n")]
    assert [one[0] for one in told(table(columns=columns))] == [
        Kind.COLUMN_DROPPED,
        Kind.COLUMN_ADDED,
    ]


def test_names_that_are_passed_on_need_the_rows_once_more() -> None:
    """Nothing shows whether two columns have changed their names on the target."""
    columns = copy.deepcopy(BEFORE["columns"])
    columns[0]["name"], columns[1]["name"] = "n", "id"
    found = altering.changes(table(), table(columns=columns, key=["n"]), ())
    assert (found[0].kind, found[0].reload) == (Kind.COLUMN_RENAMED, True)
    assert len(found[0].statements) == 4


def test_only_what_widens_is_safe_and_only_a_plain_rewrite_keeps_the_rows() -> None:
    """A type that is changed with an expression of its own has other values."""
    wider = with_column(1, type_text="bigint", base_type="pg_catalog.int8")
    alter = "ALTER TABLE shop.item ALTER COLUMN n TYPE bigint"
    assert told(wider, Rewrite(4, plain=True)) == [(Kind.TYPE_CHANGED, (alter,), True, False)]
    assert told(wider, Rewrite(4, plain=False)) == [(Kind.TYPE_CHANGED, (alter,), True, True)]
    other = with_column(1, type_text="text", base_type="pg_catalog.text")
    [(_, statements, safe, reload)] = told(other, Rewrite(4, plain=True))
    assert (statements, safe, reload) == (
        ("ALTER TABLE shop.item ALTER COLUMN n TYPE text USING n::text",),
        False,
        True,
    )


def test_values_of_an_enumeration_come_to_their_place() -> None:
    """New ones behind their neighbour, renamed ones under their new name."""
    labels = [[10, "happy"], [12, "calm"], [11, "sad"]]
    assert [one[1][0] for one in told(with_column(2, labels=labels))] == [
        "ALTER TYPE shop.mood RENAME VALUE 'glad' TO 'happy'",
        "ALTER TYPE shop.mood ADD VALUE IF NOT EXISTS 'calm' AFTER 'happy'",
    ]


def test_what_refuses_rows_must_go_and_what_is_new_may_wait() -> None:
    """Constraints, NOT NULL and defaults."""
    without = table(constraints={"item_pkey": "PRIMARY KEY (id)"})
    [gone] = altering.changes(table(), without, ())
    assert (gone.kind, gone.needed) == (Kind.CONSTRAINT_DROPPED, True)
    assert gone.statements == ("ALTER TABLE shop.item DROP CONSTRAINT IF EXISTS n_up",)
    for after in (
        table(constraints=BEFORE["constraints"] | {"u": "UNIQUE (n)"}),
        with_column(1, not_null=True),
        with_column(1, expression="3"),
    ):
        [one] = altering.changes(table(), after, ())
        assert not one.needed
    [allowed] = altering.changes(with_column(1, not_null=True), table(), ())
    assert (allowed.kind, allowed.needed) == (Kind.NULL_ALLOWED, True)


def test_a_rename_of_a_column_is_no_other_constraint() -> None:
    """Its definition has other words, and is the same."""
    columns = copy.deepcopy(BEFORE["columns"])
    columns[1]["name"] = "m"
    after = table(columns=columns, constraints=BEFORE["constraints"] | {"n_up": "CHECK ((m > 0))"})
    assert [one[0] for one in told(after)] == [Kind.COLUMN_RENAMED]


def test_a_partition_changes_with_its_parent() -> None:
    """Its columns are the parent's."""
    root = {"root_schema": "shop", "root": "all"}
    after = table(columns=[*BEFORE["columns"], column(4, "c")], **root)
    [added] = altering.changes(table(**root), after, ())
    assert added.statements == ('ALTER TABLE shop."all" ADD COLUMN c integer',)
    assert altering.dropped(table(**root)).statements == (
        'ALTER TABLE shop."all" DETACH PARTITION shop.item',
    )


def test_what_the_target_has_already_is_met() -> None:
    """Each kind is looked up in the target's own description."""
    after = table(
        columns=[*BEFORE["columns"][:1], column(2, "m", type_text="bigint"), column(4, "c")]
    )
    found = altering.changes(table(), after, ())
    assert len(found) == 4
    assert not any(altering.met(one, table()) for one in found)
    assert all(altering.met(one, after) for one in found)
    assert altering.met(altering.dropped(table()), None)
    assert not altering.met(found[0], None)


def test_a_rewrite_that_explains_itself_by_nothing_reads_the_table_again() -> None:
    """The same type with an expression; and what nobody saw, where something else has changed."""
    assert step(table(), table(), [Rewrite(4, plain=False)]).reload
    assert not step(table(), table(), [UNSEEN]).reload
    added = table(columns=[*BEFORE["columns"], column(4, "c")])
    assert step(table(), added, [UNSEEN]).reload
    assert not step(table(), added, []).reload
    assert step(table(), added, [], rows_before=True).reload


@pytest.mark.parametrize(
    ("before", "after", "wider"),
    [
        ("integer", "bigint", True),
        ("bigint", "integer", False),
        ("character varying(10)", "character varying(20)", True),
        ("character varying(20)", "character varying(10)", False),
        ("character varying(20)", "text", True),
        ("numeric(10,2)", "numeric(12,2)", True),
        ("numeric(10,2)", "numeric(12,3)", False),
        ("numeric(10,2)", "numeric", True),
        ("timestamp without time zone", "timestamp with time zone", False),
        ("text", "integer", False),
    ],
)
def test_a_type_widens(before: str, after: str, wider: bool) -> None:
    """Where every value stays what it is, whatever a session's settings are."""
    assert widens(before, after) is wider


@pytest.mark.parametrize(
    ("expression", "one_value"),
    [
        ("7", True),
        ("(-7)", True),
        ("'x'::character varying(10)", True),
        ("'{}'::text[]", True),
        ("NULL::integer", True),
        ("true", True),
        ("now()", False),
        ("'now'::text || 'x'", False),
        ("('now'::text)::date", False),
        ("nextval('s'::regclass)", False),
        (None, False),
    ],
)
def test_a_default_is_one_value(expression: str | None, one_value: bool) -> None:
    """Anything that is computed may differ from row to row, or from side to side."""
    assert constant(expression) is one_value


def test_words_are_quoted_where_they_must_be() -> None:
    """Names that are words of SQL or have capitals; texts with quotes and backslashes."""
    assert [name(one) for one in ("a_1", "Order", "order", 'a"b')] == [
        "a_1",
        '"Order"',
        '"order"',
        '"a""b"',
    ]
    assert [literal(one) for one in ("it's", "a\\b")] == ["'it''s'", "E'a\\\\b'"]
