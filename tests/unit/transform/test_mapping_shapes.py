"""What an entry says of which table, and which columns come of it: told without any server."""

from __future__ import annotations

import pytest

from cdc_migrator.errors import ConfigurationError, Refused
from cdc_migrator.model.mapping import MappedColumn, Route, Wanted
from cdc_migrator.model.tables import Column, ReplicaIdentity, Table, TableName
from cdc_migrator.transform.entries import Entry, entries, plain_place
from cdc_migrator.transform.errors import kind
from cdc_migrator.transform.faults import Fault, refusal
from cdc_migrator.transform.keys import Way, belongs, keyed, shared_by, unseen
from cdc_migrator.transform.shape import drafts


def table(
    name: str,
    *columns: str,
    key: tuple[str, ...] = ("id",),
    identity: ReplicaIdentity = ReplicaIdentity.DEFAULT,
) -> Table:
    """Columns of text; one that ends in ``*`` is generated."""
    made = tuple(
        Column(
            one.rstrip("*"), "text", "pg_catalog.text", "b", None, None, False, one[-1] == "*", ""
        )
        for one in columns
    )
    schema, _, rest = name.partition(".")
    return Table(TableName(schema, rest), made, key, identity, None, 0, 0)


SHOP = [table("shop.a", "id", "b", "sum*"), table("shop.b", "id"), table("eu.a", "id")]


def test_a_schemas_entry_speaks_of_what_no_other_names() -> None:
    """Wherever it stands in the file."""
    wanted = [Wanted("shop.*", "crm.*"), Wanted("shop.a", "crm.x"), Wanted("shop.a", "crm.y")]
    found, faults = entries(wanted, SHOP, plain_place)
    assert faults == []
    assert [(str(one.table.name), str(one.target), one.number) for one in found] == [
        ("shop.b", "crm.b", 0),
        ("shop.a", "crm.x", 1),
        ("shop.a", "crm.y", 2),
    ]


@pytest.mark.parametrize(
    ("wanted", "code", "words"),
    [
        ([Wanted("shop.aa", "crm.a")], "CDCM-MAPPING-TABLE", "shop.aa is no table that moves"),
        ([Wanted("us.*", "crm.*")], "CDCM-MAPPING-TABLE", "no other table of us moves"),
        (
            [Wanted("shop.a", drop=("b",)), Wanted("shop.a", "shop.a")],
            "CDCM-MAPPING-TABLE",
            "another entry takes shop.a to shop.a already",
        ),
        ([Wanted("eu.a", "shop.b")], "CDCM-MAPPING-MERGE", "where shop.b of the source goes as it"),
    ],
)
def test_an_entry_that_finds_no_table_or_a_taken_one_is_a_fault(
    wanted: list[Wanted], code: str, words: str
) -> None:
    """With its place."""
    _, faults = entries(wanted, SHOP, plain_place)
    assert [one.code for one in faults] == [code]
    assert words in str(faults[0])
    assert str(faults[0]).startswith("mapping.")


def entry(wanted: Wanted, of: Table = SHOP[0]) -> Entry:
    return Entry(of, wanted, 0, TableName("crm", "t"))


def test_columns_come_in_the_sources_order_and_then_those_that_are_set() -> None:
    """What is generated stays behind; a value that is set takes its column's place."""
    wanted = Wanted(
        "shop.a",
        rename={"b": "c"},
        cast={"c": "int", "new": "date"},
        set={"id": "id || ''", "new": "b"},
    )
    found, faults = drafts(entry(wanted), plain_place)
    assert faults == []
    assert [(one.name, one.expression, one.of is not None, one.cast) for one in found] == [
        ("id", "id || ''", False, None),
        ("c", '"b"', True, "int"),
        ("new", "b", False, "date"),
    ]
    assert [one.field for one in found] == ["set.id", "cast.c", "set.new"]


def test_several_faults_are_one_error() -> None:
    """Refused where no word of migration.yaml mends it, else a fault of the configuration."""
    one = Fault("CDCM-MAPPING-COLUMN", "mapping.0.keep", "no column x", "Look.")
    other = Fault("CDCM-MAPPING-IDENTITY", "mapping.1.where", "not told", "ALTER TABLE t;")
    error = refusal([one, other, other])
    assert isinstance(error, ConfigurationError)
    assert error.cause.splitlines() == [
        "3 faults",
        "  mapping.0.keep: no column x",
        "  CDCM-MAPPING-IDENTITY: mapping.1.where: not told",
        "  CDCM-MAPPING-IDENTITY: mapping.1.where: not told",
    ]
    assert error.remedy == "Look. ALTER TABLE t;"
    assert isinstance(refusal([other]), Refused)


def column(name: str, uses: tuple[str, ...], of: str | None = None) -> MappedColumn:
    return MappedColumn(name, name, uses, of, "text", "pg_catalog.text", of is None)


def way(
    of: Table,
    *columns: MappedColumn,
    there: Table | None = None,
    where: tuple[str, ...] | None = None,
    constants: dict[str, str] | None = None,
) -> Way:
    condition = None if where is None else "…"
    route = Route(of.name, TableName("crm", "t"), columns, (), condition, where or ())
    return Way(entry(Wanted(str(of.name)), of), route, there, constants or {})


def test_the_key_is_the_targets_where_the_sources_key_decides_it() -> None:
    """In the target's order; else the source's key, with what tells its rows from others'."""
    of = table("shop.t", "a", "b", "v", key=("a", "b"))
    columns = (
        column("x", ("a",), "a"),
        column("y", ("b",), "b"),
        column("h", ("a",)),
        column("v", ("v",), "v"),
    )
    for there, shared, key in (
        (None, [], ("x", "y")),
        (table("crm.t", "x", key=("y", "x")), [], ("y", "x")),
        (table("crm.t", "x", key=("h", "y", "x")), [], ("h", "y", "x")),
        (table("crm.t", "x", key=("v", "x", "y")), [], ("x", "y")),
        (table("crm.t", "x", key=("x",)), [], ("x", "y")),
        (None, ["r"], ("r", "x", "y")),
    ):
        found, faults = keyed(way(of, *columns, there=there), shared, plain_place)
        assert (found.route.key, faults) == (key, [])
    _, faults = keyed(way(of, *columns[1:]), [], plain_place)
    assert "lacks a of the key of shop.t" in faults[0].message
    assert keyed(way(table("shop.h", "a", key=()), columns[0]), [], plain_place)[0].route.key == ()


def test_routes_to_one_table_are_told_apart_by_constants_in_its_key() -> None:
    """As few as are needed, where the table is yet to be made."""
    of = table("shop.t", "id")
    columns = column("id", ("id",), "id"), column("r", ()), column("s", ())
    there = table("crm.t", "id", key=("s", "r", "id"))

    def ways(there: Table | None, *constants: dict[str, str]) -> list[Way]:
        return [way(of, *columns, there=there, constants=one) for one in constants]

    two = {"r": "1", "s": "1"}, {"r": "1", "s": "2"}
    assert shared_by(ways(None, *two), plain_place)[0] == ["s"]
    assert shared_by(ways(there, *two), plain_place)[0] == ["s", "r"]
    assert shared_by(ways(None, *two, {"r": "2", "s": "1"}), plain_place)[0] == ["r", "s"]
    assert belongs(ways(None, two[1])[0], ["s", "r"]) == "\"s\" = '2'::text AND \"r\" = '1'::text"
    for constants, words in (
        (({"r": "1"}, {"r": "1"}), "nothing tells"),
        (({"r": "1"}, {"s": "1"}), "nothing tells"),
    ):
        assert words in shared_by(ways(None, *constants), plain_place)[1][0].message
    outside = table("crm.t", "id", key=("id",))
    assert "is not in its primary key" in shared_by(ways(outside, *two), plain_place)[1][0].message


def test_values_stored_aside_may_stand_alone_and_not_with_others() -> None:
    """Unless the whole former row is in the event."""
    of = table("shop.t", "id", "a", "b")
    alone = column("x", ("a",))
    mixed = column("y", ("a", "id"))
    assert unseen(way(of, alone), {"a"}, plain_place) == []
    assert unseen(way(of, mixed), set(), plain_place) == []
    (fault,) = unseen(way(of, alone, mixed), {"a"}, plain_place)
    assert (fault.where, fault.code) == ("mapping.0.set.y", "CDCM-MAPPING-IDENTITY")
    (fault,) = unseen(way(of, alone, where=("id",)), {"a", "b"}, plain_place)
    assert "leaves a alone" in fault.message
    assert unseen(way(of, column("z", ("id",)), where=("id",)), {"a"}, plain_place) == []
    full = table("shop.t", "id", "a", identity=ReplicaIdentity.FULL)
    assert unseen(way(full, mixed, where=("a",)), {"a"}, plain_place) == []


def test_an_sqlstate_has_a_name() -> None:
    """That of PostgreSQL's manual."""
    assert kind("22P02") == "invalid text representation"
    assert kind("ZZ123") == "an error of its own"
