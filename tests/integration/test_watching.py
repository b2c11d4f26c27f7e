"""Rules fire by their real conditions and not just below; what they ask for is done once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cdc_migrator.control import journal, migration, watch
from cdc_migrator.control.watch import Firing
from cdc_migrator.databases.postgres import fence
from cdc_migrator.errors import Failed
from cdc_migrator.monitor.metrics import Metrics
from cdc_migrator.service import watch_status
from cdc_migrator.service.watching import Watching
from tests.integration.watch_rig import (
    NAME,
    Prometheus,
    Site,
    Traffic,
    wait_for,
    watched_site,
)

LEVEL = {"kind": "sql", "name": "level", "statement": "SELECT value FROM public.level",
         "threshold": 10}  # fmt: skip


@pytest.fixture(scope="module")
def place() -> Iterator[Site]:
    with watched_site() as made:
        yield made


@pytest.fixture
def site(place: Site) -> Site:
    place.reset()
    return place


def put(conn: psycopg.Connection, level: float | None) -> None:
    conn.execute("UPDATE level SET value = %s", (level,))


def test_each_rule_fires_by_its_condition_and_not_just_below(site: Site, tmp_path: Path) -> None:
    """Those with exact numbers at once: first all are at their thresholds, then all beyond."""
    printed = tmp_path / "printed"
    printed.write_text("10\n")
    rules: list[dict[str, Any]] = [
        {"kind": "lag", "threshold": "30s", "for": "200ms"},
        {"kind": "mismatch", "threshold": 1},
        {"kind": "critical", "for": "200ms"},
        {**LEVEL, "for": "200ms"},
        {**LEVEL, "name": "low", "side": "source", "below": True, "for": "200ms"},
        {"kind": "command", "argv": ["cat", str(printed)], "threshold": 10, "for": "200ms"},
    ]
    with Prometheus() as prometheus:
        rules.append(
            {
                "kind": "prometheus",
                "url": prometheus.url,
                "query": "p95",
                "threshold": 10,
                "for": "200ms",
            }
        )
        prometheus.values["p95"] = [10.0]
        for conn in (site.on_source, site.on_target):
            put(conn, 10)
        site.find_difference()
        site.apply_back(29.0)
        site.open()
        with Watching(site.options(*rules), None):
            site.wait_for_turns(4)
            assert {row["state"] for row in site.shown().values()} == {"fine"}
            assert site.fired() == {}
            site.apply_back(31.0)
            site.on_source.execute("UPDATE cdc_migrator.difference SET key = '{\"id\": 2}'")
            site.find_difference()
            site.unfence()
            put(site.on_target, 10.001)
            put(site.on_source, 9.999)
            printed.write_text("10.001")
            prometheus.values["p95"] = [10.001]
            wait_for(lambda: len(site.fired()) == len(rules))
    fired = site.fired()
    assert fired["mismatch"].number == 2.0
    assert fired["critical"].evidence["unfenced"] == ["public.orders"]
    assert 30 < fired["lag"].number < 40
    assert (fired["low"].number, fired["low"].below) == (9.999, True)
    told = {one["rule"]: one for one in site.journal("watch-fired")}
    assert told["level"]["number"] == 10.001
    assert told["level"]["threshold"] == 10
    assert len(told) == len(rules), "each once"
    assert journal.verify(site.on_target).fault is None


def test_a_halted_stream_back_is_critical(site: Site) -> None:
    """With its code and cause; the fence is whole."""
    error = {"code": "CDCM-STREAM-GAP", "cause": "the log ends", "remedy": "x", "position": "p"}
    migration.update(site.on_source, "run-failed", last_error=error)
    site.open()
    with Watching(site.options({"kind": "critical", "for": 0}), None):
        wait_for(lambda: "critical" in site.fired())
    evidence = site.fired()["critical"].evidence
    assert evidence["halted"]["code"] == "CDCM-STREAM-GAP"
    assert evidence["unfenced"] == []


def test_a_fence_that_refuses_nobody_is_critical(site: Site) -> None:
    """Though every trigger is in its place."""
    site.on_source.execute(fence.define(fence.pass_all(NAME)))
    site.open()
    with Watching(site.options({"kind": "critical", "for": 0}), None):
        wait_for(lambda: "critical" in site.fired())
    assert site.fired()["critical"].evidence["unfenced"] == ["public.orders"]


def test_error_rate_and_latency_fire_by_real_traffic(site: Site) -> None:
    """One of 120 transactions in vain is below 1 %, one of 60 above; the latency is held against
    twice the source's baseline."""
    rules = [
        {"kind": "error_rate", "for": "500ms"},
        {"kind": "latency", "times_baseline": 2, "for": "500ms"},
    ]
    watch.keep_baseline(site.on_target, "source", "transactions", {"latency_mean_ms": 6.0}, 60.0)
    site.open()
    with Watching(site.options(*rules, every=0.5), None):
        with Traffic(site.target, batch=120):
            site.wait_for_turns(4)
            assert site.fired() == {}
            shown = site.shown()
            assert shown["latency"]["threshold"] == 12.0
            assert shown["error_rate"]["state"] == "fine", shown
            assert shown["latency"]["state"] == "fine", shown
        with Traffic(site.target, batch=60):
            wait_for(lambda: "error_rate" in site.fired())
        with Traffic(site.target, batch=4, sleep=0.06):
            wait_for(lambda: "latency" in site.fired())
    fired = site.fired()
    assert 0.01 < fired["error_rate"].number < 0.02
    assert fired["error_rate"].evidence["rollbacks"] > 0
    assert fired["latency"].evidence["kind"] == "transactions"


def test_without_a_baseline_the_latency_is_unknown(site: Site) -> None:
    """Not fine; and the reason is the next command."""
    site.open()
    with Traffic(site.target), Watching(site.options({"kind": "latency"}), None):
        wait_for(lambda: (site.shown().get("latency") or {}).get("number") is not None)
        row = site.shown()["latency"]
    assert row["state"] == "unknown"
    assert "baseline record" in row["why"]


def test_flapping_fires_nothing(site: Site, tmp_path: Path) -> None:
    """Beyond at every second look."""
    counted = tmp_path / "looks"
    script = f"echo x >> {counted}; [ $(($(wc -l < {counted}) % 2)) = 0 ] && echo 11 || echo 1"
    rule = {"kind": "command", "argv": ["sh", "-c", script], "threshold": 10, "for": "60ms"}
    site.open()
    with Watching(site.options(rule), None):
        wait_for(lambda: counted.exists() and counted.read_text().count("x") > 12)
        states = site.shown()["command"]["state"]
    assert states in ("fine", "pending")
    assert site.fired() == {}


class Back:
    """Goes back, as often as it is let; says what it saw."""

    def __init__(self, site: Site, failures: int = 0) -> None:
        self.site = site
        self.failures = failures
        self.calls: list[Firing] = []
        self.stored: list[Any] = []
        self.sessions: list[str] = []
        self.done = threading.Event()

    def __call__(self, firing: Firing) -> None:
        self.calls.append(firing)
        with psycopg.connect(self.site.target, autocommit=True) as conn:
            self.stored += conn.execute("SELECT rule, acted_at FROM cdc_migrator.watch_firing")
            self.sessions += [
                row[0]
                for row in conn.execute(
                    "SELECT state FROM pg_stat_activity WHERE application_name = %s",
                    (f"cdcm-{NAME}-watch",),
                )
            ]
        if len(self.calls) <= self.failures:
            raise Failed("CDCM-CUTOVER-TAKEN", "not now", "Again.")
        self.site.go_back()
        self.done.set()


def test_a_rollback_is_done_once_outside_of_any_transaction(site: Site) -> None:
    """After it was written down; a second rule that asks for it at the same time finds it done."""
    put(site.on_target, 11)
    site.open()
    back, metrics = Back(site), Metrics("shop", "1")
    rules = [{**LEVEL, "name": name, "for": 0, "action": "rollback"} for name in ("a", "b")]
    with Watching(site.options(*rules), back, metrics):
        assert back.done.wait(20)
        wait_for(lambda: "watch_state" not in metrics.render().decode())
    assert [one.rule for one in back.calls] == ["a"]
    assert {row[0] for row in back.stored} == {"a", "b"}
    assert back.sessions == ["idle"]
    fired = site.fired()
    assert fired["a"].acted_at is not None
    assert fired["b"].acted_at is None
    counted = {
        sample.labels["rule"]: sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.name == "cdc_migrator_watch_fired_total"
    }
    assert counted == {"a": 1, "b": 1}


def test_a_rollback_that_fails_is_tried_again_while_it_holds(site: Site) -> None:
    """For the one firing; the failure is shown and journalled, not each time."""
    put(site.on_target, 11)
    site.open()
    back = Back(site, failures=3)
    with Watching(site.options({**LEVEL, "for": 0, "action": "rollback"}), back):
        assert back.done.wait(20)
        wait_for(lambda: site.fired()["level"].acted_at is not None)
    assert len({one.id for one in back.calls}) == 1
    assert len(back.calls) == 4
    acted = site.journal("watch-acted")
    assert [one.get("error", {}).get("code") for one in acted] == ["CDCM-CUTOVER-TAKEN", None]
    assert site.fired()["level"].error is None


def test_it_is_not_tried_again_once_the_number_is_fine(site: Site) -> None:
    """And another process that takes over does not fire a second time for the same."""
    put(site.on_target, 11)
    site.open()
    rule = {**LEVEL, "for": "400ms", "action": "rollback"}
    with Watching(site.options(rule), None):
        wait_for(lambda: site.fired().get("level") is not None)
        wait_for(lambda: site.fired()["level"].error is not None)
    assert (site.fired()["level"].error or {})["code"] == "CDCM-WATCH-NO-WAY-BACK"
    back = Back(site)
    put(site.on_target, 1)
    with Watching(site.options(rule), back):
        wait_for(lambda: site.fired()["level"].cleared_at is not None)
        put(site.on_target, 11)
        assert back.done.wait(20)
    assert len(site.journal("watch-fired")) == 2, "it was fine between, so it fired anew"
    assert len(back.calls) == 1


def test_nothing_is_watched_while_the_source_is_open_or_the_target_settles(site: Site) -> None:
    """Whatever the numbers say."""
    put(site.on_target, 11)
    with Watching(site.options({**LEVEL, "for": 0}, settle=1.0), None):
        site.on_target.execute("SELECT pg_sleep(0.3)")
        assert site.shown() == {}
        site.open()
        site.wait_for_turns(2)
        assert site.fired() == {}
        assert watch_status.read(site.options(LEVEL))["settling"]
        wait_for(lambda: "level" in site.fired())
    document = watch_status.read(site.options({**LEVEL, "for": 0}))
    assert (document["open"], document["watching"]) == (True, True)
    assert document["rules"][0]["state"] == "fired"
    assert document["firings"][0]["number"] == 11.0


def test_a_target_that_is_away_is_unknown_and_watched_again(site: Site) -> None:
    """Nothing fires by its absence; what was beyond before goes on where it was."""
    put(site.on_target, 11)
    site.open()
    metrics = Metrics("shop", "1")
    there = site.target
    with Watching(site.options({**LEVEL, "for": "1s"}), None, metrics):
        wait_for(lambda: site.shown().get("level", {}).get("state") == "pending")
        site.target = "host=127.0.0.1 port=1 dbname=away"
        try:
            site.on_target.execute(
                "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            unknown = 'watch_state{migration="shop",rule="level",state="unknown"} 1.0'
            wait_for(lambda: unknown in metrics.render().decode())
            assert "watch_number" not in metrics.render().decode()
            site.on_target.execute("SELECT pg_sleep(0.5)")
            assert site.fired() == {}
        finally:
            site.target = there
        wait_for(lambda: "level" in site.fired())


def test_a_number_that_cannot_be_had_is_unknown_and_fires_nothing(site: Site) -> None:
    """Each kind says why; nothing that a query or program said is repeated."""
    put(site.on_target, None)
    sql = {"kind": "sql", "threshold": 0}
    command = {"kind": "command", "threshold": 0}
    site.open()
    with Prometheus() as prometheus:
        prometheus.values = {"none": [], "two": [1.0, 2.0], "nan": [float("nan")]}
        query = {"kind": "prometheus", "url": prometheus.url, "threshold": 0}
        rules = [
            {**sql, "name": "null", "statement": "SELECT value FROM public.level"},
            {**sql, "name": "text", "statement": "SELECT 'secret'"},
            {**sql, "name": "broken", "statement": "SELECT 'secret' FROM nowhere"},
            {**sql, "name": "write", "statement": "DELETE FROM public.level RETURNING 1"},
            {**sql, "name": "two-at-once", "statement": "COMMIT; DELETE FROM public.level"},
            {**sql, "name": "slow", "statement": "SELECT pg_sleep(9)", "timeout": "200ms"},
            {**command, "name": "word", "argv": ["echo", "12 secret"]},
            {**command, "name": "exit", "argv": ["sh", "-c", "echo 5; exit 3"]},
            {**command, "name": "hangs", "argv": ["sleep", "60"], "timeout": "200ms"},
            {**command, "name": "nowhere", "argv": ["/no/such/program"]},
            {**query, "name": "none", "query": "none"},
            {**query, "name": "two", "query": "two"},
            {**query, "name": "nan", "query": "nan"},
            {**query, "name": "away", "query": "x", "url": "http://127.0.0.1:1"},
        ]
        document = watch_status.read(site.options(*rules), now=True)
        prometheus.values = {"x": [5.0]}
        scalar = {**query, "query": "scalar(x)"}
        known = watch_status.read(site.options({**query, "name": "v", "query": "x"}, scalar), True)
    told = {row["rule"]: row["why"] for row in document["rules"]}
    assert {row["number"] for row in document["rules"]} == {None}
    assert {row["beyond"] for row in document["rules"]} == {None}
    assert "secret" not in str(told)
    assert "SQLSTATE 25006" in told["write"]
    assert "did not answer within 0.2 s" in told["slow"]
    assert "killed after 0.2 s" in told["hangs"]
    assert "exit code 3" in told["exit"]
    assert "gives 2 series" in told["two"]
    assert site.on_target.execute("SELECT count(*) FROM level").fetchone() == (1,)
    assert [row["number"] for row in known["rules"]] == [5.0, 2.25]
    assert [row["beyond"] for row in known["rules"]] == [True, True]
