"""The load on the real stack: exact under writers, and after anything in it was killed."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from cdc_migrator.backfill import toc
from cdc_migrator.backfill.load import LoadOptions
from cdc_migrator.backfill.progress import LoadProgress
from cdc_migrator.backfill.receiving import check_extensions
from cdc_migrator.backfill.schema import make_indexes, make_tables
from cdc_migrator.backfill.schema_options import SchemaOptions
from cdc_migrator.backfill.statistics import analyze
from cdc_migrator.backfill.throttle import ThrottleOptions
from cdc_migrator.backfill.tools import find
from cdc_migrator.control import load, locks, migration, progress
from cdc_migrator.control import schema as control
from cdc_migrator.databases.postgres import catalog
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Failed, Refused
from cdc_migrator.model.tables import TableName
from cdc_migrator.stack.local import StackInfo
from tests.integration.capture_rig import Rig, eventually

pytestmark = pytest.mark.stack

ROWS = 30_000
SMALL = LoadOptions(workers=2, chunk_bytes=16 * 1024, freeze_bytes=0)  # some three hundred chunks


@pytest.fixture
def rig(stack: StackInfo, source_db: str, target_db: str, tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(stack, source_db, target_db, tmp_path / "state")
    rig.fill(ROWS)
    yield rig
    rig.abort()


LOAD = """
import sys
import threading
from cdc_migrator.backfill.load import LoadOptions, load
from cdc_migrator.model.naming import Names
source, target, name = sys.stdin.read().split("\\n")
load(source, target, Names(name), LoadOptions(workers=2, freeze_bytes=0, OPTIONS))
"""


@contextmanager
def loader(rig: Rig, options: str = "chunk_bytes=16 * 1024") -> Iterator[subprocess.Popen[str]]:
    """A loader in a process of its own, in the middle of its work; killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", LOAD.replace("OPTIONS", options)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write("\n".join((rig.source, rig.target, rig.names.migration)))
    process.stdin.close()
    try:
        eventually(lambda: done(rig)[0] > 10)
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def done(rig: Rig) -> tuple[int, int]:
    """(chunks that are done, all chunks)."""
    return tuple(  # type: ignore[return-value]
        rig.one(
            rig.target,
            "SELECT count(*) FILTER (WHERE done), count(*) FROM cdc_migrator.backfill_chunk",
        )
    )


def holder_of(rig: Rig) -> psutil.Process:
    return psutil.Process(
        rig.one(rig.target, "SELECT snapshot_holder_pid FROM cdc_migrator.migration")
    )


def reading(rig: Rig) -> int:
    """Sessions of loaders on the source."""
    return int(
        rig.one(
            rig.source,
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s",
            f"cdcm-{rig.names.migration}-load",
        )
    )


def anew(rig: Rig) -> set[str]:
    """The tables that were read anew."""
    with connect(rig.target, application_name="test") as conn:
        return {str(table.source) for table in load.read_tables(conn) if table.attempt}


def test_load_under_writers_is_the_snapshot(rig: Rig) -> None:
    """Loaded rows and the stream's changes add up to the source, keyless duplicates included."""
    seen: list[LoadProgress] = []
    with rig.writing() as writers:
        rig.start()
        loaded = rig.load(SMALL, on_progress=seen.append)
        eventually(lambda: writers.commits > 50)

    assert rig.account() == rig.content(rig.source)
    assert loaded.anew == ()
    counted = rig.one(
        rig.target,
        "SELECT (SELECT count(*) FROM shop.item) + (SELECT count(*) FROM shop.log) "
        "+ (SELECT count(*) FROM shop.plain)",
    )
    assert loaded.rows == counted
    last = seen[-1]
    assert (last.rows, last.tables_done, last.tables_total) == (counted, 3, 3)
    assert (last.fraction, last.seconds_left) == (1.0, 0.0)
    middle = [p for p in seen if 0 < p.fraction < 1]
    assert middle
    assert all(p.seconds_left is None or p.seconds_left > 0 for p in middle)
    assert rig.load().rows == counted  # a second load finds all done


@pytest.mark.parametrize("options", ["chunk_bytes=16 * 1024", "chunk_bytes=64 * 1024"])
def test_killed_loader_resumes_without_a_doubled_row(rig: Rig, options: str) -> None:
    """SIGKILL in the middle of chunks: the next load does the rest under the same snapshot."""
    with rig.writing():
        rig.start()
        with loader(rig, options) as process:
            process.send_signal(signal.SIGKILL)
            process.wait()
            eventually(lambda: reading(rig) == 0)
            finished, total = done(rig)
            assert 0 < finished < total
        loaded = rig.load(SMALL)

    assert loaded.anew == ()
    assert rig.account() == rig.content(rig.source)


def test_lost_holder_has_unfinished_tables_read_anew(rig: Rig) -> None:
    """With the snapshot gone, what is unfinished is emptied and read under a new one, exactly."""
    with rig.writing() as writers:
        rig.start()
        with loader(rig) as process:
            process.send_signal(signal.SIGSTOP)
            holder = holder_of(rig)
            holder.kill()
            process.kill()
            process.wait()
        before = writers.commits
        eventually(lambda: writers.commits > before + 100)
        loaded = rig.load(SMALL)
        eventually(lambda: writers.commits > before + 200)

    assert loaded.anew
    assert {str(name) for name in loaded.anew} == anew(rig)
    assert rig.account() == rig.content(rig.source)


def test_holder_lost_under_a_running_loader_is_made_good(rig: Rig) -> None:
    """A loader notices the loss between two chunks and goes on by itself."""
    with rig.writing():
        rig.start()
        with loader(rig) as process:
            holder_of(rig).kill()
            assert process.wait(120) == 0

    assert anew(rig)
    assert rig.account() == rig.content(rig.source)


def test_snapshot_lost_before_anything_was_loaded(rig: Rig) -> None:
    """All tables are read anew, and a target that is not empty is still refused, not emptied."""
    rig.start()
    holder = holder_of(rig)
    holder.kill()
    with psycopg.connect(rig.target, autocommit=True) as conn:
        conn.execute("INSERT INTO shop.plain VALUES (7, 'stray')")
    with pytest.raises(Refused, match=r"CDCM-TARGET-NOT-EMPTY.*shop\.plain"):
        rig.load()
    assert rig.one(rig.target, "SELECT note FROM shop.plain") == "stray"

    with psycopg.connect(rig.target, autocommit=True) as conn:
        conn.execute("DELETE FROM shop.plain")
    assert len(rig.load().anew) == 3
    assert rig.account() == rig.content(rig.source)


def test_truncated_table_is_read_anew_and_no_other(rig: Rig) -> None:
    """A TRUNCATE between two chunks empties older snapshots in silence; the file tells."""
    rig.start()
    with loader(rig) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (
            rig.one(
                rig.target,
                "SELECT load_state FROM cdc_migrator.table_progress WHERE source_table = 'item'",
            )
            == "loading"
        )
        with psycopg.connect(rig.source, autocommit=True) as conn:
            conn.execute("TRUNCATE shop.item")
            conn.execute("INSERT INTO shop.item VALUES (1, 2, 'after')")
    loaded = rig.load(SMALL)

    assert loaded.anew == (TableName("shop", "item"),)
    assert rig.account() == rig.content(rig.source)


def test_table_rewritten_while_it_is_begun_anew_is_begun_again(rig: Rig) -> None:
    """A new file between noting the file and reading it: nothing is taken for loaded unread."""
    rig.start()
    holder_of(rig).kill()
    with (
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(rig.target) as held,
        psycopg.connect(rig.source, autocommit=True) as conn,
    ):
        rig.fence()
        held.execute("LOCK TABLE shop.plain IN SHARE MODE")
        loaded = pool.submit(rig.load)
        eventually(
            lambda: rig.one(
                rig.target,
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                "AND application_name = %s",
                f"cdcm-{rig.names.migration}-load",
            )
        )
        for table in ("item", "log", "plain"):
            conn.execute(f"VACUUM FULL shop.{table}")
        held.rollback()
        assert len(loaded.result(120).anew) == 3

    assert rig.account() == rig.content(rig.source)


def test_ended_sessions_are_replaced(rig: Rig) -> None:
    """Every session of a running loader may be ended on either side; the load still ends equal."""
    rig.start()
    called = f"cdcm-{rig.names.migration}-load"
    with loader(rig) as process:
        for dsn in (rig.source, rig.target, rig.source, rig.target):
            with psycopg.connect(dsn, autocommit=True) as conn:
                conn.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = %s",
                    (called,),
                )
        assert process.wait(120) == 0

    assert anew(rig) == set()
    assert rig.account() == rig.content(rig.source)


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_session_that_ends_within_a_copy_is_replaced(rig: Rig, side: str) -> None:
    """While the other side's is still at its COPY; the load goes on and ends equal."""
    rig.start()
    copying = "FROM pg_stat_activity WHERE application_name = %s AND query LIKE 'COPY %%'"
    throttle = ThrottleOptions(rows_per_second=30_000)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(rig.load, LoadOptions(workers=1, throttle=throttle))
        called = f"cdcm-{rig.names.migration}-load"
        eventually(lambda: rig.one(rig.target, f"SELECT count(*) {copying}", called))
        dsn = rig.source if side == "source" else rig.target
        assert rig.one(dsn, f"SELECT pg_terminate_backend(pid) {copying}", called)
        assert loading.result(120).anew == ()
    assert rig.account() == rig.content(rig.source)


def test_leftover_backend_of_a_killed_loader_cannot_double_a_chunk(rig: Rig) -> None:
    """A chunk that somebody has claimed is waited for, and not copied again when it is done."""
    rig.start()
    with loader(rig) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with connect(rig.target, application_name="leftover", autocommit=False) as leftover:
        chunk = load.pending(leftover)[-1]  # the killed one was still at an earlier one
        assert load.claim(leftover, chunk)
        with connect(rig.target, application_name="second") as second:
            second.execute("SET lock_timeout = '200ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable), second.transaction():
                load.claim(second, chunk)
            load.finish(leftover, chunk, 0, 0)
            leftover.commit()
            with second.transaction():
                assert not load.claim(second, chunk)


def test_second_loader_is_refused(rig: Rig) -> None:
    """Only one process loads a migration at a time."""
    rig.start()
    with connect(rig.target, application_name="test") as other:
        assert locks.try_lock(other, locks.Role.LOAD)
        with pytest.raises(Refused, match="CDCM-LOAD-RUNNING"):
            rig.load()


def test_a_loader_that_is_ending_is_waited_for(rig: Rig) -> None:
    """A server process that has not yet noticed its client's end does not refuse the next one."""
    rig.start()
    with connect(rig.target, application_name="test") as other:
        assert locks.try_lock(other, locks.Role.LOAD)
        ending = threading.Timer(0.5, other.close)
        ending.start()
        loaded = rig.load()
        ending.join()
    assert loaded.rows >= ROWS


def test_load_before_capture_is_refused(rig: Rig) -> None:
    """Without a slot there is no snapshot to load."""
    with connect(rig.target, application_name="test") as conn:
        control.ensure(conn, "target")
        migration.create(conn, rig.names.migration)
    with pytest.raises(Refused, match="CDCM-CAPTURE-MISSING"):
        rig.load()


def test_interrupted_loader_stops_soon_and_resumes(rig: Rig) -> None:
    """An interrupt of the caller's thread ends the workers within a block, not within a chunk."""
    rig.start()

    def interrupt(seen: LoadProgress) -> None:
        if seen.rows:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rig.load(SMALL, on_progress=interrupt)
    assert rig.load(SMALL).anew == ()
    assert rig.account() == rig.content(rig.source)


def test_columns_travel_between_differing_types(rig: Rig) -> None:
    """Where the target's types differ, text carries the values; generated columns are left out."""
    with psycopg.connect(rig.source, autocommit=True) as conn:
        conn.execute(
            "CREATE TYPE shop.mood AS ENUM ('sad', 'glad');"
            "CREATE TABLE shop.mixed (id int PRIMARY KEY, n int, m shop.mood, ms shop.mood[], "
            "up int GENERATED ALWAYS AS (n * 2) STORED, t timestamptz, b bytea);"
            "ALTER TABLE shop.mixed REPLICA IDENTITY FULL;"
            "INSERT INTO shop.mixed (id, n, m, ms, t, b) VALUES "
            "(1, 5, 'glad', '{sad,NULL}', 'infinity', '\\x00ff'), (2, NULL, NULL, NULL, NULL, '')"
        )
    with psycopg.connect(rig.target, autocommit=True) as conn:
        conn.execute(
            "CREATE TYPE shop.unlike AS ENUM ('x'); CREATE TYPE shop.mood AS ENUM ('glad', 'sad');"
            "CREATE TABLE shop.mixed (b bytea, id bigint, n numeric, m shop.mood, ms shop.mood[], "
            "up int GENERATED ALWAYS AS (n * 3) STORED, t timestamptz, extra int DEFAULT 9)"
        )
    rig.start()
    rig.load()

    with psycopg.connect(rig.target) as conn:
        rows = conn.execute(
            "SELECT id, n::int, m::text, ms::text, up, t::text, b, extra "
            "FROM shop.mixed ORDER BY id"
        ).fetchall()
    assert rows == [
        (1, 5, "glad", "{sad,NULL}", 15, "infinity", b"\x00\xff", 9),
        (2, None, None, None, None, None, b"", 9),
    ]


def test_swallowing_trigger_on_the_target_is_noticed(rig: Rig) -> None:
    """An ENABLE ALWAYS trigger that drops rows is found by the count, and nothing is kept."""
    with psycopg.connect(rig.target, autocommit=True) as conn:
        conn.execute(
            "CREATE FUNCTION shop.eat() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN IF NEW.id = 50 THEN RETURN NULL; END IF; RETURN NEW; END';"
            "CREATE TRIGGER eat BEFORE INSERT ON shop.plain "
            "FOR EACH ROW EXECUTE FUNCTION shop.eat();"
            "ALTER TABLE shop.plain ENABLE ALWAYS TRIGGER eat"
        )
    rig.start()
    for options in (SMALL, LoadOptions()):
        with pytest.raises(Failed, match=r"CDCM-LOAD-COUNT.*100 rows.*99 arrived"):
            rig.load(options)
    with psycopg.connect(rig.target, autocommit=True) as conn:
        assert conn.execute("SELECT count(*) FROM shop.plain").fetchone() == (0,)
        conn.execute("DROP TRIGGER eat ON shop.plain")
    rig.load()
    assert rig.account() == rig.content(rig.source)


# Schema

RICH = """
CREATE SCHEMA rich; CREATE SCHEMA "Odd ""S"; CREATE EXTENSION citext;
CREATE TYPE rich.mood AS ENUM ('a', 'b');
CREATE DOMAIN rich.pos AS int CHECK (value > 0);
CREATE TABLE rich.customers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email public.citext UNIQUE, m rich.mood, name text,
    up text GENERATED ALWAYS AS (upper(name)) STORED);
CREATE TABLE rich.orders (id serial PRIMARY KEY, q rich.pos CHECK (q < 1000),
    cid bigint NOT NULL REFERENCES rich.customers ON DELETE CASCADE);
CREATE INDEX orders_q ON rich.orders ((q + 1)) WHERE q > 3;
CREATE TABLE rich.ev (id bigint, at date, x int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE rich.ev1 PARTITION OF rich.ev FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE rich.ev2 PARTITION OF rich.ev FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE INDEX ev_x ON rich.ev (x);
ALTER TABLE rich.ev ADD FOREIGN KEY (x) REFERENCES rich.orders (id);
CREATE TABLE rich.stays (id int PRIMARY KEY, oid int REFERENCES rich.orders (id));
CREATE TABLE rich.refers (id int PRIMARY KEY, s int REFERENCES rich.stays (id));
COMMENT ON CONSTRAINT refers_s_fkey ON rich.refers IS 'goes with the key';
CREATE VIEW rich.v AS SELECT * FROM rich.orders;
CREATE VIEW rich.v2 AS SELECT id FROM rich.stays;
CREATE FUNCTION rich.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
CREATE TRIGGER t1 BEFORE INSERT ON rich.orders FOR EACH ROW EXECUTE FUNCTION rich.f();
CREATE TABLE "Odd ""S"."Tab le" (id int PRIMARY KEY, "we ird" text);
COMMENT ON COLUMN "Odd ""S"."Tab le"."we ird" IS 'odd';
CREATE STATISTICS rich.st ON id, cid FROM rich.orders;
ALTER TABLE rich.customers ENABLE ROW LEVEL SECURITY;
CREATE POLICY pol ON rich.customers USING (true);
CREATE PUBLICATION foreign_pub FOR TABLE rich.orders;
INSERT INTO rich.customers (email, m, name) SELECT 'c' || g, 'a', 'n' FROM generate_series(1, 50) g;
INSERT INTO rich.orders (q, cid) SELECT g, g FROM generate_series(1, 50) g;
INSERT INTO rich.ev SELECT g, date '2024-06-01' + 20 * g, g FROM generate_series(1, 20) g;
"""


@pytest.fixture
def rich(rig: Rig) -> tuple[Rig, list[TableName]]:
    """A source with many kinds of objects, and its tables but `rich.stays`."""
    with psycopg.connect(rig.source, autocommit=True) as conn:
        conn.execute(RICH)  # type: ignore[arg-type]
    with connect(rig.source, application_name="test") as conn:
        control.ensure(conn, "source")
        tables = catalog.read_tables(conn, ["rich.*", "Odd*"], ["rich.stays"])
    with connect(rig.target, application_name="test") as conn:
        control.ensure(conn, "target")
        migration.create(conn, rig.names.migration)
    return rig, [table.name for table in tables]


def dumped(dsn: str, *excluded: str) -> list[str]:
    """The schema as pg_dump writes it, without what cdc-migrator and the server add."""
    with psycopg.connect(dsn) as conn:
        tools = find(conn.info.server_version, conn.info.server_version)
        options = ["--no-owner", "--schema-only", "--no-publications", "-N", "cdc_migrator"]
        text = tools.run("pg_dump", [*options, *excluded], conn)
    return [line for line in text.splitlines() if line and not line.startswith(("--", "\\"))]


def test_schema_is_the_sources_without_what_stays(rich: tuple[Rig, list[TableName]]) -> None:
    """Both sides dump alike but for the table left out and its dependents, which are named."""
    rig, tables = rich
    before = make_tables(rig.source, rig.target, rig.names, tables)
    assert rig.one(rig.target, "SELECT count(*) FROM pg_indexes WHERE schemaname = 'rich'") == 0
    after = make_indexes(rig.source, rig.target, rig.names, tables)

    stays = ["-T", "rich.stays", "-T", "rich.v2", "-N", "shop"]
    expected = dumped(rig.source, *stays)
    key = expected.index(
        "    ADD CONSTRAINT refers_s_fkey FOREIGN KEY (s) REFERENCES rich.stays(id);"
    )
    comment = next(n for n, line in enumerate(expected) if "refers_s_fkey ON" in line)
    gone = {key - 1, key, comment}
    assert dumped(rig.target, "-N", "shop") == [
        line for n, line in enumerate(expected) if n not in gone
    ]
    assert set(before.left_out) == {"view rich.v2", "table constraint refers_s_fkey on rich.refers"}
    assert "FK CONSTRAINT rich orders orders_cid_fkey" in after.made
    assert make_tables(rig.source, rig.target, rig.names, tables).made == ()
    assert make_indexes(rig.source, rig.target, rig.names, tables).made == ()


def test_half_made_schema_is_completed(rich: tuple[Rig, list[TableName]]) -> None:
    """Whatever part of the indexes and keys is missing after a kill, the next run makes it."""
    rig, tables = rich
    make_tables(rig.source, rig.target, rig.names, tables)
    make_indexes(rig.source, rig.target, rig.names, tables)
    whole = dumped(rig.target)
    with psycopg.connect(rig.target, autocommit=True) as conn:
        conn.execute(
            "ALTER TABLE rich.ev DROP CONSTRAINT ev_x_fkey; DROP INDEX rich.orders_q;"
            "DROP TRIGGER t1 ON rich.orders; DROP INDEX rich.ev_x; DROP STATISTICS rich.st;"
            "ALTER TABLE rich.customers DROP CONSTRAINT customers_email_key"
        )
        conn.execute(
            "CREATE INDEX ev_x ON ONLY rich.ev (x); CREATE INDEX ev1_x_idx ON rich.ev1 (x)"
        )

    made = make_indexes(rig.source, rig.target, rig.names, tables).made

    assert set(made) == {
        "CONSTRAINT rich customers customers_email_key",
        "INDEX rich ev2_x_idx",
        "INDEX rich orders_q",
        "STATISTICS rich st",
        "TRIGGER rich orders t1",
        "FK CONSTRAINT rich ev ev_x_fkey",
    }
    assert dumped(rig.target) == whole


def test_table_that_needs_one_left_out_is_refused(rig: Rig) -> None:
    """A child of a table that stays behind cannot be made; both are named before anything is."""
    with psycopg.connect(rig.source, autocommit=True) as conn:
        conn.execute("CREATE TABLE shop.child (extra int) INHERITS (shop.plain)")
    with connect(rig.target, application_name="test") as conn:
        control.ensure(conn, "target")
    with pytest.raises(Refused, match=r"CDCM-SCHEMA-DEPENDS.*shop\.child"):
        make_tables(rig.source, rig.target, rig.names, [TableName("shop", "child")])


def test_password_is_not_in_the_tools_arguments(
    rich: tuple[Rig, list[TableName]], tmp_path: Path
) -> None:
    """pg_dump and pg_restore get the password by their environment only."""
    rig, tables = rich
    with psycopg.connect(rig.source) as conn:
        real = find(conn.info.server_version, conn.info.server_version).directory
    seen = tmp_path / "arguments"
    for program in ("pg_dump", "pg_restore"):
        wrapper = tmp_path / program
        wrapper.write_text(
            f'#!/bin/sh\necho "{program} $@" >> {seen}\nexec {real}/{program} "$@"\n'
        )
        wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    make_tables(rig.source, rig.target, rig.names, tables, SchemaOptions(postgres_bin=tmp_path))

    arguments = seen.read_text()
    assert "pg_dump --dbname" in arguments
    assert "pg_restore --dbname" in arguments
    for dsn in (rig.source, rig.target):
        password = urlsplit(dsn).password
        assert password
        assert password not in arguments


def test_failing_tool_is_coded_and_quotes_no_row(rich: tuple[Rig, list[TableName]]) -> None:
    """A unique index that the target's rows break fails with the index named, not the row."""
    rig, tables = rich
    make_tables(rig.source, rig.target, rig.names, tables)
    with psycopg.connect(rig.target, autocommit=True) as conn:
        conn.execute("INSERT INTO rich.customers (email) VALUES ('secret@row'), ('secret@row')")
    with pytest.raises(Failed, match=r"CDCM-TOOL-FAILED.*customers_email_key") as caught:
        make_indexes(rig.source, rig.target, rig.names, tables)
    assert "secret" not in str(caught.value)


def test_missing_tools_are_refused(rich: tuple[Rig, list[TableName]], tmp_path: Path) -> None:
    """A directory without the programs is named."""
    rig, tables = rich
    with pytest.raises(Refused, match="CDCM-TOOLS-MISSING"):
        make_tables(rig.source, rig.target, rig.names, tables, SchemaOptions(postgres_bin=tmp_path))


def test_missing_extension_is_refused(rig: Rig) -> None:
    """An extension that the target's server lacks is named before anything is made."""
    entries = toc.parse("7; 3079 1 EXTENSION - citext \n8; 3079 2 EXTENSION - not_to_be_had \n")
    with (
        connect(rig.target, application_name="test") as conn,
        pytest.raises(Refused, match=r"CDCM-TARGET-EXTENSION: .* extensions not_to_be_had$"),
    ):
        check_extensions(conn, entries)


def test_foreign_keys_wait_for_the_stream_where_tables_were_read_anew(
    rich: tuple[Rig, list[TableName]],
) -> None:
    """Tables of two moments get their foreign keys only once the stream has passed the later."""
    rig, tables = rich
    rig.start(tables=["rich.customers", "rich.orders"])
    tables = [TableName("rich", "customers"), TableName("rich", "orders")]
    make_tables(rig.source, rig.target, rig.names, tables)
    holder_of(rig).kill()
    assert len(rig.load().anew) == 2

    early = make_indexes(rig.source, rig.target, rig.names, tables)
    assert early.postponed == ("FK CONSTRAINT rich orders orders_cid_fkey",)
    with connect(rig.target, application_name="test") as conn:
        row = progress.read(conn)
        assert row is not None
        claimed = progress.claim(conn, "test")
        assert claimed is not None
        with conn.transaction():
            progress.advance(conn, claimed.epoch, 0, 0, progress.Advance(10, 1 << 62, None))
    late = make_indexes(rig.source, rig.target, rig.names, tables)

    assert (late.made, late.postponed) == (("FK CONSTRAINT rich orders orders_cid_fkey",), ())
    analyze(rig.target, rig.names, tables)
    assert (
        rig.one(
            rig.target, "SELECT reltuples::int FROM pg_class WHERE oid = 'rich.orders'::regclass"
        )
        == 50
    )


def test_load_keeps_to_a_rate(rig: Rig) -> None:
    """It takes at least as long as the rows need at that rate, but for the blocks in hand."""
    rig.start()
    throttle = ThrottleOptions(rows_per_second=15_000)
    loaded = rig.load(LoadOptions(workers=2, chunk_bytes=64 * 1024, throttle=throttle))
    assert loaded.rows / loaded.seconds <= 15_000
    assert rig.content(rig.target) == rig.content(rig.source)


def test_load_waits_while_the_source_has_enough_to_do(rig: Rig) -> None:
    """It says so while it waits, and goes on when the others are done."""
    rig.start()
    seen: list[LoadProgress] = []
    with psycopg.connect(rig.source, autocommit=True) as other, ThreadPoolExecutor(1) as pool:
        busy = pool.submit(other.execute, "SELECT pg_sleep(300)")

        def watch(progress: LoadProgress) -> None:
            seen.append(progress)
            if progress.waits and not busy.done():
                other.cancel_safe()

        options = LoadOptions(workers=2, throttle=ThrottleOptions(active_sessions=0))
        loaded = rig.load(options, on_progress=watch)
        assert isinstance(busy.exception(), psycopg.errors.QueryCanceled)
    assert any("at work on the source" in (progress.waits or "") for progress in seen)
    assert loaded.rows == rig.one(
        rig.target,
        "SELECT (SELECT count(*) FROM shop.item) + (SELECT count(*) FROM shop.log) "
        "+ (SELECT count(*) FROM shop.plain)",
    )
