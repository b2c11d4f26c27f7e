"""One definition in the words of PostgreSQL 15 and of 16 and later, and read back once."""

from __future__ import annotations

from cdc_migrator.backfill.diff.words import Words, settled
from cdc_migrator.model.parts import Catalog, Part


def catalog(major: int) -> Catalog:
    schema = Part("schema", "shop", None, None, "", "", (), {}, {"schema": "shop"})
    return Catalog({schema.key: schema}, {}, major)


VIEW = Part("view", "shop.v", None, "shop", "", "", (), {}, {})
LONG = 'SELECT orders.id, orders."Q x" FROM shop.orders WHERE (orders.id > 0);'
BRIEF = 'SELECT id, "Q x" FROM shop.orders WHERE (id > 0);'


def same(source: int, target: int, one: str, other: str) -> bool:
    return Words(catalog(source), catalog(target)).same(VIEW, "definition", one, other)


def test_tables_that_only_the_older_server_names_are_no_difference() -> None:
    """Whichever side is the older."""
    assert same(15, 18, LONG, BRIEF)
    assert same(18, 15, BRIEF, LONG)


def test_everything_else_is_a_difference() -> None:
    """Another schema, another condition, or two servers that use the same words."""
    assert not same(15, 18, LONG.replace("shop.", "other."), BRIEF)
    assert not same(15, 18, LONG.replace("> 0", "> 1"), BRIEF)
    assert not same(17, 18, LONG, BRIEF)
    assert not same(18, 15, LONG, BRIEF)


def test_cast_of_an_array_is_one_of_its_elements() -> None:
    """Whatever the elements hold; two arrays in one text are settled both."""
    array = "(ARRAY['a, b'::character varying, f(x, 'c'')'), 'd]'::character varying])::text[]"
    elements = (
        "ARRAY[('a, b'::character varying)::text, (f(x, 'c'')'))::text, "
        "('d]'::character varying)::text]"
    )
    assert settled(f"k = ANY ({array}) OR l = ANY ({array})") == (
        f"k = ANY ({elements}) OR l = ANY ({elements})"
    )
    assert settled(settled(array)) == elements
    assert same(18, 18, array, elements)
    assert not same(18, 18, array, elements.replace("d]", "e]"))


def test_names_that_nobody_sees_are_left_out() -> None:
    """A nameless constant in a later part of a UNION, and only there, and only its type's name."""
    first = " SELECT NULL::integer AS int4,\n    id\n   FROM t\nUNION ALL\n"
    assert settled(f"{first} SELECT NULL::integer AS int4,\n    2") == (
        f"{first} SELECT NULL::integer,\n    2"
    )
    assert settled(first) == first
    assert (
        settled(f"{first} SELECT NULL::integer AS n,\n") == f"{first} SELECT NULL::integer AS n,\n"
    )
