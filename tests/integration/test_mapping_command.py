"""`transform` as it is typed: rows before and after, what fails how often, tables to be made."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from cdc_migrator.cli.main import main
from cdc_migrator.control import journal, schema
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import ConfigurationError
from cdc_migrator.model.mapping import Wanted
from cdc_migrator.model.tables import TableName
from cdc_migrator.transform.compile import compile_routes
from cdc_migrator.transform.making import make, missing_tables
from tests.support.private_postgres import private_database

SECRET = "nobody-shall-see-this"
SOURCE = f"""
CREATE SCHEMA shop;
CREATE FUNCTION shop.noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
CREATE TABLE shop.place (id int PRIMARY KEY);
CREATE TABLE shop.customer (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL COLLATE "C",
    age text, city varchar(40) DEFAULT 'Berlin', gone boolean NOT NULL DEFAULT false,
    place int REFERENCES shop.place, code text UNIQUE, CHECK (length(name) > 0));
CREATE INDEX customer_city ON shop.customer (city);
CREATE TRIGGER noted BEFORE INSERT ON shop.customer FOR EACH ROW EXECUTE FUNCTION shop.noted();
INSERT INTO shop.customer (name, age, city, gone)
SELECT 'n' || n, CASE n % 1000 WHEN 7 THEN '{SECRET}' WHEN 8 THEN NULL ELSE n::text END,
       repeat('c', n % 12), n % 10 = 0
FROM generate_series(1, 8000) n;
ALTER TABLE shop.customer REPLICA IDENTITY FULL;
CREATE SCHEMA eu; CREATE SCHEMA us;
CREATE TABLE eu.orders (id int PRIMARY KEY, total numeric(10,2) NOT NULL);
CREATE TABLE us.orders (id int PRIMARY KEY, total numeric(10,2), note text);
ANALYZE;
"""
TARGET = """
CREATE SCHEMA crm;
CREATE TABLE crm.person (
    id bigint PRIMARY KEY, full_name text NOT NULL, age int NOT NULL, city varchar(10), tag text);
"""
PERSON = {
    "table": "shop.customer",
    "to": "crm.person",
    "keep": ["id", "name", "age", "city"],
    "rename": {"name": "full_name"},
    "cast": {"age": "integer"},
    "set": {"tag": "'customer ' || id"},
    "where": "NOT gone",
}
ADDRESS = {"table": "shop.customer", "to": "crm.address", "keep": ["id", "city"]}
# A function that fails on some rows, and gives what is no number for others.
AGES = """def ages(rows):
    return [{'age': told(row['age']), 'short': row['name'][:3]} for row in rows]


def told(age):
    number = age and int(age)
    return age if age is None or number % 1000 != 9 else age + ' years'
"""
AGED = {
    "table": "shop.customer",
    "to": "crm.aged",
    "keep": ["id", "name"],
    "hook": {
        "call": "ages_of_customers:ages",
        "reads": ["age", "name"],
        "gives": {"age": "int", "short": "varchar(2)"},
    },
}
Typed = Callable[..., tuple[int, Any, str]]


@pytest.fixture(scope="module")
def ends() -> Iterator[tuple[str, str]]:
    with private_database() as source, private_database() as target:
        for dsn, made in ((source, SOURCE), (target, TARGET)):
            with psycopg.connect(dsn, autocommit=True) as conn:
                conn.execute(made)
        yield source, target


@pytest.fixture
def typed(
    ends: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Typed:
    """Type a command line under a mapping: its exit code, its document, what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "ages_of_customers.py").write_text(AGES)

    def type_(mapping: list[dict[str, Any]], *words: str) -> tuple[int, Any, str]:
        document = {"name": "mapped", "mapping": mapping}
        for side, dsn in zip(("source", "target"), ends, strict=True):
            document[side] = {"dsn": dsn}
        (tmp_path / "migration.yaml").write_text(yaml.safe_dump(document))
        with pytest.raises(SystemExit) as ended:
            main(["transform", *words])
        said = capsys.readouterr()
        data = json.loads(said.out) if said.out.startswith("{") else said.out
        return int(ended.value.code or 0), data, said.err

    return type_


def test_a_preview_shows_rows_before_and_after(typed: Typed) -> None:
    """For each route of the table; rows that a filter leaves out, and values that fail."""
    code, found, _ = typed(
        [PERSON, ADDRESS], "preview", "shop.customer", "--rows", "10", "-o", "json"
    )
    assert code == 0
    person, address = found["routes"]
    assert (person["target"], person["exists"], person["key"]) == ("crm.person", True, ["id"])
    assert (address["target"], address["exists"]) == ("crm.address", False)
    first = person["rows"][0]
    assert first["before"]["name"] == "n1"
    assert first["after"] == {
        "id": "1",
        "full_name": "n1",
        "age": "1",
        "city": "c",
        "tag": "customer 1",
    }
    assert person["rows"][9]["passes"] is False
    assert person["rows"][9]["after"] is None
    failing = person["rows"][6]
    assert failing["failing"] == {"age": "22P02, invalid text representation"}
    assert failing["after"]["full_name"] == "n7"
    assert address["rows"][9]["after"] == {"id": "10", "city": "c" * 10}
    code, text, said = typed([PERSON], "preview", "shop.customer", "--rows", "10")
    assert code == 0
    assert "shop.customer -> crm.person" in text
    assert "fails: 22P02" in text
    assert "the filter leaves it out" in text
    assert "transform check shop.customer" in said


def test_a_check_counts_what_fails_by_column_and_kind(typed: Typed) -> None:
    """Over all rows; no value is shown, and keys only where they are asked for."""
    code, found, said = typed([PERSON, ADDRESS], "check", "-o", "json")
    assert code == 1
    person, address = found["routes"]
    assert (person["rows"], person["passing"]) == (8000, 7200)
    failing = {(one["column"], one["sqlstate"]): one for one in person["failing"]}
    assert {key: one["rows"] for key, one in failing.items()} == {
        ("age", "22P02"): 8,
        ("age", "23502"): 8,
        ("city", "22001"): 666,
    }
    assert (found["passed"], found["failed"]) == (False, 8 + 8 + 666)
    assert failing["age", "22P02"]["error"] == "invalid text representation"
    assert address["failing"] == []
    assert address["rows"] == 8000
    code, text, said = typed([PERSON], "check", "shop.customer")
    assert code == 1
    assert "age: 8 rows: 22P02, invalid text representation" in text
    assert "--show-values" in said
    code, keyed, _ = typed([PERSON], "check", "--show-values", "2", "-o", "json")
    by_kind = {one["sqlstate"]: one["keys"] for one in keyed["routes"][0]["failing"]}
    assert by_kind["22P02"] == [{"id": "7"}, {"id": "1007"}]
    assert by_kind["23502"] == [{"id": "8"}, {"id": "1008"}]
    assert len(by_kind["22001"]) == 2
    counted = {
        (one["column"], one["sqlstate"]): one["rows"] for one in keyed["routes"][0]["failing"]
    }
    assert counted == {key: one["rows"] for key, one in failing.items()}
    assert SECRET not in json.dumps(found) + text + said + json.dumps(keyed)
    assert (
        typed([{**PERSON, "cast": {}, "set": {"age": "1", "city": "left(city, 3)"}}], "check")[0]
        == 0
    )


def test_a_filter_that_fails_is_counted(typed: Typed) -> None:
    """Its rows are not on the target."""
    code, found, _ = typed(
        [{**ADDRESS, "where": "age::int > 100"}], "check", "--show-values", "1", "-o", "json"
    )
    (route,) = found["routes"]
    assert (code, route["rows"], route["passing"]) == (1, 8000, 7900 - 7 - 7)
    assert route["failing"] == [
        {
            "column": "where",
            "sqlstate": "22P02",
            "error": "invalid text representation",
            "rows": 8,
            "keys": [{"id": "7"}],
        }
    ]
    _, found, _ = typed(
        [{**ADDRESS, "where": "age::int > 100"}],
        "preview",
        "shop.customer",
        "--rows",
        "7",
        "--json",
    )
    assert found["routes"][0]["rows"][6]["passes"] is None


def test_what_is_wrong_with_a_mapping_is_told_with_its_line(typed: Typed) -> None:
    """And a table that nothing speaks of, or no mapping at all, is not taken for a good one."""
    wrong = {**PERSON, "set": {"tag": "nme || id"}}
    code, _, said = typed([ADDRESS, wrong], "check")
    assert code == 2
    assert "CDCM-MAPPING-EXPRESSION: migration.yaml:" in said
    assert 'mapping.1.set.tag: shop.customer, column tag: the source says: column "nme"' in said
    code, _, said = typed([PERSON], "preview", "shop.place")
    assert (code, "CDCM-MAPPING-NONE" in said, "shop.customer" in said) == (2, True, True)
    assert typed([], "check")[0] == 2
    assert typed([], "schema")[0] == 2


def test_tables_that_lack_are_printed_and_made(typed: Typed, ends: tuple[str, str]) -> None:
    """Once, with what the source's table has and they do not get; then they fit their routes."""
    merged = [
        {"table": "eu.*", "to": "sales.*", "set": {"region": "'eu'"}},
        {"table": "us.*", "to": "sales.*", "set": {"region": "'us'"}},
    ]
    whole = {"table": "shop.customer", "to": "crm.whole", "rename": {"name": "full_name"}}
    mapping = [PERSON, whole, *merged]
    code, found, _ = typed(mapping, "schema", "-o", "json")
    assert code == 0
    customer, orders = found["tables"]
    assert customer["table"] == "crm.whole"
    assert set(customer["without"]) == {
        "index customer_city",
        "unique customer_code_key",
        "foreign key customer_place_fkey",
        "check customer_name_check",
        "identity of id",
        "default of city",
        "default of gone",
        "trigger noted",
    }
    assert '"full_name" text COLLATE "pg_catalog"."C" NOT NULL' in customer["statement"]
    assert orders["of"] == ["eu.orders", "us.orders"]
    assert orders["statement"] == (
        'CREATE TABLE "sales"."orders" (\n'
        '    "id" integer NOT NULL,\n'
        '    "total" numeric(10,2),\n'
        '    "region" text NOT NULL,\n'
        '    "note" text,\n'
        '    PRIMARY KEY ("region", "id")\n)'
    )
    _, script, _ = typed(mapping, "schema")
    assert 'CREATE SCHEMA IF NOT EXISTS "sales";' in script
    assert "-- without: index customer_city\n" in script
    wanted = [
        Wanted("shop.customer", "crm.whole", rename={"name": "full_name"}),
        Wanted("eu.*", "sales.*", set={"region": "'eu'"}),
        Wanted("us.*", "sales.*", set={"region": "'us'"}),
    ]
    with (
        connect(ends[0], application_name="test") as source,
        connect(ends[1], application_name="test") as target,
    ):
        schema.ensure(target, "target")
        tables = read_tables(source)
        made = make(source, target, wanted, tables)
        assert made[1] == "table sales.orders"
        assert made[0].startswith("table crm.whole (without: index customer_city, ")
        assert make(source, target, wanted, tables) == ()
        assert "mapped-tables-made" in [one.action for one in journal.entries(target)]
        routes = compile_routes(source, target, wanted, tables)
        assert routes[TableName("us", "orders")][0].belongs == "\"region\" = 'us'::text"
        unlike = [*wanted[1:], Wanted("shop.place", "crm.new"), Wanted("eu.orders", "crm.new")]
        with pytest.raises(ConfigurationError, match="nothing tells their rows apart"):
            missing_tables(source, target, unlike, tables)


def test_a_hook_beside_the_file_is_shown_and_run_over_all_rows(typed: Typed) -> None:
    """What it gives, how it fails, and what the target would not take of it; no value is told."""
    code, found, said = typed([AGED], "preview", "shop.customer", "--rows", "9", "-o", "json")
    assert code == 0
    (route,) = found["routes"]
    assert route["hook"] == {"call": "ages_of_customers:ages", "reads": ["age", "name"]}
    first, failing, nothing, refused = (route["rows"][at] for at in (0, 6, 7, 8))
    assert first["after"] == {"id": "1", "name": "n1", "age": "1", "short": "n1"}
    why = "the hook fails: ValueError at ages_of_customers.py:6"
    assert failing["failing"] == {"age": why, "short": why}
    assert nothing["after"]["age"] is None
    assert refused["failing"] == {"age": "22P02, invalid text representation"}

    code, found, said = typed([AGED], "check", "-o", "json", "--show-values", "1")
    assert code == 1
    assert [
        (one["column"], one["sqlstate"], one["error"], one["rows"], one["keys"])
        for one in found["routes"][0]["failing"]
    ] == [
        ("age", "22P02", "invalid text representation", 8, [{"id": "9"}]),
        ("hook", None, "fails: ValueError at ages_of_customers.py:6", 8, [{"id": "7"}]),
        ("short", "22001", "string data right truncation", 7984, [{"id": "10"}]),
    ]
    assert SECRET not in json.dumps(found) + said
    people = typed([AGED], "check")
    assert people[0] == 1
    told = " ".join(people[1].split())
    assert "the hook: 8 rows: fails: ValueError at ages_of_customers.py:6" in told
