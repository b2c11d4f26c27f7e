"""A hook's columns are compared and repaired as any others; what it must not do is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from cdc_migrator.apply.applier import Applier
from cdc_migrator.backfill.columns import passage
from cdc_migrator.config.rules import RulesFile
from cdc_migrator.control import load
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.errors import ConfigurationError, MigratorError, Refused
from cdc_migrator.hook import calling
from cdc_migrator.model import mapping
from cdc_migrator.model.mapping import Wanted, WantedHook
from cdc_migrator.model.naming import Names
from cdc_migrator.model.tables import TableName
from cdc_migrator.service import validating
from cdc_migrator.service.direction import Direction
from cdc_migrator.service.keeping import Keeping
from cdc_migrator.service.validating import ValidateOptions
from cdc_migrator.transform.compile import compile_routes
from tests.integration.reconcile_rig import NAME, World, world
from tests.property.test_hook_follows_source import load_hooked

PERSON, LOG = TableName("shop", "person"), TableName("shop", "log")
SOURCE = """
CREATE SCHEMA shop;
CREATE TABLE shop.person (id int PRIMARY KEY, name text, phone text, gone boolean DEFAULT false);
INSERT INTO shop.person SELECT n, 'n' || n, CASE WHEN n % 9 > 0 THEN '0' || n || '-' || n * 7 END,
    n % 10 = 0 FROM generate_series(1, 900) n;
ALTER TABLE shop.person REPLICA IDENTITY FULL;
CREATE TABLE shop.log (what int, body text);
ALTER TABLE shop.log REPLICA IDENTITY FULL;
INSERT INTO shop.log SELECT n % 3, E'line\\t' || n % 20 FROM generate_series(1, 300) n;
ANALYZE
"""
TARGET = """
CREATE SCHEMA crm;
CREATE TABLE crm.person (id int PRIMARY KEY, name text, phone text, digits int, note text);
CREATE TABLE crm.log (body text, loud text, level int8)
"""
# What the target must hold, by SQL in the place of the functions.
HELD = {
    "SELECT id, name, phone, digits FROM crm.person": "SELECT id, name, '+49' || ltrim(d, '0'), "
    "length(d) FROM shop.person, LATERAL (SELECT regexp_replace(coalesce(phone, ''), '\\D', '', "
    "'g')) AS x (d) WHERE NOT gone AND d <> '' UNION ALL SELECT id, name, NULL, 0 FROM shop.person "
    "WHERE NOT gone AND phone IS NULL",
    "SELECT * FROM crm.log": "SELECT body, upper(body), what FROM shop.log",
}
HOOK = WantedHook(
    "tests.support.row_hooks:phone", ("id", "phone"), {"phone": "text", "digits": "int"}
)
WANTED = Wanted("shop.person", "crm.person", keep=("id", "name"), where="NOT gone", hook=HOOK)
LINES = Wanted(
    "shop.log",
    "crm.log",
    keep=("body",),
    hook=WantedHook(
        "tests.support.row_hooks:line", ("what", "body"), {"loud": "text", "level": "int8"}
    ),
)


@pytest.fixture(scope="module")
def empty() -> Iterator[World]:
    with world() as found:
        found.source.execute(SOURCE.encode())
        found.target.execute(TARGET.encode())
        yield found
        found.aligner.release()


@pytest.fixture
def made(empty: World) -> World:
    """Both sides equal, by what a load writes, and nothing proven yet."""
    source, target = empty.source, empty.target
    target.execute("TRUNCATE crm.person, crm.log")
    tables = read_tables(source)
    routes = compile_routes(source, target, [WANTED, LINES], tables)
    there = {one.name: one for one in read_tables(target)}
    for table in tables:
        (route,) = routes[table.name]
        load_hooked(source, target, passage(table, there[route.target], route))
    target.execute("TRUNCATE cdc_migrator.difference, cdc_migrator.repair CASCADE")
    load.register(target, [(table, 0) for table in tables], routes)
    target.execute("UPDATE cdc_migrator.table_progress SET load_state = 'loaded'")
    return empty


def exact(made: World) -> None:
    """See that the target holds what SQL says, whatever the tool says."""
    for held, query in HELD.items():
        there = made.target.execute(held.encode()).fetchall()
        assert sorted(map(str, there)) == sorted(map(str, made.source.execute(query.encode())))


@pytest.mark.parametrize("mode", ["full", "sample", "incremental"])
def test_what_a_load_leaves_is_equal(made: World, mode: str) -> None:
    """In chunks, each its own; with a key and without."""
    exact(made)
    report = made.run(mode=mode)
    assert report.equal
    if mode == "full":
        assert {one.table: one.rows for one in report.tables} == {PERSON: 810, LOG: 300}


def test_a_difference_in_a_given_column_is_found_and_repaired(made: World) -> None:
    """By what the function gives; and rows that lack, and those that the filter leaves out."""
    for statement in (
        "UPDATE crm.person SET phone = phone || '1' WHERE id = 11",
        "UPDATE crm.person SET digits = NULL, note = 'ours' WHERE id = 712",
        "UPDATE crm.person SET name = 'x' WHERE id = 13",
        "DELETE FROM crm.person WHERE id = 14",
        "INSERT INTO crm.person VALUES (20, 'n20', '+4920140', 5)",
    ):
        assert made.target.execute(statement.encode()).rowcount == 1
    table = str(PERSON)
    assert made.found(made.run()) == {
        (table, ("11",)): ("different", "phone"),
        (table, ("712",)): ("different", "digits"),
        (table, ("13",)): ("different", "name"),
        (table, ("14",)): ("missing_in_target",),
        (table, ("20",)): ("extra_in_target",),
    }
    assert made.run(repair=True).equal
    exact(made)
    assert made.run().equal


def test_rows_without_a_key_are_told_apart_by_what_the_function_gives(made: World) -> None:
    """One has another text, one is there once too often."""
    for statement in (
        "UPDATE crm.log SET loud = '' WHERE ctid = (SELECT min(ctid) FROM crm.log)",
        "INSERT INTO crm.log SELECT * FROM crm.log WHERE level = 1 LIMIT 1",
    ):
        assert made.target.execute(statement.encode()).rowcount == 1
    found = [known for one in made.run().tables for known in one.standing]
    assert sorted(one.kind.value for one in found) == [
        "extra_in_target", "extra_in_target", "missing_in_target",
    ]  # fmt: skip
    assert made.run(repair=True).equal
    exact(made)


def test_a_table_is_rebuilt_by_what_the_function_gives(made: World) -> None:
    """All of its rows are doubtful."""
    made.target.execute("UPDATE crm.person SET digits = digits + 1, name = NULL")
    made.rebuild(str(PERSON))
    exact(made)


def test_rows_that_stay_under_a_new_capture_become_what_the_function_gives(made: World) -> None:
    """Some that differ are written one by one; where many do, all of their range."""
    target = made.target
    for statement in (
        "UPDATE crm.person SET digits = NULL WHERE id < 40",
        "DELETE FROM crm.person WHERE id > 880",
        "DELETE FROM crm.log WHERE level = 2",
    ):
        target.execute(statement.encode())
    with target.transaction():
        target.execute(
            "UPDATE cdc_migrator.table_progress SET keeps = true, load_state = 'waiting'"
        )
        target.execute("UPDATE cdc_migrator.migration SET consistent_point = '0/1'")
    told: list[str] = []
    Keeping(made.source_dsn, made.target_dsn, Names(NAME), 2, False, told.append).run()
    assert len(told) == 2
    exact(made)


def test_a_rule_cannot_name_what_the_function_gives(made: World) -> None:
    """Others of the same table can be asked."""

    def check(**rule: object) -> validating.Report:
        ends = (NAME, made.source_dsn, made.target_dsn)
        rules = RulesFile.model_validate({"rules": [{"table": str(PERSON), **rule}]}).rules
        options = ValidateOptions(
            *ends, Direction(*ends), rules, lambda number, field: f"rules.{number}.{field}"
        )
        return validating.run(options, aligner=made.aligner)

    for kind in ("count", "spot", "type"):
        (found,) = check(kind=kind).results
        assert found.passed, found.judged.reason
    with pytest.raises(ConfigurationError, match="digits is no column of"):
        check(kind="not_null", columns=["digits"])


@pytest.mark.parametrize(
    ("function", "code", "why"),
    [
        ("failing", "CDCM-MAPPING-HOOK-FAILED", "fails: ValueError at row_hooks.py:"),
        ("too_few", "CDCM-MAPPING-HOOK-RESULT", "results for"),
        ("untold", "CDCM-MAPPING-HOOK-RESULT", "gives no digits for some row"),
        ("other_kind", "CDCM-MAPPING-HOOK-RESULT", "gives int where a str or None is due"),
        ("no_number", "CDCM-MAPPING-HOOK-RESULT", "gives a digits that is no integer"),
        ("with_a_null", "CDCM-MAPPING-HOOK-RESULT", "gives a text that PostgreSQL cannot hold"),
        ("no_rows", "CDCM-MAPPING-HOOK-RESULT", "gives something that is no dict"),
        ("numbered", "CDCM-MAPPING-HOOK-IMPURE", "does not give the same"),
        ("of_the_batch", "CDCM-MAPPING-HOOK-IMPURE", "does not give the same"),
        ("nowhere", "CDCM-MAPPING-HOOK", "row_hooks.py has no function nowhere"),
    ],
)
def test_what_a_hook_must_not_do_is_refused(
    made: World, function: str, code: str, why: str
) -> None:
    """Before anything is moved; no value is told."""
    made.source.execute("UPDATE shop.person SET phone = '0000' WHERE id = 3")
    hook = replace(HOOK, call=f"tests.support.row_hooks:{function}")
    try:
        with pytest.raises(MigratorError) as caught:
            compile_routes(
                made.source, made.target, [replace(WANTED, hook=hook)], read_tables(made.source)
            )
    finally:
        made.source.execute("UPDATE shop.person SET phone = '03-21' WHERE id = 3")
    assert caught.value.code == code
    assert why in caught.value.cause
    assert "0000" not in f"{caught.value.cause} {caught.value.remedy}"


@pytest.mark.parametrize(
    ("change", "code", "why"),
    [
        ({"reads": ("id", "fone")}, "CDCM-MAPPING-COLUMN", "fone, which there is not (did you"),
        ({"gives": {"phone": "int"}}, "CDCM-MAPPING-COLUMN", "phone is text, and the hook gives"),
        ({"gives": {"mail": "text"}}, "CDCM-MAPPING-COLUMN", "crm.person has no column mail"),
        ({"gives": {"phone": "shop.fone"}}, "CDCM-MAPPING-TYPE", "neither server has a type"),
        ({"gives": {"id": "int"}}, "CDCM-MAPPING-KEY", "crm.person lacks id of the key"),
        ({"call": "no_such_module:f"}, "CDCM-MAPPING-HOOK", "there is no module no_such_module"),
    ],
)
def test_a_hook_that_does_not_fit_the_tables_is_refused(
    made: World, change: Mapping[str, object], code: str, why: str
) -> None:
    """Each with its place in migration.yaml."""
    hook = replace(HOOK, **change)  # type: ignore[arg-type]
    with pytest.raises(MigratorError) as caught:
        compile_routes(
            made.source, made.target, [replace(WANTED, hook=hook)], read_tables(made.source)
        )
    assert caught.value.code == code
    assert why in caught.value.cause
    assert "mapping.0." in caught.value.cause


def test_a_large_value_that_an_update_leaves_alone_asks_for_whole_rows(made: World) -> None:
    """Where the function reads it together with others."""
    hook = WantedHook("tests.support.row_hooks:phone", ("name", "phone"), HOOK.gives)
    wanted = replace(WANTED, where=None, hook=hook)
    made.source.execute("ALTER TABLE shop.person REPLICA IDENTITY DEFAULT")
    try:
        with pytest.raises(
            Refused, match=r"CDCM-MAPPING-IDENTITY: mapping\.0\.hook\.reads"
        ) as caught:
            compile_routes(made.source, made.target, [wanted], read_tables(made.source))
    finally:
        made.source.execute("ALTER TABLE shop.person REPLICA IDENTITY FULL")
    assert "REPLICA IDENTITY FULL" in caught.value.remedy


def test_another_function_than_at_the_beginning_is_refused(
    made: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whoever would run it: the rows that are there are not of its making."""
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "my_phones.py"
    text = "def f(rows):\n    return [{'phone': one['phone'], 'digits': '1'} for one in rows]\n"
    module.write_text(text)
    hook = replace(HOOK, call="my_phones:f")
    tables = read_tables(made.source)
    routes = compile_routes(made.source, made.target, [replace(WANTED, hook=hook)], tables)
    (route,) = routes[PERSON]
    assert mapping.read(route.document) == route
    calling.Caller(route)
    module.write_text(text.replace("'1'", "'2'"))
    with pytest.raises(Refused, match=r"CDCM-MAPPING-CHANGED: my_phones\.py"):
        calling.Caller(route)
    person = [one for one in tables if one.name == PERSON]
    with pytest.raises(Refused, match="CDCM-MAPPING-CHANGED"):
        Applier(made.target_dsn, person, "", routes={PERSON: {PERSON: route}})
    module.write_text(text)
    calling.Caller(route)


def test_a_hook_that_fails_ends_the_comparison_and_says_no_value(made: World) -> None:
    """On a row that came after it had been tried."""
    tables = read_tables(made.source)
    hook = replace(HOOK, call="tests.support.row_hooks:failing")
    routes = compile_routes(made.source, made.target, [replace(WANTED, hook=hook)], tables[:2])
    load.register(made.target, [(one, 0) for one in tables if one.name == PERSON], routes)
    made.target.execute("UPDATE cdc_migrator.table_progress SET load_state = 'loaded'")
    made.source.execute("UPDATE shop.person SET phone = '0000' WHERE id = 3")
    try:
        with pytest.raises(Refused, match="CDCM-MAPPING-HOOK-FAILED") as caught:
            made.run()
    finally:
        made.source.execute("UPDATE shop.person SET phone = '03-21' WHERE id = 3")
    assert "ValueError at row_hooks.py" in caught.value.cause
    assert "0000" not in str(caught.value)
    with suppress(psycopg.Error):
        made.aligner.release()
