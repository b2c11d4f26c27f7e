"""The cutover inside one database: writers go from old tables to new ones, and nothing is lost."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from cdc_migrator.cutover.machine import State
from tests.faults import within
from tests.faults.cutover_kills import PLACES, begin, cut, end_of
from tests.faults.switching import Switching, switched
from tests.support.live import LiveMigration, one, wait_for
from tests.support.stack import fresh_database

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

IGNORED = "SELECT changes_ignored FROM cdc_migrator.stream_progress"
LEFT_OF_US = (
    "SELECT (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'cdc\\_migrator%%') + "
    "(SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_event_trigger) + "
    "(SELECT count(*) FROM pg_replication_slots WHERE database = current_database())"
)
# Behind these the target is open.
OPENED = (
    "cutover.opening.done",
    "cutover.opened.after",
    "cutover.switching",
    "cutover.switching.done",
)
REFUSED = psycopg.errors.ReadOnlySqlTransaction


@pytest.fixture
def live(stack: Any, source_db: str, tmp_path: Path) -> Iterator[LiveMigration]:
    live = within.made(tmp_path, "within", source_db, stack)
    try:
        within.prepared(live)
        yield live
    finally:
        end_of(live)


def write_on(apps: Switching) -> None:
    before = apps.commits()
    wait_for("writers write", lambda: apps.commits() > before + 60)


def refused(live: LiveMigration, *verb: str) -> str:
    return live.cli(*verb, check=3).stderr


def follows(live: LiveMigration, apps: Switching) -> None:
    """The new tables come to hold what the old ones hold."""
    with apps.paused():
        wait_for("both schemas hold the same", lambda: one(live.source, within.APART) == 0)


def test_writers_go_over_to_the_new_tables(live: LiveMigration) -> None:
    """Rehearsed, killed and undone, killed and gone on with, ended: no write is lost or doubled,
    and at no moment both shapes of a row can be written."""
    with within.applications(live) as apps:
        write_on(apps)
        assert cut(live, "--rehearse")["state"] == "rehearsed"

        assert begin(live, "cutover.draining", "KILL").wait(60) == -9
        live.cli("cutover", "abort")
        write_on(apps)
        assert {one.side for one in apps.writers} == {"source"}
        follows(live, apps)

        assert begin(live, "cutover.opened.after", "KILL").wait(60) == -9
        assert cut(live, "--yes")["state"] == "done"
        write_on(apps)
    assert {one.side for one in apps.writers} == {"target"}
    assert apps.wrong(done=True) == []

    live.cli("finish", "--yes")
    with psycopg.connect(live.source, autocommit=True) as conn:
        with pytest.raises(REFUSED):
            conn.execute("DELETE FROM app.entry")
        conn.execute("DELETE FROM next.entry WHERE writer = 0")
        conn.execute("ALTER SEQUENCE app.coded SET SCHEMA next")
        conn.execute("DROP SCHEMA app, cdc_migrator CASCADE")
    assert one(live.source, LEFT_OF_US) == 0


@pytest.mark.long
@pytest.mark.timeout(900)
def test_killed_at_any_step_it_is_undone_or_gone_on_with(live: LiveMigration) -> None:
    """Wherever the command is killed in front of the opening, the old tables are writable again."""
    places = [place for place in PLACES if place not in OPENED]
    random.shuffle(places)
    with within.applications(live) as apps:
        cut(live, "--rehearse")
        for place in places:
            rehearsal = "--rehearse" if place.startswith("cutover.undoing") else "--yes"
            assert begin(live, place, "KILL", rehearsal).wait(60) == -9, place
            if place == "cutover.fencing.done":  # nobody types anything
                wait_for("the service undoes it", lambda: switched(live)["ended_at"])
            else:
                live.cli("cutover", "abort")
            assert switched(live)["state"] in (State.UNDONE, State.REHEARSED), place
            write_on(apps)
            follows(live, apps)
        assert {one.side for one in apps.writers} == {"source"}
        assert cut(live, "--yes")["state"] == "done"
        write_on(apps)
    assert apps.wrong(done=True) == []
    live.cli("finish", "--yes")
    # The schema that the old tables' fence is in belongs to no migration any more.
    live.cli("abort", "--yes")
    with psycopg.connect(live.source, autocommit=True) as conn, pytest.raises(REFUSED):
        conn.execute("DELETE FROM app.entry")


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "place", [*OPENED, "cutover.opened.before", "cutover.opening", "cutover.sequences"]
)
def test_killed_around_the_opening_it_is_gone_on_with(
    stack: Any, tmp_path: Path, place: str
) -> None:
    """The same command ends it: with the new tables open, or once more where time was up."""
    with fresh_database(stack.source_dsn) as database:
        live = within.made(tmp_path, "within", database, stack)
        try:
            within.prepared(live)
            with within.applications(live) as apps:
                cut(live, "--rehearse")
                assert begin(live, place, "KILL").wait(60) == -9
                live.cli("cutover", "--yes", check=None)
                if switched(live)["state"] == "undone":  # a slow machine: its budget was used up
                    cut(live, "--yes")
                assert switched(live)["state"] == "done"
                write_on(apps)
            assert apps.wrong(done=True) == []
        finally:
            end_of(live)


def terminated(live: LiveMigration) -> None:
    """The cutover ends who stays in the old tables' way, and nobody else in the database."""
    document = yaml.safe_load(live.config.read_text())
    document["cutover"]["fence_budget"] = "1s"
    live.config.write_text(yaml.safe_dump(document))
    with psycopg.connect(live.source) as in_the_way, psycopg.connect(live.source) as beside:
        in_the_way.execute("INSERT INTO app.log VALUES (76, 1)")
        beside.execute("CREATE TABLE public.beside AS SELECT 1 FROM app.entry LIMIT 1")
        assert cut(live, "--yes", "--terminate")["details"]["terminated"] >= 1
        beside.commit()
        with pytest.raises(psycopg.OperationalError):
            in_the_way.execute("SELECT 1")
        in_the_way.close()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_what_stands_in_the_way_is_told(live: LiveMigration) -> None:
    """A hung process is ended and undone, a hole in the fence is found before and after, what goes
    back is refused, and the way to end it can let the old tables be written again."""
    assert "CDCM-WAY-BACK-SAME-DATABASE" in refused(live, "way-back", "prepare")
    assert not json.loads(live.cli("way-back", "status", "-o", "json").stdout)["prepared"]
    with within.applications(live) as apps:
        cut(live, "--rehearse")

        hung = begin(live, "cutover.verifying", "STOP")
        assert "CDCM-CUTOVER-SAME-DATABASE" in refused(live, "cutover", "abort", "--source-only")
        asked = live.cli("cutover", "abort", "-o", "json")
        assert json.loads(asked.stdout)["state"] == "undone"
        hung.send_signal(signal.SIGCONT)
        assert hung.wait(60) == 1
        write_on(apps)

        holed = begin(live, "cutover.sequences", "STOP")
        with psycopg.connect(live.source, autocommit=True) as conn:
            conn.execute("ALTER TABLE app.log DISABLE TRIGGER cdc_migrator_fence")
        holed.send_signal(signal.SIGCONT)
        assert holed.wait(60) == 1
        assert switched(live)["error"]["code"] == "CDCM-CUTOVER-HOLE"
        write_on(apps)

        terminated(live)
        write_on(apps)
    assert apps.wrong(done=True) == []

    def watched() -> Any:
        rows = json.loads(live.cli("watch", "list", "-o", "json").stdout)["rules"]
        return next((row["number"], row["state"]) for row in rows if row["kind"] == "critical")

    wait_for("the service watches the fence", lambda: watched() == (0.0, "fine"))
    with psycopg.connect(live.source, autocommit=True) as conn:
        conn.execute("ALTER TABLE app.log DISABLE TRIGGER cdc_migrator_fence")
        conn.execute("INSERT INTO app.log VALUES (77, 1)")
        wait_for("the hole is seen", lambda: watched()[0] == 1.0)
        conn.execute("ALTER TABLE app.log ENABLE ALWAYS TRIGGER cdc_migrator_fence")
    wait_for("the stray write is seen", lambda: one(live.source, IGNORED) == 1)
    status = json.loads(live.cli("cutover", "status", "-o", "json").stdout)
    assert status["written_on_source_since"] == 1
    assert one(live.source, "SELECT count(*) FROM next.log WHERE writer = 77") == 0
    for verb in ("--yes",), ("status",), ("--dry-run",), ("abort",):
        assert "CDCM-WAY-BACK-SAME-DATABASE" in refused(live, "rollback", *verb), verb
    report = json.loads(live.cli("report", "-o", "json").stdout)
    assert report["summary"]["status"] == "COMPLETED"
    live.cli("finish", "--yes", "--unfence-source")
    with psycopg.connect(live.source, autocommit=True) as conn:
        conn.execute("INSERT INTO app.log VALUES (78, 1)")
    assert one(live.source, LEFT_OF_US) == 0
