"""`schema plan`, `schema diff` as commands, and a target whose schema other tools have made."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from cdc_migrator.backfill.diff.run import differences
from cdc_migrator.backfill.schema import make_indexes, make_tables
from cdc_migrator.backfill.tools import find
from cdc_migrator.control import migration
from cdc_migrator.control import schema as control
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Refused
from cdc_migrator.model.naming import Names
from cdc_migrator.model.parts import Difference
from cdc_migrator.model.tables import TableName
from cdc_migrator.service.compare import Sides, diff_schemas, plan_schema
from cdc_migrator.service.migrate import Migrate
from cdc_migrator.service.migrate_options import MigrateOptions
from tests.support.private_postgres import private_database
from tests.support.rich_schema import RICH
from tests.support.typed import plain_environment, typed

NAMES = Names("existing")
SHOP = """
CREATE SCHEMA shop; CREATE SCHEMA other;
CREATE TYPE other.kind AS ENUM ('a', 'b');
CREATE TABLE shop.customers (id int PRIMARY KEY, email text UNIQUE, kind other.kind);
CREATE TABLE shop.orders (id int PRIMARY KEY, customer int REFERENCES shop.customers, at date);
CREATE INDEX orders_at ON shop.orders (at);
CREATE TABLE shop.ev (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE shop.ev1 PARTITION OF shop.ev DEFAULT;
CREATE INDEX ev_at ON shop.ev (at);
CREATE TABLE shop.stays (id int PRIMARY KEY);
CREATE VIEW shop.of_stays AS SELECT * FROM shop.stays;
CREATE TABLE other.thing (id int PRIMARY KEY);
CREATE FUNCTION other.f() RETURNS int LANGUAGE sql AS 'SELECT 1';
"""


@dataclass
class Pair:
    """Two databases, of which the source holds a shop."""

    source: str
    target: str

    def tables(self) -> list[TableName]:
        with connect(self.source, application_name="test") as conn:
            return [t.name for t in read_tables(conn, ["shop.*"], ["shop.stays"])]

    def run(self, sql: str) -> None:
        with psycopg.connect(self.target, autocommit=True) as conn:
            conn.execute(sql)  # type: ignore[call-overload]

    def diff(self, *, loaded: bool = True) -> list[Difference]:
        return differences(self.source, self.target, NAMES, self.tables(), loaded=loaded)

    def register(self) -> None:
        with connect(self.target, application_name="test") as conn:
            control.ensure(conn, "target")
            migration.create(conn, NAMES.migration)

    def steps(self, told: list[str]) -> Migrate:
        class Told:
            def step(self, text: str) -> None:
                told.append(text)

            def loading(self, progress: object) -> None:
                pass

        return Migrate(
            MigrateOptions(
                name=NAMES.migration,
                source_dsn=self.source,
                target_dsn=self.target,
                include=["shop.*"],
                exclude=["shop.stays"],
                accept={},
                existing_schema=True,
            ),
            Told(),
        )


@pytest.fixture
def pair() -> Iterator[Pair]:
    with private_database() as source, private_database() as target:
        with psycopg.connect(source, autocommit=True) as conn:
            conn.execute(SHOP)
        with connect(source, application_name="test") as conn:
            control.ensure(conn, "source")
        yield Pair(source, target)


def test_only_what_moves_is_compared(pair: Pair) -> None:
    """Tables that stay, what depends on them, other schemas and our own are left alone."""
    pair.register()
    found = {(one.kind, one.object) for one in pair.diff()}
    assert ("table", "shop.customers") in found
    assert ("enumeration", "other.kind") in found  # a column needs it
    for stays in ("shop.stays", "shop.of_stays", "other.thing", "other.f()"):
        assert stays not in {name for _, name in found}
    assert not [name for _, name in found if "cdc_migrator" in name]


def test_what_comes_after_the_load_is_no_difference_before_it(pair: Pair) -> None:
    """With the tables made and the load to come, keys, indexes and triggers are information."""
    pair.register()
    make_tables(pair.source, pair.target, NAMES, pair.tables())
    found = pair.diff(loaded=False)
    assert {str(one.severity) for one in found} == {"info"}
    assert {one.note for one in found} == {"comes after the load"}
    assert {str(one.severity) for one in pair.diff()} == {"warn"}
    make_indexes(pair.source, pair.target, NAMES, pair.tables())
    assert pair.diff() == []


def test_table_of_another_tool_is_information(pair: Pair) -> None:
    """The history table of the tool that made the schema does not count as a difference."""
    pair.run(SHOP + "CREATE TABLE shop.flyway_schema_history (id int PRIMARY KEY);")
    assert [(one.object, str(one.severity)) for one in pair.diff()] == [
        ("shop.flyway_schema_history", "info")
    ]


def test_order_of_columns_is_told_without_a_statement(pair: Pair) -> None:
    """Rows travel by name: another order is information, and nothing mends it."""
    pair.run(SHOP + "ALTER TABLE shop.orders DROP at; ALTER TABLE shop.orders ADD at date;")
    pair.run("ALTER TABLE shop.orders DROP customer; ALTER TABLE shop.orders ADD customer int")
    order = [one for one in pair.diff() if one.attribute == "column order"]
    assert [(one.source, one.target, one.statements) for one in order] == [
        ("id, customer, at", "id, at, customer", ())
    ]


def test_existing_schema_is_taken_and_completed(pair: Pair) -> None:
    """Keys and indexes under other names are kept, and what is missing is made after the load."""
    pair.run(SHOP + "DROP TABLE shop.stays CASCADE")
    pair.run(
        "ALTER TABLE shop.customers RENAME CONSTRAINT customers_pkey TO pk_customers;"
        "ALTER TABLE shop.customers RENAME CONSTRAINT customers_email_key TO uq_email;"
        "ALTER TABLE shop.ev RENAME CONSTRAINT ev_pkey TO pk_ev;"
        "ALTER TABLE shop.ev1 RENAME CONSTRAINT ev1_pkey TO pk_ev1;"
        "ALTER INDEX shop.ev_at RENAME TO ix_ev; ALTER INDEX shop.ev1_at_idx RENAME TO ix_ev1;"
        "ALTER TABLE shop.orders DROP CONSTRAINT orders_customer_fkey;"
        "DROP INDEX shop.orders_at"
    )
    told: list[str] = []
    assert pair.steps(told).schema().made == ()
    assert told == ["schema: taken as it is, 0 differences to look at"]
    made = make_indexes(pair.source, pair.target, NAMES, pair.tables()).made
    assert set(made) == {
        "INDEX shop orders_at",
        "FK CONSTRAINT shop orders orders_customer_fkey",
    }
    assert {(one.attribute, str(one.severity)) for one in pair.diff()} == {("name", "info")}


def test_existing_schema_that_refuses_rows_is_refused(pair: Pair) -> None:
    """What stands against the rows is named, and diff is the way on."""
    pair.run(SHOP + "ALTER TABLE shop.orders ALTER at SET NOT NULL")
    with pytest.raises(Refused, match=r"CDCM-SCHEMA-DIFFERS.*shop\.orders\.at \(not null\)") as no:
        pair.steps([]).schema()
    assert "cdc-migrator schema diff" in no.value.remedy


def test_plan_is_what_apply_makes() -> None:
    """The plan names exactly what is made then, before the rows and after them; then nothing."""
    with private_database() as source, private_database() as target:
        with psycopg.connect(source, autocommit=True) as conn:
            conn.execute(RICH)  # type: ignore[call-overload]
        pair = Pair(source, target)
        sides = Sides(NAMES.migration, source, target, ["*"], [])
        planned = plan_schema(sides)
        pair.register()
        with connect(source, application_name="test") as conn:
            tables = [table.name for table in read_tables(conn)]
        assert make_tables(source, target, NAMES, tables).made == planned.before
        assert set(make_indexes(source, target, NAMES, tables).made) == set(planned.after)
        planned = plan_schema(sides)
        assert (planned.before, planned.after) == ((), ())
        # Dumped and restored, nothing is unlike the source but what has no rows yet.
        assert {one.attribute for one in diff_schemas(sides)} == {"populated"}


def command(pair: Pair, directory: Path, *args: str) -> subprocess.CompletedProcess[str]:
    (directory / "migration.yaml").write_text(
        f"name: existing\nsource:\n  dsn: {json.dumps(pair.source)}\n"
        f"target:\n  dsn: {json.dumps(pair.target)}\n"
        "tables:\n  include: [shop.*]\n  exclude: [shop.stays]\n"
    )
    return typed("schema", *args, directory=directory, env=plain_environment(COLUMNS="200"))


def psql(pair: Pair) -> str:
    with psycopg.connect(pair.target) as conn:
        return str(find(conn.info.server_version, conn.info.server_version).directory / "psql")


def test_diff_as_a_command(pair: Pair, tmp_path: Path) -> None:
    """Exit 1 where something differs, 0 where nothing does; its SQL mends as psql reads it."""
    differs = command(pair, tmp_path, "diff", "-o", "json")
    assert (differs.returncode, differs.stderr) == (1, "")
    document = json.loads(differs.stdout)
    assert document["differs"] is True
    assert document["schema_version"] == 1
    one = next(d for d in document["differences"] if d["object"] == "shop.orders")
    assert (one["kind"], one["attribute"], one["severity"]) == ("table", "presence", "error")
    assert one["statements"][0].startswith("CREATE TABLE shop.orders (")
    table = command(pair, tmp_path, "diff")
    assert "CREATE TABLE shop.orders (" in table.stdout

    mending = command(pair, tmp_path, "diff", "--sql")
    assert mending.returncode == 1
    subprocess.run(
        [psql(pair), "-X", "-q", "-v", "ON_ERROR_STOP=1", pair.target],
        input=mending.stdout,
        text=True,
        check=True,
    )
    same = command(pair, tmp_path, "diff")
    assert (same.returncode, same.stdout) == (0, "no difference\n")
    assert command(pair, tmp_path, "diff", "--sql").stdout == ""


def test_destructive_statements_are_comments_until_asked_for(pair: Pair, tmp_path: Path) -> None:
    """What drops something for good is shown, marked, and not run by accident."""
    pair.run(SHOP + "ALTER TABLE shop.orders ADD more int")
    drop = "ALTER TABLE IF EXISTS shop.orders DROP COLUMN IF EXISTS more;"
    assert f"-- destructive: {drop}" in command(pair, tmp_path, "diff", "--sql").stdout
    asked = command(pair, tmp_path, "diff", "--sql", "--destructive").stdout
    assert f"\n{drop}" in asked
    assert f"destructive: {drop}" in command(pair, tmp_path, "diff").stdout


def test_plan_and_apply_as_commands(pair: Pair, tmp_path: Path) -> None:
    """Plan makes nothing, apply makes what it named; neither asks for Kafka or Connect."""
    planned = command(pair, tmp_path, "plan", "-o", "json")
    assert planned.returncode == 0, planned.stderr
    document = json.loads(planned.stdout)
    assert "TABLE shop orders" in document["pre_data"]
    assert "INDEX shop orders_at" in document["post_data"]
    assert document["left_out"] == ["view shop.of_stays"]
    with psycopg.connect(pair.target) as conn:
        row = conn.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'shop'").fetchone()
        assert row == (0,)
    made = command(pair, tmp_path, "apply", "pre-data", "-o", "json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["made"] == document["pre_data"]


def test_grants_as_a_flag_and_as_a_setting(pair: Pair, tmp_path: Path) -> None:
    """Both show what would be granted, and compare it; without them there is nothing of it."""
    with psycopg.connect(pair.source, autocommit=True) as conn:
        conn.execute("GRANT SELECT ON shop.orders TO PUBLIC")
    grant = "ACL shop TABLE orders"
    for asked in ("--grants", "--set=grants=true"):
        planned = command(pair, tmp_path, "plan", asked, "-o", "json")
        assert grant in json.loads(planned.stdout)["pre_data"], planned.stderr
    assert grant not in command(pair, tmp_path, "plan").stdout
    pair.run(SHOP + "DROP TABLE shop.stays CASCADE")
    assert command(pair, tmp_path, "diff").returncode == 0
    found = command(pair, tmp_path, "diff", "--grants", "--sql")
    assert found.returncode == 1
    assert "GRANT SELECT ON TABLE shop.orders TO PUBLIC;" in found.stdout
