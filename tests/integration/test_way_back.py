"""The way back on the real stack: forward, back and forward again, with writers that never stop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.faults.cutover_kills import DIGEST, cut, end_of
from tests.faults.switching import Switching
from tests.support.live import LiveMigration, one, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

SETTINGS = {
    "tables": {"include": ["app.*"]},
    "backup": {"required": False},
    "cutover": {"hooks": [{"kind": "route"}], "budget": "4s"},
    "watch": {
        "every": "200ms",
        "settle": "0s",
        "rules": [
            {
                "kind": "sql",
                "name": "alarm",
                "statement": "SELECT count(*) FROM app.entry WHERE note = 'alarm'",
                "threshold": 0,
                "for": "400ms",
                "action": "rollback",
            }
        ],
    },
}


@pytest.fixture
def live(stack: Any, source_db: str, target_db: str, tmp_path: Path) -> Iterator[LiveMigration]:
    live = LiveMigration(tmp_path, "waysback", source_db, target_db, stack, SETTINGS)
    try:
        Switching.prepare(live)
        yield live
    finally:
        end_of(live)


def breaks(live: LiveMigration) -> None:
    """What the rule looks for comes about on the target."""
    with psycopg.connect(live.target, autocommit=True) as conn:
        conn.execute("INSERT INTO app.entry (writer, number, note) VALUES (-2, 1, 'alarm')")


def went_back(live: LiveMigration) -> bool:
    """Whether `run` has rolled back and says which rule told it to."""
    told = json.loads(live.cli("watch", "list", "-o", "json").stdout)
    acted = [one for one in told["firings"] if one["acted_at"]]
    return not told["open"] and [one["rule"] for one in acted] == ["alarm"]


def test_a_rule_goes_back_and_what_one_way_has_proven_stands_on_the_other(
    live: LiveMigration,
) -> None:
    """Every verb says what it needs; under writers the demo shows it, and `make prove-way-back`."""
    assert "way-back prepare" in live.cli("readiness", check=3).stdout
    assert "CDCM-WAY-BACK-NONE" in live.cli("rollback", "--yes", check=3).stderr
    assert json.loads(live.cli("way-back", "prepare", "-o", "json").stdout)["made"]
    assert not json.loads(live.cli("way-back", "prepare", "-o", "json").stdout)["made"]
    assert "CDCM-ROLLBACK-NOT-OPEN" in live.cli("rollback", "--yes", check=3).stderr
    rehearsed = ("rollback", "--accept-loss", "--rehearse")
    assert "CDCM-CUTOVER-OPTIONS" in live.cli(*rehearsed, check=2).stderr
    cut(live, "--rehearse")
    assert cut(live, "--yes")["details"]["proofs_carried"] >= 3
    breaks(live)
    wait_for("it goes back by itself", lambda: went_back(live), 90, 0.5)
    back = json.loads(live.cli("rollback", "status", "-o", "json").stdout)
    assert back["cutover"]["state"] == "done"
    assert json.loads(live.cli("way-back", "status", "-o", "json").stdout)["leg"] == 2
    assert cut(live, "--yes")["details"]["verified"]
    assert one(live.source, DIGEST) == one(live.target, DIGEST)


def test_a_lost_target_is_left_with_what_came_over(live: LiveMigration) -> None:
    """`--accept-loss` is refused while the target answers; then it says what the source has."""
    live.cli("way-back", "prepare")
    cut(live, "--rehearse")
    cut(live, "--yes")
    with psycopg.connect(live.target, autocommit=True) as conn:
        conn.execute("INSERT INTO app.log SELECT 5, g FROM generate_series(1, 100) g")
    written = one(live.target, "SELECT clock_timestamp() - interval '1 minute'")
    wait_for("it came over", lambda: one(live.source, "SELECT count(*) FROM app.log") == 100)
    refused = live.cli("rollback", "--accept-loss", "--yes", check=3)
    assert "CDCM-ROLLBACK-REACHABLE" in refused.stderr
    # Nobody listens there.
    nowhere = urlsplit(live.target)._replace(netloc="postgres@127.0.0.1:1").geturl()
    lost = ("--set", f"target.dsn={nowhere}")
    told = json.loads(live.cli("rollback", "--accept-loss", "--yes", "-o", "json", *lost).stdout)
    assert told["loss"]["pending"] == 0
    assert datetime.fromisoformat(told["loss"]["until"]) > written
    with psycopg.connect(live.source, autocommit=True) as conn:
        conn.execute("INSERT INTO app.entry (writer, number) VALUES (5, 1)")
        assert conn.execute("SELECT side FROM cdc_migrator.route").fetchone() == ("source",)
