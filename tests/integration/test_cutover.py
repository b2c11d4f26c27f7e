"""The cutover on the real stack: writers go over by themselves, and nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.switching import Switching
from tests.support.live import LiveMigration, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

SETTINGS = {
    "tables": {"include": ["app.*"]},
    "backup": {"required": False},
    "cutover": {"hooks": [{"kind": "route"}], "without_way_back": "a test"},
}


@pytest.fixture
def live(stack: Any, source_db: str, target_db: str, tmp_path: Path) -> Iterator[LiveMigration]:
    live = LiveMigration(tmp_path, "switching", source_db, target_db, stack, SETTINGS)
    try:
        yield live
    finally:
        live.cli("finish", "--yes", "--unfence-source", check=None)
        live.close()


def test_writers_go_over_and_nothing_is_lost(live: LiveMigration) -> None:
    """A rehearsal leaves everything as it was; the cutover leads every writer to the target."""
    Switching.prepare(live)
    with Switching(live) as apps:
        wait_for("writers write", lambda: apps.commits() > 100)
        rehearsed = live.cli("cutover", "--rehearse", "-o", "json")
        assert json.loads(rehearsed.stdout)["state"] == "rehearsed"
        before = apps.commits()
        wait_for("writers go on after it", lambda: apps.commits() > before + 100)
        assert {one.side for one in apps.writers} == {"source"}
        done = live.cli("cutover", "--yes", "-o", "json")
        assert json.loads(done.stdout)["details"]["verified"]
        after = apps.commits()
        wait_for("writers write on the target", lambda: apps.commits() > after + 100)
    assert {one.side for one in apps.writers} == {"target"}
    assert apps.wrong(done=True) == []
    assert len(apps.stalls()) == len(apps.writers)
