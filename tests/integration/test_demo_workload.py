"""The demo's application on a real server: what it commits, counts, and how it ends."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import LiteralString

import psutil
import psycopg
import pytest
from psycopg import sql

from cdc_migrator.demo import shop
from cdc_migrator.demo.digest import digest
from cdc_migrator.demo.ledger import (
    BulkCommits,
    missing_kinds,
    read_by_writer,
    read_ledger,
    wait_for_every_kind,
)
from cdc_migrator.demo.report import held_against, together
from cdc_migrator.demo.returning import BREAK, MEND
from cdc_migrator.demo.workload import (
    ALL_KINDS,
    DSN_VARIABLE,
    Settings,
    Workload,
    WorkloadProcess,
)
from cdc_migrator.errors import Failed
from cdc_migrator.stack.local import StackInfo
from tests.support.live import one, wait_for
from tests.support.stack import fresh_database

SMALL = 0.02


@pytest.fixture(scope="module")
def shop_db(stack: StackInfo) -> Iterator[str]:
    """A small shop that the tests of this module share; none relies on its content."""
    with fresh_database(stack.source_dsn) as dsn:
        shop.create(dsn, SMALL)
        yield dsn


def grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """What the ledger counted between two readings."""
    return {k: after[k] - before.get(k, 0) for k in after if after[k] > before.get(k, 0)}


def test_every_kind_commits_within_seconds_and_is_counted(shop_db: str) -> None:
    """All kinds commit, nothing fails, the ledger agrees with what the writers say they did."""
    before = read_ledger(shop_db)
    with Workload(shop_db, Settings(bulk_every=1.0, bulk_seconds=0.2)) as workload:
        wait_for_every_kind(shop_db, before, ALL_KINDS, timeout=20, check=workload.check)
        time.sleep(3)
        summary = workload.stop()
    after = read_ledger(shop_db)
    assert missing_kinds(before, after, ALL_KINDS) == ()
    assert grown(before, after) == summary.committed
    assert summary.failure is None
    assert summary.per_second > 100


def test_writers_whose_connections_are_cut_go_on_and_know_what_they_committed(
    shop_db: str,
) -> None:
    """With a second side to go to, a lost connection is made anew; nothing is lost or strange."""
    cut = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE application_name LIKE 'cdc-migrator-demo writer%%' "
        "AND datname = current_database()"
    )
    before = read_by_writer(shop_db)
    with Workload(shop_db, Settings(bulk_seconds=0.2), target=shop_db) as workload:
        for _ in range(6):
            time.sleep(0.25)
            assert one(shop_db, cut) > 0
        counted = read_ledger(shop_db)
        wait_for_every_kind(shop_db, counted, ("insert", "update"), 20, workload.check)
        summary = workload.stop()
    assert summary.waits
    told = together(before, *summary.acknowledged.values())
    assert held_against(read_by_writer(shop_db), told, summary.unsure) == ((), ())


def test_a_second_run_with_the_same_seed_meets_nothing_of_the_first(shop_db: str) -> None:
    """New keys are new even though rows are chosen by the same chance."""
    for _ in range(2):
        before = read_ledger(shop_db)
        with Workload(shop_db, Settings(seed=7, bulk_every=1.0)) as workload:
            wait_for_every_kind(shop_db, before, ALL_KINDS, timeout=20, check=workload.check)


def test_foreign_keys_hold_after_the_writers(shop_db: str) -> None:
    """Every reference in the shop finds its row."""
    with Workload(shop_db, Settings(rate=600)):
        time.sleep(2)
    with psycopg.connect(shop_db) as conn:
        keys = conn.execute(
            "SELECT conrelid::regclass::text, confrelid::regclass::text, "
            "(SELECT attname FROM pg_attribute WHERE attrelid = conrelid AND attnum = conkey[1]), "
            "(SELECT attname FROM pg_attribute WHERE attrelid = confrelid AND attnum = confkey[1]) "
            "FROM pg_constraint WHERE contype = 'f' AND conparentid = 0 "
            "AND connamespace = 'shop'::regnamespace"
        ).fetchall()
        assert len(keys) > 15
        for child, parent, column, referenced in keys:
            (orphans,) = conn.execute(
                sql.SQL(
                    "SELECT count(*) FROM {} AS c WHERE c.{} IS NOT NULL "
                    "AND NOT EXISTS (SELECT FROM {} AS p WHERE p.{} = c.{})"
                ).format(
                    sql.SQL(child),
                    sql.Identifier(column),
                    sql.SQL(parent),
                    sql.Identifier(referenced),
                    sql.Identifier(column),
                )
            ).fetchall()[0]
            assert orphans == 0, f"{child}.{column} -> {parent}"


COUNTED = [
    ("keyless_insert", "SELECT count(*) FROM shop.audit_log", 1),
    ("keyless_duplicate", "SELECT count(*) FROM shop.audit_log", 1),
    ("keyless_delete", "SELECT count(*) FROM shop.audit_log", -1),
    ("order", "SELECT count(*) FROM shop.orders", 1),
    ("order", "SELECT count(*) FROM shop.payments", 1),
    ("savepoint", "SELECT count(*) FROM shop.customers", 1),
    ("savepoint", "SELECT count(*) FROM shop.sessions", 1),
    ("savepoint", "SELECT count(*) FROM shop.orders", 0),
    ("toast_unchanged", "SELECT sum(helpful) FROM shop.reviews", 1),
    ("key_chain", "SELECT count(*) FROM shop.shelf_places", 0),
    ("partition_move", "SELECT count(*) FROM shop.events", 0),
]


@pytest.mark.parametrize(("kind", "measure", "each"), COUNTED)
def test_the_ledger_counts_what_happened(shop_db: str, kind: str, measure: str, each: int) -> None:
    """The tables have grown by what the ledger says was committed, to the row."""
    before, counted = one(shop_db, measure), read_ledger(shop_db).get(kind, 0)
    with Workload(shop_db, Settings(kinds=(kind,))):
        wait_for(kind, lambda: read_ledger(shop_db).get(kind, 0) > counted + 20)
    committed = read_ledger(shop_db)[kind] - counted
    assert one(shop_db, measure) - before == each * committed


def test_a_rolled_back_transaction_leaves_nothing_but_its_count(shop_db: str) -> None:
    """After writers that only roll back, every table digests as it did before."""
    before = digest(shop_db, "shop")
    counted = read_ledger(shop_db)
    with Workload(shop_db, Settings(kinds=("rollback",))) as workload:
        wait_for_every_kind(shop_db, counted, ("rollback",), 10, workload.check)
    assert digest(shop_db, "shop") == before


def test_what_the_database_says_no_to_fails_and_the_rest_goes_on(shop_db: str) -> None:
    """Under the function that the demo breaks the target with, orders fail and updates commit."""
    run(shop_db, BREAK)
    try:
        before = read_ledger(shop_db)
        with Workload(shop_db, Settings(kinds=("order", "update"))) as workload:
            enough = before.get("update", 0) + 50
            wait_for("updates", lambda: read_ledger(shop_db).get("update", 0) > enough)
            summary = workload.stop()
    finally:
        run(shop_db, MEND)
    assert summary.failure is None
    assert set(summary.failed) == {"order"}
    assert grown(before, read_ledger(shop_db)) == summary.committed
    assert set(summary.committed) == {"update"}


def run(dsn: str, statements: tuple[LiteralString, ...]) -> None:
    with psycopg.connect(dsn) as conn:
        for statement in statements:
            conn.execute(statement)


def test_swaps_keep_the_set_of_values(shop_db: str) -> None:
    """Swaps of keys, ranks and seats change who has which value and never the values."""
    kinds = ("key_swap", "unique_swap", "unique_steps")
    values = (
        "SELECT (SELECT array_agg(code ORDER BY code) FROM shop.coupons)::text || "
        "(SELECT array_agg(display_rank ORDER BY display_rank) FROM shop.products)::text || "
        "(SELECT array_agg((workshop, seat) ORDER BY workshop, seat) "
        "FROM shop.workshop_seats)::text"
    )
    content, held = digest(shop_db, "shop"), one(shop_db, values)
    before = read_ledger(shop_db)
    with Workload(shop_db, Settings(kinds=kinds)) as workload:
        wait_for_every_kind(shop_db, before, kinds, 10, workload.check)
    assert one(shop_db, values) == held
    changed = {table for table, now in digest(shop_db, "shop").items() if now != content[table]}
    assert changed >= {"shop.coupons", "shop.products", "shop.workshop_seats"}


def test_long_texts_are_stored_out_of_line_and_left_alone(shop_db: str) -> None:
    """What the unchanged-TOAST kind updates has its text out of line, and the text stays."""
    stored = (
        "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE oid = 'shop.reviews'::regclass"
    )
    texts = "SELECT md5(string_agg(body, '' ORDER BY id)) FROM shop.reviews"
    size, content = one(shop_db, stored), one(shop_db, texts)
    before = read_ledger(shop_db)
    with Workload(shop_db, Settings(kinds=("toast_unchanged",))) as workload:
        wait_for_every_kind(shop_db, before, ("toast_unchanged",), 10, workload.check)
    assert size > one(shop_db, "SELECT sum(length(body)) FROM shop.reviews")
    assert (one(shop_db, stored), one(shop_db, texts)) == (size, content)


def test_small_transactions_commit_while_a_large_one_is_open(shop_db: str) -> None:
    """The large transaction stays open as long as told, beside hundreds of small commits."""
    settings = Settings(kinds=("update", "bulk"), writers=2, bulk_rows=6000, bulk_seconds=1.5)
    before = read_ledger(shop_db)
    began = "SELECT pg_current_xact_id()::text"
    with BulkCommits(shop_db) as commits, Workload(shop_db, settings):
        first = int(one(shop_db, began))
        large = commits.wait(20)
    after = read_ledger(shop_db)
    assert large is not None
    # Its id was given out at its start: what is above it began, and what is counted ended, later.
    assert large - first < 100
    assert grown(before, after)["bulk"] == 1
    assert grown(before, after)["update"] > 200


def test_a_large_transaction_has_every_kind_of_change(shop_db: str) -> None:
    """It inserts, updates, changes keys and deletes about as many rows as it was told to."""
    settings = Settings(kinds=("bulk",), bulk_rows=3000, bulk_seconds=0, bulk_every=60)
    for _ in range(2):
        counted = read_ledger(shop_db)
        with Workload(shop_db, settings) as workload:
            wait_for_every_kind(shop_db, counted, ("bulk",), 10, workload.check)
    with psycopg.connect(shop_db) as conn:
        (old, keys_moved, repriced), (new, *untouched) = conn.execute(
            "SELECT count(*), count(*) FILTER (WHERE line > 1000000), "
            "count(*) FILTER (WHERE line < 1000000 AND price > line / 100.0) "
            "FROM shop.import_lines GROUP BY batch ORDER BY batch"
        ).fetchall()
        (noted,) = conn.execute(
            "SELECT count(DISTINCT action) FROM shop.audit_log WHERE actor = 'import'"
        ).fetchall()[0]
    assert (old, keys_moved, repriced) == (1000, 2, 598)
    assert (new, untouched) == (1000, [0, 0])
    assert noted == 2


def test_writers_that_wait_for_a_lock_are_seen_and_still_stop(shop_db: str) -> None:
    """A writer without a commit for too long is an error; stopping does not wait for the lock."""
    settings = Settings(kinds=("bulk",), stall_seconds=0.5, bulk_seconds=0, bulk_every=0.1)
    with psycopg.connect(shop_db) as conn:
        conn.execute("LOCK TABLE shop.import_lines")
        workload = Workload(shop_db, settings)
        workload.start()

        def stands_still() -> str | None:
            try:
                workload.check()
            except Failed as error:
                return error.cause
            return None

        assert "committed nothing" in wait_for("stall", stands_still, 10)
        began = time.monotonic()
        summary = workload.stop()
        assert time.monotonic() - began < 3
        assert summary.committed == {}
        conn.rollback()


def test_an_error_that_is_no_lost_race_ends_the_workload(source_db: str) -> None:
    """A missing table is reported with its SQLSTATE, and all writers stop."""
    shop.create(source_db, SMALL)
    with psycopg.connect(source_db) as conn:
        conn.execute("ALTER TABLE shop.audit_log RENAME TO gone")
    with (
        pytest.raises(Failed, match=r"UndefinedTable \(SQLSTATE 42P01\)"),
        Workload(source_db) as work,
    ):
        wait_for("failure", lambda: work.stop() if work.failed else None, 10)


def test_without_a_shop_it_says_so(source_db: str) -> None:
    """An empty database is a coded error, not a traceback."""
    with pytest.raises(Failed, match="cannot be read") as failed:
        Workload(source_db).start()
    assert failed.value.code == "CDCM-DEMO-WORKLOAD"


class TestProgram:
    """The same application as a process of its own."""

    def test_it_ends_soon_with_a_summary_that_agrees_with_the_ledger(
        self, shop_db: str, tmp_path: Path
    ) -> None:
        """SIGTERM lets open transactions finish; the password is not among its arguments."""
        before = read_ledger(shop_db)
        with WorkloadProcess(shop_db, Settings(), tmp_path / "log") as workload:
            wait_for_every_kind(shop_db, before, ALL_KINDS, 20, workload.check)
            arguments = psutil.Process(workload.pid).cmdline()
            began = time.monotonic()
            summary = workload.stop()
            assert time.monotonic() - began < 2
        assert summary.committed == grown(before, read_ledger(shop_db))
        assert not [a for a in arguments if "postgres" in a]
        assert not psutil.pid_exists(workload.pid)

    def test_a_killed_one_is_noticed(self, shop_db: str, tmp_path: Path) -> None:
        """A process that ended by itself is an error at the next check and at the stop."""
        before = read_ledger(shop_db)
        with WorkloadProcess(shop_db, Settings(), tmp_path / "log") as workload:
            wait_for_every_kind(shop_db, before, ("insert",), 20, workload.check)
            psutil.Process(workload.pid).kill()

            def noticed() -> bool:
                try:
                    workload.check()
                except Failed:
                    return True
                return False

            wait_for("notice", noticed, 10)
            with pytest.raises(Failed, match="without a summary"):
                workload.stop()

    def test_it_ends_with_the_process_that_started_it(self, shop_db: str, tmp_path: Path) -> None:
        """A demo that is killed leaves no writers behind."""
        script = (
            "import os, sys, pathlib; from cdc_migrator.demo.workload import *;"
            f"dsn = os.environ[{DSN_VARIABLE!r}];"
            "w = WorkloadProcess(dsn, Settings(), pathlib.Path(sys.argv[1]));"
            "print(w.pid, flush=True); os._exit(0)"
        )
        started = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "log")],
            env={DSN_VARIABLE: shop_db},
            capture_output=True,
            check=True,
            timeout=30,
        )
        pid = int(started.stdout)
        wait_for("end of the orphan", lambda: not psutil.pid_exists(pid) or _ended(pid), 15)


def _ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
