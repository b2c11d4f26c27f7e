"""Records that the target refuses, as a user meets them: by `run` and the commands."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc_migrator.faultpoints import VARIABLE
from cdc_migrator.stack.local import StackInfo
from tests.support.fenced import let_in
from tests.support.live import LISTENS, LiveMigration, one, wait_for
from tests.support.stack import fresh_database

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

SHOP = """
CREATE SCHEMA shop;
CREATE TABLE shop.item (id int PRIMARY KEY, code text UNIQUE, note text);
INSERT INTO shop.item SELECT g, 'c' || g, 'loaded' FROM generate_series(1, 20) g;
-- What its events lack comes in a side table.
CREATE TABLE shop.visit (id int PRIMARY KEY, span interval, note text);
INSERT INTO shop.visit SELECT g, '1 day', 'loaded' FROM generate_series(1, 5) g;
"""
VISIT_DEMAND = "ALTER TABLE shop.visit ADD CONSTRAINT calm CHECK (note <> 'wild') NOT VALID"
VISIT_MENDED = "ALTER TABLE shop.visit DROP CONSTRAINT calm"
DEMAND = "ALTER TABLE shop.item ADD CONSTRAINT tame CHECK (note <> 'wild') NOT VALID"
MENDED = "ALTER TABLE shop.item DROP CONSTRAINT tame"


class Shop(LiveMigration):
    """A small shop whose target demands more than its source."""

    def write(self, *statements: str) -> None:
        """On the source, in one transaction."""
        with psycopg.connect(self.source) as conn:
            for statement in statements:
                conn.execute(statement.encode())

    def demand(self, statement: str) -> None:
        with let_in(self.target) as conn:
            conn.execute(statement.encode())

    def rows(self, dsn: str, table: str = "item") -> list[tuple[Any, ...]]:
        with psycopg.connect(dsn) as conn:
            return conn.execute(f"SELECT * FROM shop.{table} ORDER BY id".encode()).fetchall()

    def json(self, *words: str, check: int | None = 0) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.cli(*words, "-o", "json", check=check).stdout)
        return found

    def letters(self) -> int:
        return int(one(self.target, "SELECT count(*) FROM cdc_migrator.dead_letter"))


@pytest.fixture
def shop(stack: StackInfo, tmp_path: Path) -> Iterator[Shop]:
    with fresh_database(stack.source_dsn) as source, fresh_database(stack.target_dsn) as target:
        with psycopg.connect(source, autocommit=True) as conn:
            conn.execute(SHOP)
        settings = {"apply": {"bad_records": "park"}}
        made = Shop(tmp_path, "wild", source, target, stack, settings)
        try:
            made.prepare()
            made.demand(DEMAND)
            yield made
        finally:
            made.close()


def test_what_is_refused_is_kept_back_retried_and_given_up(shop: Shop) -> None:
    """Killed while it is kept back; swapped, moved and written again; each row is once there."""
    shop.write(
        "UPDATE shop.item SET note = 'wild' WHERE id IN (1, 2)",
        "UPDATE shop.item SET note = 'fine' WHERE id = 3",
    )
    run = shop.start("run", env={VARIABLE: "dead_letters.keep.after:1:KILL"})
    assert run.wait(60) == -signal.SIGKILL
    assert shop.letters() == 0
    run = shop.start("run")
    assert shop.drain()
    assert shop.letters() == 2
    shop.write(
        "UPDATE shop.item SET code = 'free' WHERE id = 1",
        "UPDATE shop.item SET code = 'c1' WHERE id = 2",
        "UPDATE shop.item SET code = 'c2' WHERE id = 1",
    )
    shop.write("UPDATE shop.item SET id = 100 WHERE id = 1", "DELETE FROM shop.item WHERE id = 4")
    shop.write("INSERT INTO shop.item VALUES (1, 'new', 'tame again')")
    assert shop.drain()

    there = shop.json("dead-letters", "list")
    assert (there["exact"], there["keys"], there["records"]) == (False, 3, 8)
    assert {one["table"] for one in there["parked"]} == {"shop.item"}
    assert [one["constraint"] for one in there["parked"]] == ["tame", "tame", None]
    first = there["parked"][0]["key_hash"]
    shown = shop.json("dead-letters", "show", first[:12], "--values")["records"]
    assert len(shown) == 6
    assert json.loads(shown[0]["record_key"]) == {"id": 1}
    assert json.loads(shown[0]["after_image"])["note"] == "wild"
    status = shop.status()
    assert (status["dead_letters"], status["parked"]["exact"]) == (8, False)
    assert any("kept back" in reason for reason in status["ready"]["reasons"])
    assert [r for r in shop.rows(shop.target) if r[0] > 2] == [
        r for r in shop.rows(shop.source) if 2 < r[0] < 100
    ]

    left = shop.json("dead-letters", "retry", "--all", check=1)
    assert left["by_service"] is True
    assert {one["constraint"] for one in left["left"]} == {"tame", None}
    assert shop.letters() == 8
    assert shop.stop(run) == 0
    shop.demand(MENDED)
    done = shop.json("dead-letters", "retry", "--table", "shop.item")
    assert (len(done["settled"]), done["left"], done["by_service"]) == (3, [], False)
    assert shop.rows(shop.target) == shop.rows(shop.source)
    assert shop.letters() == 0

    shop.demand(DEMAND)
    shop.demand(VISIT_DEMAND)
    shop.write("UPDATE shop.visit SET span = '2 mons', note = 'wild' WHERE id < 3")
    shop.write("UPDATE shop.visit SET id = 9 WHERE id = 1", "UPDATE shop.visit SET span = '3 mons'")
    run = shop.start("run")
    assert shop.drain()
    assert one(shop.target, "SELECT count(*) FROM cdc_migrator.parked_key") == 3
    shop.demand(VISIT_MENDED)
    wait_for("run answers requests", lambda: one(shop.target, LISTENS))
    shop.json("dead-letters", "retry", "--all")
    assert shop.rows(shop.target, "visit") == shop.rows(shop.source, "visit")

    shop.write("UPDATE shop.item SET note = 'wild' WHERE id = 7")
    assert shop.drain()
    key_hash = one(shop.target, "SELECT hash FROM cdc_migrator.parked_key")
    shop.json("dead-letters", "skip", "--key-hash", key_hash, "--reason", "a test")
    shop.write("UPDATE shop.item SET note = 'calm' WHERE id = 7")
    assert shop.drain()
    (key,) = shop.json("dead-letters", "list")["parked"]
    assert (key["state"], key["reason"], key["records_left_out"]) == ("skipped", "a test", 1)
    shop.cli("dead-letters", "retry", "--all", check=3)
    found = shop.json("reconcile", check=1)
    (row,) = [one for table in found["tables"] for one in table["differences"]]
    assert (row["key"], row["kept_back"]) == ({"id": "7"}, True)
    shop.json("reconcile", "--repair")
    assert shop.json("dead-letters", "list")["exact"] is True
    shop.write("UPDATE shop.item SET note = 'calmer' WHERE id = 7")
    assert shop.drain()
    assert shop.rows(shop.target) == shop.rows(shop.source)
    assert shop.stop(run) == 0
    shop.cli("journal", "verify")
