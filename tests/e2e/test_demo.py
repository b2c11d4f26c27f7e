"""The demo as a user runs it: the move, the kills, there and back and there, and the proof."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from cdc_migrator.demo.workload import ALL_KINDS
from tests.support.typed import CLI

pytestmark = [pytest.mark.stack, pytest.mark.strikes, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # The servers' own account must be able to come through to it.
    place = tmp_path_factory.mktemp("demo")
    for parent in (place, *place.parents[:2]):
        parent.chmod(0o755)
    return place


@pytest.fixture(scope="module")
def ended(place: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CLI, "demo", "--dir", str(place), "-o", "json"],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@pytest.fixture(scope="module")
def report(ended: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert ended.returncode == 0, ended.stderr
    report: dict[str, Any] = json.loads(ended.stdout)
    return report


def test_both_sides_are_equal_after_kills_under_writers(report: dict[str, Any]) -> None:
    """At least 300,000 rows move; the applier and Connect are killed; every table is equal."""
    assert report["equal"]
    assert all(
        table["equal"] and table["source"] and table["source"] == table["target"]
        for table in report["tables"]
    )
    assert sum(table["source"]["rows"] for table in report["tables"]) > 300_000
    assert report["rows_loaded"] > 300_000
    assert [kill["what"] for kill in report["kills"]] == ["applier", "Connect worker"]
    assert report["kills"][0]["amid"] == "in the middle of a batch"
    # The writers' own account goes along.
    assert "shop_ledger.committed" in {table["table"] for table in report["tables"]}


def test_every_kind_committed_at_every_stage(report: dict[str, Any]) -> None:
    """During the load, the stream, and between kill and restart, by the source's own counters."""
    assert set(report["committed"]) == {"load", "stream", "between kill and restart"}
    for counts in report["committed"].values():
        assert set(counts) == set(ALL_KINDS)
        assert min(counts.values()) > 0


def test_a_corruption_is_named_and_repaired_under_writers(report: dict[str, Any]) -> None:
    """One value changed on the target is found by table, key and column, and nothing else is."""
    found = report["corruption"]
    assert found["named"]
    assert found["repaired"]
    assert (found["table"], found["column"]) == ("shop.inventory", "quantity")
    assert found["key"] == {"warehouse": "LYON", "product_id": "17"}


def test_only_the_rehearsal_stands_between_a_backup_and_the_cutover(
    report: dict[str, Any],
) -> None:
    """Readiness says no for the hooks alone, which were not tried yet; rehearsed, it says yes."""
    first, second, again = report["readiness"]
    assert (first["against"], second["against"], again["against"]) == (["hooks"], [], [])
    assert again["gates"] == second["gates"] == first["gates"] >= 20
    assert report["rehearsal"]["state"] == "rehearsed"
    assert all(wait["entered"] == "source" for wait in report["rehearsal"]["waits"])


def test_every_writer_goes_over_and_says_how_long_it_waited(report: dict[str, Any]) -> None:
    """Each of them goes once, from the source to the target, and within the budget."""
    for done in (report["cutover"], report["ended"]["switch"]):
        went(done, "source", "target")


def went(done: dict[str, Any], left: str, entered: str) -> None:
    assert done["state"] == "done"
    assert done["verified"]
    assert sorted(wait["writer"] for wait in done["waits"]) == [0, 1, 2, 3, 4]
    assert {(wait["left"], wait["entered"]) for wait in done["waits"]} == {(left, entered)}
    assert len(done["stalls_ms"]) == 4
    assert 0 < done["open_ms"] < 10_000
    assert max(done["stalls_ms"]) < 15_000


def test_a_rule_rolls_back_by_itself_when_the_target_breaks(report: dict[str, Any]) -> None:
    """Orders fail, the error rate fires, and every writer is led back to the source."""
    back = report["returned"]
    assert back["good"]
    assert (back["rule"], back["threshold"]) == ("error_rate", 0.1)
    assert 0.1 < back["number"] < 0.9
    # Only after it was beyond for so long.
    assert back["for_seconds"] <= back["fired_after"] < back["open_after"] < 120
    assert back["failed"] > 0
    assert set(report["followers"][0]["failed"]) <= {"order", "savepoint", "rollback"}
    went(back["switch"], "target", "source")


def test_everything_acknowledged_is_on_both_sides_after_the_way_back(
    report: dict[str, Any],
) -> None:
    """By the writers' account and, row for row, by plain SQL."""
    back = report["returned"]
    assert complete(back["account"])
    assert {line["table"] for line in back["tables"]} == {
        line["table"] for line in report["tables"]
    }
    assert all(line["equal"] for line in back["tables"])


def test_everything_acknowledged_is_there_in_the_end(report: dict[str, Any]) -> None:
    """By writer and kind, from the first commit on; the source is as it was left, and shut."""
    ended = report["ended"]
    assert report["switched"]
    assert ended["good"]
    assert complete(ended["account"])
    assert ended["source_unchanged"]
    assert ended["source_refuses"]
    assert [set(one["failed"]) for one in (report["workload"], report["followers"][1])] == [
        set()
    ] * 2
    on_target = [one["acknowledged"]["target"] for one in report["followers"]]
    for counts in on_target:
        assert {key.partition("/")[2] for key in counts} == set(ALL_KINDS)
    assert sum(sum(counts.values()) for counts in on_target) == ended["account"]["on_target"]


def complete(account: dict[str, Any]) -> bool:
    assert account["unsure"] == 0
    assert not any(account["lost"].values())
    assert not any(account["strange"].values())
    assert account["on_source"] > account["on_target"] > 0
    return bool(account["complete"])


def test_the_report_stays_and_tells_the_whole_way(report: dict[str, Any], place: Path) -> None:
    """Its page and its JSON; both journals are as they were written."""
    assert report["ended"]["status"] == "COMPLETED"
    assert report["ended"]["report"] == str(place / "report" / "report.html")
    assert (place / "report" / "report.html").stat().st_size > 10_000
    told = json.loads((place / "report" / "report.json").read_text())
    assert told["summary"]["status"] == "COMPLETED"
    assert set(report["ended"]["journals"]) == {"target", "source"}
    assert min(report["ended"]["journals"].values()) > 0


def test_finish_leaves_nothing_behind_under_writers(report: dict[str, Any]) -> None:
    """No slot, publication, trigger or control schema but the source's fence."""
    assert report["ended"]["finished"]
    assert report["ended"]["removed"] > 0
    assert report["ended"]["left_behind"] == 0


def test_the_applier_stays_small(report: dict[str, Any]) -> None:
    """Below 300 MB resident, with large transactions in the stream."""
    assert 0 < report["rss_bytes"] < 300_000_000


def test_nothing_of_it_is_left(report: dict[str, Any], place: Path) -> None:
    """Neither a process, nor the stack's data, nor the backup."""
    assert not (place / "stack").exists()
    assert not (place / "backup").exists()
    left = [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(str(place) in word for word in process.info["cmdline"] or ())
    ]
    assert left == []
