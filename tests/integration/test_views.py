"""Materialized views are filled, those that others read from first."""

from __future__ import annotations

from cdc_migrator.backfill.views import populate
from cdc_migrator.control import schema
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.model.naming import Names
from tests.support.private_postgres import private_database


def test_empty_views_are_filled_whatever_reads_from_whatever() -> None:
    """One that cannot be is told, and keeps no other from it; a second call finds nothing to do."""
    with private_database() as dsn, connect(dsn, application_name="test") as conn:
        schema.ensure(conn, "target")
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
        done = populate(dsn, Names("m"))
        assert sorted(done.filled) == ["s.On Base", "s.base", "s.first"]
        assert done.failed == (("s.bad", "22012"),)
        assert conn.execute('SELECT n, (SELECT n FROM s.first) FROM s."On Base"').fetchone() == (
            2,
            2,
        )
        assert populate(dsn, Names("m")).filled == ()
