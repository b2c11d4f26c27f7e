"""Whole tables are written anew, range by range, and what stands in the way is put right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from cdc_migrator.control import rebuilds
from cdc_migrator.errors import ConfigurationError, Failed, MigratorError, Refused
from cdc_migrator.model.alignment import Aligned, Rebuild
from cdc_migrator.model.tables import TableName
from tests.integration.reconcile_rig import QuietAligner, World, one, world

ORDERS = TableName("shop", "orders")
LINES = TableName("shop", "lines")
NAMES = TableName("shop", "names")
NOTES = TableName("shop", "notes")
MOODS = TableName("shop", "moods")
_MADE = (
    "CREATE SCHEMA shop",
    "CREATE TABLE shop.orders (id bigint PRIMARY KEY, code text UNIQUE, total numeric, "
    "twice numeric GENERATED ALWAYS AS (total * 2) STORED, place int GENERATED ALWAYS AS IDENTITY)",
    "INSERT INTO shop.orders (id, code, total) SELECT n, 'c' || n, n * 1.50 "
    "FROM generate_series(1, 1000) n",
    "CREATE TABLE shop.lines (shop int, day date, note text, PRIMARY KEY (shop, day))",
    "INSERT INTO shop.lines SELECT n % 3, date '2024-01-01' + n, repeat('x', n) "
    "FROM generate_series(1, 600) n",
    'CREATE TABLE shop.names (name text COLLATE "C" PRIMARY KEY, n int)',
    "INSERT INTO shop.names SELECT md5(n::text), n FROM generate_series(1, 500) n",
    "CREATE TABLE shop.notes (kind int, note text)",
    "INSERT INTO shop.notes SELECT n % 5, E'tab\\t, line\\n and \\\\ ' || n % 7 "
    "FROM generate_series(1, 300) n",
    "CREATE TYPE shop.mood AS ENUM ('low', 'high')",
    "CREATE TABLE shop.moods (mood shop.mood PRIMARY KEY, n int)",
    "INSERT INTO shop.moods VALUES ('low', 1), ('high', 2)",
    "ANALYZE",
)
TABLES = (ORDERS, LINES, NAMES, NOTES, MOODS)


@pytest.fixture
def made() -> Iterator[World]:
    with world(*_MADE) as found:
        yield found
        found.aligner.release()


def test_whatever_is_wrong_with_a_table_is_written_anew(made: World) -> None:
    """Rows that are missing, extra or different, in ranges or all at once."""
    made.target.execute("DELETE FROM shop.orders WHERE id % 3 = 0 OR id > 950")
    made.target.execute("UPDATE shop.orders SET total = -total WHERE id % 5 = 0")
    made.target.execute(
        "INSERT INTO shop.orders (id, code) SELECT n, 'e' || n FROM generate_series(-50, 0) n "
        "UNION ALL SELECT n, 'e' || n FROM generate_series(1001, 1700) n"
    )
    made.target.execute("UPDATE shop.lines SET day = day + 3000")
    made.target.execute("TRUNCATE shop.names")
    made.target.execute("INSERT INTO shop.notes SELECT 9, NULL FROM generate_series(1, 20)")
    made.target.execute("DELETE FROM shop.moods")
    done = {one.table: one for one in made.rebuild("shop.*")}
    for table in TABLES:
        here, there = made.content(table)
        assert here == there, table
        assert done[table].rows_after == len(here), table
    assert done[ORDERS].ranges >= 15, "no range has more than a hundred rows on either side"
    assert done[LINES].ranges >= 6
    assert done[NAMES].ranges >= 5
    assert done[NOTES].ranges == done[MOODS].ranges == 1
    assert made.run().equal
    audit = made.target.execute(
        "SELECT count(*), sum(rows_after), sum(rows_before) FROM cdc_migrator.repair "
        "WHERE action = 'rebuilt' AND source_table = 'orders'"
    ).fetchone()
    assert audit == (done[ORDERS].ranges, 1000, done[ORDERS].rows_before)


def test_a_range_of_keys_is_written_anew_and_nothing_else(made: World) -> None:
    """From the one key on and below the other; of several columns too."""
    made.both("UPDATE shop.orders SET total = total WHERE false")
    made.target.execute("UPDATE shop.orders SET total = 0")
    made.target.execute("UPDATE shop.lines SET note = ''")
    (done,) = made.rebuild("shop.orders", low=("201",), high=("456",))
    assert done.rows_before == done.rows_after == 255
    right = "SELECT min(id), max(id), count(*) FROM shop.orders WHERE total > 0"
    assert one(made.target, right) == (201, 455, 255)
    made.rebuild("shop.lines", low=("1", "2024-06-01"), high=("2", "2024-02-01"))
    wrong = "(note <> '') <> ((shop, day) >= (1, '2024-06-01') AND (shop, day) < (2, '2024-02-01'))"
    assert one(made.target, f"SELECT count(*) FROM shop.lines WHERE {wrong}") == (0,)


def test_a_row_outside_of_the_range_that_stands_in_the_way_is_repaired(made: World) -> None:
    """It holds a unique value of a row inside, also by way of a third one; audited as a repair."""
    for change in (
        "UPDATE shop.orders SET code = 'x' || id WHERE id IN (10, 900, 901)",
        "UPDATE shop.orders SET code = 'c10' WHERE id = 900",
        "UPDATE shop.orders SET code = 'c900' WHERE id = 901",
        "INSERT INTO shop.orders (id, code) VALUES (5000, 'c901')",
        "DELETE FROM shop.orders WHERE id = 11",
    ):
        made.target.execute(change.encode())
    made.rebuild("shop.orders", low=("1",), high=("101",))
    here, there = made.content(ORDERS)
    assert here == there
    audited = made.target.execute(
        "SELECT key ->> 'id', action FROM cdc_migrator.repair WHERE action <> 'rebuilt' ORDER BY 1"
    ).fetchall()
    assert audited == [("5000", "deleted"), ("900", "replaced"), ("901", "replaced")]


class Failing(QuietAligner):
    """Fails once at a point, before or after the range was written."""

    def __init__(self, made: World, at: int, written: bool) -> None:
        super().__init__(made.source_dsn, made.target_dsn)
        self._at = at
        self._after = written

    def align(self, repairs: Any = (), rebuild: Rebuild | None = None) -> Aligned:
        assert rebuild is not None
        fails = self.points == self._at
        if fails and not self._after:
            raise Failed("CDCM-ALIGN-STOPPED", "the service is stopping", "Again.")
        aligned = super().align(repairs, rebuild)
        if fails:
            raise Failed("CDCM-ALIGN-STOPPED", "the service is stopping", "Again.")
        return aligned


@pytest.mark.parametrize("written", [False, True])
def test_what_was_interrupted_goes_on_behind_the_last_range(made: World, written: bool) -> None:
    """Ranges that are done are not written again; what nobody has looked at yet is looked at."""
    made.target.execute("UPDATE shop.orders SET total = 0")
    quiet, made.aligner = made.aligner, Failing(made, 4, written)
    with pytest.raises(Failed):
        made.rebuild("shop.orders")
    made.aligner.release()
    made.aligner = quiet
    before = one(made.target, "SELECT count(*) FROM cdc_migrator.rebuild_range")
    assert before == (5 if written else 4,)
    with pytest.raises(Refused) as refused:
        made.rebuild("shop.orders", low=("7",))
    assert refused.value.code == "CDCM-REBUILD-OTHER"
    (done,) = made.rebuild("shop.orders")
    assert done.resumed
    assert made.run(tables=["shop.orders"]).equal
    audit = "SELECT count(*) FROM cdc_migrator.repair WHERE action = 'rebuilt'"
    assert one(made.target, audit) == (done.ranges,)
    unproven = "SELECT count(*) FROM cdc_migrator.rebuild_range WHERE proven_at IS NULL"
    assert one(made.target, unproven) == (0,)


def test_restart_gives_the_old_one_up(made: World) -> None:
    """What a process of the old one still asks for is not written any more."""
    made.aligner = Failing(made, 2, True)
    with pytest.raises(Failed):
        made.rebuild("shop.orders")
    old = rebuilds.running(made.target, ORDERS)
    assert old is not None
    (done,) = made.rebuild("shop.orders", restart=True)
    assert not done.resumed
    made.target.execute("UPDATE shop.orders SET total = 0 WHERE id = 1")
    with pytest.raises(Failed) as failed:
        made.aligner.align(rebuild=Rebuild(ORDERS, old.id, 3, None, None))
    assert failed.value.code == "CDCM-REBUILD-OVER"
    assert one(made.target, "SELECT total FROM shop.orders WHERE id = 1") == (0,)


def test_a_dry_run_changes_nothing(made: World) -> None:
    """It says how much would be written, and at how many points."""
    made.target.execute("DELETE FROM shop.orders")
    (planned,) = made.rebuild("shop.orders", dry_run=True)
    assert (planned.ranges, planned.since) == (10, None)
    assert one(made.target, "SELECT count(*) FROM shop.orders") == (0,)
    assert one(made.target, "SELECT count(*) FROM cdc_migrator.rebuild") == (0,)


REFUSED: tuple[tuple[list[str], dict[str, Any], str], ...] = (
    (["shop.notes"], {"whole_bytes": 0}, "CDCM-REBUILD-LARGE"),
    (["shop.moods"], {"low": ("low",)}, "CDCM-REBUILD-KEY"),
    (["shop.orders"], {"low": ("seven",)}, "CDCM-REBUILD-KEY"),
    (["shop.orders"], {"low": ("1", "2")}, "CDCM-REBUILD-KEY"),
    (["shop.orders", "shop.lines"], {"low": ("1",)}, "CDCM-REBUILD-KEY"),
    (["shop.nothing"], {}, "CDCM-RECONCILE-TABLES"),
)


def test_what_cannot_be_rebuilt_is_refused_before_anything_is_written(made: World) -> None:
    """With a code, and without a value."""
    for tables, how, code in REFUSED:
        with pytest.raises(MigratorError) as refused:
            made.rebuild(*tables, **how)
        assert refused.value.code == code
        assert "seven" not in refused.value.cause
        assert isinstance(refused.value, Refused | ConfigurationError)
    assert one(made.target, "SELECT count(*) FROM cdc_migrator.rebuild") == (0,)


def test_a_target_that_does_not_keep_what_is_written_is_told(made: World) -> None:
    """Not called rebuilt: a trigger there changes the rows."""
    made.target.execute(
        "CREATE FUNCTION shop.cut() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.id = 150 THEN RETURN NULL; END IF; RETURN NEW; END $$"
    )
    made.target.execute(
        "CREATE TRIGGER cut BEFORE INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.cut()"
    )
    made.target.execute("ALTER TABLE shop.orders ENABLE ALWAYS TRIGGER cut")
    with pytest.raises(Failed) as failed:
        made.rebuild("shop.orders")
    assert failed.value.code == "CDCM-REBUILD-DIFFERS"


def test_a_point_keeps_no_lock_on_the_source(made: World) -> None:
    """As long as it lives: the application may truncate what was just read."""

    class Truncating(QuietAligner):
        locked = True

        def align(self, repairs: Any = (), rebuild: Rebuild | None = None) -> Aligned:
            aligned = super().align(repairs, rebuild)
            if self.locked:
                self.locked = False
                with psycopg.connect(made.source_dsn, autocommit=True) as conn:
                    conn.execute("SET lock_timeout = '500ms'")
                    conn.execute("TRUNCATE shop.orders")
                    made.target.execute("TRUNCATE shop.orders")
            return aligned

    made.aligner = Truncating(made.source_dsn, made.target_dsn)
    (done,) = made.rebuild("shop.orders", range_rows=10_000)
    assert (done.rows_after, done.ranges) == (1000, 1)
    assert made.content(ORDERS) == ([], [])
