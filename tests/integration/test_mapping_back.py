"""Rows that come back are proven and mended as those that went; what cannot is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from cdc_migrator.backfill.columns import passage
from cdc_migrator.control import load, mapping, standing
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.errors import Refused
from cdc_migrator.model.mapping import NO_BACK, Wanted
from cdc_migrator.model.tables import TableName
from cdc_migrator.service.returning import Comes, comes
from cdc_migrator.transform.compile import compile_routes
from tests.integration.reconcile_rig import World, one, world
from tests.property.test_mapping_follows_source import load_rows
from tests.property.test_way_back_follows_target import (
    PEOPLE_HERE,
    PEOPLE_THERE,
    ROWS,
    SALES_HERE,
    SALES_THERE,
    SOURCE,
    TARGET,
    WANTED,
    rows,
)

PERSON, ADDRESS = "shop.person", "shop.address"
EU, US = "shop.sale", "shop.sale -> mono.us"


@pytest.fixture(scope="module")
def made() -> Iterator[World]:
    """Seen from the way back: its source is the target, which is loaded."""
    with world() as empty:
        empty.source.execute(TARGET.encode())
        empty.target.execute(f"{SOURCE}{ROWS}".encode())
        for route in _forth(empty):
            here = {table.name: table for table in read_tables(empty.target)}
            there = {table.name: table for table in read_tables(empty.source)}
            way = passage(here[route.source], there[route.target], route)
            load_rows(empty.target, empty.source, way)
        yield empty
        empty.aligner.release()


def _forth(made: World) -> list[Any]:
    tables = read_tables(made.target, include=["mono.*"])
    routes = compile_routes(made.target, made.source, WANTED, tables)
    return [route for of in routes.values() for route in of]


def _comes(made: World, wanted: Sequence[Wanted] = WANTED) -> Comes:
    ways: list[Any] = [SimpleNamespace(route=r, target=r.target) for r in _forth(made)]
    return comes(made.target, made.source, ways, wanted)


def _registered(made: World) -> None:
    coming = _comes(made)
    tables = [one for one in read_tables(made.source) if one.name in coming.tables]
    load.register(made.target, [(table, 0) for table in tables], coming.routes)
    made.target.execute("UPDATE cdc_migrator.table_progress SET load_state = 'loaded'")


def test_what_comes_back_is_compared_and_mended(made: World) -> None:
    """Cast, computed, split and merged; what the target does not have is left as it is."""
    _registered(made)
    assert made.run().equal
    wrong = {
        "UPDATE mono.users SET name = 'wrong' WHERE id = 1": (PERSON, "1", "different", "name"),
        "UPDATE mono.users SET score = 99 WHERE id = 2": (PERSON, "2", "different", "score"),
        "UPDATE mono.users SET status = 'on' WHERE id = 4": (PERSON, "4", "different", "status"),
        "DELETE FROM mono.users WHERE id = 3": (PERSON, "3", "missing_in_target"),
        "INSERT INTO mono.users VALUES (11, 'p', 'e', NULL, NULL, 1, NULL, false, 'on')": (
            PERSON, "11", "extra_in_target",
        ),
        "UPDATE mono.users SET gone = true WHERE id = 6": (PERSON, "6", "missing_in_target"),
        "UPDATE mono.users SET street = NULL, city = NULL WHERE id = 7": (
            ADDRESS, "7", "missing_in_target",
        ),
        "UPDATE mono.eu SET total = 0 WHERE id = 2": (EU, "2", "different", "total"),
        "DELETE FROM mono.us WHERE id = 4": (US, "4", "missing_in_target"),
    }  # fmt: skip
    for statement in wrong:
        made.target.execute(statement.encode())
    made.target.execute("UPDATE mono.users SET score = score + 0.1 WHERE id = 8")
    found = made.found(made.run())
    for table, key, *what in wrong.values():
        assert found[table, (key,)] == tuple(what)
    assert made.run(repair=True).equal
    # Of a row that was gone the telephone went with it.
    here, there = rows(made.target, PEOPLE_HERE), rows(made.source, PEOPLE_THERE)
    assert [row for row in here if row[0] != 3] == [row for row in there if row[0] != 3]
    assert [row[5] for row in here if row[0] == 3] == [None]
    assert rows(made.target, SALES_HERE) == [
        (*row[:4], "i" if (row[0], row[1]) == ("us", 4) else row[4], row[5])
        for row in rows(made.source, SALES_THERE)
    ]
    kept = one(made.target, "SELECT phone, score, status FROM mono.users WHERE id = 8")
    assert [str(value) for value in kept] == ["p8", "8.45", "off"]
    with pytest.raises(Refused, match="CDCM-WAY-BACK-REBUILD"):
        made.rebuild(PERSON)


def _said(number: int, **changed: Any) -> list[Wanted]:
    return [replace(w, **changed) if place == number else w for place, w in enumerate(WANTED)]


def test_every_reason_against_a_way_back_is_told_at_once(made: World) -> None:
    """What the catalogs say, and with what PostgreSQL objects; with what can be said instead."""
    made.source.execute("ALTER TABLE shop.sale REPLICA IDENTITY DEFAULT")
    try:
        with pytest.raises(Refused) as refused:
            _comes(made, _said(0, back={"gone": "nonsense(", "status": "state"}))
    finally:
        made.source.execute("ALTER TABLE shop.sale REPLICA IDENTITY FULL")
    told = refused.value
    assert told.code == "CDCM-MAPPING-NO-WAY-BACK"
    for text in (
        "mono.users -> shop.person: back.gone: shop.person, column gone: the target says: syntax",
        "mono.eu -> shop.sale: key: an update of shop.sale that brings a row to another of mono.eu",
        "mono.us -> shop.sale",
    ):
        assert text in told.cause
    assert 'ALTER TABLE "shop"."sale" REPLICA IDENTITY FULL;' in told.remedy


@pytest.mark.parametrize(
    ("back", "why"),
    [
        ({"gone": "false", "status": "state", "phone": "hint || now()"}, "not immutable"),
        ({"gone": "false", "status": "full_name"}, "status fails with SQLSTATE 23502"),
        ({"gone": "score > 3", "status": "state"}, "reads score, which shop.address does not have"),
        ({"gone": "false", "status": "ours"}, "reads ours, to which nothing of the source goes"),
        ({"gone": "false"}, "demands status (NOT NULL, without a default)"),
    ],
)
def test_an_expression_must_bring_every_row_back(
    made: World, back: dict[str, str], why: str
) -> None:
    """Over all rows of the target, and over nothing that only the target knows."""
    made.source.execute("ALTER TABLE shop.person ADD COLUMN IF NOT EXISTS ours text")
    made.source.execute("UPDATE shop.person SET full_name = NULL WHERE id = 4")
    try:
        with pytest.raises(Refused, match="CDCM-MAPPING-NO-WAY-BACK") as refused:
            _comes(made, _said(0, back=back))
        assert why in refused.value.cause
    finally:
        made.source.execute("UPDATE shop.person SET full_name = 'name 4' WHERE id = 4")


def test_what_stays_behind_is_told(made: World) -> None:
    """Tables that do not come back knowingly, and rows that are of no table of the source."""
    coming = _comes(made, _said(1, back=NO_BACK))
    left = (TableName("mono", "users"), TableName("shop", "address"))
    assert coming.left == (left,)
    assert left[1] not in coming.tables
    _registered(made)
    made.source.execute("INSERT INTO shop.sale VALUES ('zz', 1, 1), ('zz', 2, 1)")
    told: list[str] = []
    try:
        with made.target.transaction(force_rollback=True):
            mapping.leave(made.target, [left])
            assert left[1] in standing.leaving(made.target)
            assert left[0] in standing.entering(made.target)
            found = standing.behind(made.source, made.target, told.append)
    finally:
        made.source.execute("DELETE FROM shop.sale WHERE region = 'zz'")
    assert found == {"behind": {"tables": ["shop.address"], "rows": {"shop.sale": 2}}}
    assert len(told) == 2


def test_what_only_has_other_names_comes_back_like_any_table(made: World) -> None:
    """Nothing has to be kept, and so nothing costs more than on the way there."""
    made.target.execute("CREATE TABLE mono.tag (id int PRIMARY KEY, label varchar(9) NOT NULL)")
    made.source.execute("CREATE TABLE shop.word (number int PRIMARY KEY, text varchar(9) NOT NULL)")
    wanted = [Wanted("mono.tag", "shop.word", rename={"id": "number", "label": "text"})]
    tables = read_tables(made.target, include=["mono.tag"])
    ((forth,),) = compile_routes(made.target, made.source, wanted, tables).values()
    ways: list[Any] = [SimpleNamespace(route=forth, target=forth.target)]
    ((back,),) = comes(made.target, made.source, ways, wanted).routes.values()
    assert (back.source, back.target, back.key) == (forth.target, forth.source, ("id",))
    assert [(one.name, one.of, one.cast) for one in back.columns] == [
        ("id", "number", False),
        ("label", "text", False),
    ]
    assert (back.where, back.belongs, back.back) == (None, None, None)
