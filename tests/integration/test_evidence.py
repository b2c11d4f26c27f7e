"""Report, journal and plan of a migration that was switched over on the real stack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.faults.cutover_kills import cut, end_of
from tests.faults.switching import Switching
from tests.support.live import LiveMigration, one

pytestmark = [pytest.mark.stack, pytest.mark.timeout(200)]

SETTINGS = {
    "tables": {"include": ["app.*"]},
    "backup": {"required": False},
    "cutover": {"hooks": [{"kind": "route"}], "without_way_back": "a test", "budget": "4s"},
    "people": {"decide": ["Ann, +49 30 1234"], "tell": ["#ops"]},
}
NOWHERE = "postgresql://nobody@127.0.0.1:9/none"


@pytest.fixture
def live(stack: Any, source_db: str, target_db: str, tmp_path: Path) -> Iterator[LiveMigration]:
    live = LiveMigration(tmp_path, "evidence", source_db, target_db, stack, SETTINGS)
    try:
        Switching.prepare(live)
        yield live
    finally:
        end_of(live)


def told(live: LiveMigration, *arguments: str, check: int = 0) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(live.cli(*arguments, "-o", "json", check=check).stdout)
    return document


def test_evidence_of_a_cutover_is_whole_and_shows_what_was_changed(live: LiveMigration) -> None:
    """Before it, after it, without its databases, and after somebody altered one entry."""
    before = told(live, "report")["summary"]
    assert (before["status"], before["phase"]["name"]) == ("IN_PROGRESS", "stream")
    assert any("hooks" in issue["text"] for issue in before["issues"])
    cut(live, "--rehearse")
    cut(live, "--yes")

    live.cli("report", "--to", str(live.directory / "report"))
    page = (live.directory / "report" / "report.html").read_text()
    assert "COMPLETED" in page
    report = json.loads((live.directory / "report" / "report.json").read_text())
    summary = report["summary"]
    assert summary["rollback"]["available"] is False
    assert summary["data"]["rows_loaded"] == 20_064
    assert 0.5 < summary["availability"]["fraction"] < 1
    assert [o["state"] for o in report["attempts"]] == ["rehearsed", "done"]
    assert report["attempts"][1]["stall_seconds"] > 0
    assert report["journals"][0]["whole"]
    tables = {o["source"]: o for o in report["tables"]}
    for name in ("app.entry", "app.total", "app.log"):
        assert tables[name]["equal"], name
        assert tables[name]["digest"], name
        counted = one(live.source, f"SELECT count(*) FROM {name}")
        assert tables[name]["rows_proven"] == counted, name

    plan = live.cli("plan", "rollback").stdout
    assert "no way back without loss**: it was given up knowingly: a test" in plan
    assert "Ann, +49 30 1234" in plan
    assert 'FROM "app"."entry"' in plan

    file = live.directory / "journal.jsonl"
    live.cli("journal", "export", "--to", str(file))
    head = report["journals"][0]["head"]
    live.cli("journal", "verify", str(file), "--head", head)
    assert told(live, "journal", "show", "--last", "1")["entries"][0]["hash"] == head

    silent = told(live, "report", "--set", f"target.dsn={NOWHERE}")
    assert silent["summary"]["status"] == "UNKNOWN"
    assert silent["tables"] is None
    assert silent["sides"]["target"]["silent"]
    assert silent["sides"]["source"]["version"]

    with psycopg.connect(live.target, autocommit=True) as conn:
        conn.execute("UPDATE cdc_migrator.journal SET actor = 'eve' WHERE id = 5")
    assert told(live, "journal", "verify", check=1)["journals"][0]["fault"]["entry"] == 5
    assert told(live, "report")["summary"]["risk"]["level"] == "high"
