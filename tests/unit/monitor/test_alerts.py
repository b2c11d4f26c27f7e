"""Each alert rests on metrics that exist, has a page, and fires under its condition alone."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from cdc_migrator.model.changes import Op
from cdc_migrator.monitor.gauges import GAUGES, LABELLED
from cdc_migrator.monitor.metrics import PREFIX, Metrics
from tests.support.samples import WATCHED, streaming
from tests.support.tools import promtool

ROOT = Path(__file__).parents[3]
RULES = ROOT / "deploy" / "alerts" / "cdc-migrator.rules.yaml"
TESTS = sorted((RULES.parent / "tests").glob("*.yaml"))
PAGES = ROOT / "docs" / "runbooks"
CONFIGURATION = ROOT / "docs" / "configuration.md"
SECTIONS = ["## Meaning", "## Impact", "## Diagnose", "## Do"]
# Of a process, by the same exporter; of a machine, by node_exporter.
FOREIGN = {
    "process_start_time_seconds",
    "node_filesystem_avail_bytes",
    "node_filesystem_size_bytes",
}


def rules() -> list[dict[str, Any]]:
    """All rules of the file, recording rules included."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


def declared() -> set[str]:
    """Every name of a metric, or of a series of one, that the service can show."""
    metrics = Metrics("shop", "1")
    metrics.update(streaming())
    metrics.watched(WATCHED)
    metrics.batch_applied(0.1, 1, {("shop.orders", Op.INSERT): 1})
    families = list(text_string_to_metric_families(metrics.render().decode()))
    shown = {sample.name for family in families for sample in family.samples}
    named = {family.name for family in families if family.type == "histogram"}
    return shown | named | {PREFIX + gauge.name for gauge in (*GAUGES, *LABELLED)}


def test_every_rule_rests_on_metrics_that_exist() -> None:
    """A misspelt name would be an alert that never fires."""
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    known = declared() | recorded | FOREIGN
    for rule in rules():
        used = set(re.findall(r"\b(?:cdc_migrator|process|node)_?[a-z0-9_:]*\b", rule["expr"]))
        assert used, rule
        assert used <= known, rule


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_says_how_bad_it_is_and_where_to_read(name: str) -> None:
    """Severity, texts, and a page with the same severity and what to do."""
    alert = ALERTS[name]
    severity = alert["labels"]["severity"]
    assert name.startswith("CdcMigrator")
    assert severity in ("critical", "warning")
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert ROOT / alert["annotations"]["runbook_url"] == PAGES / f"{name}.md"
    lines = (PAGES / f"{name}.md").read_text().splitlines()
    assert lines[0] == f"# {name}"
    assert lines[2].startswith(f"**{severity}**: ")
    assert [line for line in lines if line.startswith("## ")] == SECTIONS


def test_the_pages_name_what_exists() -> None:
    """No page without its alert; metrics, settings and links of the pages are real."""
    assert {page.stem for page in PAGES.glob("*.md")} == set(ALERTS)
    settings = set(re.findall(r"^\| `([a-z_.]+)`", CONFIGURATION.read_text(), re.M))
    sections = {name.partition(".")[0] for name in settings}
    for page in PAGES.glob("*.md"):
        text = page.read_text()
        assert set(re.findall(r"\bcdc_migrator_[a-z_]+\b", text)) <= declared(), page.name
        for target in re.findall(r"\]\(([^)]+)\)", text):
            assert (page.parent / target).exists(), (page.name, target)
        for name in re.findall(r"`([a-z]+\.[a-z_]+)", text):
            assert name in settings or name.partition(".")[0] not in sections, (page.name, name)


def test_each_alert_is_tested_firing_and_silent() -> None:
    """With its labels and its texts as they reach a person."""
    firing, silent = set(), set()
    for path in TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            for case in test["alert_rule_test"]:
                (firing if case["exp_alerts"] else silent).add(case["alertname"])
    assert firing == silent == set(ALERTS)


def test_the_rules_are_valid_and_fire_as_their_tests_say() -> None:
    """By Prometheus' own program, which reads the rules as a server would."""
    program = promtool()
    for arguments in (["check", "rules", RULES], ["test", "rules", *TESTS]):
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
