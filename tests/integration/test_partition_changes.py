"""Partitions that come, go and move under way: what each table shows is the same on both sides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.schema_rig import Changing
from tests.support.live import one, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.long, pytest.mark.timeout(240)]

SCHEMA = """
CREATE SCHEMA shop;
CREATE TABLE shop.day (id int, day int NOT NULL, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE shop.day_1 PARTITION OF shop.day FOR VALUES FROM (0) TO (10);
CREATE TABLE shop.day_2 PARTITION OF shop.day FOR VALUES FROM (10) TO (20);
CREATE TABLE shop.day_3 PARTITION OF shop.day FOR VALUES FROM (20) TO (30);
CREATE TABLE shop.day_4 PARTITION OF shop.day FOR VALUES FROM (30) TO (40)
    PARTITION BY RANGE (id);
CREATE TABLE shop.day_4a PARTITION OF shop.day_4 FOR VALUES FROM (0) TO (50);
CREATE TABLE shop.day_4b PARTITION OF shop.day_4 FOR VALUES FROM (50) TO (1000000);
CREATE TABLE shop.spare (id int, day int NOT NULL, PRIMARY KEY (id, day));
INSERT INTO shop.day SELECT g, g % 40 FROM generate_series(1, 200) g;
INSERT INTO shop.spare SELECT g, 10 + g % 10 FROM generate_series(1, 50) g;
"""
FORMER = """
CREATE OR REPLACE FUNCTION cdc_migrator.ddl_told() RETURNS event_trigger LANGUAGE plpgsql
AS $$ BEGIN END $$
"""
KNOWN = "SELECT count(*) = %s AND bool_and(joining IS NULL) FROM cdc_migrator.table_progress"
PARENTS = "SELECT count(*) FROM pg_inherits WHERE inhparent = to_regclass(%s)"


@pytest.fixture
def live(stack: Any, source_db: str, target_db: str, tmp_path: Path) -> Iterator[Changing]:
    with psycopg.connect(source_db, autocommit=True) as conn:
        conn.execute(SCHEMA)
    settings = {"tables": {"include": ["shop.*"]}}
    made = Changing(tmp_path, "parted", source_db, target_db, stack, settings)
    try:
        yield made
    finally:
        made.close()


def test_the_target_follows_what_becomes_of_partitions(live: Changing) -> None:
    """Detached, in either way, as a whole tree, exchanged, with other bounds, dropped, attached;
    also where an earlier release has made the triggers' functions."""
    live.prepare()
    live.source_runs(FORMER)
    live.cli("capture", "start")
    live.start("run", "--ddl", "apply")
    wait_for("run streams", live.working)
    live.source_runs(
        "INSERT INTO shop.day VALUES (1001, 1)",
        "ALTER TABLE shop.day DETACH PARTITION shop.day_1",
        "INSERT INTO shop.day_1 VALUES (1002, 5000)",
    )
    with psycopg.connect(live.source, autocommit=True) as conn:
        conn.execute("ALTER TABLE shop.day DETACH PARTITION shop.day_3 CONCURRENTLY")
    live.source_runs("INSERT INTO shop.day_3 VALUES (1003, 20)")
    live.source_runs("DROP TABLE shop.day_4b")
    live.source_runs("ALTER TABLE shop.day DETACH PARTITION shop.day_4")
    live.source_runs("INSERT INTO shop.day_4 VALUES (3, 7)")
    assert live.differing(["shop.day", "shop.day_1", "shop.day_3"]) == ["shop.day_4b"]
    live.source_runs(
        "ALTER TABLE shop.day DETACH PARTITION shop.day_2",
        "ALTER TABLE shop.day ATTACH PARTITION shop.spare FOR VALUES FROM (10) TO (20)",
        "INSERT INTO shop.day VALUES (1004, 12)",
    )
    live.source_runs(
        "CREATE TABLE shop.ready (LIKE shop.day_1 INCLUDING ALL)",
        "INSERT INTO shop.ready SELECT g, 50 + g % 10 FROM generate_series(1, 30) g",
    )
    wait_for("it joins", lambda: one(live.target, KNOWN, 6))
    live.source_runs(
        "ALTER TABLE shop.day ATTACH PARTITION shop.ready FOR VALUES FROM (50) TO (60)",
        "INSERT INTO shop.day VALUES (1005, 55)",
    )
    live.source_runs(
        "CREATE TABLE shop.late (LIKE shop.day_1 INCLUDING ALL)",
        "INSERT INTO shop.late SELECT g, 60 + g % 10 FROM generate_series(1, 30) g",
        "ALTER TABLE shop.day ATTACH PARTITION shop.late FOR VALUES FROM (60) TO (70)",
        "INSERT INTO shop.day VALUES (1006, 65)",
    )
    live.source_runs(
        "ALTER TABLE shop.day DETACH PARTITION shop.spare",
        "ALTER TABLE shop.day ATTACH PARTITION shop.spare FOR VALUES FROM (10) TO (30)",
        "INSERT INTO shop.day VALUES (1007, 25)",
    )
    wait_for("it joins", lambda: one(live.target, KNOWN, 7))
    assert live.differing(["shop.day", "shop.day_2"]) == ["shop.day_4b"]
    assert one(live.target, PARENTS, "shop.day") == one(live.source, PARENTS, "shop.day") == 3
    live.target_runs("DROP TABLE shop.day_4b")
    # Detaching concurrently leaves it behind.
    live.source_runs("ALTER TABLE shop.day_3 DROP CONSTRAINT day_3_day_check")
    live.cli("schema", "diff")


def test_a_detached_partition_is_found_by_looking(live: Changing) -> None:
    """Where nobody tells: the stream waits with the statement, also where it is the tree's root."""
    live.prepare()
    live.source_runs(
        "DROP EVENT TRIGGER cdc_migrator_ddl_end",
        "DROP EVENT TRIGGER cdc_migrator_ddl_drop",
        "DROP EVENT TRIGGER cdc_migrator_ddl_rewrite",
    )
    live.start("run")
    wait_for("run streams", live.working)
    for part in ("day_1", "day_4"):
        detach = f"ALTER TABLE shop.day DETACH PARTITION shop.{part}"
        live.by_hand(detach, detach)
        live.source_runs(f"INSERT INTO shop.{part} VALUES (40, 39)")
    assert live.differing(["shop.day", "shop.day_1"]) == []
