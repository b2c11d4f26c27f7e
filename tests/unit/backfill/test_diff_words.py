"""A view in the words of PostgreSQL 15 and of 16 and later."""

from __future__ import annotations

from cdc_migrator.backfill.diff.words import Words
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
