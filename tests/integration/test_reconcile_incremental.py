"""Only what the stream wrote to since it was proven is read again; all else keeps its proof."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cdc_migrator.apply.applier import Applier
from cdc_migrator.control import progress
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.faultpoints import VARIABLE
from cdc_migrator.model.tables import TableName
from cdc_migrator.service.reconcile_report import Report, TableReport
from tests.integration.reconcile_rig import Turning, World, one, world
from tests.support.recorded import PLACEHOLDER, Recorder, batch

ITEM, PAIR, WORD, TOKEN, NET, LOG = (
    TableName("shop", name) for name in ("item", "pair", "word", "token", "net", "log")
)
KEYS = {ITEM: ("id",), PAIR: ("a", "b"), WORD: ("w",), TOKEN: ("t",), NET: ("n",)}
SCHEMA = """
CREATE SCHEMA shop;
CREATE TABLE shop.item (id bigint PRIMARY KEY, v text);
INSERT INTO shop.item SELECT n, 'v' || n FROM generate_series(1, 2000) n;
CREATE TABLE shop.pair (a int, b text, v text, PRIMARY KEY (a, b));
INSERT INTO shop.pair SELECT 1, 'b' || n, 'v' FROM generate_series(1, 600) n;
CREATE TABLE shop.word (w text COLLATE pg_unicode_fast PRIMARY KEY, v text);
INSERT INTO shop.word SELECT chr(65 + n % 2 * 32 + n % 26) || n, 'v' FROM generate_series(1, 600) n;
CREATE TABLE shop.token (t uuid PRIMARY KEY, v text);
INSERT INTO shop.token SELECT md5(n::text)::uuid, 'v' FROM generate_series(1, 600) n;
CREATE TABLE shop.net (n inet PRIMARY KEY, v text);
INSERT INTO shop.net SELECT '10.0.0.0'::inet + n, 'v' FROM generate_series(1, 600) n;
CREATE TABLE shop.log (what int, v text);
ALTER TABLE shop.log REPLICA IDENTITY FULL;
INSERT INTO shop.log SELECT n, 'v' FROM generate_series(1, 300) n;
ANALYZE;
"""
# One row of each table.
ROW = {
    ITEM: "id = 1234",
    PAIR: "b = 'b321'",
    WORD: "w = (SELECT min(w) FROM shop.word)",
    TOKEN: "t = md5('77')::uuid",
    NET: "n = '10.0.1.7'",
    LOG: "what = 77",
}


@dataclass
class Moving:
    """Two databases, the recorded stream from one to the other, and its applier."""

    made: World
    recorder: Recorder
    applier: Applier
    aligner: Turning

    def run(self, mode: str = "incremental", **options: Any) -> Report:
        return self.made.run(self.aligner, mode=mode, **options)

    def apply(self) -> None:
        """Commit on the source what was recorded, and apply it."""
        self.applier.apply(batch(self.recorder.commit()))

    def update(self, table: TableName, value: str = "new") -> None:
        self.recorder.update(table, f"v = '{value}'", ROW[table])
        self.apply()

    def plant(self, table: TableName, where: str | None = None) -> None:
        """Change a row of the target past the stream."""
        done = self.made.target.execute(
            f"UPDATE {table} SET v = 'planted' WHERE {where or ROW[table]}".encode()
        )
        assert done.rowcount == 1


def report_of(report: Report, table: TableName) -> TableReport:
    return next(one for one in report.tables if one.table == table)


def digested(report: Report) -> dict[TableName, int]:
    """Chunks that were read, by table, where any were."""
    return {one.table: one.digested for one in report.tables if one.digested}


@contextmanager
def moving_world() -> Iterator[Moving]:
    with world(*SCHEMA.split(";\n")[:-1]) as made:
        progress.create(made.target, "topic", 1)
        with connect(made.source_dsn, application_name="recorder") as source:
            source.autocommit = False
            recorder = Recorder(source, KEYS)
            made.target.execute(
                "UPDATE cdc_migrator.stream_progress SET next_offset = %s", (recorder.offset,)
            )
            tables = read_tables(made.source, include=["shop.*"])
            with Applier(made.target_dsn, tables, PLACEHOLDER) as applier:
                assert applier.start("test", stale_after=0) is not None
                aligner = Turning(made.source_dsn, made.target_dsn, applier)
                try:
                    yield Moving(made, recorder, applier, aligner)
                finally:
                    aligner.release()


@pytest.fixture
def moving() -> Iterator[Moving]:
    """All tables proven once."""
    with moving_world() as made:
        assert made.run("full").equal
        yield made


def test_only_what_the_stream_wrote_to_is_read_again(moving: Moving) -> None:
    """Whatever its key is like; the rest is verified as of its last proof."""
    report = moving.run()
    assert report.equal
    assert digested(report) == {}
    first = report.verified_as_of
    assert first is not None
    for table in ROW:
        moving.update(table)
    report = moving.run()
    assert report.equal
    assert digested(report) == dict.fromkeys(ROW, 1)
    assert report.verified_as_of == first
    told = {one.table: (one.chunked_by, one.chunks > 1) for one in report.tables}
    assert told == {
        ITEM: ("ranges of id", True),
        PAIR: ("ranges of b", True),
        WORD: ("ranges of w", True),
        TOKEN: ("ranges of t", True),
        NET: ("hash of the key", True),
        LOG: ("whole table", False),
    }
    item = report_of(report, ITEM)
    assert item.standing_chunks == item.chunks - 1 > 10
    assert digested(moving.run()) == {}


def test_what_differs_in_a_chunk_that_was_written_to_is_found(moving: Moving) -> None:
    """It is read again each time until it is equal, then it is gone."""
    for table in ROW:
        moving.update(table)
        moving.plant(table)
    report = moving.run()
    found = moving.made.found(report)
    assert {name for name, _ in found} == {str(table) for table in ROW}
    assert digested(report) == dict.fromkeys(ROW, 1)
    report = moving.run()
    assert digested(report) == dict.fromkeys(ROW, 1)
    assert moving.made.found(report) == found
    for table in ROW:
        moving.made.target.execute(f"UPDATE {table} SET v = 'new' WHERE v = 'planted'".encode())
    assert moving.run().equal
    assert digested(moving.run()) == {}


def test_what_somebody_else_changes_is_found_when_its_proof_is_old(moving: Moving) -> None:
    """An untouched chunk is taken for what it was; the remedy is to compare it again."""
    moving.plant(ITEM)
    report = moving.run()
    assert report.equal, "the stream wrote nothing there"
    report = moving.run(proof_age=timedelta(0))
    assert moving.made.found(report) == {("shop.item", ("1234",)): ("different", "v")}
    assert report_of(report, ITEM).digested == report_of(report, ITEM).chunks
    assert moving.run(repair=True).equal
    report = moving.run()
    assert digested(report) == {ITEM: 1}, "its key was looked at, not its chunk"
    assert report.equal
    assert digested(moving.run()) == {}


def test_a_sample_that_differs_withdraws_the_proofs_of_its_table(moving: Moving) -> None:
    """Somebody has written past the stream: nobody knows where else."""
    moving.made.target.execute("UPDATE shop.item SET v = 'x'")
    assert moving.made.found(moving.run("sample", work={"most": 5}))
    report = moving.run()
    assert digested(report) == {ITEM: report_of(report, ITEM).chunks}


def test_a_key_that_moves_makes_both_chunks_due(moving: Moving) -> None:
    """The one that it leaves and the one that it comes to; a row that goes, its own."""
    moving.recorder.update(ITEM, "id = id + 10000", "id = 5")
    moving.apply()
    report = moving.run()
    assert (report.equal, digested(report)) == (True, {ITEM: 2})
    moving.recorder.delete(ITEM, "id = 1000")
    moving.apply()
    report = moving.run()
    assert (report.equal, digested(report)) == (True, {ITEM: 1})


def test_a_truncate_makes_all_chunks_due(moving: Moving) -> None:
    """Also when rows came in the same transaction."""
    moving.recorder.truncate(ITEM, LOG)
    moving.recorder.insert(ITEM, id=7, v="after")
    moving.apply()
    moving.made.target.execute("INSERT INTO shop.item VALUES (1999, 'planted')")
    report = moving.run()
    assert moving.made.found(report) == {("shop.item", ("1999",)): ("extra_in_target",)}
    item = report_of(report, ITEM)
    assert item.digested == item.chunks
    assert digested(report).keys() == {ITEM, LOG}


def test_what_is_applied_between_a_point_and_its_proof_is_still_due(moving: Moving) -> None:
    """The proof speaks of the point; what came later is not proven by it."""
    moving.update(ITEM, "early")
    moving.aligner.behind.append(lambda: moving.update(ITEM, "late"))
    assert digested(moving.run()) == {ITEM: 1}
    moving.plant(ITEM)
    report = moving.run()
    assert digested(report) == {ITEM: 1}
    assert moving.made.found(report) == {("shop.item", ("1234",)): ("different", "v")}


def test_changes_during_the_first_comparison_are_due_after_it() -> None:
    """Before who applies knows a table's chunks nothing that is proven of them stands."""
    with moving_world() as moving:
        for value in ("one", "two"):
            moving.aligner.behind.append(lambda value=value: moving.update(ITEM, value))
        assert moving.run("full").equal
        moving.plant(ITEM)
        report = moving.run()
        assert moving.made.found(report) == {("shop.item", ("1234",)): ("different", "v")}
        assert digested(report) == {ITEM: 1}


def test_rows_at_the_end_of_the_order_get_chunks_of_their_own(moving: Moving) -> None:
    """The others keep their proofs."""
    before = report_of(moving.run(), ITEM).chunks
    for n in range(2001, 2501):
        moving.recorder.insert(ITEM, id=n, v="v")
    moving.apply()
    report = moving.run()
    item = report_of(report, ITEM)
    assert report.equal
    assert item.chunks > before + 2
    assert item.standing_chunks == before - 1
    moving.recorder.update(ITEM, "v = 'x'", "id = 2400")
    moving.apply()
    assert digested(moving.run()) == {ITEM: 1}


def test_a_table_with_other_columns_is_read_whole(moving: Moving) -> None:
    """A proof of other columns says nothing of these."""
    moving.made.both("ALTER TABLE shop.token ADD w int DEFAULT 3")
    report = moving.run()
    assert digested(report) == {TOKEN: report_of(report, TOKEN).chunks}


CHILD = """
import pickle, sys
from cdc_migrator.apply.applier import Applier
from tests.support.recorded import PLACEHOLDER
with open(sys.argv[1], "rb") as file:
    dsn, tables, batch = pickle.load(file)
applier = Applier(dsn, tables, PLACEHOLDER)
assert applier.start("child", stale_after=0) is not None
applier.apply(batch)
"""


@pytest.mark.parametrize(("place", "marked"), [("before", 0), ("after", 1)])
def test_marks_are_there_exactly_if_the_rows_are(
    moving: Moving, tmp_path: Path, place: str, marked: int
) -> None:
    """Whoever is killed in front of the commit or behind it."""
    moving.recorder.update(ITEM, "v = 'new'", ROW[ITEM])
    work = batch(moving.recorder.commit())
    file = tmp_path / "work"
    tables = read_tables(moving.made.source, include=["shop.*"])
    file.write_bytes(pickle.dumps((moving.made.target_dsn, tables, work)))
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(file)],
        env={**os.environ, VARIABLE: f"apply.commit.{place}:1:KILL"},
        check=False,
        capture_output=True,
        timeout=60,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    rows = one(moving.made.target, "SELECT count(*) FROM shop.item WHERE v = 'new'")
    marks = one(moving.made.target, "SELECT count(*) FROM cdc_migrator.reconcile_mark")
    assert (rows, marks) == ((marked,), (marked,))
