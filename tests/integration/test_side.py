"""The trigger that fills a side table, on a server: whoever writes, and whatever is in the way."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from cdc_migrator.capture import sides as installed
from cdc_migrator.control import schema
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.databases.postgres.side import sides
from cdc_migrator.errors import Failed
from cdc_migrator.service.pruner import prune
from tests.support.private_postgres import private_database

TABLE = "CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY, span interval, tags text[])"


@pytest.fixture
def dsn() -> Iterator[str]:
    with private_database() as dsn, connect(dsn, application_name="test") as conn:
        schema.ensure(conn, "source")
        conn.execute(TABLE)
        yield dsn


def install(conn: psycopg.Connection) -> str:
    """Install what s.t needs; the side table's name."""
    wanted = sides(read_tables(conn, ["s.*"]), "m")
    installed.install(conn, "m", wanted.values())
    (one,) = wanted.values()
    return str(one.name)


def test_a_role_without_any_right_on_our_schema_writes_as_before(dsn: str) -> None:
    """The function works with its owner's rights, and with settings of its own."""
    with connect(dsn, application_name="test") as conn:
        name = install(conn)
        conn.execute("CREATE ROLE app; GRANT USAGE ON SCHEMA s TO app; GRANT ALL ON s.t TO app")
        try:
            conn.execute("SET ROLE app; SET IntervalStyle = 'sql_standard'")
            conn.execute("INSERT INTO s.t VALUES (1, '-1 mons +2 days', '{{a},{b}}')")
            conn.execute("UPDATE s.t SET tags = '{a}' WHERE id = 1")
            conn.execute("UPDATE s.t SET id = 1")
            conn.execute("RESET ROLE")
            rows = conn.execute(f"SELECT k0, v0, v1, kept FROM {name} ORDER BY id".encode())
            assert rows.fetchall() == [
                (1, "-1 mons +2 days", "{{a},{b}}", False),
                (1, "-1 mons +2 days", "{a}", False),
                (1, None, None, True),
            ]
        finally:
            conn.execute("RESET ROLE; DROP OWNED BY app; DROP ROLE app")


def test_installing_again_and_removing_leave_nothing_behind(dsn: str) -> None:
    """What an earlier start made is replaced; a table that is gone is no obstacle."""
    with connect(dsn, application_name="test") as conn:
        assert install(conn) == install(conn)
        assert installed.switched_off(conn, "m") == []
        conn.execute("DROP TABLE s.t")
        assert [str(table) for table in installed.switched_off(conn, "m")] == ["s.t"]
        assert [str(table) for table in installed.remove(conn, "m")] == ["s.t"]
        left = conn.execute(
            "SELECT (SELECT count(*) FROM pg_class WHERE relname ~ '^side_[0-9a-f]{20}') + "
            "(SELECT count(*) FROM pg_proc WHERE proname LIKE 'side\\_%') + "
            "(SELECT count(*) FROM cdc_migrator.side)"
        ).fetchone()
        assert left == (0,)


@pytest.mark.parametrize("how", ["DISABLE TRIGGER ALL", "DISABLE TRIGGER USER"])
def test_a_trigger_that_was_off_for_a_while_shows(dsn: str, how: str) -> None:
    """It comes back as an ordinary one."""
    with connect(dsn, application_name="test") as conn:
        install(conn)
        conn.execute(f"ALTER TABLE s.t {how}".encode())
        conn.execute("ALTER TABLE s.t ENABLE TRIGGER ALL")
        assert [str(table) for table in installed.switched_off(conn, "m")] == ["s.t"]


def test_a_table_in_use_is_waited_for_without_holding_others_up(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long transaction keeps the trigger from being made; writers pass meanwhile."""
    monkeypatch.setattr(installed, "_PATIENCE", 1.0)
    with connect(dsn, application_name="test") as conn, psycopg.connect(dsn) as other:
        other.execute("INSERT INTO s.t VALUES (7)")
        with pytest.raises(Failed, match="CDCM-SIDE-LOCKED"):
            install(conn)
        conn.execute("INSERT INTO s.t VALUES (8)")
        other.rollback()
        install(conn)


def test_pruning_empties_what_nobody_is_writing(dsn: str) -> None:
    """A writer's open transaction is let pass; a later turn empties the table."""
    with connect(dsn, application_name="test", settings={"lock_timeout": "10ms"}) as conn:
        install(conn)
        (one,) = sides(read_tables(conn, ["s.*"]), "m").values()
        conn.execute("INSERT INTO s.t VALUES (1)")
        with psycopg.connect(dsn) as other:
            other.execute("INSERT INTO s.t VALUES (2)")
            prune(conn, one.name)
            assert conn.execute(f"SELECT count(*) FROM {one.name}".encode()).fetchone() == (1,)
        prune(conn, one.name)
        assert conn.execute(f"SELECT count(*) FROM {one.name}".encode()).fetchone() == (0,)
