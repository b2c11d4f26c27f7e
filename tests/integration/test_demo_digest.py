"""The digests of the demo catch what they have to, and only that, on real servers."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from cdc_migrator.demo.digest import compare, digest, digest_both
from cdc_migrator.errors import Failed
from cdc_migrator.stack.local import StackInfo
from tests.support.stack import fresh_database

SHAPE = """
CREATE SCHEMA proof;
CREATE TABLE proof.keyed (
  id integer PRIMARY KEY, a text, b text, n numeric, f double precision, c char(5),
  xs integer[], at timestamptz, raw bytea, span interval, doc jsonb,
  total numeric GENERATED ALWAYS AS (n * 2) STORED
);
CREATE TABLE proof.keyless (a text, n integer);
CREATE TABLE proof."Odd ""Name" ("select" text, "Ünï" text);
CREATE TABLE proof.parted (id integer, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE proof.nothing ();
CREATE VIEW proof.seen AS SELECT * FROM proof.keyless;
"""
PARTITIONS = """
CREATE TABLE proof.parted_low PARTITION OF proof.parted FOR VALUES FROM (0) TO (500);
CREATE TABLE proof.parted_high PARTITION OF proof.parted FOR VALUES FROM (500) TO (1000)
  PARTITION BY HASH (id);
CREATE TABLE proof.parted_high_0 PARTITION OF proof.parted_high
  FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE proof.parted_high_1 PARTITION OF proof.parted_high
  FOR VALUES WITH (MODULUS 2, REMAINDER 1);
"""
ROWS = """
SET TimeZone = 'UTC';
INSERT INTO proof.keyed (id, a, b, n, f, c, xs, at, raw, span, doc)
SELECT i, 'a' || i, nullif('b' || i % 3, 'b0'), i + 0.0, i / 3.0, 'ab', ARRAY[i, i + 1, NULL, 4],
  timestamptz '2024-02-29 12:00:00.123456Z' + i * interval '1 day', sha256(i::text::bytea),
  i * interval '1 month 1 day 1 s', jsonb_build_object('n', i)
FROM generate_series(1, 300) AS i ORDER BY {order};
INSERT INTO proof.keyed (id, a, b, f) VALUES (1000, '', NULL, 0);
INSERT INTO proof.keyless SELECT 'row ' || i % 50, i % 5 FROM generate_series(1, 200) AS i
ORDER BY {order};
INSERT INTO proof."Odd ""Name" SELECT 'x', i::text FROM generate_series(1, 10) AS i;
INSERT INTO proof.parted SELECT i, 'v' || i FROM generate_series(1, 900) AS i ORDER BY {order};
"""


def run(dsn: str, script: str) -> None:
    """Run statements in one transaction."""
    with psycopg.connect(dsn) as conn:
        conn.execute(script.encode())


@pytest.fixture(scope="module")
def databases(stack: StackInfo) -> Iterator[tuple[str, str]]:
    """A database on each server, for all tests of this module."""
    with fresh_database(stack.source_dsn) as source, fresh_database(stack.target_dsn) as target:
        yield source, target


@pytest.fixture
def both(databases: tuple[str, str]) -> tuple[str, str]:
    """The same content on both sides, new for each test."""
    for dsn, order in zip(databases, ("i", "i DESC"), strict=True):
        run(
            dsn,
            "DROP SCHEMA IF EXISTS proof CASCADE;"
            + (SHAPE + PARTITIONS + ROWS.format(order=order)),
        )
    return databases


def unequal(both: tuple[str, str]) -> list[str]:
    """The tables that the digests call different."""
    return [c.table for c in compare(*digest_both(*both, "proof")) if not c.equal]


def test_the_same_content_is_equal_in_any_order(both: tuple[str, str]) -> None:
    """Rows in another order digest alike; every table is there, partitions in their root."""
    source, target = digest_both(*both, "proof")
    assert all(c.equal for c in compare(source, target))
    assert {name: found.rows for name, found in source.items()} == {
        "proof.keyed": 301,
        "proof.keyless": 200,
        'proof.Odd "Name': 10,
        "proof.parted": 900,
        "proof.nothing": 0,
    }


def test_a_servers_own_settings_make_no_difference(both: tuple[str, str]) -> None:
    """A side whose database shows times, floats, bytes in another way is still equal."""
    _, target = both
    with psycopg.connect(target, autocommit=True) as conn:
        name = sql.Identifier(conn.info.dbname)
        for setting in (
            "TimeZone TO 'Asia/Kolkata'",
            "DateStyle TO 'German'",
            "IntervalStyle TO 'iso_8601'",
            "extra_float_digits TO -5",
            "bytea_output TO 'escape'",
            "search_path TO proof",
        ):
            conn.execute(sql.SQL("ALTER DATABASE {} SET " + setting).format(name))
        try:
            assert unequal(both) == []
        finally:
            conn.execute(sql.SQL("ALTER DATABASE {} RESET ALL").format(name))


def test_where_and_how_columns_are_stored_makes_no_difference(both: tuple[str, str]) -> None:
    """Columns in another order, a dropped one, and other partitions do not change the content."""
    _, target = both
    run(
        target,
        """
        CREATE TABLE proof.turned (gone integer, n integer, a text);
        ALTER TABLE proof.turned DROP COLUMN gone;
        INSERT INTO proof.turned SELECT n, a FROM proof.keyless;
        DROP VIEW proof.seen; DROP TABLE proof.keyless;
        ALTER TABLE proof.turned RENAME TO keyless;
        CREATE TABLE proof.whole (LIKE proof.parted);
        INSERT INTO proof.whole SELECT * FROM proof.parted;
        DROP TABLE proof.parted;
        ALTER TABLE proof.whole RENAME TO parted;
        """,
    )
    assert unequal(both) == []


PLANTED = {
    "one changed byte": ("keyed", "UPDATE proof.keyed SET a = 'a17x' WHERE id = 17"),
    "one changed bit": (
        "keyed",
        "UPDATE proof.keyed SET raw = set_bit(raw, 5, 1 - get_bit(raw, 5)) WHERE id = 9",
    ),
    "one missing row": ("keyed", "DELETE FROM proof.keyed WHERE id = 1"),
    "one extra row": ("keyed", "INSERT INTO proof.keyed (id) VALUES (301)"),
    "an extra row of NULLs": (
        "keyless",
        "INSERT INTO proof.keyless VALUES (NULL, NULL)",
    ),
    "one duplicated row": (
        "keyless",
        "INSERT INTO proof.keyless SELECT * FROM proof.keyless LIMIT 1",
    ),
    "a new row that stands there twice": (
        "keyless",
        "INSERT INTO proof.keyless VALUES ('same', 1), ('same', 1)",
    ),
    "a pair of equal rows for another pair": (
        "keyless",
        "UPDATE proof.keyless SET (a, n) = ('row 2', 2) WHERE ctid = ANY(ARRAY(SELECT ctid "
        "FROM proof.keyless WHERE a = 'row 1' LIMIT 2))",
    ),
    "one copy of a row in place of another": (
        "keyless",
        "UPDATE proof.keyless SET (a, n) = ('row 2', 2) WHERE ctid = (SELECT min(ctid) "
        "FROM proof.keyless WHERE a = 'row 1')",
    ),
    "NULL for an empty text": ("keyed", "UPDATE proof.keyed SET a = NULL WHERE id = 1000"),
    "an empty text for NULL": ("keyed", "UPDATE proof.keyed SET b = '' WHERE id = 1000"),
    "the word NULL for NULL": (
        "keyed",
        "UPDATE proof.keyed SET b = 'NULL' WHERE id = 1000",
    ),
    "a value moved to the next column": (
        "keyed",
        "UPDATE proof.keyed SET a = NULL, b = '' WHERE id = 1000",
    ),
    "a comma moved between columns": (
        "keyed",
        "UPDATE proof.keyed SET a = a || ',' || coalesce(b, ''), b = NULL WHERE id = 1",
    ),
    "two rows that traded one value": (
        "keyed",
        "UPDATE proof.keyed SET a = CASE id WHEN 1 THEN 'a2' ELSE 'a1' END WHERE id IN (1, 2)",
    ),
    "another shape of an array": (
        "keyed",
        "UPDATE proof.keyed SET xs = ARRAY[xs[1:2], xs[3:4]] WHERE id = 5",
    ),
    "other bounds of an array": (
        "keyed",
        "UPDATE proof.keyed SET xs = ('[0:3]=' || xs::text)::int[] WHERE id = 5",
    ),
    "an empty array for NULL": (
        "keyed",
        "UPDATE proof.keyed SET xs = '{}' WHERE id = 1000",
    ),
    "float minus zero": ("keyed", "UPDATE proof.keyed SET f = '-0' WHERE id = 1000"),
    "the last bit of a float": (
        "keyed",
        "UPDATE proof.keyed SET f = 33.33333333333334 WHERE id = 100",
    ),
    "another scale of a numeric": ("keyed", "UPDATE proof.keyed SET n = 7.00 WHERE id = 7"),
    "blanks at the end of a text": ("keyed", "UPDATE proof.keyed SET a = 'a3 ' WHERE id = 3"),
    "a microsecond": (
        "keyed",
        "UPDATE proof.keyed SET at = at + interval '1 microsecond' WHERE id = 3",
    ),
    "30 days in place of a month": (
        "keyed",
        "UPDATE proof.keyed SET span = '31 days 1 s' WHERE id = 1",
    ),
    "one number of a document": (
        "keyed",
        "UPDATE proof.keyed SET doc = '{\"n\": 3.0}' WHERE id = 3",
    ),
    "a row in one partition": ("parted", "UPDATE proof.parted_high_0 SET v = v || '.'"),
    "a row under odd names": (
        'Odd "Name',
        """UPDATE proof."Odd ""Name" SET "Ünï" = 'é' WHERE "Ünï" = '3'""",
    ),
    "a generated column of other content": (
        "keyed",
        "ALTER TABLE proof.keyed ALTER COLUMN total DROP EXPRESSION; "
        "UPDATE proof.keyed SET total = total + 1 WHERE id = 4",
    ),
    "char(n) that lost its padding": (
        "keyed",
        "ALTER TABLE proof.keyed ALTER COLUMN c TYPE text",
    ),
    "a column of another name": ("nothing", "ALTER TABLE proof.nothing ADD COLUMN x integer"),
    "a table that is gone": ("parted", "DROP TABLE proof.parted"),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_every_planted_difference_is_found(both: tuple[str, str], planted: str) -> None:
    """What was planted on one side shows in its own table and in no other."""
    table, statement = PLANTED[planted]
    run(both[1], statement)
    assert unequal(both) == [f"proof.{table}"]


def test_undoing_a_planted_difference_makes_it_equal_again(both: tuple[str, str]) -> None:
    """The digest depends on the content alone, not on what happened to it."""
    before = digest(both[1], "proof")
    run(both[1], "UPDATE proof.keyed SET a = a || 'x'; DELETE FROM proof.parted WHERE id = 5")
    assert digest(both[1], "proof") != before
    run(
        both[1],
        "UPDATE proof.keyed SET a = left(a, -1); INSERT INTO proof.parted VALUES (5, 'v5')",
    )
    assert digest(both[1], "proof") == before


def test_rows_that_a_policy_hides_are_an_error(both: tuple[str, str]) -> None:
    """A role that would see part of a table gets a coded error, not the digest of that part."""
    source, _ = both
    with psycopg.connect(source, autocommit=True) as conn:
        role = sql.Identifier(f"reader_{conn.info.dbname}")
        conn.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'reader'").format(role))
        try:
            conn.execute(sql.SQL("GRANT USAGE ON SCHEMA proof TO {}").format(role))
            conn.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA proof TO {}").format(role))
            reader = psycopg.conninfo.make_conninfo(
                source, user=f"reader_{conn.info.dbname}", password="reader"
            )
            assert digest(reader, "proof") == digest(source, "proof")
            conn.execute("ALTER TABLE proof.keyed ENABLE ROW LEVEL SECURITY")
            with pytest.raises(Failed) as failed:
                digest(reader, "proof")
            assert failed.value.code == "CDCM-DEMO-DIGEST"
        finally:
            conn.execute(sql.SQL("DROP OWNED BY {}").format(role))
            conn.execute(sql.SQL("DROP ROLE {}").format(role))
