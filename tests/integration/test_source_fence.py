"""The source's fence under writers of every kind, through real Debezium and Kafka."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from cdc_migrator.control import schema
from cdc_migrator.cutover import fence
from cdc_migrator.cutover.fence import FenceOptions
from cdc_migrator.cutover.obstacles import Kind, obstacles
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Failed, Refused
from cdc_migrator.stack.local import StackInfo
from tests.faults import fencing
from tests.integration.capture_rig import Rig

pytestmark = pytest.mark.stack


@pytest.fixture
def role(source_db: str) -> object:
    with fencing.bank(source_db) as role:
        yield role


def test_nothing_changes_behind_a_fence(
    stack: StackInfo, source_db: str, target_db: str, tmp_path: Path, role: str
) -> None:
    """Eleven kinds of writers, among them two-phase commit, replica role and manual VACUUM."""
    rig = Rig(stack, source_db, target_db, tmp_path / "state")
    with psycopg.connect(target_db, autocommit=True) as conn:
        conn.execute(fencing.TARGET.encode())
    rig.start(tables=["bank.*"])
    try:
        with fencing.Writers(source_db, role, seed=1) as writers:
            done = fencing.fence_often(source_db, rig.names.migration, 25, 0.05, seed=1)
        fences, changes, behind = fencing.changes_behind_fences(
            stack.bootstrap_servers, rig.names.topic, source_db, rig.names.migration
        )
    finally:
        rig.abort()
    assert (fences, behind) == (25, 0)
    assert changes > 500
    assert set(writers.refused) == set(fencing.WRITERS) - {"vacuum"}
    assert set(writers.committed) == set(fencing.WRITERS)
    assert max(done.held) < 2000


@pytest.fixture
def prepared(source_db: str, role: str) -> tuple[str, list[fence.TableName]]:
    """A fenced database without capture: migration's control schema and triggers."""
    with connect(source_db, application_name="test") as conn:
        schema.ensure(conn, "source")
        return source_db, fence.prepare(conn, "m", fencing.TABLES, fencing.digest("secret"))


def test_who_does_not_go_by_himself_is_named_with_a_remedy(
    prepared: tuple[str, list[fence.TableName]],
) -> None:
    """A prepared transaction refuses the fence, and nothing is fenced."""
    dsn, tables = prepared
    with (
        psycopg.connect(dsn, autocommit=True) as writer,
        connect(dsn, application_name="test") as conn,
    ):
        writer.execute("BEGIN; UPDATE bank.account SET n = 1; PREPARE TRANSACTION 'stuck'")
        try:
            with pytest.raises(Refused) as refused:
                fence.raise_fence(conn, "m", tables, "a marker", FenceOptions(grace=0.1))
            assert refused.value.code == "CDCM-FENCE-OBSTACLE"
            assert "ROLLBACK PREPARED 'stuck'" in refused.value.remedy
            assert len(fence.holes(conn, fencing.TABLES)) == len(tables)
        finally:
            writer.execute("ROLLBACK PREPARED 'stuck'")
        assert fence.raise_fence(conn, "m", tables, "another marker").tries == 1
        fence.lower(conn, "m", tables, "another marker")


def test_long_writer_uses_up_the_budget_or_is_ended_where_that_is_allowed(
    prepared: tuple[str, list[fence.TableName]],
) -> None:
    """Nobody else waits longer than one try; the writer is named by its process."""
    dsn, tables = prepared
    short = FenceOptions(budget=0.5, first_lock=50)
    with psycopg.connect(dsn) as writer, connect(dsn, application_name="test") as conn:
        writer.execute("UPDATE bank.entry SET n = 1")
        found = obstacles(conn, tables)
        assert [(one.kind, one.pid) for one in found] == [(Kind.WRITER, writer.info.backend_pid)]
        with pytest.raises(Failed) as failed:
            fence.raise_fence(conn, "m", tables, "a marker", short)
        assert failed.value.code == "CDCM-FENCE-BUDGET"
        assert f"pid {writer.info.backend_pid}" in failed.value.cause
        with psycopg.connect(dsn) as other:
            other.execute("UPDATE bank.account SET n = 2")
        ended = fence.raise_fence(
            conn, "m", tables, "another", FenceOptions(0.5, 50, terminate=True)
        )
        assert ended.terminated == 1
        fence.lower(conn, "m", tables, "another")
        with pytest.raises(psycopg.OperationalError):
            writer.execute("SELECT 1")


def test_table_that_came_meanwhile_is_noticed(
    prepared: tuple[str, list[fence.TableName]],
) -> None:
    """A new partition has no trigger: the fence is refused; raised before it, a hole is told."""
    dsn, tables = prepared
    new = fence.TableName("bank", "part_3")
    with connect(dsn, application_name="test") as conn:
        conn.execute("CREATE TABLE bank.part_3 PARTITION OF bank.part FOR VALUES IN (3)")
        with pytest.raises(Failed) as failed:
            fence.raise_fence(conn, "m", tables, "a marker")
        assert failed.value.code == "CDCM-FENCE-CHANGED"
        assert "bank.part_3" in failed.value.cause
        again = fence.prepare(conn, "m", fencing.TABLES, fencing.digest("secret"))
        fence.raise_fence(conn, "m", again, "another")
        assert fence.holes(conn, fencing.TABLES) == []
        conn.execute("CREATE TABLE bank.part_4 PARTITION OF bank.part FOR VALUES IN (4)")
        assert fence.holes(conn, fencing.TABLES) == [fence.TableName("bank", "part_4")]
        assert new in again
        fence.lower(conn, "m", again, "another")
        assert conn.execute("SELECT kind FROM cdc_migrator.marker ORDER BY id").fetchall() == [
            ("fence",),
            ("unfence",),
        ]
