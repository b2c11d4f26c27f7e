"""The comparison finds what is wrong and nothing else, while the application writes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import psycopg
import pytest

from cdc_migrator.faultpoints import VARIABLE
from tests.faults.reconcile_kills import REBUILD, Fault, Kills
from tests.faults.reconciling import Reconciling
from tests.support.fenced import let_in
from tests.support.live import LiveMigration, one
from tests.support.stack import fresh_database

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def work(stack: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reconciling]:
    with (
        fresh_database(stack.source_dsn) as source,
        fresh_database(stack.target_dsn) as target,
        Reconciling(tmp_path_factory.mktemp("recon"), stack, source, target, 7) as work,
    ):
        yield work


@pytest.mark.long
def test_killed_on_the_way_nothing_is_lost_or_done_twice(work: Reconciling) -> None:
    """Every part is proven once with all its rows, no repair is carried out twice."""
    done = Kills(work, 7).strike(Fault(REBUILD, True, "rebuild.written", 5))
    assert done.kills == 1
    assert done.wrong == ()


def test_corruptions_are_found_and_repaired_under_writers(work: Reconciling) -> None:
    """Named to the column; before and after, nothing is reported."""
    for done in work.rounds(12):
        assert done.wrong == (), done
    assert work.settle() == []


# What the application does, and the table that then must differ.
WORKLOADS = {
    "drop": ("UPDATE proof.plain SET n = n + 1 WHERE id <= 3500", "proof.plain"),
    "swap": ("UPDATE proof.plain SET n = n + 1 WHERE id = 3000", "proof.plain"),
    "nulls": ("UPDATE proof.plain SET word = NULL WHERE id = 3001", "proof.plain"),
    "truncate": ("TRUNCATE bank.scratch", "bank.scratch"),
}


def test_a_broken_applier_is_caught(work: Reconciling) -> None:
    """One that drops an event in ten thousand, swaps columns, loses NULLs or a truncate."""
    work.rest()
    live = work.live
    for fault, (statement, table) in WORKLOADS.items():
        with psycopg.connect(live.source, autocommit=True) as conn:
            conn.execute("INSERT INTO bank.scratch VALUES (-1, 1) ON CONFLICT DO NOTHING")
            for _ in range(3 if fault == "drop" else 1):
                conn.execute(statement.encode())
        process = _run_broken(live, fault)
        try:
            live.drain()
            report = _reconcile(live)
            wrong = {one["table"] for one in report["tables"] if one["differences"]}
            assert wrong == {table}, (fault, wrong)
            assert _reconcile(live, "--repair")["equal"], fault
        finally:
            live.stop(process)
    assert one(live.target, "SELECT count(*) FROM cdc_migrator.repair") > 0


@pytest.mark.long
def test_half_of_a_key_change_is_healed(work: Reconciling) -> None:
    """The table is read again by the service itself, though it is killed on its way."""
    work.rest()
    live = work.live
    with psycopg.connect(live.source, autocommit=True) as conn:
        conn.execute("UPDATE proof.item SET id = -id WHERE id BETWEEN 4000 AND 4200")
        conn.execute("UPDATE proof.item SET id = -id WHERE id BETWEEN -4200 AND -4000")
        conn.execute("INSERT INTO bank.scratch VALUES (-1, 1) ON CONFLICT (id) DO NOTHING")
    process = _run_broken(live, "half", {VARIABLE: "load.chunk.copied:1:KILL"})
    try:
        assert process.wait(60) == -signal.SIGKILL
        process = live.start("run")
        live.drain()
        assert live.halted() is None, live.log("half.log")
        assert _reconcile(live)["equal"]
        read = "SELECT count(*) FROM cdc_migrator.journal WHERE action = 'tables-again'"
        assert one(live.target, read) > 0
    finally:
        live.stop(process)


@pytest.mark.long
def test_a_row_that_the_target_lost_does_not_end_the_stream(work: Reconciling) -> None:
    """Where the stream takes it away the table is read again, and the comparison finds nothing."""
    work.rest()
    live = work.live
    read = "SELECT count(*) FROM cdc_migrator.journal WHERE action = 'tables-again'"
    before = one(live.target, read)
    with let_in(live.target) as conn:
        conn.execute("DELETE FROM proof.plain WHERE id IN (3998, 3999)")
    with psycopg.connect(live.source, autocommit=True) as conn:
        conn.execute("DELETE FROM proof.plain WHERE id = 3999")
    process = live.start("run")
    try:
        live.drain()
        assert live.halted() is None, live.log()
        assert one(live.target, read) > before
        assert _reconcile(live)["equal"]
    finally:
        live.stop(process)


def _run_broken(
    live: LiveMigration, fault: str, env: Mapping[str, str] = MappingProxyType({})
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.faults.broken", fault, "--config", str(live.config)]
    with (live.directory / f"{fault}.log").open("ab") as out:
        process = subprocess.Popen(
            [*command, "run"], stdout=out, stderr=out, env={**os.environ, **env}
        )
    live.processes.append(process)
    return process


def _reconcile(live: LiveMigration, *arguments: str) -> dict[str, Any]:
    done = live.cli("reconcile", "-o", "json", *arguments, check=None)
    assert done.returncode in (0, 1), done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report
