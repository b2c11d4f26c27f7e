"""Baselines are made of what a server has counted, and compare both sides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from cdc_migrator.cli.main import main
from cdc_migrator.control import migration, schema
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.monitor import traffic
from tests.integration.watch_rig import NAME, Traffic
from tests.support.private_postgres import counting_server, private_database


def test_statements_of_others_are_counted_apart_from_ours() -> None:
    """Where the server counts statements, the latency is that of a statement; sessions of ours
    count only where our role is also somebody else's."""
    with counting_server() as dsn, psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("CREATE EXTENSION pg_stat_statements")
        admin.execute("CREATE ROLE app LOGIN SUPERUSER PASSWORD 'app'")
        admin.close()
        with (
            connect(dsn, application_name="cdc-migrator test") as conn,
            psycopg.connect(dsn, user="app", password="app", autocommit=True) as app,
        ):
            first = traffic.read(conn)
            for _ in range(20):
                app.execute("SELECT pg_sleep(0.01)")
            conn.execute("SELECT pg_sleep(0.5)")
            second = traffic.read(conn)
            found = traffic.between(first, second)
            assert found is not None
            assert (found.kind, found.calls) == ("statements", 20)
            assert found.latency_ms is not None
            assert 10.0 <= found.latency_ms < 40.0
            with psycopg.connect(dsn, application_name="shop"):
                third = traffic.read(conn)
            shared = traffic.between(first, third)
            assert shared is not None
            assert shared.calls is not None
            assert shared.calls > 20
            app.execute("SELECT pg_stat_statements_reset()")
            again = traffic.between(third, traffic.read(conn))
            assert again is not None
            assert again.latency_ms is None, "set back"


class Typed:
    """What a command has printed, and how it ended."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *words: str) -> None:
        with pytest.raises(SystemExit) as ended:
            main([*words, "-o", "json"])
        self.code = ended.value.code or 0
        captured = capsys.readouterr()
        self.document: dict[str, Any] = json.loads(captured.out or captured.err)


def test_both_sides_are_recorded_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A target that is three times as slow is found; without its baseline nothing is said."""
    with private_database() as source, private_database() as target:
        with psycopg.connect(target, autocommit=True) as conn:
            schema.ensure(conn, "target")
            migration.create(conn, NAME)
        (tmp_path / "migration.yaml").write_text(
            yaml.safe_dump({"name": NAME, "source": {"dsn": source}, "target": {"dsn": target}})
        )
        monkeypatch.chdir(tmp_path)
        with Traffic(source, batch=20, sleep=0.01):
            made = Typed(capsys, "baseline", "record", "--window", "2s")
        assert made.code == 0
        numbers = made.document["numbers"]
        assert 5.0 < numbers["latency_mean_ms"] < 30.0, "ours are shorter"
        assert numbers["latency_p50_ms"] <= numbers["latency_p99_ms"]
        assert 20 < numbers["throughput_per_second"] < 110
        assert 0.03 < numbers["error_rate"] < 0.06
        lacking = Typed(capsys, "baseline", "compare")
        assert (lacking.code, lacking.document["error"]["code"]) == (3, "CDCM-BASELINE-MISSING")
        with Traffic(target, batch=10, sleep=0.03):
            Typed(capsys, "baseline", "record", "--side", "target", "--window", "2s")
        worse = Typed(capsys, "baseline", "compare")
        assert (worse.code, worse.document["within"]) == (1, False)
        changes = {one["number"]: one["change"] for one in worse.document["numbers"]}
        assert changes["latency_mean_ms"] > 1.0
        assert changes["throughput_per_second"] < -0.3
        assert Typed(capsys, "baseline", "compare", "--tolerance", "2000%").code == 0
        listed = Typed(capsys, "baseline", "list").document["baselines"]
        assert [one["side"] for one in listed] == ["target", "source"]
        rules = Typed(capsys, "watch", "list").document
        assert (rules["open"], len(rules["rules"])) == (False, 5)
