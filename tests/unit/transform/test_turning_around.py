"""Which routes can be turned around, what comes back of them, and every reason why some cannot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from cdc_migrator.model.mapping import (
    NO_BACK,
    Kept,
    MappedColumn,
    Returning,
    Route,
    Turned,
    Wanted,
    read,
)
from cdc_migrator.model.tables import Column, ReplicaIdentity, Table, TableName
from cdc_migrator.service.returning import no_way_back
from cdc_migrator.transform.inverse import Forth, Inverse, invert

USERS, PERSON, ADDRESS = (
    TableName(*one.split(".")) for one in ("m.users", "a.person", "a.address")
)


def table(name: TableName, columns: str, key: str = "id") -> Table:
    """Columns by their names; those with ``!`` are NOT NULL, with ``=`` generated."""
    return Table(
        name,
        tuple(
            Column(one.strip("!="), "text", "pg_catalog.text", "b", None, None, "!" in one,
                   "=" in one, "")
            for one in columns.split()
        ),
        tuple(key.split()),
        ReplicaIdentity.DEFAULT,
        None,
        0,
        0,
    )  # fmt: skip


def route(source: TableName, target: TableName, made: str, where: str = "") -> Route:
    """``a`` goes as it is, ``a:b`` under another name, ``+x(a,b)`` is made of others."""
    columns = []
    for one in made.split():
        if one.startswith("+"):
            name, uses = one[1:].rstrip(")").split("(")
            of, used = None, tuple(filter(None, uses.split(",")))
        else:
            of, name = (one.split(":") * 2)[:2]
            used = (of,)
        columns.append(MappedColumn(name, "…", used, of, "text", "pg_catalog.text", of is None))
    return Route(source, target, tuple(columns), ("id",), where or None, tuple(where.split()))


SOURCE = table(USERS, "id! email! name phone street status gone upper=")


def forth(
    target: TableName,
    made: str,
    *,
    there: str = "id",
    where: str = "",
    demanded: str = "email",
    back: Mapping[str, str | None] | str = {},
    leads: bool = False,
    source: Table = SOURCE,
) -> Forth:
    """A route of `source`; `there`: the target's key."""
    return Forth(
        route(source.name, target, made, where),
        source,
        table(target, there, there),
        Wanted(str(source.name), str(target), back=back, leads=leads),
        frozenset(demanded.split()),
    )


def why(*forths: Forth) -> list[str]:
    return [str(one) for one in invert(forths).against]


def test_a_column_comes_back_from_the_one_that_it_went_to() -> None:
    """Under its own name; what was computed, and what did not go, stays as it is."""
    (found,) = invert([forth(PERSON, "id email name:full_name +hint(phone)")]).inverses
    assert found.carried == {"id": "id", "email": "email", "name": "full_name"}
    assert (found.given, found.apart, found.leader) == ({}, (), None)


def test_what_is_said_takes_the_place_of_what_would_be() -> None:
    """An expression, or nothing at all; the plain column is taken before a copy of it."""
    (found,) = invert(
        [
            forth(
                PERSON,
                "id email name email:copy",
                back={"name": None, "status": "x"},
            )
        ]
    ).inverses
    assert found.carried == {"id": "id", "email": "email"}
    assert found.given == {"status": "x"}


def test_constants_of_the_key_tell_whose_rows_they_are() -> None:
    """Other columns of the target's key would make several rows of one."""
    (found,) = invert([forth(PERSON, "id email +origin()", there="origin id")]).inverses
    assert found.apart == ("origin",)
    (told,) = why(forth(PERSON, "id email +half(id)", there="half id"))
    assert "the key of a.person has half as well" in told


def test_a_split_table_comes_and_goes_with_the_part_that_can_give_all() -> None:
    """The others only have columns of its rows."""
    found = invert([forth(ADDRESS, "id street"), forth(PERSON, "id email name")])
    leader, part = found.inverses
    assert leader.forth.route.target == PERSON
    assert leader.beside == {"id", "street"}
    assert part.leader == leader
    assert isinstance(part, Inverse)


def test_a_part_of_nothing_but_the_key_has_nothing_to_bring() -> None:
    """It is told to stay, as one of which `back: none` is said."""
    found = invert(
        [
            forth(PERSON, "id email"),
            forth(ADDRESS, "id +hint(phone)"),
            forth(TableName("a", "log"), "id name", back=NO_BACK),
        ]
    )
    assert not found.against
    assert [one.forth.route.target for one in found.inverses] == [PERSON]
    assert {one.route.target.name for one in found.stays} == {"address", "log"}


NO_KEY = replace(SOURCE, key=())


@pytest.mark.parametrize(
    ("forths", "told"),
    [
        ([forth(PERSON, "id name")], "a new row of m.users demands email"),
        ([forth(PERSON, "id email", where="gone")], "the filter reads gone, which a.person"),
        ([forth(PERSON, "id email", source=NO_KEY)], "m.users has no key"),
        ([forth(PERSON, "id email", there="")], "a.person has no key"),
        ([forth(PERSON, "id email", there="email")], "the key of a.person (email) lacks id"),
        ([forth(PERSON, "id email", back={"id": "1"})], "something else of id, by which rows"),
        ([forth(PERSON, "id email", back={"upper": "x"})], "m.users.upper, of which `back` speaks"),
        ([forth(PERSON, "id email", back={"nothing": "x"})], "m.users.nothing, of which `back`"),
        (
            [forth(PERSON, "id email name"), forth(ADDRESS, "id name street")],
            "m.users.name would come back from here and from a.person",
        ),
        (
            [forth(PERSON, "id name", demanded=""), forth(ADDRESS, "id street", demanded="")],
            "rows of m.users could come and go with those of each",
        ),
        (
            [forth(PERSON, "id email"), forth(ADDRESS, "id street", leads=True)],
            "a new row of m.users demands email",
        ),
        (
            [
                forth(PERSON, "id name", demanded="", leads=True),
                forth(ADDRESS, "id email", demanded=""),
            ],
            "email of m.users cannot be empty, and a row of a.address can be removed by itself",
        ),
    ],
)
def test_what_cannot_come_back_is_told_with_its_reason(forths: list[Forth], told: str) -> None:
    """Each with a way out."""
    (found,) = invert(forths).against
    assert told in str(found)
    assert found.say


def test_a_filter_that_the_leader_answers_is_known_of_its_parts() -> None:
    """What `back` says of the leading table holds for the rows of all."""
    leader = forth(PERSON, "id email", where="gone", back={"gone": "false"})
    part = forth(ADDRESS, "id street", where="gone")
    assert why(leader, part) == []
    unsaid = forth(PERSON, "id email", where="gone")
    assert [line.split(":")[0] for line in why(unsaid, part)] == [
        "m.users -> a.person",
        "m.users -> a.address",
    ]


def test_the_refusal_names_every_table_with_every_reason() -> None:
    """And once each what can be said."""
    orders = replace(SOURCE, name=TableName("m", "orders"))
    found = invert(
        [
            forth(PERSON, "id name", there="name"),
            forth(TableName("s", "sale"), "id name", source=orders, where="gone"),
        ]
    )
    error = no_way_back(found.against)
    assert error.code == "CDCM-MAPPING-NO-WAY-BACK"
    for text in ("2 tables cannot", "m.users -> a.person", "m.orders -> s.sale", "lacks id"):
        assert text in error.cause
    assert error.remedy.count("back: none") == 1


def test_a_route_of_the_way_back_is_kept_as_it_is() -> None:
    """And one that an earlier release wrote is read without."""
    plain = route(USERS, PERSON, "id email")
    assert read(plain.document) == plain
    assert "back" not in plain.document
    turned = Turned("status", ("state",), "ROW(status)::text", "status")
    back = Returning(True, "origin = 'a'", (Kept("phone", None, True),), (turned,), ("state",))
    whole = replace(plain, back=back)
    assert read(json.loads(json.dumps(whole.document))) == whole
