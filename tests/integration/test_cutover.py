"""The cutover on the real stack: writers go over by themselves, and nothing is lost."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.faults.cutover_kills import begin, cut, end_of
from tests.faults.switching import Switching, switched
from tests.support.live import LiveMigration, one, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

SETTINGS = {
    "tables": {"include": ["app.*"]},
    "backup": {"required": False},
    "cutover": {"hooks": [{"kind": "route"}], "without_way_back": "a test", "budget": "4s"},
}
IGNORED = "SELECT changes_ignored FROM cdc_migrator.stream_progress"


@pytest.fixture
def live(stack: Any, source_db: str, target_db: str, tmp_path: Path) -> Iterator[LiveMigration]:
    live = LiveMigration(tmp_path, "switching", source_db, target_db, stack, SETTINGS)
    try:
        Switching.prepare(live)
        yield live
    finally:
        end_of(live)


def writes_again(apps: Switching) -> None:
    before = apps.commits()
    wait_for("writers write", lambda: apps.commits() > before + 60)


def test_writers_go_over_and_nothing_is_lost(live: LiveMigration) -> None:
    """A rehearsal leaves everything as it was; the cutover leads every writer to the target."""
    refused = live.cli("cutover", "--yes", check=3)
    assert "CDCM-CUTOVER-NOT-READY" in refused.stderr
    assert "cutover --rehearse" in refused.stderr
    with Switching(live) as apps:
        writes_again(apps)
        assert cut(live, "--rehearse")["state"] == "rehearsed"
        writes_again(apps)
        assert {one.side for one in apps.writers} == {"source"}
        dry = json.loads(live.cli("cutover", "--dry-run", "-o", "json").stdout)
        assert dry["expected_stall_seconds"] > 0
        assert cut(live, "--yes")["details"]["verified"]
        writes_again(apps)
    assert {one.side for one in apps.writers} == {"target"}
    assert apps.wrong(done=True) == []
    assert len(apps.stalls()) == len(apps.writers)
    over(live)


def watched(live: LiveMigration) -> Any:
    """How the rules stand."""
    return json.loads(live.cli("watch", "list", "-o", "json").stdout)


def over(live: LiveMigration) -> None:
    """What is still said and refused once the target is open, and what `finish` leaves."""
    for verb in (("reconcile",), ("migrate", "--no-run"), ("cutover", "--yes")):
        assert "CDCM-CUTOVER-OPEN" in live.cli(*verb, check=3).stderr
    assert "CDCM-ABORT-CUTOVER" in live.cli("abort", "--yes", check=3).stderr
    assert live.cli("cutover", "abort").stderr.strip() == "no cutover is under way"
    wait_for("the service watches the target", lambda: watched(live)["watching"])
    critical = next(row for row in watched(live)["rules"] if row["kind"] == "critical")
    assert (critical["number"], critical["state"]) == (0.0, "fine")
    with psycopg.connect(live.source, autocommit=True) as conn:
        conn.execute("ALTER TABLE app.log DISABLE TRIGGER cdc_migrator_fence")
        conn.execute("INSERT INTO app.log VALUES (77, 1)")
        conn.execute("ALTER TABLE app.log ENABLE ALWAYS TRIGGER cdc_migrator_fence")
    wait_for("the stray write is seen", lambda: one(live.target, IGNORED) == 1)
    told = json.loads(live.cli("cutover", "status", "-o", "json").stdout)
    assert told["written_on_source_since"] == 1
    assert one(live.target, "SELECT count(*) FROM app.log WHERE writer = 77") == 0
    live.cli("finish", "--yes")
    assert one(live.target, "SELECT to_regnamespace('cdc_migrator') IS NULL")
    assert one(live.source, "SELECT count(*) FROM pg_replication_slots WHERE database = "
                            "current_database()") == 0  # fmt: skip
    with (
        psycopg.connect(live.source, autocommit=True) as conn,
        pytest.raises(psycopg.errors.ReadOnlySqlTransaction),
    ):
        conn.execute("DELETE FROM app.entry")


@pytest.mark.long
def test_what_is_broken_off_is_gone_on_with_or_undone(live: LiveMigration) -> None:
    """Killed, hung, without its target, or with a hole in the fence: writers always go on."""
    with Switching(live) as apps:
        cut(live, "--rehearse")

        hung = begin(live, "cutover.verifying", "STOP")
        asked = live.cli("cutover", "abort", "-o", "json")
        assert json.loads(asked.stdout)["state"] == "undone"
        hung.send_signal(signal.SIGCONT)
        assert hung.wait(60) == 1
        assert switched(live)["state"] == "undone"
        writes_again(apps)

        assert begin(live, "cutover.draining", "KILL").wait(60) == -9
        live.cli("cutover", "abort", "--source-only")
        writes_again(apps)
        assert json.loads(live.cli("cutover", "status", "-o", "json").stdout)["source"] == "lifted"
        live.cli("cutover", "abort")
        assert switched(live)["state"] == "undone"

        holed = begin(live, "cutover.sequences", "STOP")
        with psycopg.connect(live.source, autocommit=True) as conn:
            conn.execute("ALTER TABLE app.log DISABLE TRIGGER cdc_migrator_fence")
        holed.send_signal(signal.SIGCONT)
        assert holed.wait(60) == 1
        assert switched(live)["error"]["code"] == "CDCM-CUTOVER-HOLE"
        writes_again(apps)

        assert begin(live, "cutover.fencing.done", "KILL").wait(60) == -9
        wait_for("the service undoes it", lambda: switched(live)["state"] == "undone")
        writes_again(apps)

        assert begin(live, "cutover.opening", "KILL").wait(60) == -9
        live.cli("cutover", "--yes", check=None)
        if switched(live)["state"] == "undone":  # a slow machine: its budget was used up
            cut(live, "--yes")
        assert switched(live)["state"] == "done"
        writes_again(apps)
    assert apps.wrong(done=True) == []


def test_what_may_be_open_is_left_to_people(live: LiveMigration) -> None:
    """Once the source says that the target may be open, its fence is lifted on a person's word."""
    cut(live, "--rehearse")
    assert begin(live, "cutover.opened.before", "KILL").wait(60) == -9
    refused = live.cli("cutover", "abort", "--source-only", check=3)
    assert "CDCM-CUTOVER-MAYBE-OPEN" in refused.stderr
    live.cli("cutover", "abort", "--source-only", "--target-is-gone", "--yes")
    with psycopg.connect(live.source, autocommit=True) as conn:
        conn.execute("INSERT INTO app.log VALUES (1, 1)")
    live.cli("cutover", "abort")
    assert switched(live)["state"] == "undone"
    assert live.drain()
