"""The demo as a user runs it: the whole move, the kills, and the proof."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from cdc_migrator.demo.workload import ALL_KINDS
from tests.support.live import CLI

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


def test_every_kind_committed_at_every_stage(report: dict[str, Any]) -> None:
    """During the load, the stream, and between kill and restart, by the source's own counters."""
    assert set(report["committed"]) == {"load", "stream", "between kill and restart"}
    for counts in report["committed"].values():
        assert set(counts) == set(ALL_KINDS)
        assert min(counts.values()) > 0


def test_the_applier_stays_small(report: dict[str, Any]) -> None:
    """Below 300 MB resident, with large transactions in the stream."""
    assert 0 < report["rss_bytes"] < 300_000_000


def test_nothing_of_it_is_left(report: dict[str, Any], place: Path) -> None:
    """Neither a process nor the stack's data."""
    assert not (place / "stack").exists()
    left = [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(str(place) in word for word in process.info["cmdline"] or ())
    ]
    assert left == []
