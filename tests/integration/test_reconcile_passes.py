"""A pass is resumed where it was, reads again what moved, and keeps account of what differs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from cdc_migrator.control import locks, progress
from cdc_migrator.control import reconcile as store
from cdc_migrator.errors import ConfigurationError, Failed, Refused
from cdc_migrator.model.alignment import Aligned, Repair
from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile.options import BEHIND_SHARE, PassOptions
from cdc_migrator.reconcile.pace import Pace
from cdc_migrator.service import reconcile
from cdc_migrator.service.reconcile_report import Report
from tests.integration.reconcile_rig import NAME, QuietAligner, World, one, world

ROWS = 6_000
# Autovacuum would lock the large table at a moment of its own choosing.
TWO = f"""
CREATE TABLE public.big (id bigint PRIMARY KEY, v text) WITH (autovacuum_enabled = off);
INSERT INTO public.big SELECT n, 'v' || n FROM generate_series(1, {ROWS}) n;
CREATE TABLE public.little (id int PRIMARY KEY, v text);
INSERT INTO public.little SELECT n, 'v' || n FROM generate_series(1, 300) n;
ANALYZE;
"""
BIG = TableName("public", "big")


@pytest.fixture
def two() -> Iterator[World]:
    with world(TWO) as made:
        yield made


def chunks(made: World) -> list[tuple[int, bool, int | None, str | None]]:
    """Number, done, rows and snapshot of the large table's parts in the latest run."""
    return made.target.execute(
        "SELECT chunk, done, rows, proven_at::text FROM cdc_migrator.reconcile_chunk "
        "WHERE source_table = 'big' AND run = (SELECT max(id) FROM cdc_migrator.reconcile_run) "
        "ORDER BY 1"
    ).fetchall()


RUN = """
import sys
from cdc_migrator.service.reconcile import ReconcileOptions, run
from cdc_migrator.reconcile.options import PassOptions
from tests.integration.reconcile_rig import NAME, SMALL, QuietAligner
source, target = sys.argv[1:]
work = PassOptions(workers=1, share=0.02, sizes=SMALL)
run(ReconcileOptions(NAME, source, target, work=work), QuietAligner(source, target))
"""


def resumed(made: World) -> Report:
    """The run goes on as soon as the server has noticed that its process is gone."""
    until = time.monotonic() + 30
    while locked(made):
        assert time.monotonic() < until
        time.sleep(0.05)
    return made.run(resume=True)


def locked(made: World) -> bool:
    """Whether a session still has the lock of those who compare."""
    taken = locks.try_lock(made.target, locks.Role.RECONCILE)
    if taken:
        locks.unlock(made.target, locks.Role.RECONCILE)
    return not taken


def test_a_killed_run_goes_on_with_what_is_not_done(two: World) -> None:
    """What was proven keeps its moment; no part is lost, none is counted twice."""
    two.target.execute("UPDATE public.big SET v = 'x' WHERE id IN (5, 5995)")
    child = subprocess.Popen([sys.executable, "-c", RUN, two.source_dsn, two.target_dsn])
    try:
        until = time.monotonic() + 60
        while sum(done for _, done, _, _ in chunks(two)) < 3:
            assert child.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    before = chunks(two)
    proven = {number: at for number, done, _, at in before if done}
    assert 3 <= len(proven) < len(before)
    report = resumed(two)
    after = chunks(two)
    assert [number for number, *_ in after] == [number for number, *_ in before]
    assert {number: at for number, _, _, at in after if number in proven} == proven
    assert sum(rows or 0 for _, _, rows, _ in after) == ROWS
    assert {key for _, key in two.found(report)} == {("5",), ("5995",)}
    assert report.finished
    with pytest.raises(Refused, match="CDCM-RECONCILE-NOTHING"):
        two.run(resume=True)


def test_a_run_stops_when_its_time_is_up_and_can_be_resumed(two: World) -> None:
    """The report says that it is not all, and what is not proven is not equal."""
    report = two.run(work={"seconds": 0.0})
    assert not report.finished
    assert not report.equal
    assert report.verified_as_of is None
    assert two.run(resume=True).equal


class Changing(QuietAligner):
    """After the first point the application does something; both sides get it."""

    def __init__(self, made: World, statement: str) -> None:
        super().__init__(made.source_dsn, made.target_dsn)
        self._made = made
        self._statement = statement

    def align(self, repairs: Sequence[Repair] = ()) -> Aligned:
        point = super().align(repairs)
        if self.points == 1:
            self._made.both(self._statement)
        return point


@pytest.mark.parametrize(
    ("statement", "rows"),
    [
        ("TRUNCATE public.big; INSERT INTO public.big VALUES (1, 'a')", 1),
        ("ALTER TABLE public.big ALTER v TYPE varchar(30), ADD w int DEFAULT 7", ROWS),
        ("DROP TABLE public.little; CREATE TABLE public.little (id int PRIMARY KEY, v text)", ROWS),
    ],
    ids=["truncated", "rewritten", "made anew"],
)
def test_a_table_that_moved_since_the_point_is_read_at_another(
    two: World, statement: str, rows: int
) -> None:
    """A snapshot shows nothing of a truncated table: that must be neither equal nor missing."""
    aligner = Changing(two, statement)
    try:
        report = two.run(aligner)
    finally:
        aligner.release()
    assert aligner.points > 1
    assert two.found(report) == {}
    assert report.equal
    assert {str(table.table): table.rows for table in report.tables}["public.big"] == rows


class Forgetful(QuietAligner):
    """Lets its first points go at once."""

    def __init__(self, made: World, times: int) -> None:
        super().__init__(made.source_dsn, made.target_dsn)
        self._times = times

    def align(self, repairs: Sequence[Repair] = ()) -> Aligned:
        point = super().align(repairs)
        if self.points <= self._times:
            self.release()
        return point


def test_a_lost_point_is_replaced_and_one_that_is_lost_always_proves_nothing(two: World) -> None:
    """Not proven is not equal, and not a difference."""
    aligner = Forgetful(two, 2)
    assert two.run(aligner).equal
    assert aligner.points == 4, "two are lost, one lies before the chunks are known"
    aligner.release()
    report = two.run(Forgetful(two, 1000), tables=["public.little"])
    assert not report.equal
    assert two.found(report) == {}
    assert "alignment point" in str(report.tables[0].unproven)


def test_points_are_renewed_when_they_are_old(two: World) -> None:
    """Each part says at which point it was proven."""
    assert two.run(work={"max_age": 0.0, "workers": 1}).equal
    assert two.aligner.points > len(chunks(two)) > 3


def test_a_failure_of_the_alignment_ends_the_run_and_leaves_it_to_be_resumed(two: World) -> None:
    """The error is the aligner's own."""

    class Broken(QuietAligner):
        def align(self, repairs: Sequence[Repair] = ()) -> Aligned:
            raise Failed("CDCM-DB-LOST", "no service", "Start it.")

    with pytest.raises(Failed, match="no service"):
        two.run(Broken(two.source_dsn, two.target_dsn))
    assert store.runs(two.target)[0].state == "stopped"
    assert two.run(resume=True).equal


def test_differences_have_a_history(two: World) -> None:
    """Found, found again, accepted, changed again, gone, repaired."""
    two.target.execute("UPDATE public.big SET v = 'x' WHERE id IN (10, 20)")
    first = {k.key["id"]: k for t in two.run().tables for k in t.standing}
    again = {k.key["id"]: k for t in two.run().tables for k in t.standing}
    assert {k.id for k in first.values()} == {k.id for k in again.values()}
    assert again["10"].first_seen == first["10"].first_seen
    assert again["10"].last_seen > first["10"].last_seen
    accepted = reconcile.accept(NAME, two.target_dsn, [first["10"].id, 999], "as agreed", "ann")
    assert accepted == [first["10"].id]
    two.target.execute("UPDATE public.big SET v = 'v20' WHERE id = 20")
    report = two.run()
    assert report.equal, "what is accepted stands, and is no longer open"
    assert [k.key["id"] for t in report.tables for k in t.standing] == ["10"]
    two.target.execute("DELETE FROM public.big WHERE id = 10")
    report = two.run()
    assert not report.equal, "what was accepted was another difference"
    (anew,) = (k for t in report.tables for k in t.standing)
    assert (anew.kind, anew.state, anew.reason) == ("missing_in_target", "open", None)
    assert two.run(repair=True).equal
    runs, known = reconcile.history(NAME, two.target_dsn, BIG, 10)
    assert [run.state for run in runs] == ["differs", "differs", "equal", "differs", "differs"]
    assert {(k.key["id"], k.state) for k in known} == {("10", "repaired"), ("20", "gone")}


def test_more_differences_than_are_named_are_said_to_be_more(two: World) -> None:
    """And none of those that were named before is taken for gone."""
    two.target.execute("UPDATE public.big SET v = 'x' WHERE id = 5990")
    two.run()
    two.target.execute("UPDATE public.big SET v = 'x' WHERE id < 400")
    report = two.run(work={"most": 20, "workers": 1})
    big = {t.table: t for t in report.tables}[BIG]
    assert big.more
    assert not report.equal
    assert len(big.standing) == 21
    assert two.run(repair=True).equal


def test_dry_run_says_what_would_be_repaired_and_changes_nothing(two: World) -> None:
    """The keys of each table; nothing is written anew, nothing is audited."""
    two.target.execute("UPDATE public.big SET v = 'x' WHERE id = 10")
    report = two.run(repair=True, dry_run=True)
    assert [(str(r.table), r.keys) for r in report.planned] == [("public.big", (("10",),))]
    assert not report.equal
    assert one(two.target, "SELECT count(*) FROM cdc_migrator.repair") == (0,)


def test_values_are_told_on_request_and_never_stored(two: World) -> None:
    """In the report only."""
    two.target.execute("UPDATE public.big SET v = 'wrong value' WHERE id = 10")
    (found,) = two.run(work={"values": True}).values
    assert found.values == {"v": ("v10", "wrong value")}
    assert two.run().values == ()
    stored = one(
        two.target,
        "SELECT string_agg(d::text, '') || (SELECT string_agg(j::text, '') "
        "FROM cdc_migrator.journal j) FROM cdc_migrator.difference d",
    )
    assert "wrong" not in stored[0]


def test_a_sample_compares_some_chunks_and_takes_nothing_for_gone(two: World) -> None:
    """A small table is compared whole."""
    two.target.execute("UPDATE public.big SET v = 'x'")
    two.run(work={"most": 1000})
    two.target.execute("UPDATE public.big SET v = 'v' || id")
    report = two.run(mode="sample")
    rows = {t.table: t.rows for t in report.tables}
    assert 0 < rows[BIG] < ROWS / 4
    assert not report.equal
    assert two.run().equal


def test_tables_that_cannot_be_compared_are_told(two: World) -> None:
    """A column that the target lacks, a table that it lacks, and a pattern without a table."""
    two.target.execute("ALTER TABLE public.big DROP v")
    two.target.execute("DROP TABLE public.little")
    report = two.run()
    assert not report.equal
    assert [str(t.unproven) for t in report.tables] == [
        "the target does not store v",
        "the target has no such table",
    ]
    with pytest.raises(ConfigurationError, match="CDCM-RECONCILE-TABLES"):
        two.run(tables=["public.nothing*"])
    assert two.run(tables=["public.b*"]).tables[0].table == BIG


def test_a_table_that_is_not_loaded_yet_is_neither_equal_nor_different(two: World) -> None:
    """Also one that joins a stream that runs."""
    two.target.execute("TRUNCATE public.big, public.little")
    for column, value in (("load_state", "loading"), ("joining", "loading")):
        two.target.execute(
            "UPDATE cdc_migrator.table_progress SET load_state = 'loaded', joining = NULL"
        )
        two.target.execute(f"UPDATE cdc_migrator.table_progress SET {column} = '{value}'")
        report = two.run()
        assert not report.equal
        assert two.found(report) == {}
        assert {t.unproven for t in report.tables} == {"it is not loaded yet"}


def test_generated_columns_of_another_making_are_left_out() -> None:
    """One that both sides compute alike is compared; one that they do not is told."""
    with world("CREATE TABLE public.g (id int PRIMARY KEY, a int, b int, c int)") as made:
        for conn, expression in ((made.source, "id * 2"), (made.target, "id * 3")):
            conn.execute(
                "ALTER TABLE public.g DROP b, DROP c, "
                "ADD b int GENERATED ALWAYS AS (id + 1) STORED, "
                f"ADD c int GENERATED ALWAYS AS ({expression}) STORED"
            )
            conn.execute("INSERT INTO public.g SELECT n, n FROM generate_series(1, 10) n")
        report = made.run()
        assert report.equal
        assert report.tables[0].left_out == ("c",)
        made.target.execute("UPDATE public.g SET a = 0 WHERE id = 3")
        assert made.run(repair=True).equal


def test_no_lock_outlives_a_statement_and_two_runs_exclude_each_other(two: World) -> None:
    """While a run waits between its statements a table can be truncated at once."""

    class Waiting(QuietAligner):
        def align(self, repairs: Sequence[Repair] = ()) -> Aligned:
            if self.points in (0, 2):
                with pytest.raises(Refused, match="CDCM-RECONCILE-RUNNING"):
                    two.run()
            point = super().align(repairs)
            two.both("BEGIN; LOCK TABLE public.big IN ACCESS EXCLUSIVE MODE NOWAIT; COMMIT")
            return point

    aligner = Waiting(two.source_dsn, two.target_dsn)
    assert two.run(aligner, work={"max_age": 0.0, "workers": 1}).equal
    assert aligner.points > 3


def test_the_statement_for_a_person_runs_and_finds_the_row(two: World) -> None:
    """On one server that shows both sides."""
    options = reconcile.ReconcileOptions(NAME, two.source_dsn, two.target_dsn)
    text = reconcile.statement(options, BIG)
    two.source.execute("CREATE TABLE public.copy AS SELECT * FROM public.big")
    two.source.execute("UPDATE public.copy SET v = 'x' WHERE id = 10")
    *settings, query = text.replace("FROM other", "FROM public.copy").split(";\n")[:-1]
    for setting in settings:
        two.source.execute(setting.encode())
    found = two.source.execute(query.encode()).fetchall()
    assert sorted(found) == [("extra_in_target", "10", "x"), ("missing_in_target", "10", "v10")]


class Noted(threading.Event):
    """Does not wait, but writes down for how long it should have."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.pauses.append(timeout or 0.0)
        return False


def test_comparing_makes_way_for_a_stream_that_is_behind(two: World) -> None:
    """Its workers then work a small part of the time together, otherwise as they were told."""
    progress.create(two.target, "topic", 1)
    said = (
        "INSERT INTO cdc_migrator.stream_owner_seen (stream, epoch, seen_at, sample) "
        "VALUES ('forward', 1, clock_timestamp(), jsonb_build_object('lag_seconds', %s::float8)) "
        "ON CONFLICT (stream) DO UPDATE SET sample = excluded.sample"
    )
    options, pauses = PassOptions(share=0.5, max_lag=5.0), []
    for lag in (60.0, 0.2):
        two.target.execute(said, (lag,))
        noted = Noted()
        Pace(two.target, threading.RLock(), options, noted).resting(lambda: None)(1.0)
        pauses.append(sum(noted.pauses))
    assert pauses == pytest.approx([options.workers / BEHIND_SHARE - 1, 1.0])
