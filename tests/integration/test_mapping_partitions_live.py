"""A partitioned table goes to an ordinary one while it is written to and its partitions change."""

from __future__ import annotations

import random
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from cdc_migrator.stack.local import StackInfo
from tests.faults.cutover_kills import cut
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
PART_4 = (
    "CREATE TABLE shop.visit_4 PARTITION OF shop.visit "
    "FOR VALUES FROM ('2024-04-01') TO ('2024-05-01')"
)
CUTOVER = {"hooks": [{"kind": "route"}], "budget": "6s"}
LISTED = "SELECT string_agg(concat_ws(' ', id, {}, {}), ',' ORDER BY id) FROM {}"
VISIT = LISTED.format("at", "word", "shop.visit")
# What is the same on both sides.
ALIKE = {
    VISIT: LISTED.format("visited", "said", "crm.visit"),
    LISTED.format("level", "upper(word)", "shop.item WHERE level > 0"): LISTED.format(
        "level", "word", "crm.item"
    ),
    LISTED.format("level", "''", "shop.item"): LISTED.format("level", "''", "crm.level"),
}


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
                self._end.wait(0.004)

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


def see_both_alike(live: LiveMigration, *only: str) -> None:
    """By plain SQL, of which the migration knows nothing."""
    for here, there in ALIKE.items():
        if not only or here in only:
            assert one(live.source, here) == one(live.target, there)


@contextmanager
def writing(live: LiveMigration) -> Iterator[Writers]:
    writers = Writers(live.source)
    try:
        yield writers
    finally:
        writers.end()


def test_a_partitioned_table_goes_to_an_ordinary_one(live: LiveMigration) -> None:
    """Rows move from partition to partition; one is added, one emptied, one dropped."""
    live.prepare()
    assert one(live.target, "SELECT count(*) FROM crm.item") == 240
    run = live.start("run")
    with writing(live) as writers:
        wait_for("some commits", lambda: writers.commits > 100)
        execute(live.source, PART_4)
        writers.last_day = 115
        wait_for("some more", lambda: writers.commits > 200)
        live.cli("migrate", "--no-run")
    assert live.drain()
    assert one(live.source, "SELECT count(*) FROM shop.visit_4") > 0
    see_both_alike(live)
    live.cli("reconcile")

    kept = one(live.source, "SELECT count(*) FROM shop.visit_1")
    execute(
        live.source,
        "TRUNCATE shop.visit_2",
        "DROP TABLE shop.visit_1",
        "INSERT INTO shop.visit VALUES (1300, '2024-02-02', 'x')",
    )
    assert live.drain()
    assert run.poll() is None
    assert one(live.target, "SELECT count(*) FROM crm.visit WHERE visited < '2024-02-01'") == kept
    execute(live.source, "UPDATE shop.visit SET word = 'last' WHERE id = 1300")
    assert live.drain()
    of_second = "SELECT string_agg(said, ',') FROM crm.visit WHERE visited < '2024-03-01'"
    assert one(live.target, f"{of_second} AND visited >= '2024-02-01'") == "last"


@pytest.mark.long
def test_what_is_wrong_on_the_target_is_found_and_mended_by_partition(live: LiveMigration) -> None:
    """In the bounds of the one that it is of, and nothing of another is touched."""
    rules = [
        {"kind": "count", "table": "shop.visit"},
        {"kind": "spot", "table": "shop.visit", "random": 20},
        {"kind": "count", "table": "shop.item -> crm.level", "where": "level > 2"},
        {"kind": "not_null", "table": "shop.visit_2", "columns": ["said"]},
    ]
    (live.directory / "rules.yaml").write_text(yaml.safe_dump({"rules": rules}))
    asking = ("validate", "--rules", str(live.directory / "rules.yaml"), "--aligned")
    live.prepare()
    live.start("run")
    assert live.drain()
    live.cli(*asking)
    own = "SET session_replication_role = replica; ALTER TABLE crm.visit DISABLE TRIGGER ALL; "
    with psycopg.connect(live.target, autocommit=True) as conn:
        conn.execute(own)
        conn.execute("DELETE FROM crm.visit WHERE visited = '2024-01-05'")
        conn.execute("UPDATE crm.visit SET said = NULL WHERE visited = '2024-02-07'")
        conn.execute("INSERT INTO crm.visit VALUES (7000, '2024-03-04', 'nobody')")
        conn.execute("INSERT INTO crm.visit VALUES (7001, '2025-01-01', 'of no partition')")
    live.cli(*asking, check=1)
    live.cli("reconcile", check=1)
    with psycopg.connect(live.target) as conn:
        found = conn.execute(
            "SELECT source_table, kind, count(*) FROM cdc_migrator.difference GROUP BY 1, 2"
        ).fetchall()
    assert set(found) == {
        ("visit_1", "missing_in_target", 10),
        ("visit_2", "different", 10),
        ("visit_3", "extra_in_target", 1),
        ("visit (of no table)", "extra_in_target", 1),
    }
    live.cli("reconcile", "--repair")
    with writing(live):
        live.cli("repair", "--rebuild", "shop.visit_2")
    assert live.drain()
    see_both_alike(live)
    execute(live.source, "DROP TABLE shop.visit_3", PART_4)
    assert live.drain()
    live.cli("migrate", "--no-run")
    live.cli("reconcile", check=1)
    live.cli("reconcile", "--repair")
    see_both_alike(live)


@pytest.mark.long
def test_partitions_that_come_with_rows_or_beside_a_default_one_do_not_join(
    live: LiveMigration,
) -> None:
    """A detached one stays in the stream; attached with other bounds, it halts it."""
    execute(live.source, "CREATE TABLE shop.visit_rest PARTITION OF shop.visit DEFAULT")
    live.prepare()
    run = live.start("run")
    execute(live.source, PART_4)
    refused = live.cli("migrate", "--no-run", check=3)
    assert "CDCM-MAPPING-CHANGED" in refused.stderr
    assert "default partition" in refused.stderr
    execute(
        live.source,
        "ALTER TABLE shop.visit DETACH PARTITION shop.visit_1",
        "UPDATE shop.visit_1 SET word = 'apart' WHERE at = '2024-01-02'",
    )
    assert live.drain()
    assert run.poll() is None
    assert one(live.target, "SELECT count(*) FROM crm.visit WHERE said = 'apart'") == 10
    live.cli("reconcile")
    execute(
        live.source,
        "ALTER TABLE shop.visit ATTACH PARTITION shop.visit_1 FOR VALUES FROM ('2023-12-01') "
        "TO ('2024-02-01')",
        "INSERT INTO shop.visit VALUES (1, '2023-12-05', 'out of bounds')",
    )
    assert run.wait(60) == 3
    halted = live.halted()
    assert halted is not None
    assert halted["code"] == "CDCM-SCHEMA-MAPPED"
    assert "shop.visit_1: it has other bounds in shop.visit now" in halted["cause"]


@pytest.mark.long
@pytest.mark.timeout(300)
def test_rows_come_back_to_the_partition_that_they_are_of(live: LiveMigration) -> None:
    """Also those that a change on the target has moved to another one."""
    said = yaml.safe_load(live.config.read_text())
    said |= {"mapping": MAPPING[:1], "backup": {"required": False}, "cutover": CUTOVER}
    live.config.write_text(yaml.safe_dump(said))
    execute(live.target, "ALTER TABLE crm.visit REPLICA IDENTITY FULL")
    live.prepare()
    live.start("run")
    live.cli("way-back", "prepare")
    live.cli("reconcile")
    cut(live, "--rehearse")
    cut(live, "--yes")
    execute(
        live.target,
        "UPDATE crm.visit SET visited = visited + 31 WHERE id % 3 = 0 AND visited < '2024-02-15'",
        "UPDATE crm.visit SET said = 'there' WHERE id % 5 = 0",
        "DELETE FROM crm.visit WHERE id % 7 = 0",
        "INSERT INTO crm.visit SELECT n, date '2024-02-01' + n % 60, 'new' "
        "FROM generate_series(2001, 2100) n",
    )
    cut(live, "--yes", verb="rollback")
    see_both_alike(live, VISIT)
    execute(live.source, "UPDATE shop.visit SET at = at - 31 WHERE at > '2024-03-05'")
    assert live.drain()
    live.cli("reconcile")
    see_both_alike(live, VISIT)


DIVIDED = """
DROP TABLE crm.visit;
CREATE TABLE crm.visit (id bigint, visited date, said text, PRIMARY KEY (visited, id))
    PARTITION BY HASH (id);
CREATE TABLE crm.visit_a PARTITION OF crm.visit FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE crm.visit_b PARTITION OF crm.visit FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE crm.item (id bigint, level int, word text, PRIMARY KEY (id, level))
    PARTITION BY LIST (level);
CREATE TABLE crm.item_1 PARTITION OF crm.item FOR VALUES IN (1, 2) PARTITION BY RANGE (id);
CREATE TABLE crm.item_1_1 PARTITION OF crm.item_1 DEFAULT;
CREATE TABLE crm.item_2 PARTITION OF crm.item DEFAULT;
CREATE TABLE crm.plain (id int PRIMARY KEY, word text) PARTITION BY HASH (id);
CREATE TABLE crm.plain_1 PARTITION OF crm.plain FOR VALUES WITH (MODULUS 1, REMAINDER 0);
"""


@pytest.mark.long
def test_the_targets_table_may_be_partitioned_in_another_way(live: LiveMigration) -> None:
    """Rows are written through it, and move from partition to partition on both sides."""
    plain = {"table": "shop.plain", "to": "crm.plain", "set": {"word": "'w' || id"}}
    said = yaml.safe_load(live.config.read_text()) | {"mapping": [*MAPPING, plain]}
    live.config.write_text(yaml.safe_dump(said))
    execute(live.target, DIVIDED)
    execute(live.source, "INSERT INTO shop.plain SELECT generate_series(1, 100)")
    assert "is partitioned: its changes" in live.cli("check", check=None).stdout.replace("\n", " ")
    live.prepare()
    live.start("run")
    with writing(live) as writers:
        wait_for("some commits", lambda: writers.commits > 300)
        execute(live.source, "UPDATE shop.plain SET id = id + 500 WHERE id % 2 = 0")
        live.cli("reconcile")
    assert live.drain()
    see_both_alike(live)
    live.cli("schema", "diff")

    with psycopg.connect(live.target, autocommit=True) as conn:
        for part in ("visit", "visit_a", "visit_b", "plain", "plain_1"):
            conn.execute(f"ALTER TABLE crm.{part} DISABLE TRIGGER ALL".encode())
        conn.execute("DELETE FROM crm.visit WHERE id % 3 = 0")
        conn.execute("UPDATE crm.visit SET said = 'wrong' WHERE id % 3 = 1")
        conn.execute("INSERT INTO crm.plain VALUES (9000, 'nobody')")
        conn.execute("UPDATE crm.plain SET word = 'wrong' WHERE id = 1")
    live.cli("reconcile", check=1)
    live.cli("reconcile", "--repair")
    with writing(live):
        live.cli("repair", "--rebuild", "shop.plain")
        live.cli("repair", "--rebuild", "shop.visit_1")
    assert live.drain()
    see_both_alike(live)
    assert one(live.target, "SELECT count(*) FROM crm.plain WHERE word = 'w' || id") == 100
    execute(live.source, "TRUNCATE shop.plain", "TRUNCATE shop.visit_1")
    assert live.drain()
    assert one(live.target, "SELECT count(*) FROM crm.plain") == 0
    see_both_alike(live)
    live.cli("reconcile")
