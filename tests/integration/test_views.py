"""Materialized views are filled, those that others read from first."""

from __future__ import annotations

from cdc_migrator.backfill.views import populate
from cdc_migrator.control import schema
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.model.naming import Names
from tests.support.private_postgres import private_database


def test_empty_views_are_filled_whatever_reads_from_whatever() -> None:
    """One that cannot be is told, and keeps no other from it; a second call finds nothing to do."""
    with (
        private_database() as source,
        private_database() as dsn,
        connect(dsn, application_name="test") as conn,
        connect(source, application_name="test") as full,
    ):
        schema.ensure(conn, "target")
        full.execute("CREATE SCHEMA s")
        for view in ("base", '"On Base"', "bad", "first"):
            full.execute(f"CREATE MATERIALIZED VIEW s.{view} AS SELECT 1".encode())
        for statement in (
            "CREATE SCHEMA s; CREATE TABLE s.t AS SELECT 1 AS id",
            "CREATE MATERIALIZED VIEW s.base AS SELECT id FROM s.t WITH NO DATA",
            'CREATE MATERIALIZED VIEW s."On Base" AS SELECT id + 1 AS n FROM s.base WITH NO DATA',
            "CREATE MATERIALIZED VIEW s.bad AS SELECT 1 / (id - 1) AS n FROM s.t WITH NO DATA",
            "CREATE OR REPLACE FUNCTION s.f() RETURNS int LANGUAGE sql AS 'SELECT max(n) FROM "
            's."On Base"\'',
            "CREATE MATERIALIZED VIEW s.first AS SELECT s.f() AS n WITH NO DATA",
        ):
            conn.execute(statement.encode())
        done = populate(source, dsn, Names("m"))
        assert sorted(done.filled) == ["s.On Base", "s.base", "s.first"]
        assert done.failed == (("s.bad", "22012"),)
        assert conn.execute('SELECT n, (SELECT n FROM s.first) FROM s."On Base"').fetchone() == (
            2,
            2,
        )
        assert populate(source, dsn, Names("m")).filled == ()


def test_view_that_is_empty_on_the_source_stays_empty() -> None:
    """Nobody has filled it there: both sides refuse to read it, and neither differs."""
    with private_database() as source, private_database() as target:
        for dsn in (source, target):
            with connect(dsn, application_name="test") as conn:
                schema.ensure(conn, "target")
                conn.execute("CREATE MATERIALIZED VIEW public.empty AS SELECT 1 AS n WITH NO DATA")
        assert populate(source, target, Names("m")).filled == ()
