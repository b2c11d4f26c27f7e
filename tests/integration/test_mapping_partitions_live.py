"""A partitioned table goes to an ordinary one while it is written to and its partitions change."""

from __future__ import annotations

import json
import random
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc_migrator.stack.local import StackInfo
from tests.support.live import LiveMigration, one, wait_for

pytestmark = pytest.mark.stack

SOURCE = """
CREATE SCHEMA shop;
CREATE TABLE shop.visit (id bigint, at date, word text, PRIMARY KEY (id, at))
    PARTITION BY RANGE (at);
CREATE TABLE shop.visit_1 PARTITION OF shop.visit FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE shop.visit_2 PARTITION OF shop.visit FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
CREATE TABLE shop.visit_3 PARTITION OF shop.visit FOR VALUES FROM ('2024-03-01') TO ('2024-04-01');
ALTER TABLE shop.visit_2 REPLICA IDENTITY FULL;
CREATE TABLE shop.item (id int PRIMARY KEY, level int, word text) PARTITION BY HASH (id);
CREATE TABLE shop.item_0 PARTITION OF shop.item FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE shop.item_1 PARTITION OF shop.item FOR VALUES WITH (MODULUS 2, REMAINDER 1);
ALTER TABLE shop.item_0 REPLICA IDENTITY FULL;
ALTER TABLE shop.item_1 REPLICA IDENTITY FULL;
CREATE TABLE shop.plain (id int PRIMARY KEY);
INSERT INTO shop.visit SELECT n, date '2024-01-01' + n % 90, 'word ' || n
    FROM generate_series(1, 900) n;
INSERT INTO shop.item SELECT n, n % 5, 'word ' || n FROM generate_series(1, 300) n;
"""
# One is made by hand.
TARGET = """
CREATE SCHEMA crm;
CREATE TABLE crm.visit (id bigint, visited date, said text, PRIMARY KEY (visited, id));
"""
MAPPING = [
    {"table": "shop.visit", "to": "crm.visit", "rename": {"at": "visited", "word": "said"}},
    {"table": "shop.item", "to": "crm.item", "where": "level > 0", "cast": {"id": "int8"},
     "set": {"word": "upper(word)"}},
    {"table": "shop.item", "to": "crm.level", "keep": ["id", "level"]},
]  # fmt: skip
VISITS = "SELECT string_agg(concat_ws(' ', id, {}, {}), ',' ORDER BY id) FROM {}"


class Writers:
    """Writes to both tables until it is ended: most updates take a visit to another partition."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._end = threading.Event()
        self.last_day = 89
        self.commits = 0
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._end.set()
        self._thread.join()

    def _write(self) -> None:
        chosen = random.Random(7)
        with psycopg.connect(self._dsn) as conn:
            while not self._end.is_set():
                for _ in range(chosen.randint(1, 4)):
                    self._once(conn, chosen)
                conn.commit()
                self.commits += 1

    def _once(self, conn: psycopg.Connection, chosen: random.Random) -> None:
        number, day = chosen.randint(1, 1200), chosen.randint(0, self.last_day)
        what = chosen.random()
        if what < 0.5:
            conn.execute(
                "UPDATE shop.visit SET at = date '2024-01-01' + %s, word = %s WHERE id = %s",
                (day, f"day {day}", number),
            )
        elif what < 0.6:
            conn.execute("DELETE FROM shop.visit WHERE id = %s", (number,))
        elif what < 0.8:
            conn.execute(
                "INSERT INTO shop.visit SELECT %s, date '2024-01-01' + %s, 'new' "
                "WHERE NOT EXISTS (SELECT FROM shop.visit WHERE id = %s)",
                (number, day, number),
            )
        else:
            conn.execute(
                "UPDATE shop.item SET level = %s, id = id + %s WHERE id = %s",
                (chosen.randint(0, 2), chosen.choice((0, 0, 5000)), number),
            )


@pytest.fixture
def live(stack: StackInfo, source_db: str, target_db: str, tmp_path: Path) -> Iterator[Any]:
    for dsn, script in ((source_db, SOURCE), (target_db, TARGET)):
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(script.encode())
    name = f"p{secrets.token_hex(4)}"
    made = LiveMigration(tmp_path, name, source_db, target_db, stack, {"mapping": MAPPING})
    yield made
    made.close()


def execute(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement.encode())


def see_both_alike(live: LiveMigration) -> None:
    """By plain SQL, of which the migration knows nothing."""
    assert one(live.target, VISITS.format("visited", "said", "crm.visit")) == one(
        live.source, VISITS.format("at", "word", "shop.visit")
    )
    assert one(live.target, VISITS.format("level", "word", "crm.item")) == one(
        live.source, VISITS.format("level", "upper(word)", "shop.item WHERE level > 0")
    )
    assert one(live.target, "SELECT sum(id * (level + 1)) FROM crm.level") == one(
        live.source, "SELECT sum(id * (level + 1)) FROM shop.item"
    )


def differences(live: LiveMigration) -> set[tuple[str, str]]:
    """What the last comparison found."""
    return {
        (str(table), str(kind))
        for table, kind in psycopg.connect(live.target).execute(
            "SELECT source_table, kind FROM cdc_migrator.difference WHERE resolved_at IS NULL"
        )
    }


def test_a_partitioned_table_goes_to_an_ordinary_one(live: LiveMigration) -> None:
    """Rows move from partition to partition, one is added, emptied, taken off and dropped."""
    shown = json.loads(live.cli("transform", "check", "shop.visit", "-o", "json").stdout)
    assert shown["passed"]
    live.prepare()
    assert one(live.target, "SELECT to_regclass('crm.item')") == "crm.item"
    run = live.start("run")
    writers = Writers(live.source)
    try:
        wait_for("some commits", lambda: writers.commits > 200)
        execute(
            live.source,
            "CREATE TABLE shop.visit_4 PARTITION OF shop.visit "
            "FOR VALUES FROM ('2024-04-01') TO ('2024-05-01')",
        )
        writers.last_day = 115
        wait_for("some more", lambda: writers.commits > 400)
        live.cli("migrate", "--no-run")
        live.cli("reconcile")
    finally:
        writers.end()
    assert live.drain()
    assert one(live.source, "SELECT count(*) FROM shop.visit_4") > 0
    see_both_alike(live)

    execute(
        live.source,
        "TRUNCATE shop.visit_2",
        "INSERT INTO shop.visit VALUES (1300, '2024-02-02', 'x')",
    )
    execute(live.source, "DROP TABLE shop.visit_1")
    execute(live.source, "UPDATE shop.visit SET word = 'last' WHERE id = 1300")
    assert live.drain()
    assert run.poll() is None
