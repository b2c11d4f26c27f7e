"""The target's fence: nobody but the migration writes to its tables, and taking it off is seen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg
import pytest

from cdc_migrator.control import fence, journal, load, migration
from cdc_migrator.control import schema as control
from cdc_migrator.control.fence import Fencing
from cdc_migrator.databases.postgres import fence as statements
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Failed, Refused
from cdc_migrator.faultpoints import VARIABLE
from tests.support.fenced import let_in
from tests.support.private_postgres import private_database

NAME = "fenced"
SCHEMA = """
CREATE SCHEMA shop;
CREATE SCHEMA other;
CREATE TABLE other.owner (id int PRIMARY KEY);
CREATE TABLE shop.item (id int PRIMARY KEY, v text);
CREATE TABLE shop.owned (id int PRIMARY KEY, owner int REFERENCES other.owner ON DELETE CASCADE);
CREATE TABLE shop.part (id int, region text) PARTITION BY LIST (region);
CREATE TABLE shop.part_north PARTITION OF shop.part FOR VALUES IN ('north');
CREATE TABLE shop.part_rest PARTITION OF shop.part DEFAULT PARTITION BY RANGE (id);
CREATE TABLE shop.part_low PARTITION OF shop.part_rest FOR VALUES FROM (0) TO (10);
CREATE VIEW shop.shown AS SELECT id, v FROM shop.item;
CREATE FUNCTION shop.add() RETURNS void LANGUAGE sql SECURITY DEFINER
    AS 'INSERT INTO shop.item VALUES (3, ''definer'')';
INSERT INTO other.owner VALUES (1);
INSERT INTO shop.item VALUES (1, 'a'), (2, 'b');
INSERT INTO shop.owned VALUES (1, 1);
INSERT INTO shop.part VALUES (1, 'north'), (2, 'west');
"""
FENCED = {"item", "owned", "part", "part_north", "part_rest", "part_low"}


@dataclass
class Target:
    """A target whose tables are filled and fenced."""

    dsn: str
    conn: psycopg.Connection

    def look(self) -> fence.Fence:
        return fence.look(self.conn, NAME)

    def keep(self, wanted: bool = True, patience: float = 10) -> set[str]:
        return {str(table) for table in fence.keep(self.conn, NAME, wanted, patience)}

    def journal(self) -> list[tuple[str, dict[str, object]]]:
        return self.conn.execute(
            "SELECT action, details FROM cdc_migrator.journal WHERE action LIKE 'fence-%' "
            "ORDER BY id"
        ).fetchall()

    def content(self) -> dict[str, list[tuple[object, ...]]]:
        return {
            name: self.conn.execute(f"SELECT * FROM shop.{name} ORDER BY 1".encode()).fetchall()
            for name in sorted(FENCED)
        }

    def triggers(self) -> int:
        row = self.conn.execute(
            "SELECT count(*) FROM pg_trigger WHERE tgname = %s", (statements.TRIGGER,)
        ).fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture
def target() -> Iterator[Target]:
    with private_database() as dsn, connect(dsn, application_name="test") as conn:
        control.ensure(conn, "target")
        migration.create(conn, NAME)
        conn.execute(SCHEMA)
        load.register(conn, [(table, 0) for table in read_tables(conn, ["shop.*"])])
        made = Target(dsn, conn)
        assert made.look().state is Fencing.OFF
        assert made.keep() == set()
        yield made
        conn.execute("RESET ROLE")
        for (role,) in conn.execute("SELECT rolname FROM pg_roles WHERE rolname ~ '^fence_'"):
            conn.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}".encode())


def copying(conn: psycopg.Connection) -> None:
    with conn.cursor().copy("COPY shop.item FROM STDIN") as copy:
        copy.write(b"9\tcopied\n")


def preparing(conn: psycopg.Connection) -> None:
    conn.execute("PREPARE put AS INSERT INTO shop.item VALUES ($1, 'prepared')")
    conn.execute("EXECUTE put (9)")


WRITES: dict[str, str | Callable[[psycopg.Connection], None]] = {
    "insert": "INSERT INTO shop.item VALUES (9, 'x')",
    "no row": "DELETE FROM shop.item WHERE id = 77",
    "update": "UPDATE shop.item SET v = 'x'",
    "delete": "DELETE FROM shop.item",
    "truncate": "TRUNCATE shop.item",
    "upsert": "INSERT INTO shop.item VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET v = 'y'",
    "merge": "MERGE INTO shop.item i USING (VALUES (1)) s(id) ON i.id = s.id "
    "WHEN MATCHED THEN UPDATE SET v = 'x'",
    "copy": copying,
    "prepared": preparing,
    "view": "UPDATE shop.shown SET v = 'x'",
    "definer": "SELECT shop.add()",
    "with": "WITH gone AS (DELETE FROM shop.item RETURNING id) SELECT count(*) FROM gone",
    "root": "INSERT INTO shop.part VALUES (5, 'north')",
    "root update": "UPDATE shop.part SET region = 'south' WHERE id = 1",
    "root truncate": "TRUNCATE shop.part",
    "partition": "INSERT INTO shop.part_north VALUES (5, 'north')",
    "partition of a partition": "DELETE FROM shop.part_low",
    "partition in between": "UPDATE shop.part_rest SET region = 'east'",
}
# Keys do not cascade in the replica role.
CASCADE = "DELETE FROM other.owner"
SESSIONS = {
    "owner": "SET application_name = 'owner'",
    "replica": "SET session_replication_role = replica",
    "without rights here": "SET SESSION AUTHORIZATION fence_writer",
    "wrong token": "SET cdc_migrator.token = 'guessed'",
    "other settings": "SET standard_conforming_strings = off; SET search_path = shop, other",
}


@pytest.mark.parametrize("session", SESSIONS)
def test_strangers_are_refused_whatever_they_are_and_do(target: Target, session: str) -> None:
    """With 25006 and a hint, by tables and partitions; without the fence each statement passes."""
    target.conn.execute(
        "CREATE ROLE fence_writer; GRANT USAGE ON SCHEMA shop, other TO fence_writer;"
        "GRANT ALL ON ALL TABLES IN SCHEMA shop, other TO fence_writer;"
        "CREATE FUNCTION other.current_setting(text, boolean) RETURNS text LANGUAGE sql "
        "AS 'SELECT 1'"
    )
    writes = WRITES | ({} if session == "replica" else {"cascade": CASCADE})
    before = target.content()
    with psycopg.connect(target.dsn, autocommit=True) as stranger, let_in(target.dsn) as ours:
        stranger.execute(SESSIONS[session].encode())
        for name, write in writes.items():
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction) as refused:
                _do(stranger, write)
            told = refused.value.diag
            assert told.message_primary, name
            assert "cdc-migrator has fenced this table" in told.message_primary
            assert f'"{NAME}"' in str(told.message_detail)
            assert "Write to the source" in str(told.message_hint)
            with ours.transaction(force_rollback=True):
                _do(ours, write)
    assert target.content() == before
    assert target.look().state is Fencing.UP


def _do(conn: psycopg.Connection, write: str | Callable[[psycopg.Connection], None]) -> None:
    if isinstance(write, str):
        conn.execute(write.encode())
    else:
        write(conn)


def test_the_token_is_for_the_owner_of_the_migration_alone(target: Target) -> None:
    """It is not in what everybody may read, and it is the same as long as the migration lives."""
    with let_in(target.dsn) as ours:
        row = ours.execute(
            "SELECT current_setting('cdc_migrator.token'), token, prosrc LIKE '%' || token || '%' "
            "FROM cdc_migrator.fence, pg_proc WHERE proname = 'fence'"
        ).fetchone()
        assert row is not None
        assert row[0] == row[1] != ""
        assert row[2] is False
        ours.execute("CREATE ROLE fence_writer; SET SESSION AUTHORIZATION fence_writer")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            fence.present(ours)
    assert target.keep() == set()
    assert target.conn.execute("SELECT token FROM cdc_migrator.fence").fetchone() == (row[1],)


ALL = {f"shop.{name}" for name in FENCED}
OPEN = "CREATE OR REPLACE FUNCTION cdc_migrator.fence() RETURNS trigger LANGUAGE plpgsql AS $$"
OFF = {
    "disabled": ("ALTER TABLE shop.item DISABLE TRIGGER cdc_migrator_fence", {"shop.item"}),
    "in origin only": ("ALTER TABLE shop.item ENABLE TRIGGER ALL", {"shop.item"}),
    "dropped": ("DROP TRIGGER cdc_migrator_fence ON shop.part_low", {"shop.part_low"}),
    "another one": (
        "DROP TRIGGER cdc_migrator_fence ON shop.owned; CREATE TRIGGER cdc_migrator_fence "
        "BEFORE INSERT ON shop.owned EXECUTE FUNCTION cdc_migrator.fence(); "
        "ALTER TABLE shop.owned ENABLE ALWAYS TRIGGER cdc_migrator_fence",
        {"shop.owned"},
    ),
    "made anew": ("DROP TABLE shop.item CASCADE; CREATE TABLE shop.item (id int)", {"shop.item"}),
    "function opened": (f"{OPEN} BEGIN RETURN NULL; END $$", ALL),
    "function gone": ("DROP FUNCTION cdc_migrator.fence() CASCADE", ALL),
    "its settings": ("ALTER FUNCTION cdc_migrator.fence() RESET ALL", ALL),
}


@pytest.mark.parametrize("how", OFF)
def test_what_somebody_took_off_is_told_and_put_up_again(target: Target, how: str) -> None:
    """However it was done; the journal says so, and nothing else is touched."""
    statement, tables = OFF[how]
    target.conn.execute(statement.encode())
    seen = target.look()
    assert seen.state is (Fencing.OFF if tables == ALL else Fencing.PARTIAL)
    assert {str(table) for table in seen.lacking} == tables
    assert seen.taken_off == seen.lacking
    assert target.keep() == tables
    assert target.look() == fence.Fence(Fencing.UP, (), ())
    assert target.journal()[-1][1]["taken_off"] == sorted(tables)
    assert target.keep() == set()
    with psycopg.connect(target.dsn) as stranger:
        for name in sorted(tables):
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), stranger.transaction():
                stranger.execute(f"DELETE FROM {name}".encode())
    assert journal.verify(target.conn).fault is None


def test_new_partitions_are_fenced_and_were_not_taken_off(target: Target) -> None:
    """Whoever makes one has not tampered with anything."""
    target.conn.execute(
        "CREATE TABLE shop.part_high PARTITION OF shop.part_rest FOR VALUES FROM (10) TO (20)"
    )
    seen = target.look()
    assert [str(table) for table in seen.lacking] == ["shop.part_high"]
    assert (seen.state, seen.taken_off) == (Fencing.PARTIAL, ())
    assert target.keep() == set()
    assert target.look().state is Fencing.UP


def test_switched_off_nothing_of_it_is_left(target: Target) -> None:
    """Neither triggers nor the function; switched on again it is no news that it was off."""
    assert target.triggers() == len(FENCED)
    assert target.keep(wanted=False) == set()
    assert target.triggers() == 0
    assert target.look().state is Fencing.OFF
    assert target.look().taken_off == ()
    with psycopg.connect(target.dsn, autocommit=True) as stranger:
        stranger.execute("TRUNCATE shop.item, shop.part")
    before = target.journal()
    assert before[-1][0] == "fence-removed"
    target.keep(wanted=False)
    assert target.journal() == before
    assert target.keep() == set()
    assert target.look().state is Fencing.UP


def test_removed_though_the_tables_have_got_another_owner(target: Target) -> None:
    """What only their owner may drop goes with the function; a second time there is nothing."""
    target.conn.execute(
        "CREATE ROLE fence_mover; GRANT ALL ON SCHEMA cdc_migrator, shop TO fence_mover;"
        "ALTER FUNCTION cdc_migrator.fence() OWNER TO fence_mover;"
        "ALTER TABLE shop.owned OWNER TO fence_mover; SET ROLE fence_mover"
    )
    assert fence.remove(target.conn, 5) == len(FENCED)
    assert fence.remove(target.conn, 5) == 0
    assert target.triggers() == 0


def test_tables_of_others_cannot_be_fenced(target: Target) -> None:
    """Only owners can; it is refused with both ways out, before anything is changed."""
    target.keep(wanted=False)
    target.conn.execute(
        "CREATE ROLE fence_writer; GRANT ALL ON SCHEMA cdc_migrator, shop TO fence_writer;"
        "GRANT ALL ON ALL TABLES IN SCHEMA cdc_migrator, shop TO fence_writer;"
        "ALTER TABLE shop.owned OWNER TO fence_writer; SET ROLE fence_writer"
    )
    with pytest.raises(Refused, match=r"CDCM-FENCE-OWNER.*shop\.item, .* and 2 more") as refused:
        target.keep()
    assert "target.fence: false" in refused.value.remedy
    assert "shop.owned" not in str(refused.value)
    target.conn.execute("RESET ROLE")
    assert target.triggers() == 0


def test_a_writer_in_the_way_is_waited_for(target: Target) -> None:
    """Not for ever: then it is said what is in the way, and the next try completes it."""
    target.keep(wanted=False)
    with psycopg.connect(target.dsn) as busy:
        busy.execute("UPDATE shop.item SET v = 'busy'")
        with pytest.raises(Failed, match=r"CDCM-FENCE-LOCKED.*shop\.item"):
            target.keep(patience=0.1)
        busy.rollback()
    assert target.keep() == set()
    assert target.look().state is Fencing.UP


@pytest.mark.parametrize(
    ("place", "state"), [("fence.defined", Fencing.OFF), ("fence.raised", Fencing.PARTIAL)]
)
def test_killed_on_the_way_the_next_one_completes_it(
    target: Target, place: str, state: Fencing
) -> None:
    """Between the function and the triggers, and between two groups of tables."""
    target.keep(wanted=False)
    target.conn.execute(
        "DO $$ BEGIN FOR n IN 1..60 LOOP "
        "EXECUTE format('CREATE TABLE shop.more_%s (id int PRIMARY KEY)', n); END LOOP; END $$"
    )
    load.register(target.conn, [(table, 0) for table in read_tables(target.conn, ["shop.*"])])
    script = (
        "import sys; from cdc_migrator.control import fence\n"
        "from cdc_migrator.databases.postgres.connect import connect\n"
        "with connect(sys.stdin.readline().strip(), application_name='test') as conn:\n"
        f"    fence.keep(conn, {NAME!r}, True)"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script],
        input=f"{target.dsn}\n".encode(),
        env={**os.environ, VARIABLE: f"{place}:1:KILL"},
        timeout=60,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert target.look().state is state
    assert target.look().taken_off == ()
    assert target.keep() == set()
    assert target.look().state is Fencing.UP
    assert target.triggers() == len(FENCED) + 60
