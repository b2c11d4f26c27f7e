"""What the stream writes of a table that is mapped makes its own chunks due, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from cdc_migrator.apply.applier import Applier
from cdc_migrator.control import progress
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.model.mapping import called
from cdc_migrator.model.tables import TableName
from cdc_migrator.service.reconcile_report import Report
from tests.integration.mapping_rig import (
    ADDRESS,
    CUSTOMER,
    EU,
    LINE,
    LOG,
    ROUTES,
    US,
    Mapped,
    mapped_world,
)
from tests.integration.reconcile_rig import Turning
from tests.support.recorded import PLACEHOLDER, Recorder, batch

KEYS = {CUSTOMER: ("id",), EU: ("id",), US: ("id",), LINE: ("a", "b")}


@dataclass
class Moving:
    """The stream from one side to the other, and who applies it."""

    mapped: Mapped
    recorder: Recorder
    applier: Applier
    aligner: Turning

    def run(self, mode: str = "incremental", repair: bool = False) -> Report:
        return self.mapped.made.run(self.aligner, mode=mode, repair=repair)

    def apply(self) -> None:
        """Commit on the source what was recorded, and apply it."""
        self.applier.apply(batch(self.recorder.commit()))

    def due(self) -> dict[TableName, int]:
        """Chunks that an incremental run reads, and finds equal."""
        report = self.run()
        assert report.equal
        return {one.table: one.digested for one in report.tables if one.digested}


@pytest.fixture(scope="module")
def moving() -> Iterator[Moving]:
    """All tables proven once."""
    with mapped_world() as mapped:
        mapped.fill()
        made = mapped.made
        progress.create(made.target, "topic", 1)
        with connect(made.source_dsn, application_name="recorder") as source:
            source.autocommit = False
            recorder = Recorder(source, KEYS, as_text=frozenset({"amount"}))
            made.target.execute(
                "UPDATE cdc_migrator.stream_progress SET next_offset = %s", (recorder.offset,)
            )
            routes = {
                table: {called(one, one is of[0]): one for one in of}
                for table, of in ROUTES.items()
            }
            tables = read_tables(made.source)
            with Applier(made.target_dsn, tables, PLACEHOLDER, routes=routes) as applier:
                assert applier.start("test", stale_after=0) is not None
                aligner = Turning(made.source_dsn, made.target_dsn, applier)
                found = Moving(mapped, recorder, applier, aligner)
                assert found.run("full").equal
                yield found
                aligner.release()


def test_each_half_and_each_shard_has_chunks_of_its_own(moving: Moving) -> None:
    """Whoever is written to is read again; its neighbours in the same table are not."""
    assert moving.due() == {}
    moving.recorder.update(CUSTOMER, "name = 'new', city = 'here'", "id = 31")
    moving.apply()
    assert moving.due() == {CUSTOMER: 1, ADDRESS: 1}
    moving.recorder.update(EU, "v = 'new'", "id = 50")
    moving.apply()
    assert moving.due() == {EU: 1}
    moving.recorder.insert(US, id=9000, v="late")
    moving.recorder.delete(EU, "id = 7")
    moving.apply()
    assert moving.due() == {US: 1, EU: 1}
    moving.recorder.update(LINE, "v = 'new', b = b || 'x'", "b = 'b17'")
    moving.apply()
    assert moving.due().keys() == {LINE}
    moving.recorder.insert(LOG, level=0, line="left out")
    moving.recorder.insert(LOG, level=3, line="one more")
    moving.apply()
    assert moving.due() == {LOG: 1}
    assert moving.due() == {}


def test_a_row_that_a_filter_lets_in_or_out_makes_its_chunk_due(moving: Moving) -> None:
    """What somebody does to that row of the target is found there."""
    for gone, key in (("true", 41), ("false", 50)):
        moving.recorder.update(CUSTOMER, f"gone = {gone}", f"id = {key}")
        moving.apply()
        assert moving.due()[CUSTOMER] == 1
    moving.recorder.update(CUSTOMER, "gone = true", "id = 61")
    moving.recorder.update(CUSTOMER, "id = 5000", "id = 72")
    moving.apply()
    for statement in (
        "INSERT INTO crm.person (person_id, full_name) VALUES (61, 'left')",
        "UPDATE crm.person SET email = NULL WHERE person_id = 5000",
        "DELETE FROM crm.address WHERE id = 5000",
    ):
        assert moving.mapped.made.target.execute(statement.encode()).rowcount == 1
    assert moving.mapped.made.found(moving.run()) == {
        ("shop.customer", ("61",)): ("extra_in_target",),
        ("shop.customer", ("5000",)): ("different", "email"),
        (str(ADDRESS), ("5000",)): ("missing_in_target",),
    }
    report = moving.run(repair=True)
    assert (report.equal, report.repaired) == (True, 3)
    moving.mapped.exact()


def test_a_truncated_shard_makes_all_of_its_chunks_due(moving: Moving) -> None:
    """And leaves the other shard's rows where they are."""
    assert moving.run().equal
    moving.recorder.truncate(US)
    moving.recorder.insert(US, id=1, v="first")
    moving.apply()
    report = moving.run()
    assert report.equal
    read = {one.table: (one.digested, one.chunks) for one in report.tables if one.digested}
    assert read.keys() == {US}
    assert read[US][0] == read[US][1]
    moving.mapped.exact()
