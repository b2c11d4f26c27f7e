"""A schema that changes while there is a way back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.faults.cutover_kills import DIGEST, cut, end_of
from tests.faults.switching import Switching
from tests.support.live import LiveMigration, one, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.long, pytest.mark.timeout(300)]

SETTINGS = {
    "tables": {"include": ["app.*"]},
    "apply": {"ddl": "apply"},
    "backup": {"required": False},
    "cutover": {"hooks": [{"kind": "route"}], "budget": "4s"},
}


@pytest.fixture
def live(stack: Any, source_db: str, target_db: str, tmp_path: Path) -> Iterator[LiveMigration]:
    live = LiveMigration(tmp_path, "alteredback", source_db, target_db, stack, SETTINGS)
    try:
        Switching.prepare(live)
        yield live
    finally:
        end_of(live)


def runs(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(statement.encode())


def test_the_way_back_follows_silently_and_stops_once_the_target_is_open(
    live: LiveMigration,
) -> None:
    """Forward the change is run on the target; back the source's owner is told what it lacks."""
    live.cli("way-back", "prepare")
    runs(live.source, "ALTER TABLE app.entry ADD COLUMN more text DEFAULT 'm'")
    runs(live.source, "UPDATE app.entry SET more = 'n'")
    live.drain()
    assert one(live.target, "SELECT count(*) FROM app.entry WHERE more <> 'n'") == 0
    cut(live, "--rehearse")
    cut(live, "--yes")
    runs(live.target, "INSERT INTO app.entry (writer, number, more) VALUES (-2, 1, 'open')")
    wait_for(
        "it came over",
        lambda: one(live.source, "SELECT count(*) FROM app.entry WHERE more = 'open'"),
    )
    runs(live.target, "ALTER TABLE app.entry ADD COLUMN last int")
    halted = wait_for("the way back stops", lambda: live.halted(back=True))
    assert halted["code"] == "CDCM-SCHEMA-CHANGED"
    runs(live.source, "ALTER TABLE app.entry ADD COLUMN last int")
    wait_for("it goes on", lambda: not live.halted(back=True))
    runs(live.target, "UPDATE app.entry SET last = 3 WHERE writer = -2")
    live.cli("rollback", "--yes")
    assert one(live.source, "SELECT last FROM app.entry WHERE writer = -2") == 3
    assert one(live.source, DIGEST) == one(live.target, DIGEST)
