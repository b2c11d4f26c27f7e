"""The service compares by itself, all the time, and the stream does not notice."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import psycopg
import pytest

from tests.faults import bank
from tests.support.fenced import let_in
from tests.support.live import LiveMigration, one, wait_for
from tests.support.stack import fresh_database

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(180)]

RUNS = "SELECT count(*) FROM cdc_migrator.reconcile_run WHERE mode = 'continuous'"


def test_the_service_finds_what_differs_while_the_application_writes(
    stack: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It shows it, gives way to a command, repairs nothing by itself, and stops at once."""
    with fresh_database(stack.source_dsn) as source, fresh_database(stack.target_dsn) as target:
        bank.create(source)
        with psycopg.connect(source, autocommit=True) as conn:
            conn.execute("CREATE TABLE bank.still AS SELECT n AS id FROM generate_series(1, 99) n")
            conn.execute("ALTER TABLE bank.still ADD PRIMARY KEY (id), ADD word text")
        settings = {"reconcile": {"continuous": True, "share": 0.5, "every": "300ms"}}
        live = LiveMigration(
            tmp_path_factory.mktemp("compare"), "compare", source, target, stack, settings
        )
        try:
            live.prepare()
            process = live.start("run")
            with bank.Bank(source, 100):
                wait_for("it has compared everything", lambda: one(target, EQUAL))
                with let_in(target) as conn:
                    conn.execute("UPDATE bank.still SET word = 'planted' WHERE id = 7")
                wait_for("it is found", lambda: one(target, OPEN) == 1)
                shown = live.status()
                assert shown["verified_as_of"] is not None
                assert shown["reconcile"]["open"] == 1
                assert any("1 rows differ" in reason for reason in shown["ready"]["reasons"])
                done = live.cli("reconcile", "-o", "json", "--mode", "incremental", check=1)
                (still,) = (t for t in json.loads(done.stdout)["tables"] if not t["equal"])
                assert [d["key"] for d in still["differences"]] == [{"id": "7"}]
                assert live.working()
                rounds = one(target, RUNS)
                wait_for("it goes on", lambda: one(target, RUNS) > rounds)
            live.drain()
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            assert process.wait(20) == 0
            assert time.monotonic() - began < 5
            assert "not-compared" not in live.log()
        finally:
            live.close()


OPEN = "SELECT count(*) FROM cdc_migrator.difference WHERE state = 'open'"
EQUAL = RUNS + " AND state = 'equal'"
