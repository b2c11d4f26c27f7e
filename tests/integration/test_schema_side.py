"""A table changes of which values travel beside the events: the stream halts, and has a way out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.schema_rig import Changing
from tests.support.live import wait_for

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(180)]

SCHEMA = """
CREATE SCHEMA shop;
CREATE TABLE shop.trip (id int PRIMARY KEY, span interval, n int);
INSERT INTO shop.trip SELECT g, make_interval(days => g), g FROM generate_series(1, 200) g;
"""


@pytest.fixture
def live(stack: Any, source_db: str, target_db: str, tmp_path: Path) -> Iterator[Changing]:
    with psycopg.connect(source_db, autocommit=True) as conn:
        conn.execute(SCHEMA)
    settings = {"tables": {"include": ["shop.*"]}, "apply": {"ddl": "apply"}}
    made = Changing(tmp_path, "beside", source_db, target_db, stack, settings)
    try:
        yield made
    finally:
        made.close()


def test_another_value_beside_the_events_halts_and_the_way_out_ends_equal(live: Changing) -> None:
    """What does not concern those values is run as ever; then the remedy is done as it is told."""
    live.prepare()
    run = live.start("run")
    wait_for("run streams", live.working)
    live.source_runs("ALTER TABLE shop.trip ADD COLUMN word text", "UPDATE shop.trip SET word = n")
    live.source_runs("UPDATE shop.trip SET span = span * 2 WHERE id < 9")
    assert live.differing(["shop.trip"]) == []
    live.source_runs(
        "ALTER TABLE shop.trip ADD COLUMN rest interval",
        "UPDATE shop.trip SET rest = '1 mon 2 h', span = '3 s' WHERE id < 20",
    )
    assert run.wait(60) == 3
    halted = live.halted()
    assert halted is not None
    statement = "ALTER TABLE shop.trip ADD COLUMN rest interval"
    assert halted["code"] == "CDCM-SCHEMA-SIDE"
    assert f"Run on the target: {statement}. " in halted["remedy"]
    gate = live.gate()
    assert (gate["verdict"], gate["remedy"]) == ("fail", halted["remedy"])
    live.source_runs("INSERT INTO shop.trip VALUES (900, '1 year', 1, 'w', '4 days')")
    live.target_runs(statement)
    live.cli("migrate", "--new-capture", "--force", "its values need another trigger", "--no-run")
    live.start("run")
    live.source_runs("UPDATE shop.trip SET rest = rest * 3 WHERE id = 900 OR id < 5")
    assert live.differing(["shop.trip"]) == []
    assert live.gate()["verdict"] == "pass"
