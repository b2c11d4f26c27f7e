"""The connector's task really fails: what passes is tried again, the rest is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import yaml

from tests.integration import ground_rig as rig
from tests.support.live import LiveMigration, one, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.slow]
MIB = 1 << 20
# Debezium would go on by itself after a lost connection; a limit that a small row is beyond.
CONNECTOR = {"errors.max.retries": "0", "producer.override.max.request.size": str(MIB)}


@pytest.fixture
def live(
    stack: Any, source_db: str, target_db: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveMigration]:
    with psycopg.connect(source_db, autocommit=True) as conn:
        conn.execute("CREATE TABLE note (id int PRIMARY KEY, body text NOT NULL)")
        conn.execute("INSERT INTO note VALUES (1, 'first')")
    home = tmp_path_factory.mktemp("fails")
    settings = {"capture": {"connector": CONNECTOR}}
    live = LiveMigration(home, "fails", source_db, target_db, stack, settings)
    try:
        live.prepare()
        yield live
    finally:
        live.close()


def connector(live: LiveMigration) -> dict[str, Any]:
    return live.status()["connector"] or {}


def notes(dsn: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as conn:
        return conn.execute("SELECT id, md5(body) FROM note ORDER BY id").fetchall()


def restarts(live: LiveMigration) -> int:
    """How often `run` has started it."""
    return int(
        one(
            live.target,
            "SELECT count(*) FROM cdc_migrator.journal WHERE action = 'connector-restart' "
            "AND details ? 'attempt'",
        )
    )


def write(live: LiveMigration, *bodies: str) -> None:
    """Each in a transaction of its own."""
    with psycopg.connect(live.source, autocommit=True) as conn:
        for body in bodies:
            conn.execute("INSERT INTO note SELECT max(id) + 1, %s FROM note", (body,))


def test_a_connection_that_was_cut_is_tried_again(live: LiveMigration) -> None:
    """The task has failed; `run` starts it, and what was written meanwhile comes over."""
    with rig.running(live):
        with psycopg.connect(live.source, autocommit=True) as conn:
            conn.execute(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots "
                "WHERE slot_name = %s",
                (live.slot,),
            )
        write(live, "while it has failed")
        wait_for("run has started it again", lambda: restarts(live) == 1, 60)
        assert live.drain()
    assert notes(live.target) == notes(live.source)
    told = live.log()
    assert "connector-failed" in told
    assert "connector-restarted" in told


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_change_beyond_the_limit_is_told_and_not_left_out(live: LiveMigration) -> None:
    """A row larger than a record may be, and one behind it; the limit is raised at the third try.

    Connect takes half a minute to call such a task FAILED.
    """
    with rig.running(live):
        write(live, "x" * 2 * MIB, "behind it")
        failed = wait_for(
            "status tells why it has failed",
            lambda: there if (there := connector(live)).get("failure") else None,
            90,
            0.3,
        )
        assert "FAILED" in failed["tasks"]
        assert failed["failure"]["code"] == "CDCM-CONNECTOR-RECORD-SIZE"
        assert "producer.override.max.request.size" in failed["failure"]["cause"]
        assert f"to {4 * MIB} (4 MiB) or more" in failed["failure"]["remedy"]
        assert "CDCM-CONNECTOR-RECORD-SIZE" in live.cli("status").stdout
        # Typed without having raised anything it says the same, and still nothing is left out.
        again = live.cli("capture", "start", check=1)
        assert "CDCM-CONNECTOR-RECORD-SIZE" in again.stderr
        assert len(notes(live.target)) == 1

        document = yaml.safe_load(live.config.read_text())
        document["capture"]["connector"]["producer.override.max.request.size"] = str(4 * MIB)
        live.config.write_text(yaml.safe_dump(document))
        live.cli("capture", "start")
        assert live.drain()
        assert notes(live.target) == notes(live.source)
        assert restarts(live) == 0, "run has started it in vain"
        assert connector(live)["failure"] is None
    assert "connector-failed" in live.log()
