"""A source that has counted more than four billion transactions: its ids do not fit the events."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.faults import alignment, bank
from tests.support.live import LISTENS, LiveMigration, one, wait_for
from tests.support.private_postgres import aged_server
from tests.support.stack import fresh_database

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(300)]
EPOCH = 3


@pytest.fixture(scope="module")
def live(stack: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveMigration]:
    """The bank on such a source, loaded."""
    with (
        aged_server(EPOCH) as server,
        fresh_database(server) as source,
        fresh_database(stack.target_dsn) as target,
    ):
        alignment.create(source)
        live = LiveMigration(tmp_path_factory.mktemp("aged"), "aged", source, target, stack)
        try:
            live.prepare()
            yield live
        finally:
            live.close()


@contextmanager
def running(live: LiveMigration, *command: str) -> Iterator[None]:
    with (live.directory / "run.log").open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--config", str(live.config), "run"],
            stdout=out,
            stderr=out,
            env=os.environ,
        )
    live.processes.append(process)
    try:
        wait_for("the service listens", lambda: one(live.target, LISTENS))
        yield
    finally:
        live.stop(process)


def test_points_are_exact_there(live: LiveMigration) -> None:
    """And they would not be if ids were compared as the events have them."""
    current = one(live.source, "SELECT pg_current_xact_id()::text::numeric")
    assert int(current) >> 32 == EPOCH
    with bank.Bank(live.source, 300), alignment.LongWriters(live.source, (0.01, 0.1)):
        with running(live, "cdc_migrator.cli.main"):
            exact = alignment.align_often(live.source, live.target, 8, pause=0.0)
        with running(live, "tests.faults.broken", "narrow"):
            wait_for("a false alarm", lambda: _alarms(live))
    assert (exact.aligned, exact.false_alarms) == (8, []), str(exact)


def _alarms(live: LiveMigration) -> bool:
    return bool(alignment.align_often(live.source, live.target, 1, pause=0.0).false_alarms)
