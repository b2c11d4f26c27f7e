"""Every captured form of a value becomes that very value again, or its type is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from cdc_migrator.apply.fold_blocks import fold_blocks
from cdc_migrator.apply.shape import Shape
from cdc_migrator.apply.stage import copy_text
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.databases.postgres.side import sides
from cdc_migrator.databases.postgres.types import Beside, InEvent, straight, way
from cdc_migrator.model.changes import Change, Op, Transaction
from cdc_migrator.model.tables import Straight, Table
from cdc_migrator.stream.rows import KeyDecoder, RowDecoder
from tests.support.as_block import as_block
from tests.support.private_postgres import private_database

UUID = "9f0c1d2e-3b4a-4c5d-8e6f-708192a3b4c5"
FORMS = Path(__file__).parents[1] / "fixtures" / "postgres-forms.tsv"

# (type, value) that arrives as something else: its type's way must call it odd.
DISTORTED = {
    ("time", "24:00:00"),
    ("int4[]", "{{1,2},{3,4}}"),
    ("int4[]", "[5:6]={1,2}"),
}


def captured() -> list[tuple[str, str, str]]:
    """(type, value as text, JSON of `after.v`) of each line of the capture."""
    lines = FORMS.read_text().splitlines()[1:]
    forms = []
    for line in lines:
        kind, value, event = line.split("\t")[:3]
        event = event.replace("<same text>", UUID)
        forms.append((kind, value.replace("<uuid>", f"{{{UUID}}}" if "[" in kind else UUID), event))
    return forms


@pytest.fixture(scope="module")
def conn() -> Iterator[psycopg.Connection]:
    with private_database() as dsn, connect(dsn, application_name="test") as conn:
        conn.prepare_threshold = None  # the one table here changes its shape
        for extension in ("citext", "ltree", "hstore"):
            conn.execute(f"CREATE EXTENSION {extension} SCHEMA public")
        conn.execute(
            "CREATE SCHEMA shop; CREATE TYPE shop.mood AS ENUM ('a', 'b');"
            "CREATE DOMAIN shop.posint AS int CHECK (value > 0);"
            "CREATE DOMAIN shop.ptxt AS text; CREATE TYPE shop.pair AS (n int, t text)"
        )
        yield conn


def one_column(conn: psycopg.Connection, kind: str, value: str) -> Table:
    """A table with that value in its only column, as the catalog describes it."""
    conn.execute("SET search_path = pg_catalog, public, shop")
    conn.execute("DROP TABLE IF EXISTS shop.t")
    conn.execute(f"CREATE TABLE shop.t (v {kind})")
    conn.execute("INSERT INTO shop.t SELECT %s::text::" + kind, (value,))
    conn.execute("SET search_path = pg_catalog")
    (table,) = read_tables(conn, include=["shop.t"])
    return table


def carried(conn: psycopg.Connection, table: Table, event: bytes) -> tuple[str, str]:
    """What becomes of an event's value: (the expression's text, the column's after INSERT)."""
    how = way(table.columns[0])
    in_string = isinstance(how, Beside) or how.json_string
    (text,) = RowDecoder("t", [("v", in_string)], "__unchanged").decode(event, 0)
    assert text is None or isinstance(text, str)
    conn.execute("CREATE TEMP TABLE IF NOT EXISTS staged (c0 text)")
    conn.execute("TRUNCATE pg_temp.staged; TRUNCATE shop.t")
    with conn.cursor() as cursor, cursor.copy("COPY pg_temp.staged FROM STDIN") as copy:
        for piece in copy_text([(text,)]):
            copy.write(piece)
    value = how.build(sql.Identifier("s", "c0"))
    read = conn.execute(sql.SQL("SELECT ({})::text FROM pg_temp.staged s").format(value))
    row = read.fetchone()
    conn.execute(sql.SQL("INSERT INTO shop.t SELECT {} FROM pg_temp.staged s").format(value))
    stored = conn.execute("SELECT v::text FROM shop.t").fetchone()
    assert row is not None
    assert stored is not None
    return row[0], stored[0]


@pytest.mark.parametrize(("kind", "value", "event"), captured())
def test_captured_form_becomes_the_value(
    conn: psycopg.Connection, kind: str, value: str, event: str
) -> None:
    """The expression over the event's text, or over the text beside it, equals the value."""
    table = one_column(conn, kind, value)
    wanted = conn.execute("SELECT v::text FROM shop.t").fetchone()
    assert wanted is not None
    how = way(table.columns[0])
    if isinstance(how, Beside):
        event = json.dumps(wanted[0])
    elif (kind, value) in DISTORTED:
        assert how.odd is not None
        odd = sql.SQL("SELECT {} FROM shop.t").format(how.odd(sql.Identifier("v")))
        assert conn.execute(odd).fetchone() == (True,)
        event = json.dumps(wanted[0])
    assert carried(conn, table, b'{"v": %s}' % event.encode()) == (wanted[0],) * 2


@pytest.mark.parametrize("kind", sorted({kind for kind, _, _ in captured()}))
def test_null_stays_null(conn: psycopg.Connection, kind: str) -> None:
    """SQL NULL is NULL through every expression, never an empty array or text."""
    conn.execute("SET search_path = pg_catalog, public, shop")
    conn.execute("DROP TABLE IF EXISTS shop.t")
    conn.execute(f"CREATE TABLE shop.t (v {kind})")
    conn.execute("SET search_path = pg_catalog")
    (table,) = read_tables(conn, include=["shop.t"])
    assert carried(conn, table, b'{"v": null}') == (None, None)


@pytest.mark.parametrize(
    ("kind", "value", "event"),
    [
        ("date", "-infinity", '"-5877641-06-23Z"'),
        ("date", "0001-01-01 BC", '"0000-01-01Z"'),
        ("date", "0001-12-31", '"0001-12-31Z"'),
        ("date", "9999-12-31", '"9999-12-31Z"'),
        ("date", "10000-01-01", '"+10000-01-01Z"'),
        ("date", "4713-01-01 BC", '"-4712-01-01Z"'),
        ("date", "1234-01-01 BC", '"-1233-01-01Z"'),
        ("timestamp", "0001-06-01 01:02:03 BC", '"0000-06-01T01:02:03Z"'),
        ("timestamp", "0100-06-01 01:02:03.5 BC", '"-0099-06-01T01:02:03.5Z"'),
        ("timestamp", "10000-01-01 00:00:00", '"+10000-01-01T00:00:00Z"'),
        ("timestamptz", "-infinity", '"-infinity"'),
        ("timestamptz", "0002-06-01 01:02:03+00 BC", '"-0001-06-01T01:02:03.000000Z"'),
        ("numeric", "-Infinity", '"NEGATIVE_INFINITY"'),
        ("numeric", "0.0000000001", '"1E-10"'),
        ("numeric", "0.0000000000", '"0E-10"'),
        ("numeric", "-12.50", '"-12.50"'),
        ("bit(8)", "00000000", '""'),
        ("bit(8)", "10000000", '"gA=="'),
        ("bit(9)", "100000001", '"AQE="'),
        ("bit(16)", "0000000100000000", '"AAE="'),
        ("bit(1)", "0", "false"),
        ("hstore", "", '"{}"'),
        ("hstore", '"a\\"b"=>"c,d=>e"', '"{\\"a\\\\\\"b\\": \\"c,d=>e\\"}"'),
        ("text[]", '{"","a\\\\b","x\ny"}', '["", "a\\\\b", "x\\ny"]'),
        ("text", "tab\there\\n\r\nend", '"tab\\there\\\\n\\r\\nend"'),
        ("text", "\\N", '"\\\\N"'),
        ("text", "", '""'),
        ("int8[]", "{NULL,-5}", "[null, -5]"),
        ("jsonb[]", '{"{\\"a\\": 1}",NULL}', '["{\\"a\\": 1}", null]'),
        ("line", "{-0.5,1,0}", '{"a": -0.5, "b": 1.0, "c": 0.0}'),
        ("point", "(1e+300,-0)", '{"x": 1.0E300, "y": -0.0, "wkb": "", "srid": null}'),
    ],
)  # fmt: skip
def test_edge_of_a_form_becomes_the_value(
    conn: psycopg.Connection, kind: str, value: str, event: str
) -> None:
    """Edges that the documented form implies beyond the captured samples."""
    table = one_column(conn, kind, value)
    wanted = conn.execute("SELECT v::text FROM shop.t").fetchone()
    assert wanted is not None
    assert carried(conn, table, b'{"v": %s}' % event.encode()) == (wanted[0],) * 2


def test_too_long_a_value_is_refused_not_cut(conn: psycopg.Connection) -> None:
    """A text that outgrew the target's column is an error, never a shorter text."""
    for kind, event in (("varchar(3)", '"abcd"'), ("char(3)", '"abcd"'), ("bit(2)", '"Bw=="')):
        table = one_column(conn, kind, "1")
        with pytest.raises(psycopg.DataError):
            carried(conn, table, b'{"v": %s}' % event.encode())


@pytest.mark.parametrize(
    ("kinds", "always"),
    [
        (["int"], None),
        (["int", "text[]"], False),
        (["int", "uuid[]", "jsonb[]"], False),
        (["int", "timetz"], True),
        (["int", "text[]", "numeric[]"], True),
    ],
)
def test_side_table_is_made_where_events_lack_something(
    conn: psycopg.Connection, kinds: list[str], always: bool | None
) -> None:
    """Arrays are sent beside their events when odd, what events never hold always."""
    conn.execute("DROP TABLE IF EXISTS shop.t")
    columns = ", ".join(f"c{i} {kind}" for i, kind in enumerate(kinds))
    conn.execute(f"CREATE TABLE shop.t ({columns}, PRIMARY KEY (c0))")
    (table,) = read_tables(conn, include=["shop.t"])
    made = sides([table], "m").get(table.name)
    assert (None if made is None else made.always) == always
    assert made is None or not made.whole


def test_rows_without_an_exact_key_are_sent_whole(conn: psycopg.Connection) -> None:
    """A key of a type that events distort, or none beside such a type, makes whole rows travel."""
    for columns in ("a timetz PRIMARY KEY, b int", "a text[], b int", "a int[] PRIMARY KEY"):
        conn.execute("DROP TABLE IF EXISTS shop.t")
        conn.execute(f"CREATE TABLE shop.t ({columns})")
        (table,) = read_tables(conn, include=["shop.t"])
        made = sides([table], "m").get(table.name)
        assert made is not None
        assert made.whole


def copied_straight(conn: psycopg.Connection, table: Table, event: str) -> str | None:
    """What the column holds after the event's text went to it by COPY; None where it may not."""
    column = table.columns[0]
    how = way(column)
    assert isinstance(how, InEvent)
    members = [("k", False), ("v", how.json_string)]
    rows = RowDecoder("t", members, "__unchanged", [Straight.ANY, straight(column)])
    shape = Shape(table.name, ("k", "v"), (0,), rows, KeyDecoder("t", members[:1]))
    after = b'{"k":1,"v":%s}' % event.encode()
    change = Change(table.name, Op.INSERT, b'{"k":1}', None, after, 1000)
    (read,) = as_block(Transaction(7, 1000, 1001, 1, [change]))
    taken = fold_blocks([read], {table.name: shape}, inline=0)
    (staged,) = taken.staged
    if not staged.fresh:
        return None
    conn.execute("DROP TABLE IF EXISTS pg_temp.straight")
    conn.execute("CREATE TEMP TABLE straight AS SELECT 1 AS k, v FROM shop.t WITH NO DATA")
    with conn.cursor() as cursor, cursor.copy("COPY pg_temp.straight FROM STDIN") as copy:
        for piece in staged.payload:
            copy.write(piece)
    stored = conn.execute("SELECT v::text FROM pg_temp.straight").fetchone()
    assert stored is not None
    return str(stored[0])


def test_a_captured_form_that_the_target_reads_itself_becomes_the_value(
    conn: psycopg.Connection,
) -> None:
    """Of each type of which some texts may go by COPY into the table."""
    went: set[str] = set()
    for kind, value, event in captured():
        table = one_column(conn, kind, value)
        if straight(table.columns[0]) is Straight.NONE:
            continue
        wanted = conn.execute("SELECT v::text FROM shop.t").fetchone()
        assert wanted is not None
        stored = copied_straight(conn, table, event)
        if stored is not None:
            assert (kind, value, stored) == (kind, value, wanted[0])
            went.add(table.columns[0].base_type.rpartition(".")[2])
    assert went >= {
        "int4",
        "int8",
        "bool",
        "numeric",
        "text",
        "timestamptz",
        "date",
        "uuid",
        "mood",
    }
