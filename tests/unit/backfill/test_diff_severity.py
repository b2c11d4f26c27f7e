"""Which types can keep each other's values, and how much a difference matters."""

from __future__ import annotations

import pytest

from cdc_migrator.backfill.diff.severity import holds, same_family


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("integer", "bigint"),
        ("smallint", "integer"),
        ("bigint", "numeric"),
        ("character varying(10)", "character varying(20)"),
        ("character varying(10)", "text"),
        ("character varying(10)", "character varying"),
        ("numeric(10,2)", "numeric"),
        ("numeric(10,2)", "numeric(12,2)"),
        ("rich.mood", "text"),
    ],
)
def test_wider_types_hold(source: str, target: str) -> None:
    """Every value of the source's type arrives as the same text."""
    assert holds(source, target)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("bigint", "integer"),
        ("text", "character varying(10)"),
        ("character varying(20)", "character varying(10)"),
        ("character(5)", "text"),
        ("character(5)", "character(9)"),
        ("numeric(12,2)", "numeric(10,2)"),
        ("numeric", "numeric(10,2)"),
        ("numeric(10,2)", "numeric(12,4)"),
        ("integer", "boolean"),
        ("timestamp with time zone", "timestamp without time zone"),
    ],
)
def test_other_types_do_not_hold(source: str, target: str) -> None:
    """A value may be refused, cut, padded or rounded."""
    assert not holds(source, target)


def test_only_kindred_types_are_cast_by_the_server_itself() -> None:
    """Between numbers or strings PostgreSQL refuses what does not fit; elsewhere text carries."""
    assert same_family("integer", "bigint")
    assert same_family("character varying(5)", "text")
    assert not same_family("text", "integer")
    assert not same_family("rich.mood", "rich.mood")
