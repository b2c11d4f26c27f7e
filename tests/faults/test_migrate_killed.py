"""`migrate` may be killed in any phase: the same command goes on and skips what is done."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from cdc_migrator.demo import shop
from cdc_migrator.demo.digest import compare, digest_both
from cdc_migrator.demo.workload import Settings, WorkloadProcess
from tests.support.live import LiveMigration, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(300)]

NAME = "killed"
WRITERS = Settings(writers=3, rate=100, bulk_rows=2_000, bulk_seconds=0.3, bulk_every=2.0)
# The writers truncate these: each time that happens they are read anew.
TRUNCATED = ("session_cache", "session_cache_hits")
SETTINGS = {
    "tables": {"include": ["shop.*"]},
    "load": {"workers": 2, "chunk_bytes": "1MiB", "freeze_bytes": 0},
}


class Steps:
    """A migration whose steps are held up by locks, so that a kill hits the one that it means."""

    def __init__(self, migration: LiveMigration) -> None:
        self.migration = migration
        self._stack = ExitStack()
        self._source = self._session(migration.source)
        self._target = self._session(migration.target)
        self._count = 0

    def _session(self, dsn: str) -> psycopg.Connection:
        return self._stack.enter_context(psycopg.connect(dsn, autocommit=True))

    def close(self) -> None:
        self._stack.close()
        self.migration.close()

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        self._count += 1
        self._latest = self.migration.start("migrate", *options, log=f"migrate-{self._count}.log")
        return self._latest

    def log(self) -> str:
        """Of the latest process."""
        return self.migration.log(f"migrate-{self._count}.log")

    def wait(self, what: str, condition: Callable[[], Any], every: float = 0.05) -> Any:
        """Wait for what the latest process brings about, as long as it runs."""

        def holds() -> Any:
            value = condition()
            assert value or self._latest.poll() is None, f"it ended before {what}\n{self.log()}"
            return value

        return wait_for(what, holds, 90, every)

    def block(self, dsn: str, statement: str) -> psycopg.Connection:
        """Hold what `statement` takes until the connection returned is closed."""
        conn = self._stack.enter_context(psycopg.connect(dsn))
        conn.execute(statement.encode())
        return conn

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self._target.execute(query.encode(), parameters).fetchall()

    def phase(self) -> str | None:
        try:
            found = self.rows("SELECT phase FROM cdc_migrator.migration")
        except psycopg.errors.UndefinedTable:
            return None
        return found[0][0] if found else None

    def waiting(self, what: str, side: str = "target") -> set[int]:
        """The sessions of one kind that somebody else's transaction holds up."""
        conn = self._source if side == "source" else self._target
        rows = conn.execute(
            "SELECT pid FROM pg_stat_activity WHERE starts_with(application_name, %s) "
            "AND datname = current_database() AND wait_event_type = 'Lock' "
            "AND wait_event <> 'extend'",  # of two that write into one file
            (f"cdcm-{NAME}-{what}",),
        )
        return {row[0] for row in rows}

    def held_up(self, phase: str, what: str, side: str = "target") -> set[int]:
        """Wait until the migration is in `phase` ("one or another") with sessions held up.

        Returns these.
        """

        def there() -> set[int]:
            return self.waiting(what, side) if self.phase() in phase.split(" or ") else set()

        found: set[int] = self.wait(f"{what} was held up in the phase {phase}", there, 0.02)
        return found

    def replaced(self, left: set[int]) -> None:
        """Wait until the tools that a killed process left behind are gone and new ones wait."""

        def others() -> bool:
            now = self.waiting("schema")
            return bool(now) and not now & left

        self.wait("the tools left behind were replaced", others)

    def chunks(self) -> dict[tuple[str, int], Any]:
        """When each chunk was done, None for those to come."""
        return {
            (table, chunk): at
            for table, chunk, at in self.rows(
                "SELECT source_table, chunk, done_at FROM cdc_migrator.backfill_chunk"
            )
        }

    def copying(self) -> bool:
        """Whether rows of a chunk are on their way, with chunks done and chunks to come."""
        times = self.chunks().values()
        return (
            any(times)
            and None in times
            and bool(
                self.rows(
                    "SELECT FROM pg_stat_progress_copy WHERE tuples_processed > 0 "
                    "AND datname = current_database()"
                )
            )
        )

    def attempts(self) -> dict[str, tuple[str, int]]:
        """How each table stands in the load, and how often it was read anew."""
        return {
            table: (state, attempt)
            for table, state, attempt in self.rows(
                "SELECT source_table, load_state, attempt FROM cdc_migrator.table_progress"
            )
        }

    def journal(self, action: str) -> list[dict[str, Any]]:
        return [
            details
            for (details,) in self.rows(
                "SELECT details FROM cdc_migrator.journal WHERE action = %s ORDER BY id", action
            )
        ]

    def holder(self) -> psutil.Process:
        """The snapshot holder, which is alive."""
        ((pid,),) = self.rows("SELECT snapshot_holder_pid FROM cdc_migrator.migration")
        process = psutil.Process(pid)
        assert "cdc_migrator.capture.holder" in process.cmdline()
        return process

    def keys(self) -> tuple[int, int]:
        """Foreign keys of the shop on the source and on the target."""
        query = (
            "SELECT count(*) FROM pg_constraint WHERE contype = 'f' "
            "AND connamespace = 'shop'::regnamespace"
        )
        counts = [conn.execute(query).fetchone() for conn in (self._source, self._target)]
        return counts[0][0], counts[1][0]  # type: ignore[index]

    def assert_equal(self) -> None:
        assert self.migration.drain(), self.migration.halted()
        lines = compare(*digest_both(self.migration.source, self.migration.target, shop.SCHEMA))
        assert sum(line.source.rows for line in lines if line.source) > 50_000
        assert [line.table for line in lines if not line.equal] == []


@pytest.fixture
def steps(stack: Any, source_db: str, target_db: str, tmp_path: Path) -> Iterator[Steps]:
    shop.create(source_db, 0.3)
    steps = Steps(LiveMigration(tmp_path, NAME, source_db, target_db, stack, SETTINGS))
    try:
        yield steps
    finally:
        steps.close()


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for this process alone: what it has started goes on."""
    process.send_signal(signal.SIGKILL)
    process.wait()


def writing(migration: LiveMigration) -> WorkloadProcess:
    return WorkloadProcess(migration.source, WRITERS, migration.directory / "workload.log")


def test_killed_in_every_phase_it_goes_on_and_ends_equal(steps: Steps) -> None:
    """One kill in each phase, under writers: five starts do each step once, and nothing twice."""
    source, target = steps.migration.source, steps.migration.target
    with writing(steps.migration) as workload:
        # schema: pg_restore waits for somebody else who is making the same schema.
        making = steps.block(target, "CREATE SCHEMA shop")
        process = steps.start("--no-run")
        left = steps.held_up("schema", "schema")
        kill(process)
        process = steps.start("--no-run")
        steps.replaced(left)
        writing_on = steps.block(source, "SELECT pg_current_xact_id()")
        making.close()

        # capture: the slot waits for a transaction that was open before it.
        steps.held_up("capture", "holder", "source")
        kill(process)
        assert steps.waiting("holder", "source"), "the holder goes on"
        tables = steps.rows("SELECT source_table FROM cdc_migrator.table_progress")
        reading = steps.block(target, 'LOCK TABLE shop."GiftCards" IN ACCESS SHARE MODE')
        process = steps.start("--no-run")
        writing_on.close()

        # load: some chunks are done, others under way, and one table cannot be copied yet.
        steps.wait("rows were on their way", steps.copying, 0.005)
        kill(process)
        holder = steps.holder()
        early = {chunk: at for chunk, at in steps.chunks().items() if at is not None}
        assert 0 < len(early) < len(steps.chunks())
        early = {chunk: at for chunk, at in early.items() if chunk[0] not in TRUNCATED}
        writing_to = steps.block(target, "LOCK TABLE shop.orders IN ROW EXCLUSIVE MODE")
        process = steps.start("--no-run")
        reading.close()

        # indexes: a table is written to, so its primary key must wait, beside the load or after it.
        left = steps.held_up("load or indexes", "schema")
        wait_for("the holder ends", lambda: not holder.is_running(), 10)
        kill(process)
        process = steps.start("--no-run")
        steps.replaced(left)
        writing_to.close()
        assert process.wait(90) == 0, steps.log()

        assert steps.phase() == "stream"
        phases = [details["phase"] for details in steps.journal("phase")]
        assert phases == ["schema", "capture", "load", "indexes", "stream"]
        assert len(steps.journal("slot-created")) == 1
        assert len(steps.journal("connector-create")) == 1
        chunks = steps.chunks()
        assert {chunk: chunks[chunk] for chunk in early} == early
        attempts = steps.attempts()
        assert {attempts.pop(table)[0] for table in TRUNCATED} == {"loaded"}
        assert set(attempts.values()) == {("loaded", 0)}
        assert len(attempts) + len(TRUNCATED) == len(tables)

        entries = steps.rows("SELECT max(id) FROM cdc_migrator.journal")
        steps.migration.prepare()
        assert steps.rows("SELECT max(id) FROM cdc_migrator.journal") == entries

        run = steps.migration.start("run")
        wait_for("the stream goes on", steps.migration.working, 60)
        workload.stop()
    steps.assert_equal()
    # Those that had to wait for the stream, because of the truncated tables.
    steps.migration.cli("schema", "apply", "post-data")
    keys = steps.keys()
    assert keys[0] == keys[1] > 20
    assert steps.migration.stop(run) == 0


def test_snapshot_lost_in_the_middle_of_the_load(steps: Steps) -> None:
    """With its holder killed, tables not yet copied are read under a later snapshot; all equal."""
    target = steps.migration.target

    with writing(steps.migration) as workload:
        steps.migration.cli("schema", "apply", "pre-data")
        # Both workers are held up in tables of middle size, between the large and the small ones,
        # which begin with TRUNCATE.
        held = "LOCK TABLE shop.sessions, shop.inventory IN ACCESS SHARE MODE"
        reading = steps.block(target, held)
        migrate = steps.start()
        steps.wait("both workers were held up", lambda: len(steps.waiting("load")) == 2)
        steps.holder().kill()
        early = {table for table, (state, _) in steps.attempts().items() if state == "loaded"}
        early |= {"sessions", "inventory"}  # their readers have entered the snapshot already
        reading.close()
        steps.wait("the stream", lambda: steps.phase() == "stream")
        attempts = steps.attempts()
        assert {attempts[table] for table in early} == {("loaded", 0)}
        anew = {table for table, (_, attempt) in attempts.items() if attempt}
        assert anew == attempts.keys() - early
        assert {"reviews", "orders"} <= early
        assert {"GiftCards", "tags"} <= anew
        wait_for("the stream goes on", steps.migration.working, 60)
        workload.stop()
    steps.assert_equal()
    wait_for("all foreign keys are made", lambda: len(set(steps.keys())) == 1, 30)
    assert steps.migration.stop(migrate) == 0
