"""`init` against a real server: it looks, writes one file, and changes nothing."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from cdc_migrator.config.loader import load
from tests.support.private_postgres import private_database
from tests.support.typed import plain_environment, typed

SHOP = """
CREATE SCHEMA shop;
CREATE TABLE shop.orders (id int PRIMARY KEY, note text);
CREATE TABLE shop.audit (at timestamptz);
ALTER TABLE shop.audit REPLICA IDENTITY FULL;
CREATE TABLE shop.keyless (a int);
CREATE TABLE shop.events (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE shop.events_1 PARTITION OF shop.events DEFAULT;
INSERT INTO shop.orders SELECT generate_series(1, 1000);
ANALYZE;
"""


@dataclass
class Ran:
    code: int
    out: str
    err: str


@dataclass
class Here:
    source: str
    target: str
    directory: Path

    @property
    def file(self) -> Path:
        return self.directory / "migration.yaml"

    def init(self, *args: str, **variables: str) -> Ran:
        done = typed("init", *args, directory=self.directory, env=plain_environment(**variables))
        return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    monkeypatch.chdir(tmp_path)
    with private_database() as source, private_database() as target:
        with psycopg.connect(source, autocommit=True) as conn:
            conn.execute(SHOP)
        yield Here(source, target, tmp_path)


def test_the_file_it_writes_is_valid_and_tells_what_was_found(here: Here) -> None:
    """Tables with keys and rows; a table without identity with the statement that helps."""
    ran = here.init("--source", here.source, "--target", here.target, "--name", "moving", "--json")
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert told["migration"] == "moving"
    assert {t["table"]: t["key"] for t in told["tables"]} == {
        "shop.audit": [],
        "shop.events_1": ["id", "at"],
        "shop.keyless": [],
        "shop.orders": ["id"],
    }
    assert [p["table"] for p in told["problems"]] == ["shop.keyless"]
    text = here.file.read_text()
    assert "1,000 rows" in text
    assert '#   ALTER TABLE "shop"."keyless" REPLICA IDENTITY FULL;' in text
    settings = load(here.file)
    assert settings.tables.include == ("shop.*",)
    with psycopg.connect(settings.source.dsn_with_password()) as conn:
        assert conn.execute("SELECT count(*) FROM shop.orders").fetchone() == (1000,)
    with psycopg.connect(here.source) as conn:
        schemas = conn.execute("SELECT to_regnamespace('cdc_migrator')").fetchone()
    assert schemas == (None,), "it changes nothing"


def test_a_password_in_the_dsn_goes_to_a_file_of_its_own(here: Here) -> None:
    """Readable by this user alone, kept from git, and in no output."""
    source = make_conninfo(here.source, password="hunter2")
    ran = here.init("--source", source, "--target", here.target)
    assert ran.code == 0, ran.err
    path = here.directory / ".cdc-migrator" / "source.password"
    assert path.read_text() == "hunter2\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (path.parent / ".gitignore").read_text() == "*\n"
    assert "hunter2" not in here.file.read_text() + ran.out + ran.err
    assert load(here.file).source.reveal_password() == "hunter2"


def test_a_password_from_the_environment_is_used_and_written_nowhere(here: Here) -> None:
    """The file says which variable is meant."""
    password = {"CDC_MIGRATOR_SOURCE__PASSWORD": "hunter2"}
    ran = here.init("--source", here.source, "--target", here.target, **password)
    assert ran.code == 0, ran.err
    assert not (here.directory / ".cdc-migrator").exists()
    assert "CDC_MIGRATOR_SOURCE__PASSWORD" in here.file.read_text()
    assert "hunter2" not in here.file.read_text() + ran.out + ran.err


def test_a_file_that_is_there_is_not_replaced(here: Here) -> None:
    """Except with --force."""
    here.file.write_text("mine")
    ran = here.init("--source", here.source, "--target", here.target)
    assert ran.code == 3
    assert "CDCM-CONFIG-EXISTS" in ran.err
    assert here.file.read_text() == "mine"
    assert here.init("--source", here.source, "--target", here.target, "--force").code == 0
    assert here.file.read_text() != "mine"


def test_a_target_that_does_not_answer_yet_is_a_warning(here: Here) -> None:
    """A source that does not is an error, and nothing is written."""
    nowhere = "postgresql://app@127.0.0.1:1/none"
    ran = here.init("--source", nowhere, "--target", here.target)
    assert ran.code == 1
    assert "CDCM-DB-UNREACHABLE" in ran.err
    assert not here.file.exists()
    ran = here.init("--source", here.source, "--target", nowhere)
    assert ran.code == 0
    assert "warning CDCM-DB-UNREACHABLE" in ran.err


def test_inside_one_database_the_file_leads_every_table_elsewhere(here: Here) -> None:
    """The tables that move are to be named; each schema of theirs is led to another."""
    both = ("--source", here.source, "--target", here.source)
    assert here.init(*both, "--include", "shop.*").code == 0
    found = load(here.file)
    assert [(one.table, one.to) for one in found.mapping] == [("shop.*", "shop_new.*")]
    assert found.tables.include == ("shop.*",)


def test_wrong_arguments_are_usage_errors(here: Here) -> None:
    """Exit code 2, and no part of a string that may hold a password is repeated."""
    for args in (
        ("--source", "postgresql://a:hunter2%zz@h/d", "--target", here.target),
        ("--source", here.source, "--target", here.source),
        ("--source", here.source, "--target", here.target, "--name", "No"),
        ("--source", here.source),
    ):
        ran = here.init(*args)
        assert ran.code == 2, args
        assert "hunter2" not in ran.out + ran.err
