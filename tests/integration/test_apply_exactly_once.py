"""Batches are applied once and whole, whatever happens to session, server or owner."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from cdc_migrator.apply.applier import Applied, Applier
from cdc_migrator.apply.shape import Reread
from cdc_migrator.control import progress
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Failed, Fenced, Refused, StreamHalted
from cdc_migrator.model.changes import Change, Op, Transaction
from cdc_migrator.model.positions import Snapshot
from cdc_migrator.model.tables import Table, TableName
from tests.support.cutting_proxy import CuttingProxy
from tests.support.live import wait_for
from tests.support.recorded import PLACEHOLDER, Recorder, batch, recorded_pair

ITEM, LOG, PARENT, CHILD, WORD = (
    TableName("shop", name) for name in ("item", "log", "parent", "child", "word")
)
KEYS = {ITEM: ("id",), PARENT: ("id",), CHILD: ("id",), WORD: ("w",)}

SCHEMA = """
CREATE EXTENSION citext SCHEMA public;
CREATE SCHEMA shop;
CREATE TABLE shop.item (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int, body text);
CREATE TABLE shop.log (what int);
ALTER TABLE shop.log REPLICA IDENTITY FULL;
CREATE TABLE shop.parent (id int PRIMARY KEY);
CREATE TABLE shop.child (id int PRIMARY KEY, parent int REFERENCES shop.parent);
CREATE TABLE shop.word (w public.citext PRIMARY KEY, n int);
"""


@dataclass
class Both:
    """A source that is recorded, and a target to apply to."""

    source: psycopg.Connection
    target: psycopg.Connection
    target_dsn: str
    tables: list[Table]
    recorder: Recorder

    def applier(self, dsn: str | None = None, **options: Any) -> Applier:
        applier = Applier(dsn or self.target_dsn, self.tables, PLACEHOLDER, **options)
        if applier.start("test", stale_after=0) is None:
            applier.close()
            raise AssertionError("the stream is owned")
        return applier

    def rows(self, table: TableName) -> list[tuple[Any, ...]]:
        return self.target.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()

    def progress(self) -> progress.Progress:
        stored = progress.read(self.target)
        assert stored is not None
        return stored


@pytest.fixture
def both() -> Iterator[Both]:
    with recorded_pair(SCHEMA, SCHEMA, KEYS) as pair:
        yield Both(pair.source, pair.target, pair.target_dsn, pair.tables, pair.recorder)


def logged(both: Both, *values: int) -> list[Transaction]:
    """One transaction for each value, inserting it into the keyless table."""
    given = []
    for value in values:
        both.recorder.insert(LOG, what=value)
        given.append(both.recorder.commit())
    return given


@pytest.mark.parametrize("moment", ["before", "after"])
def test_connection_lost_at_commit_applies_once(both: Both, moment: str) -> None:
    """Whether or not the server got the COMMIT, the rows are there once."""
    with CuttingProxy(both.target_dsn) as proxy, both.applier(proxy.dsn) as applier:
        applier.apply(batch(*logged(both, 1)))
        proxy.cut_before(b"COMMIT") if moment == "before" else proxy.cut_after(b"COMMIT")
        applied = applier.apply(batch(*logged(both, 2, 3)))
        assert proxy.cuts == 1
        assert applied.retries == 1
        applier.apply(batch(*logged(both, 4)))
    assert both.rows(LOG) == [(1,), (2,), (3,), (4,)]
    assert both.progress().transactions_applied == 4


def test_connection_lost_at_any_message_applies_once(both: Both) -> None:
    """The cut may fall on every message that applying a batch sends."""
    cut_somewhere, value = True, 0
    with CuttingProxy(both.target_dsn) as proxy, both.applier(proxy.dsn) as applier:
        message = 0
        while cut_somewhere:
            proxy.cut_at(message)
            before = proxy.cuts
            applier.apply(batch(*logged(both, value, value + 1)))
            cut_somewhere = proxy.cuts > before
            message, value = message + 1, value + 2
    assert message > 5
    assert both.rows(LOG) == [(n,) for n in range(value)]
    assert both.progress().transactions_applied == value


def test_session_ended_by_the_server_applies_once(both: Both) -> None:
    """A terminated backend is replaced, and the owner stays the owner."""
    with both.applier() as applier:
        applier.apply(batch(*logged(both, 1)))
        both.target.execute(
            "SELECT pg_terminate_backend(owner_backend) FROM cdc_migrator.stream_progress"
        )
        applier.apply(batch(*logged(both, 2)))
        assert both.progress().epoch == applier.epoch
    assert both.rows(LOG) == [(1,), (2,)]


def test_newer_owner_fences_the_older(both: Both) -> None:
    """Whoever lost the stream writes nothing more, also with a session that still works."""
    with both.applier() as old, both.applier() as new:
        transactions = logged(both, 1)
        with pytest.raises(Fenced):
            old.apply(batch(*transactions))
        assert both.rows(LOG) == []
        new.apply(batch(*transactions))
    assert both.rows(LOG) == [(1,)]


def test_stored_position_that_moved_fences(both: Both) -> None:
    """A position that this owner did not write stops it, also under its own epoch."""
    with both.applier() as applier:
        both.target.execute("UPDATE cdc_migrator.stream_progress SET next_offset = 101")
        with pytest.raises(Fenced):
            applier.apply(batch(*logged(both, 1)))
    assert both.rows(LOG) == []


def test_cancelled_statement_is_tried_again(both: Both) -> None:
    """What passes by itself is retried: here somebody cancels while a lock is waited for."""
    both.recorder.insert(ITEM, id=1, n=1, body="x")
    first = both.recorder.commit()
    both.recorder.update(ITEM, "n = 2", "true")
    second = both.recorder.commit()
    done: list[Applied] = []
    with both.applier() as applier, connect(both.target_dsn, application_name="locker") as locker:
        applier.apply(batch(first))
        with locker.transaction():
            locker.execute("SELECT FROM shop.item FOR UPDATE")
            thread = threading.Thread(target=lambda: done.append(applier.apply(batch(second))))
            thread.start()
            cancel = (
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'cdc-migrator apply' AND wait_event_type = 'Lock'"
            )
            wait_for("the lock", lambda: both.target.execute(cancel).fetchone())
        thread.join(30)
    assert done[0].retries >= 1
    assert both.rows(ITEM) == [(1, 2, "x")]


def test_target_that_stays_away_fails_within_the_time_given(both: Both) -> None:
    """A target that does not come back is an error with a code, and nothing is lost."""
    with CuttingProxy(both.target_dsn) as proxy, both.applier(proxy.dsn, retry_for=0.3) as applier:
        proxy.refuse()
        with pytest.raises(Failed) as failed:
            applier.apply(batch(*logged(both, 1)))
    assert failed.value.code == "CDCM-APPLY-UNAVAILABLE"
    assert both.progress().next_offset == 100


def test_what_was_given_up_at_a_barrier_is_not_taken_for_the_next_batch(both: Both) -> None:
    """Its COMMIT was carried out, and nobody was told; the batch behind it is applied."""
    with CuttingProxy(both.target_dsn) as proxy, both.applier(proxy.dsn, retry_for=0) as applier:
        proxy.cut_after(b"COMMIT")
        with pytest.raises(Failed) as failed:
            applier.at_barrier(lambda target: target.execute("INSERT INTO shop.log VALUES (7)"))
        assert failed.value.code == "CDCM-APPLY-UNAVAILABLE"
        wait_for("it is committed", lambda: both.rows(LOG) == [(7,)])
        applier.apply(batch(*logged(both, 1)))
    assert both.rows(LOG) == [(1,), (7,)]


def test_stop_ends_waiting_for_the_target(both: Both) -> None:
    """Asked to stop, the applier does not sit its retries out."""
    stopping = threading.Event()
    stopping.set()
    with CuttingProxy(both.target_dsn) as proxy, both.applier(proxy.dsn, stopping=stopping) as a:
        proxy.refuse()
        with pytest.raises(Failed) as failed:
            a.apply(batch(*logged(both, 1)))
    assert failed.value.code == "CDCM-APPLY-STOPPED"


@pytest.mark.parametrize("culprit", [0, 3, 6])
def test_rejected_row_halts_behind_all_earlier_transactions(both: Both, culprit: int) -> None:
    """The halt names the transaction; all before it are applied, nothing of it or after it."""
    both.target.execute("ALTER TABLE shop.item ADD CONSTRAINT small CHECK (n < 1000)")
    transactions = []
    for n in range(7):
        both.recorder.insert(LOG, what=n)
        both.recorder.insert(ITEM, id=n, n=987654 if n == culprit else n, body="secret body")
        transactions.append(both.recorder.commit())
    commits: list[Applied] = []
    with both.applier(on_applied=commits.append) as applier, pytest.raises(StreamHalted) as halted:
        applier.apply(batch(*transactions))
    guilty = transactions[culprit]
    assert halted.value.code == "CDCM-APPLY-REJECTED"
    for part in ("shop.item", "23514", "small", str(guilty.xid), str(guilty.first_offset)):
        assert part in str(halted.value)
    assert "987654" not in str(halted.value)
    assert "secret" not in str(halted.value)
    assert both.rows(LOG) == [(n,) for n in range(culprit)]
    assert both.progress().next_offset == guilty.first_offset
    assert sum(one.transactions for one in commits) == culprit


def test_row_that_is_not_there_halts(both: Both) -> None:
    """An update of a value left out of the event, or a delete, needs its row on the target."""
    both.recorder.insert(ITEM, id=1, n=1, body="long enough to be out of line")
    both.recorder.insert(ITEM, id=2, n=2, body="")
    both.recorder.insert(LOG, what=1)
    first = both.recorder.commit()
    spoil = {
        "DELETE FROM shop.item WHERE id = 1": lambda r: r.update(ITEM, "n = 5", "id = 1"),
        "DELETE FROM shop.item WHERE id = 2": lambda r: r.delete(ITEM, "id = 2"),
        "UPDATE shop.log SET what = 77": lambda r: r.delete(LOG, "true"),
    }
    with both.applier() as applier:
        applier.apply(batch(first))
        for statement, change in spoil.items():
            both.target.execute(statement)
            change(both.recorder)
            with pytest.raises(StreamHalted) as halted:
                applier.apply(batch(both.recorder.commit()))
            assert halted.value.code == "CDCM-APPLY-ROW-MISSING"
        assert both.progress().next_offset == first.next_offset


def test_table_outside_the_migration_halts(both: Both) -> None:
    """A table that nobody planned is never passed over."""
    one, two = logged(both, 1, 2)
    stranger = TableName("shop", "stranger")
    two.changes.append(Change(stranger, Op.INSERT, b"{}", None, b"{}", two.begin_lsn))
    with both.applier() as applier, pytest.raises(StreamHalted) as halted:
        applier.apply(batch(one, two))
    assert halted.value.code == "CDCM-STREAM-UNKNOWN-TABLE"
    assert str(two.xid) in halted.value.position
    assert both.rows(LOG) == [(1,)]


def test_event_with_other_columns_halts(both: Both) -> None:
    """A column that the plan does not know stops the stream instead of being left out."""
    (one,) = logged(both, 1)
    one.changes[0].after = b'{"what": 1, "more": 2}'
    with both.applier() as applier, pytest.raises(StreamHalted) as halted:
        applier.apply(batch(one))
    assert halted.value.code == "CDCM-STREAM-SCHEMA"
    assert both.progress().next_offset == 100


def test_control_rows_are_handed_out_and_not_applied(both: Both) -> None:
    """Markers and heartbeats of the source tell the applier something; the target has none."""
    (one,) = logged(both, 1)
    marker = TableName("cdc_migrator", "marker")
    row = b'{"id":5,"migration":"m","kind":"barrier","token":"t","details":null,"at":"..."}'
    beat = b'{"migration":"m","beat":9,"at":"..."}'
    one.changes += [
        Change(marker, Op.INSERT, b'{"id":5}', None, row, one.begin_lsn),
        Change(marker, Op.DELETE, b'{"id":4}', b'{"id":4}', None, one.begin_lsn),
        Change(TableName("cdc_migrator", "heartbeat"), Op.UPDATE, b"{}", None, beat, one.begin_lsn),
    ]
    with both.applier() as applier:
        applied = applier.apply(batch(one))
    assert [(m.id, m.kind, m.token, m.commit_lsn) for m in applied.markers] == [
        (5, "barrier", "t", one.commit_lsn)
    ]
    assert [(h.migration, h.beat, h.committed_at_us) for h in applied.heartbeats] == [
        ("m", 9, one.committed_at_us)
    ]
    assert both.rows(LOG) == [(1,)]


def test_foreign_keys_and_triggers_do_not_act_twice(both: Both) -> None:
    """Tables are written in name order: a child before its parent, and no trigger fires."""
    both.target.execute(
        "CREATE FUNCTION shop.refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE 'fired'; END $$;"
        "CREATE TRIGGER refuse BEFORE INSERT ON shop.child FOR EACH ROW "
        "EXECUTE FUNCTION shop.refuse()"
    )
    both.recorder.insert(PARENT, id=1)
    both.recorder.insert(CHILD, id=1, parent=1)
    with both.applier() as applier:
        applier.apply(batch(both.recorder.commit()))
        both.recorder.truncate(PARENT, CHILD)
        both.recorder.insert(PARENT, id=2)
        applier.apply(batch(both.recorder.commit()))
    assert (both.rows(PARENT), both.rows(CHILD)) == ([(2,)], [])


def test_key_of_an_extension_type_is_compared_as_that_type(both: Both) -> None:
    """A citext key finds its row whatever its case, and may change its case."""
    both.recorder.insert(WORD, w="Apple", n=1)
    both.recorder.insert(WORD, w="Pear", n=1)
    with both.applier() as applier:
        applier.apply(batch(both.recorder.commit()))
        both.target.execute("UPDATE shop.word SET w = lower(w::text)")
        both.recorder.update(WORD, "w = 'APPLE'", "w OPERATOR(public.=) 'apple'")
        both.recorder.delete(WORD, "w OPERATOR(public.=) 'pear'")
        applier.apply(batch(both.recorder.commit()))
    assert both.rows(WORD) == [("APPLE", 1)]


def test_events_are_counted_by_table(both: Both) -> None:
    """The progress of each table counts what the stream carried for it."""
    both.target.execute(
        "INSERT INTO cdc_migrator.table_progress (source_schema, source_table, target_schema, "
        "target_table) VALUES ('shop', 'item', 'shop', 'item')"
    )
    both.recorder.insert(ITEM, id=1, n=1, body="")
    both.recorder.insert(ITEM, id=2, n=1, body="")
    both.recorder.update(ITEM, "n = 2", "id = 1")
    both.recorder.delete(ITEM, "id = 2")
    first = both.recorder.commit()
    both.recorder.truncate(ITEM)
    with both.applier() as applier:
        applier.apply(batch(first, both.recorder.commit()))
    counts = both.target.execute(
        "SELECT inserts, updates, deletes, truncates FROM cdc_migrator.table_progress"
    ).fetchone()
    assert counts == (2, 1, 1, 1)


def test_reread_table_skips_what_its_snapshot_saw(both: Both) -> None:
    """For a table loaded again, transactions in its snapshot are skipped, for it alone."""
    transactions = []
    for n in range(4):
        both.recorder.insert(ITEM, id=n, n=n, body="")
        both.recorder.insert(LOG, what=n)
        transactions.append(both.recorder.commit())
    xids = [t.xid for t in transactions]
    # The snapshot saw the first and the third; the last is visible by its id alone, but committed
    # past the position up to which the snapshot is asked.
    seen = Reread(
        Snapshot(xids[1], xids[3] + 1, frozenset({xids[1]})), until=transactions[2].commit_lsn
    )
    with both.applier(rereads={ITEM: seen}) as applier:
        applier.apply(batch(*transactions))
    assert [row[0] for row in both.rows(ITEM)] == [1, 3]
    assert [row[0] for row in both.rows(LOG)] == [0, 1, 2, 3]


def test_role_that_may_not_switch_off_triggers_is_refused(both: Both) -> None:
    """Without that right foreign keys would refuse rows: said before anything is written."""
    both.target.execute("DROP ROLE IF EXISTS cdcm_plain; CREATE ROLE cdcm_plain LOGIN")
    try:
        with pytest.raises(Refused) as refused:
            both.applier(f"{both.target_dsn} user=cdcm_plain")
        assert refused.value.code == "CDCM-TARGET-REPLICA-ROLE"
        assert "GRANT SET ON PARAMETER" in refused.value.remedy
        both.target.execute("GRANT SET ON PARAMETER session_replication_role TO cdcm_plain")
        both.target.execute("GRANT ALL ON ALL TABLES IN SCHEMA cdc_migrator, shop TO cdcm_plain")
        both.target.execute("GRANT ALL ON SCHEMA cdc_migrator, shop TO cdcm_plain")
        with both.applier(f"{both.target_dsn} user=cdcm_plain") as applier:
            applier.apply(batch(*logged(both, 1)))
        assert both.rows(LOG) == [(1,)]
    finally:
        both.target.execute("DROP OWNED BY cdcm_plain; DROP ROLE cdcm_plain")


def test_missing_table_on_the_target_is_refused(both: Both) -> None:
    """A plan needs every table and column to be there."""
    both.target.execute("ALTER TABLE shop.item DROP COLUMN body")
    with pytest.raises(Refused) as refused:
        both.applier()
    assert refused.value.code == "CDCM-TARGET-TABLE-MISSING"
    assert "body" in refused.value.cause


def test_rows_of_a_large_table_are_found_by_index(both: Both) -> None:
    """Deletes, partial updates and replaced rows never read the whole table."""
    both.target.execute(
        "ALTER TABLE shop.item ADD UNIQUE (n);"
        "INSERT INTO shop.item OVERRIDING SYSTEM VALUE SELECT i, i, 'long enough to be toasted' "
        "FROM generate_series(1, 20000) i; ANALYZE shop.item"
    )
    both.source.execute(
        "INSERT INTO shop.item OVERRIDING SYSTEM VALUE SELECT i, i, 'long enough to be toasted' "
        "FROM generate_series(1, 20000) i"
    )
    both.source.commit()
    scans = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'item'"
    both.target.execute("SELECT pg_stat_reset()")
    with both.applier() as applier:
        both.recorder.delete(ITEM, "id <= 50")
        both.recorder.update(ITEM, "n = -n", "id BETWEEN 60 AND 100")
        applier.apply(batch(both.recorder.commit()))
        both.recorder.update(ITEM, "n = id + 1000000", "id IN (200, 201)")
        both.recorder.update(ITEM, "n = 201", "id = 200")
        both.recorder.update(ITEM, "n = 200", "id = 201")
        applier.apply(batch(both.recorder.commit()))
    gone = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cdc-migrator apply'"
    wait_for("the session's end", lambda: both.target.execute(gone).fetchone() == (0,))
    assert both.target.execute(scans).fetchone() == (0,)
    assert both.target.execute("SELECT n FROM shop.item WHERE id = 200").fetchone() == (201,)
