"""Foreign keys are followed to where a mapping takes their columns, or told to be lost."""

from __future__ import annotations

from collections.abc import Mapping

from cdc_migrator.databases.postgres.relations import ForeignKey, Relation
from cdc_migrator.model.mapping import MappedColumn, Route
from cdc_migrator.model.tables import Column, TableName
from cdc_migrator.validate.known import Catalogs, declared
from cdc_migrator.validate.mapped import through

TEXT = "text", "pg_catalog.text"


def table(name: str, *columns: str, keys: tuple[ForeignKey, ...] = ()) -> Relation:
    return Relation(
        TableName(*name.split(".")),
        tuple(Column(one, *TEXT, "b", None, None, False, False, "") for one in columns),
        columns[:1],
        foreign_keys=keys,
    )


def key(to: str, column: str, referenced: str = "id") -> ForeignKey:
    return ForeignKey(f"fk_{column}", (column,), TableName(*to.split(".", 1)), (referenced,))


def route(source: str, target: str, belongs: str | None = None, **columns: str) -> Route:
    """`columns`: those of the target, each with the source's."""
    return Route(
        TableName(*source.split(".")),
        TableName(*target.split(".")),
        tuple(
            MappedColumn(name, f'"{of}"', (of,), of, *TEXT, False) for name, of in columns.items()
        ),
        (next(iter(columns)),),
        belongs=belongs,
    )


def known(source: list[Relation], target: list[Relation], routes: Mapping[str, Route]) -> Catalogs:
    named = {TableName(*name.split(".", 1)): one for name, one in routes.items()}
    moved = {str(one.name): one.name for one in source}
    moved |= {str(name): one.target for name, one in named.items()}
    return through(
        Catalogs(
            {str(one.name): one for one in source},
            {str(one.name): one for one in target},
            moved,
            {},
            {},
        ),
        named,
    )


def test_a_key_follows_its_columns_on_both_sides() -> None:
    """Renamed where it points from and where it points to; both sides say the same, so once."""
    found = known(
        [table("a.order", "id", "who", keys=(key("a.person", "who"),)), table("a.person", "id")],
        [table("b.order", "nr", "by", keys=(key("b.human", "by", "nr"),)), table("b.human", "nr")],
        {
            "a.order": route("a.order", "b.order", nr="id", by="who"),
            "a.person": route("a.person", "b.human", nr="id"),
        },
    )
    (one,) = declared("a.order", found)
    assert (one.columns, str(one.table), one.referenced) == (("by",), "a.person", ("nr",))
    assert not found.lost


def test_a_key_of_a_table_that_is_not_mapped_is_followed_as_well() -> None:
    """To the half of a table that is split that has the column."""
    found = known(
        [table("a.order", "id", "at", keys=(key("a.person", "at", "place"),)),
         table("a.person", "id", "place")],
        [table("a.order", "id", "at"), table("b.human", "id"), table("b.place", "id", "place")],
        {
            "a.person": route("a.person", "b.human", id="id"),
            "a.person -> b.place": route("a.person", "b.place", id="id", place="place"),
        },
    )  # fmt: skip
    (one,) = declared("a.order", found)
    assert str(one.table) == "a.person -> b.place"
    assert found.on(True, str(one.table)).name == TableName("b", "place")


def test_a_key_of_the_target_to_a_shared_table_is_what_the_source_says() -> None:
    """Each shard's rows refer to rows of the same shard."""
    shards = {
        f"{one}.{name}": route(f"{one}.{name}", f"b.{name}", f"shard = '{one}'", id="id", p="p")
        for one in ("eu", "us")
        for name in ("item", "part")
    }
    source = [
        table(f"{one}.part", "id", "p", keys=(key(f"{one}.item", "p"),)) for one in ("eu", "us")
    ] + [table(f"{one}.item", "id", "p") for one in ("eu", "us")]
    there = [table("b.part", "id", "p", keys=(key("b.item", "p"),)), table("b.item", "id", "p")]
    found = known(source, there, shards)
    assert [str(one.table) for one in declared("us.part", found)] == ["us.item"]
    assert not found.lost


def test_a_key_whose_column_does_not_travel_is_lost_and_told() -> None:
    """Also one that only the target has, to a table that no rows come to."""
    found = known(
        [table("a.order", "id", "who", keys=(key("a.person", "who"),)), table("a.person", "id")],
        [table("b.order", "id", "kind", keys=(key("b.kinds", "kind"),)), table("a.person", "id"),
         table("b.kinds", "id")],
        {"a.order": route("a.order", "b.order", id="id")},
    )  # fmt: skip
    assert declared("a.order", found) == []
    assert found.lost == {"a.order": ("fk_who to a.person", "fk_kind to b.kinds")}
