"""Loading tables that change their shape: exact under writers, and after anything was killed.

What the target must hold is asked of the source by SQL of the test's own, in the load's snapshot.
"""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from cdc_migrator.backfill.load import LoadOptions
from cdc_migrator.capture import slot as slots
from cdc_migrator.capture import start as starting
from cdc_migrator.control import load, mapping, relations
from cdc_migrator.databases.postgres import catalog
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Refused
from cdc_migrator.model.mapping import Wanted
from cdc_migrator.model.outside import Brokers, Workers
from cdc_migrator.model.tables import TableName
from cdc_migrator.service import reading_again
from cdc_migrator.stack.local import StackInfo
from cdc_migrator.transform.compile import compile_routes
from tests.integration.capture_rig import Rig
from tests.integration.test_backfill import done, holder_of, loader

pytestmark = pytest.mark.stack

SOURCE = """
CREATE SCHEMA shop; CREATE SCHEMA eu; CREATE SCHEMA us;
CREATE TYPE shop.mood AS ENUM ('glad', 'sad');
CREATE TABLE shop.customer (id bigint PRIMARY KEY, name text NOT NULL, email text, fax text,
    street text, city text, total numeric(12,4), mood shop.mood, gone_at timestamptz);
ALTER TABLE shop.customer REPLICA IDENTITY FULL;
CREATE TABLE eu.orders (id bigint PRIMARY KEY, amount numeric(10,2) NOT NULL);
CREATE TABLE us.orders (id bigint PRIMARY KEY, amount numeric(10,2) NOT NULL);
CREATE TABLE shop.plain (id int PRIMARY KEY, note text);
INSERT INTO shop.customer SELECT g, 'name ' || g, g || '@home', 'fax', 'street ' || g, 'city',
    g * 1.23456, (ARRAY['glad', 'sad'])[1 + g % 2]::shop.mood, CASE WHEN g % 5 = 0 THEN now() END
    FROM generate_series(1, 20000) g;
INSERT INTO eu.orders SELECT g, g FROM generate_series(1, 8000) g;
INSERT INTO us.orders SELECT g, g * 2 FROM generate_series(1, 8000) g;
INSERT INTO shop.plain SELECT g, 'plain' FROM generate_series(1, 100) g;
"""
TARGET = """
CREATE SCHEMA shop; CREATE SCHEMA crm; CREATE TYPE shop.mood AS ENUM ('glad', 'sad');
CREATE TYPE crm.temper AS ENUM ('sad', 'glad', 'mad');
CREATE TABLE crm.person (temper crm.temper, initial varchar(1), total numeric(14,2),
    full_name varchar(40) NOT NULL, email text, id bigint PRIMARY KEY,
    made timestamptz NOT NULL DEFAULT now());
CREATE TABLE crm.address (id bigint PRIMARY KEY, street text, city text);
CREATE TABLE crm.orders (region text, id bigint, amount numeric(14,1) NOT NULL,
    PRIMARY KEY (region, id));
CREATE TABLE shop.plain (id int PRIMARY KEY, note text);
"""
WANTED = (
    Wanted(
        "shop.customer",
        "crm.person",
        keep=("id", "name", "email", "total", "mood"),
        rename={"name": "full_name", "mood": "temper"},
        set={
            "email": "'user' || id || '@example.invalid'",
            "initial": "upper(left(name, 1))",
        },
        where="gone_at IS NULL -- those that are left",
    ),
    Wanted("shop.customer", "crm.address", keep=("id", "street", "city")),
    Wanted("eu.orders", "crm.orders", set={"region": "'eu'"}),
    Wanted("us.orders", "crm.orders", set={"region": "'us'"}),
)
# What the target must hold, of the source's rows.
WHOLE = {
    "crm.person": "SELECT id, name, 'user' || id || '@example.invalid', round(total, 2), "
    "mood::text, upper(substr(name, 1, 1)) FROM shop.customer WHERE gone_at IS NULL",
    "crm.address": "SELECT id, street, city FROM shop.customer",
    "crm.orders": "SELECT 'eu', id, round(amount, 1) FROM eu.orders "
    "UNION ALL SELECT 'us', id, round(amount, 1) FROM us.orders",
    "shop.plain": "SELECT id, note FROM shop.plain",
}
HELD = {
    "crm.person": "SELECT id, full_name, email, total, temper::text, initial FROM crm.person",
    "crm.address": "SELECT id, street, city FROM crm.address",
    "crm.orders": "SELECT region, id, amount FROM crm.orders",
    "shop.plain": "SELECT id, note FROM shop.plain",
}
CHUNKS = "chunk_bytes=64 * 1024"
SMALL = LoadOptions(workers=2, chunk_bytes=64 * 1024, freeze_bytes=0)
Content = dict[str, Counter[tuple[object, ...]]]


class Mapped(Rig):
    """A migration of which most tables change their shape."""

    def fill(self, rows: int) -> None:
        """Both sides' schemas, and the source's rows."""
        for dsn, script in ((self.source, SOURCE), (self.target, TARGET)):
            with psycopg.connect(dsn, autocommit=True) as conn:
                conn.execute(script)

    def begin(self) -> None:
        """Capture, with the routes."""
        with (
            connect(self.source, application_name="test") as source,
            connect(self.target, application_name="test") as target,
        ):
            tables = catalog.read_tables(source)
            routes = compile_routes(source, target, WANTED, tables)
        starting.start_capture(
            self.source,
            self.target,
            Workers.at(self.stack.connect_url),
            Brokers(self.stack.bootstrap_servers),
            self.names,
            tables,
            self.options,
            routes=routes,
        )

    @contextmanager
    def snapshot(self) -> Iterator[psycopg.Connection]:
        """The load's snapshot, for as long as the block."""
        name = self.one(self.target, "SELECT snapshot_name FROM cdc_migrator.migration")
        with psycopg.connect(self.source, autocommit=True) as conn:
            conn.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            conn.execute(f"SET TRANSACTION SNAPSHOT '{name}'")
            yield conn

    def held(self) -> Content:
        with psycopg.connect(self.target) as conn:
            return content(conn, HELD)

    def loads(self) -> list[load.TableLoad]:
        with connect(self.target, application_name="test") as conn:
            return load.read_tables(conn)

    @contextmanager
    def writing(self) -> Iterator[None]:  # type: ignore[override]
        """Somebody changes all tables for the length of the block."""
        stop = threading.Event()

        def write() -> None:
            with psycopg.connect(self.source, autocommit=True) as conn:
                turn = 0
                while not stop.is_set():
                    turn += 1
                    conn.execute(
                        "UPDATE shop.customer SET name = 'N', street = 'S', gone_at = "
                        "CASE WHEN gone_at IS NULL THEN now() END WHERE id = %s",
                        (turn % 20000,),
                    )
                    conn.execute("DELETE FROM eu.orders WHERE id = %s", (turn,))
                    conn.execute("INSERT INTO us.orders VALUES (%s, 1)", (100_000 + turn,))

        thread = threading.Thread(target=write)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def content(conn: psycopg.Connection, queries: dict[str, str]) -> Content:
    return {
        table: Counter(conn.execute(query.encode()).fetchall()) for table, query in queries.items()
    }


@pytest.fixture
def rig(stack: StackInfo, source_db: str, target_db: str, tmp_path: Path) -> Iterator[Mapped]:
    rig = Mapped(stack, source_db, target_db, tmp_path / "state")
    rig.fill(0)
    yield rig
    rig.abort()


def named(tables: Sequence[TableName]) -> set[str]:
    return {str(one) for one in tables}


def test_mapped_tables_are_loaded_as_the_snapshot_shows_them(rig: Mapped) -> None:
    """Renamed, cast, masked, filtered, split and merged, under writers, with a killed loader."""
    with rig.writing():
        rig.begin()
        with rig.snapshot() as conn:
            expected = content(conn, WHOLE)
            with loader(rig, CHUNKS) as process:
                process.send_signal(signal.SIGKILL)
                process.wait()
                finished, total = done(rig)
                assert 0 < finished < total
            loaded = rig.load(SMALL)

    assert loaded.anew == ()
    assert rig.held() == expected
    assert loaded.rows == sum(sum(rows.values()) for rows in expected.values())
    assert named(relations.of_source(rig.loads())) == {
        "shop.customer",
        "eu.orders",
        "us.orders",
        "shop.plain",
    }
    with connect(rig.source, application_name="test") as conn:
        published = slots.published(conn, rig.names.publication) or set()
    assert named([one for one in published if one.schema != "cdc_migrator"]) == named(
        relations.of_source(rig.loads())
    )


@pytest.mark.long
def test_a_shard_is_read_again_without_the_other(rig: Mapped) -> None:
    """Only its own rows go; of a table that is split both routes are read."""
    rig.begin()
    rig.load(SMALL)
    with psycopg.connect(rig.source, autocommit=True) as conn:
        conn.execute("UPDATE eu.orders SET amount = 7; UPDATE us.orders SET amount = 8")
        conn.execute("UPDATE shop.customer SET name = 'Zoe', street = 'else'")
    before = rig.held()
    with connect(rig.target, application_name="test") as conn:
        reading_again.read_again(conn, ["eu.orders", "shop.customer -> crm.address"], None)
    loaded = rig.load(SMALL)

    assert named(loaded.anew) == {"eu.orders", "shop.customer", "shop.customer -> crm.address"}
    with psycopg.connect(rig.source) as conn:
        after = content(conn, WHOLE)
    assert {row for row in rig.held()["crm.orders"] if row[0] == "us"} == {
        row for row in before["crm.orders"] if row[0] == "us"
    }
    assert {row for row in rig.held()["crm.orders"] if row[0] == "eu"} == {
        row for row in after["crm.orders"] if row[0] == "eu"
    }
    for table in ("crm.person", "crm.address"):
        assert rig.held()[table] == after[table]


@pytest.mark.long
def test_only_rows_of_its_own_stand_against_the_load_of_a_shard(rig: Mapped) -> None:
    """A row that belongs to a shard is refused; one of nobody's is as well, unless the mapping says
    that it may be there: then it stays."""
    with psycopg.connect(rig.target, autocommit=True) as conn:
        conn.execute("INSERT INTO crm.orders VALUES ('apac', 1, 1), ('us', 1, 1)")
    rig.begin()
    with connect(rig.target, application_name="test") as conn:
        mapping.say(conn, [replace(one, others=False) for one in WANTED])
    for wrong in ("rows that this migration", "none of them claims"):
        with pytest.raises(Refused, match=rf"CDCM-TARGET-NOT-EMPTY.*crm\.orders.*{wrong}"):
            rig.load(SMALL)
        with psycopg.connect(rig.target, autocommit=True) as conn:
            conn.execute("DELETE FROM crm.orders WHERE region = 'us'")
    with connect(rig.target, application_name="test") as conn:
        mapping.say(conn, [replace(one, others=True) for one in WANTED])

    holder_of(rig).kill()
    loaded = rig.load(SMALL)

    assert len(loaded.anew) == 5
    with psycopg.connect(rig.source) as conn:
        expected = content(conn, WHOLE)
    expected["crm.orders"][("apac", 1, 1)] += 1
    assert rig.held() == expected
