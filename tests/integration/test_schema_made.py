"""What real schemas have that is made in two steps, or that every database has already."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest

from cdc_migrator.backfill.diff.run import differences
from cdc_migrator.backfill.schema import make_indexes, make_tables, plan
from cdc_migrator.control import migration
from cdc_migrator.control import schema as control
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.model.naming import Names
from cdc_migrator.model.parts import Difference
from cdc_migrator.model.tables import TableName
from tests.support.private_postgres import private_database

NAMES = Names("made")


@dataclass
class Pair:
    """A source, and a target that nothing has been made on."""

    source: str
    target: str

    def run(self, dsn: str, *statements: str) -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            for statement in statements:
                conn.execute(statement.encode())

    def one(self, dsn: str, query: str) -> object:
        with psycopg.connect(dsn, autocommit=True) as conn:
            row = conn.execute(query.encode()).fetchone()
        return row and row[0]

    def tables(self) -> list[TableName]:
        with connect(self.source, application_name="test") as conn:
            return [table.name for table in read_tables(conn)]

    def diff(self, *, loaded: bool = True) -> list[Difference]:
        return differences(self.source, self.target, NAMES, self.tables(), loaded=loaded)


@pytest.fixture
def pair() -> Iterator[Pair]:
    with private_database() as source, private_database() as target:
        with connect(target, application_name="test") as conn:
            control.ensure(conn, "target")
            migration.create(conn, NAMES.migration)
        yield Pair(source, target)


GROUPED = "SELECT id, a, count(*) AS n FROM t GROUP BY id"


def test_view_that_needs_a_key_gets_its_query_after_the_rows(pair: Pair) -> None:
    """A view that groups by a primary key is there before it, and is whole when the key is."""
    pair.run(
        pair.source,
        "CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t VALUES (1, 'x')",
        f"CREATE VIEW v AS {GROUPED}; CREATE VIEW w AS SELECT * FROM v; COMMENT ON VIEW v IS 'c'",
        f"CREATE MATERIALIZED VIEW m AS {GROUPED}; CREATE UNIQUE INDEX m_id ON m (id)",
        "CREATE VIEW on_m AS SELECT * FROM m",
        f"CREATE FUNCTION f() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT sum(n) FROM ({GROUPED}); END",  # noqa: E501
    )
    planned = plan(pair.source, pair.target, NAMES, pair.tables())
    make_tables(pair.source, pair.target, NAMES, pair.tables())
    early = pair.diff(loaded=False)
    assert {(str(d.severity), d.note) for d in early} == {("info", "comes after the load")}
    assert "view public.v definition" in {f"{d.kind} {d.object} {d.attribute}" for d in early}

    pair.run(pair.target, "INSERT INTO t VALUES (1, 'x')")
    made = make_indexes(pair.source, pair.target, NAMES, pair.tables()).made
    assert "RULE public v _RETURN" in made
    assert set(made) == set(planned.after)
    pair.run(pair.target, "REFRESH MATERIALIZED VIEW m")
    assert pair.diff() == []
    assert pair.one(pair.target, "SELECT sum(n) FROM w") == 1
    assert make_indexes(pair.source, pair.target, NAMES, pair.tables()).made == ()


def test_comment_on_the_schema_public_arrives(pair: Pair) -> None:
    """Every database has that schema; a target's own comment on it is kept, and told."""
    pair.run(pair.source, "COMMENT ON SCHEMA public IS 'ours'; CREATE TABLE t (id int PRIMARY KEY)")
    comment = "SELECT obj_description('public'::regnamespace)"
    make_tables(pair.source, pair.target, NAMES, pair.tables())
    assert pair.one(pair.target, comment) == "ours"
    assert plan(pair.source, pair.target, NAMES, pair.tables()).before == ()

    pair.run(pair.target, "COMMENT ON SCHEMA public IS 'theirs'")
    make_tables(pair.source, pair.target, NAMES, pair.tables())
    assert [(d.object, d.target) for d in pair.diff(loaded=False) if d.attribute == "comment"] == [
        ("public", "theirs")
    ]


def test_words_that_a_dump_changes_are_no_difference(pair: Pair) -> None:
    """The server words an IN list and a UNION otherwise once it has read its own words."""
    pair.run(
        pair.source,
        "CREATE TABLE t (id int PRIMARY KEY, k varchar(9) CHECK (k IN ('a, b', 'c''(]', 'd')))",
        "CREATE INDEX part ON t (id) WHERE k IN ('x', 'y')",
        "CREATE VIEW u AS SELECT id, k FROM t UNION ALL SELECT 1, NULL::varchar(9) "
        "UNION SELECT NULL::int, 'z'::varchar(9)",
    )
    make_tables(pair.source, pair.target, NAMES, pair.tables())
    make_indexes(pair.source, pair.target, NAMES, pair.tables())
    worded = "SELECT string_agg(pg_get_constraintdef(oid), '') FROM pg_constraint WHERE contype='c'"
    assert pair.one(pair.source, worded) != pair.one(pair.target, worded)
    assert pair.diff() == []
