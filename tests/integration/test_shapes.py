"""Every shape of a change arrives: partitions, cascades, savepoints, two phases, triggers.

One migration streams all the time, with so little memory that larger transactions go to a file and
are applied in pieces. After each test both sides hold the same rows, compared by plain SQL.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.support.fenced import let_in
from tests.support.live import LiveMigration, one, wait_for
from tests.support.stack import fresh_database

SCHEMA = """
CREATE EXTENSION citext SCHEMA public;
CREATE SCHEMA s;
CREATE TABLE s.part (id int, region text, note text, span interval, PRIMARY KEY (region, id))
    PARTITION BY LIST (region);
CREATE TABLE s.part_north PARTITION OF s.part FOR VALUES IN ('north');
CREATE TABLE s.part_rest PARTITION OF s.part DEFAULT;
CREATE TABLE s.parent (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text);
CREATE TABLE s.child (id serial PRIMARY KEY,
    parent int REFERENCES s.parent ON DELETE CASCADE ON UPDATE CASCADE DEFERRABLE, at timetz);
CREATE TABLE s.node (id int PRIMARY KEY, next int NOT NULL REFERENCES s.node DEFERRABLE);
CREATE TABLE s.log (what int, word text);
ALTER TABLE s.log REPLICA IDENTITY FULL;
CREATE TABLE s.span_log (what int, span interval, tags text[]);
ALTER TABLE s.span_log REPLICA IDENTITY FULL;
CREATE TABLE s.indexed (code text NOT NULL, n int, body text);
CREATE UNIQUE INDEX indexed_code ON s.indexed (code);
ALTER TABLE s.indexed REPLICA IDENTITY USING INDEX indexed_code;
CREATE TABLE s.ci (id public.citext PRIMARY KEY, span interval);
CREATE TABLE s.shift (day date, "from" time, "to" time, PRIMARY KEY (day, "from"));
CREATE TABLE s.tagged (id int PRIMARY KEY, tags text[], at time, n int);
CREATE TABLE s.seat (id int PRIMARY KEY, place int UNIQUE, span interval, body text);
ALTER TABLE s.seat ALTER body SET STORAGE EXTERNAL;
-- Triggers of the application that change rows while ours is about to tell of them.
CREATE TABLE s.nested (id int PRIMARY KEY, n int NOT NULL, span interval);
CREATE FUNCTION s.again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF pg_trigger_depth() = 1 THEN
        UPDATE s.nested SET span = span + interval '1 hour' WHERE id = NEW.id;
        UPDATE s.nested SET span = interval '5 s', id = id + 1000 WHERE id = NEW.id + 1 AND n = 7;
        DELETE FROM s.nested WHERE id = NEW.id AND n = 9;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER "aaa again" AFTER INSERT OR UPDATE ON s.nested FOR EACH ROW
    EXECUTE FUNCTION s.again();
CREATE FUNCTION s.before() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    NEW.span = NEW.span * 2; RETURN NEW;
END $$;
CREATE TRIGGER before BEFORE INSERT ON s.nested FOR EACH ROW EXECUTE FUNCTION s.before();
INSERT INTO s.parent (name) SELECT 'p' || n FROM generate_series(1, 20) n;
INSERT INTO s.child (parent, at) SELECT n % 20 + 1, '12:00+02' FROM generate_series(1, 60) n;
INSERT INTO s.part SELECT n, CASE n % 3 WHEN 0 THEN 'north' ELSE 'south' END, 'n', '1 day'
    FROM generate_series(1, 30) n;
INSERT INTO s.log SELECT n % 3, 'w' FROM generate_series(1, 9) n;
INSERT INTO s.span_log SELECT n % 3, '1 day', '{a}' FROM generate_series(1, 9) n;
INSERT INTO s.indexed SELECT 'c' || n, n, repeat('x', 5000) FROM generate_series(1, 9) n;
INSERT INTO s.nested SELECT n, n, '1 day' FROM generate_series(1, 20) n;
INSERT INTO s.tagged SELECT n, '{a,b}', '10:00', n FROM generate_series(1, 20) n;
INSERT INTO s.seat SELECT n, n, '1 day', repeat(md5(n::text), 200) FROM generate_series(1, 40) n;
"""
TABLES = (
    "part", "parent", "child", "node", "log", "span_log", "indexed", "ci", "shift", "tagged",
    "seat", "nested",
)  # fmt: skip


@pytest.fixture(scope="module")
def live(stack: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveMigration]:
    """The migration, streaming."""
    with fresh_database(stack.source_dsn) as source, fresh_database(stack.target_dsn) as target:
        with psycopg.connect(source, autocommit=True) as conn:
            conn.execute(SCHEMA.encode())
        directory = tmp_path_factory.mktemp("shapes") / "migration"
        settings = {"apply": {"transaction_bytes": "32KiB", "max_batch_rows": 200}}
        made = LiveMigration(directory, "shapes", source, target, stack, settings)
        try:
            made.prepare()
            made.start("run")
            yield made
        finally:
            made.close()


def contents(dsn: str) -> dict[str, list[str]]:
    """Every row of every table as text."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        return {
            table: [
                row[0]
                for row in conn.execute(f"SELECT t::text FROM s.{table} t ORDER BY 1".encode())
            ]
            for table in TABLES
        }


def run(live: LiveMigration, *statements: str, equal: bool = True) -> None:
    """Run statements in one transaction of the source; the target becomes the same."""
    with psycopg.connect(live.source, autocommit=True) as conn, conn.transaction():
        for statement in statements:
            conn.execute(statement.encode())
    settle(live, equal)


def settle(live: LiveMigration, equal: bool = True) -> None:
    assert live.drain(), live.halted()
    assert (contents(live.source) == contents(live.target)) is equal


def test_rows_move_between_partitions(live: LiveMigration) -> None:
    """By an update of the partition key, with a value that travels beside the event."""
    run(
        live,
        "UPDATE s.part SET region = 'north' WHERE id % 4 = 0",
        "UPDATE s.part SET region = 'south', span = '-1 mons +2 days' WHERE id % 5 = 0",
        "INSERT INTO s.part VALUES (99, 'north', NULL, NULL) ON CONFLICT DO NOTHING",
        "UPDATE s.part SET id = id + 100 WHERE region = 'north'",
    )


def test_partitions_are_truncated_one_by_one_and_by_their_root(live: LiveMigration) -> None:
    """Each leaf is a table of its own in the stream."""
    run(live, "TRUNCATE s.part_north", "INSERT INTO s.part VALUES (1, 'north', 'x', '1 s')")
    run(live, "TRUNCATE s.part")
    run(live, "INSERT INTO s.part SELECT n, 'west', 'n' FROM generate_series(1, 9) n")


def test_cascades_and_cycles_of_foreign_keys(live: LiveMigration) -> None:
    """Parents and children in any order, and rows that refer to each other."""
    run(live, "UPDATE s.parent SET id = DEFAULT WHERE id < 5", "DELETE FROM s.parent WHERE id > 18")
    run(
        live,
        "SET CONSTRAINTS ALL DEFERRED",
        "INSERT INTO s.child (parent, at) VALUES (7000, '24:00-15:59')",
        "INSERT INTO s.parent (id, name) OVERRIDING SYSTEM VALUE VALUES (7000, 'late')",
        "INSERT INTO s.node VALUES (1, 2), (2, 3), (3, 1)",
    )
    run(live, "SET CONSTRAINTS ALL DEFERRED", "UPDATE s.node SET id = id + 10, next = next + 10")
    run(live, "TRUNCATE s.parent RESTART IDENTITY CASCADE")
    run(live, "INSERT INTO s.parent (name) VALUES ('first')", "INSERT INTO s.child VALUES (1, 1)")


def test_savepoints_leave_only_what_was_kept(live: LiveMigration) -> None:
    """Subtransactions, rolled back and not, nested."""
    run(
        live,
        "INSERT INTO s.tagged VALUES (100, '{x}', '11:00', 1)",
        "SAVEPOINT a",
        "UPDATE s.tagged SET tags = '{{1,2},{3,4}}' WHERE id = 100",
        "SAVEPOINT b",
        "DELETE FROM s.tagged",
        "ROLLBACK TO b",
        "INSERT INTO s.tagged VALUES (101, '[0:1]={y,z}', '24:00', 2)",
        "RELEASE a",
    )


def test_prepared_transactions_arrive_when_they_are_committed(live: LiveMigration) -> None:
    """And not at all when they are rolled back."""
    with psycopg.connect(live.source, autocommit=True) as conn:
        for end in ("COMMIT", "ROLLBACK"):
            conn.execute("BEGIN")
            conn.execute("UPDATE s.tagged SET n = n + 1000, at = '24:00' WHERE id < 9")
            conn.execute("UPDATE s.tagged SET id = id + 5000 WHERE id = 9")
            conn.execute("PREPARE TRANSACTION 'shapes'")
            conn.execute("INSERT INTO s.log VALUES (77, 'between')")
            conn.execute(f"{end} PREPARED 'shapes'".encode())
    settle(live)


def test_other_peoples_logical_messages_are_ignored(live: LiveMigration) -> None:
    """Inside transactions, outside of them, and as the only thing in one."""
    run(
        live,
        "SELECT pg_logical_emit_message(true, 'cdc', 'first')",
        "INSERT INTO s.log VALUES (1, 'x')",
        "SELECT pg_logical_emit_message(false, 'cdc', 'now')",
        "SELECT pg_logical_emit_message(true, 'cdc', repeat('long', 1000))",
    )
    run(live, "SELECT pg_logical_emit_message(true, 'cdc', 'alone')")


def test_keyless_rows_keep_their_number(live: LiveMigration) -> None:
    """Equal rows come, change and go; also those that are sent whole."""
    for table in ("log (what, word)", "span_log (what, span)"):
        name = table.split()[0]
        value, other = ("'w'", "'v'") if name == "log" else ("interval '1 day'", "'24:00:00.5'")
        run(live, f"INSERT INTO s.{table} SELECT 5, {value} FROM generate_series(1, 5)")
        column = table.split(", ")[1].rstrip(")")
        run(
            live,
            f"UPDATE s.{name} SET {column} = {other} WHERE ctid = "
            f"(SELECT max(ctid) FROM s.{name} WHERE what = 5)",
            f"DELETE FROM s.{name} WHERE ctid = (SELECT min(ctid) FROM s.{name} WHERE what = 5)",
            f"UPDATE s.{name} SET what = what + 1 WHERE what < 2",
        )
        run(live, f"TRUNCATE s.{name}", f"INSERT INTO s.{name} VALUES (1), (1), (NULL)")


def test_an_index_as_identity_and_a_key_of_another_equality(live: LiveMigration) -> None:
    """Rows move by the index's columns; citext calls equal what is not the same text."""
    run(live, "UPDATE s.indexed SET code = 'd' || n, n = n + 1 WHERE n > 3")
    run(live, "UPDATE s.indexed SET n = 0 WHERE code = 'c1'", "DELETE FROM s.indexed WHERE n = 3")
    run(live, "INSERT INTO s.ci VALUES ('Key', '1 day'), ('other', NULL)")
    run(live, "UPDATE s.ci SET id = 'KEY', span = '2 days' WHERE id = 'key'")
    run(live, "DELETE FROM s.ci WHERE id = 'key'", "INSERT INTO s.ci VALUES ('keY', '3 days')")


def test_a_key_that_events_distort_sends_whole_rows(live: LiveMigration) -> None:
    """Midnight as the beginning and as the end of a day are two keys."""
    run(
        live,
        "INSERT INTO s.shift VALUES ('2024-01-01', '00:00', '08:00'), "
        "('2024-01-01', '24:00', '24:00')",
    )
    run(live, "UPDATE s.shift SET \"to\" = '09:00' WHERE \"from\" = '24:00'")
    run(live, "DELETE FROM s.shift WHERE \"from\" = '00:00'")
    run(live, "TRUNCATE s.shift")


def test_triggers_of_the_application_may_change_the_row_again(live: LiveMigration) -> None:
    """Before ours tells of it: updated, moved away or deleted; ours tells what is there."""
    run(live, "UPDATE s.nested SET n = n + 1")
    run(live, "INSERT INTO s.nested VALUES (200, 9, '1 s'), (201, 7, '2 s'), (202, 7, '3 s')")
    run(live, "UPDATE s.nested SET span = '7 s' WHERE id IN (10, 11)", "DELETE FROM s.nested")
    run(live, "INSERT INTO s.nested VALUES (1, 1, '88000000 years'), (2, 2, 'infinity')")


def test_every_way_to_write_fires_the_trigger(live: LiveMigration) -> None:
    """COPY, ON CONFLICT, MERGE, a writable CTE, a session that replicates into the source."""
    with psycopg.connect(live.source, autocommit=True) as conn:
        conn.execute("TRUNCATE s.seat")
        with conn.cursor().copy("COPY s.seat (id, place, span) FROM STDIN") as copy:
            for n in range(300):
                copy.write_row((n, n, f"{n} days"))
        conn.execute(
            "INSERT INTO s.seat SELECT n, n, '9 days' FROM generate_series(290, 310) n "
            "ON CONFLICT (id) DO UPDATE SET span = excluded.span"
        )
        conn.execute(
            "MERGE INTO s.seat USING generate_series(300, 320) n ON id = n "
            "WHEN MATCHED THEN UPDATE SET span = '8 days' "
            "WHEN NOT MATCHED THEN INSERT VALUES (n, n, '7 days')"
        )
        conn.execute(
            "WITH gone AS (DELETE FROM s.seat WHERE id < 5 RETURNING id, place, span) "
            "INSERT INTO s.seat SELECT id + 1000, place, span + '1 s' FROM gone"
        )
        conn.execute("SET session_replication_role = replica")
        conn.execute("UPDATE s.seat SET span = '6 days' WHERE id > 310")
    settle(live)


def test_a_transaction_larger_than_memory_is_applied_in_pieces(live: LiveMigration) -> None:
    """Swaps of unique values, moves, values out of line and a truncate among them; one commit."""
    run(
        live,
        "TRUNCATE s.seat, s.log",
        "INSERT INTO s.seat SELECT n, n, '1 day', repeat(md5(n::text), 100) "
        "FROM generate_series(1, 1500) n",
        "INSERT INTO s.log SELECT n % 7, 'w' FROM generate_series(1, 3000) n",
        "UPDATE s.seat SET place = -place",
        "UPDATE s.seat SET place = 1501 + place",
        "UPDATE s.seat SET id = id + 10000 WHERE id % 3 = 0",
        "UPDATE s.seat SET span = span + '1 h' WHERE id % 7 = 0",
        "DELETE FROM s.log WHERE what = 3",
        "UPDATE s.log SET word = 'v' WHERE what = 4",
    )
    run(
        live,
        "UPDATE s.seat SET id = id - 10000 WHERE id > 10000",
        "UPDATE s.seat SET place = -place",
        "TRUNCATE s.log",
        "INSERT INTO s.log SELECT n, 'z' FROM generate_series(1, 900) n",
        "UPDATE s.seat SET place = 3000 + place",
        "UPDATE s.tagged SET tags = '{{1,2},{3,4}}' WHERE n % 2 = 0",
        "INSERT INTO s.tagged SELECT n, '{{5,6}}', '24:00', n FROM generate_series(200, 1200) n",
    )


def test_tables_are_read_again_where_the_stream_cannot_prove_them(live: LiveMigration) -> None:
    """What the target lost comes back, and what the new reading saw is not applied twice."""
    name = "s.parent"
    assert live.cli("backfill", "--again", name, check=3).stderr.count("CDCM-LOAD-AGAIN-RUNNING")
    live.stop(live.processes[-1])
    assert live.cli("backfill", "--again", "s.x", check=3).stderr.count("CDCM-LOAD-AGAIN-UNKNOWN")
    with psycopg.connect(live.source, autocommit=True) as conn:
        conn.execute("INSERT INTO s.parent (name) SELECT 'again' FROM generate_series(1, 500)")
        conn.execute("UPDATE s.parent SET id = DEFAULT WHERE id % 3 = 0")
        conn.execute("INSERT INTO s.child SELECT id + 10000, id FROM s.parent")
        conn.execute("UPDATE s.seat SET span = '5 days' WHERE id % 2 = 0")
        with let_in(live.target) as target:
            target.execute("SET session_replication_role = replica")
            target.execute("DELETE FROM s.parent; UPDATE s.seat SET place = place - 100000")
        live.cli("backfill", "--again", name, "--again", "s.seat")
        conn.execute("DELETE FROM s.parent WHERE id % 5 = 0")
        conn.execute("UPDATE s.seat SET span = '6 days', place = -place WHERE id % 5 = 0")
    live.start("run")
    settle(live)


def test_truncates_are_ignored_where_the_user_said_so(live: LiveMigration) -> None:
    """The rows stay, and the verdict says why it is no; `halt` stops in front of it."""
    live.stop(live.processes[-1])
    process = live.start("run", env={"CDC_MIGRATOR_APPLY__TRUNCATES": "ignore"})
    run(live, "INSERT INTO s.node VALUES (50, 50)")
    run(live, "TRUNCATE s.node", "INSERT INTO s.node VALUES (50, 50), (51, 51)", equal=False)
    kept = one(live.target, "SELECT count(*) FROM s.node")
    assert kept == 5
    status = live.status()
    assert any("which was ignored" in reason for reason in status["ready"]["reasons"])
    live.stop(process)
    process = live.start("run", env={"CDC_MIGRATOR_APPLY__TRUNCATES": "halt"})
    with psycopg.connect(live.source, autocommit=True) as conn:
        conn.execute("TRUNCATE s.node")
    halted = wait_for("the halt", live.halted)
    assert halted["code"] == "CDCM-APPLY-TRUNCATE"
    assert process.wait(30) == 3
    live.start("run")
    wait_for("the stream goes on", lambda: live.halted() is None)
    settle(live)


def test_a_trigger_that_was_switched_off_ends_the_service(live: LiveMigration) -> None:
    """Something is missing from then on, also when it is switched on again."""
    live.stop(live.processes[-1])
    with psycopg.connect(live.source, autocommit=True) as conn:
        conn.execute("ALTER TABLE s.tagged DISABLE TRIGGER ALL")
        conn.execute("ALTER TABLE s.tagged ENABLE TRIGGER ALL")
    process = live.start("run")
    assert process.wait(60) == 3
    assert "CDCM-SIDE-DISABLED" in live.log()
    assert process.returncode != -signal.SIGKILL
