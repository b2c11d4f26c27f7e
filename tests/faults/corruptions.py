"""Plant corruptions on the target, of every kind, and know afterwards what became of each.

A corruption is in place as long as the row's version is the one that planted it: the stream may
rightly overwrite a row that the application goes on to change.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from tests.support.fenced import let_in

# Rows of `item` below this id are changed all the time; those above are at rest.
HOT = 200
ITEMS = 6_000

_SCHEMA = """
CREATE SCHEMA proof;
CREATE TYPE proof.mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN proof.price AS numeric CHECK (VALUE > -1000000000);
CREATE TABLE proof.item (id bigint PRIMARY KEY, n int NOT NULL, small smallint, big bigint,
    whole boolean, word text, again text, code varchar(40), pad char(6), amount numeric,
    exact numeric(12, 4), cost proof.price, real4 real, real8 double precision, day date,
    clock time, at timestamp, moment timestamptz, gap interval, token uuid, raw bytea, doc json,
    docb jsonb, net inet, tags text[], numbers int[], mood proof.mood, bits bit varying(20),
    span int4range, place point, cash money);
CREATE TABLE proof.plain (id bigint PRIMARY KEY, n int NOT NULL, word text, again text);
CREATE TABLE proof.grown (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int NOT NULL);
CREATE TABLE proof.entry (kind int NOT NULL, word text, amount numeric, at timestamptz);
ALTER TABLE proof.entry REPLICA IDENTITY FULL;
"""
_ITEM = """
SELECT n, n % 97, (n % 30000)::smallint, n * 1000003, n % 2 = 0,
    CASE WHEN n % 11 = 0 THEN '' ELSE 'word ' || n END, 'again ' || n % 5, 'c' || n,
    'p' || n % 100, n * 1.10, n % 1000 + 0.1234, n % 500 + 0.5, (n % 100) * 0.5, n / 7.0::float8,
    date '2024-01-01' + (n % 900)::int, time '01:02:03.000004' + n * interval '1 s',
    timestamp '2024-01-01' + n * interval '61.001 s',
    timestamptz '2024-01-01 00:00+00' + n * interval '59.5 s',
    n * interval '1 min', md5(n::text)::uuid, decode(md5(n::text), 'hex'),
    json_build_object('n', n), jsonb_build_object('n', n, 'b', n % 3),
    ('10.0.' || abs(n) % 200 || '.' || abs(n) % 250)::inet,
    ARRAY['t' || n % 9, 'x'], ARRAY[n % 5, n % 7]::int[],
    (ARRAY['sad', 'ok', 'happy'])[abs(n) % 3 + 1]::proof.mood,
    (abs(n) % 64)::int::bit(6)::varbit, int4range((n % 50)::int, (n % 50)::int + 9),
    point(n % 10, n % 13), (n % 1000)::int::money
FROM generate_series({first}::bigint, {last}::bigint) n
"""
_ENTRY = """
SELECT n % 400, CASE WHEN n % 7 = 0 THEN NULL WHEN n % 7 = 1 THEN '' ELSE 'entry ' || n % 900 END,
    n % 333 * 1.5, timestamptz '2024-03-01 00:00+00' + (n % 777) * interval '1 h'
FROM generate_series(1, 3000) n
"""


def create(source: str) -> None:
    """The tables that are corrupted, with their rows."""
    with psycopg.connect(source, autocommit=True) as conn:
        conn.execute("SET TimeZone = 'UTC'")
        conn.execute(_SCHEMA)
        items = _ITEM.format(first=1, last=ITEMS)
        conn.execute(f"INSERT INTO proof.item {items}".encode())
        conn.execute(f"INSERT INTO proof.entry {_ENTRY}".encode())
        conn.execute(
            "INSERT INTO proof.plain SELECT n, n, 'word ' || n, 'again ' || n "
            "FROM generate_series(1, 4000) n"
        )
        conn.execute("INSERT INTO proof.grown (n) SELECT n FROM generate_series(1, 1000) n")
        conn.execute("ANALYZE proof.plain, proof.grown")


class HotWriter(threading.Thread):
    """Changes the hot rows, and lets others come, go and take another key."""

    def __init__(self, source: str, seed: int = 0, pause: float = 0.005) -> None:
        super().__init__(name="hot writer", daemon=True)
        self._source = source
        self._random = random.Random(seed)
        self._pause = pause
        self._ending = threading.Event()
        self.failed: BaseException | None = None
        self.committed = 0

    def __enter__(self) -> HotWriter:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self.join(30)

    def run(self) -> None:
        try:
            with psycopg.connect(self._source, autocommit=True) as conn:
                conn.execute("SET synchronous_commit = off")
                conn.execute("SET TimeZone = 'UTC'")
                row = conn.execute("SELECT max(id) FROM proof.item").fetchone()
                assert row is not None
                fresh = max(1_000_000, row[0]) + 1
                while not self._ending.wait(self._pause):
                    with conn.transaction():
                        fresh = self._write(conn, fresh)
                    self.committed += 1
        except BaseException as error:
            self.failed = error
            raise

    def _write(self, conn: psycopg.Connection, fresh: int) -> int:
        r = self._random
        kind = r.random()
        hot = r.randint(1, HOT)
        if kind < 0.7:
            conn.execute("UPDATE proof.item SET n = n + 1 WHERE id = %s", (hot,))
        elif kind < 0.85:
            conn.execute(f"INSERT INTO proof.item {_ITEM.format(first=fresh, last=fresh)}".encode())
            conn.execute("DELETE FROM proof.item WHERE id > 1000000 AND id < %s", (fresh - 50,))
            return fresh + 1
        elif kind < 0.95:
            # A key change, of one of the rows that come and go.
            conn.execute(
                "UPDATE proof.item SET id = %s WHERE id = (SELECT max(id) FROM proof.item "
                "WHERE id > 1000000)",
                (fresh,),
            )
            conn.execute("INSERT INTO proof.grown (n) VALUES (%s)", (hot,))
            return fresh + 1
        else:
            conn.execute("INSERT INTO proof.entry VALUES (-1, 'new', 1.5, now())")
            conn.execute(
                "DELETE FROM proof.entry WHERE ctid = (SELECT ctid FROM proof.entry "
                "WHERE kind = -1 LIMIT 1)"
            )
        return fresh


@dataclass
class Plant:
    """One corruption.

    Attributes:
        kind: of corruption. table, key, columns: where it is; no key in a keyless table.
        difference: what a comparison has to call it.
        hot: the application goes on changing the row.
        xid: of the transaction that planted it.
    """

    kind: str
    table: str
    key: int | None
    columns: tuple[str, ...]
    difference: str
    hot: bool
    xid: str = ""


# Each alters one column of a row in place: name, column, new value as SQL, condition that the row
# is really another one then.
_BIT = "(overlay({0}::text placing chr(ascii(right({0}::text, 1)) # 1) from length({0}::text)))"
ALTERED: tuple[tuple[str, str, str], ...] = (
    ("bit of a smallint", "small", "small # 4"),
    ("bit of an integer", "n", "n # 1024"),
    ("bit of a bigint", "big", "big # (1::bigint << 40)"),
    ("a boolean", "whole", "NOT whole"),
    ("bit of a text", "code", _BIT.format("code")),
    ("bit of a real", "real4", "real4 + 0.125"),
    ("bit of a double", "real8", "real8 + 0.0000000001 * real8 + 1e-9"),
    ("bit of a date", "day", "day + 1"),
    ("bit of a time", "clock", "clock + interval '1 microsecond'"),
    ("bit of a timestamp", "at", "at + interval '1 microsecond'"),
    ("bit of an interval", "gap", "gap + interval '1 microsecond'"),
    ("an interval spelled otherwise", "gap", "gap + interval '1 day' - interval '24 hours'"),
    (
        "bit of a uuid",
        "token",
        "overlay(token::text placing translate(left(token::text, 1), '0123456789abcdef', "
        "'1032547698badcfe') from 1 for 1)::uuid",
    ),
    ("bit of a bytea", "raw", "set_bit(raw, 7, 1 - get_bit(raw, 7))"),
    ("a json", "doc", "json_build_object('n', id + 1)"),
    ("a json's spelling", "doc", "(' ' || doc::text)::json"),
    ("a jsonb", "docb", "jsonb_set(docb, '{b}', '9')"),
    ("a jsonb number's scale", "docb", "jsonb_set(docb, '{n}', ((id || '.0')::jsonb))"),
    ("an inet", "net", "net + 1"),
    ("an array's element", "tags", "tags || 'y'::text"),
    ("an array's bound", "numbers", "('[0:1]=' || numbers::text)::int[]"),
    ("an enum", "mood", "CASE WHEN mood = 'ok' THEN 'sad'::proof.mood ELSE 'ok' END"),
    ("bits", "bits", "bits || B'0'"),
    ("a range", "span", "int4range(lower(span), upper(span) + 1)"),
    ("a point", "place", "place + point(0, 1)"),
    ("money", "cash", "cash + 0.01::money"),
    ("a domain", "cost", "cost + 0.000001"),
    ("NULL for empty", "word", "CASE WHEN word = '' THEN NULL ELSE '' END"),
    ("trailing space", "again", "again || ' '"),
    ("sign", "exact", "-exact"),
    ("truncated fraction", "exact", "trunc(exact)"),
    ("a numeric's scale", "amount", "amount::numeric(30, 6)"),
    ("time zone shift", "moment", "moment + interval '2 hours'"),
    ("NULL", "amount", "NULL"),
)
KINDS = (
    *(name for name, _, _ in ALTERED),
    "swapped between columns",
    "swapped between rows",
    "missing",
    "extra",
    "duplicate in a keyless table",
    "missing in a keyless table",
    "altered in a keyless table",
)
COLUMN = ("word", "again")  # of one type, swapped


@dataclass
class Planter:
    """Plants on the target; in one go every row is used once."""

    target: str
    random: random.Random
    _used: set[int] = field(default_factory=set)
    _extra: int = 0

    def plant(self, kinds: tuple[str, ...]) -> list[Plant]:
        """One of each of these kinds, every second one on a hot row where that can be."""
        planted: list[Plant] = []
        self._used.clear()
        with let_in(self.target) as conn:
            conn.execute("SET session_replication_role = replica")
            conn.execute("SET TimeZone = 'UTC'")
            for kind in kinds:
                hot = self.random.random() < 0.5
                with conn.transaction():
                    done = list(self._one(conn, kind, hot))
                    row = conn.execute("SELECT pg_current_xact_id()::xid::text").fetchone()
                    assert row is not None
                    for one in done:
                        one.xid = row[0]
                    planted += done
        return planted

    def _row(self, hot: bool) -> int:
        while True:
            row = self.random.randint(1, HOT) if hot else self.random.randint(HOT + 1, ITEMS)
            if row not in self._used:
                self._used.add(row)
                return row

    def _one(self, conn: psycopg.Connection, kind: str, hot: bool) -> Iterator[Plant]:
        for name, column, value in ALTERED:
            if name == kind:
                yield self._alter(conn, kind, column, value, hot)
                return
        special: dict[str, Callable[[psycopg.Connection, str, bool], Iterator[Plant]]] = {
            "swapped between columns": self._columns,
            "swapped between rows": self._rows,
            "missing": self._missing,
            "extra": self._extras,
        }
        yield from special.get(kind, self._keyless)(conn, kind, hot)

    def _alter(
        self, conn: psycopg.Connection, kind: str, column: str, value: str, hot: bool
    ) -> Plant:
        while True:
            row = self._row(hot)
            query = (
                f"UPDATE proof.item SET {column} = {value} WHERE id = %s "
                f"AND {column}::text IS DISTINCT FROM ({value})::text RETURNING id"
            )
            if conn.execute(query.encode(), (row,)).fetchone():
                return Plant(kind, "proof.item", row, (column,), "different", hot)

    def _columns(self, conn: psycopg.Connection, kind: str, hot: bool) -> Iterator[Plant]:
        row = self._row(hot)
        conn.execute("UPDATE proof.item SET word = again, again = word WHERE id = %s", (row,))
        yield Plant(kind, "proof.item", row, ("again", "word"), "different", hot)

    def _rows(self, conn: psycopg.Connection, kind: str, hot: bool) -> Iterator[Plant]:
        one, other = self._row(hot), self._row(hot)
        conn.execute(
            "UPDATE proof.item a SET code = b.code FROM proof.item b "
            "WHERE (a.id, b.id) IN ((%s, %s), (%s, %s))",
            (one, other, other, one),
        )
        for row in {one, other}:
            yield Plant(kind, "proof.item", row, ("code",), "different", hot)

    def _missing(self, conn: psycopg.Connection, kind: str, hot: bool) -> Iterator[Plant]:
        # At rest: an update of a row that is not there may halt the stream, and rightly.
        row = self._row(False)
        conn.execute("DELETE FROM proof.item WHERE id = %s", (row,))
        yield Plant(kind, "proof.item", row, (), "missing_in_target", False)

    def _extras(self, conn: psycopg.Connection, kind: str, hot: bool) -> Iterator[Plant]:
        self._extra -= 1
        items = _ITEM.format(first=self._extra, last=self._extra)
        conn.execute(f"INSERT INTO proof.item {items}".encode())
        yield Plant(kind, "proof.item", self._extra, (), "extra_in_target", False)

    def _keyless(self, conn: psycopg.Connection, kind: str, hot: bool) -> Iterator[Plant]:
        which = "(SELECT ctid FROM proof.entry WHERE kind >= 0 ORDER BY random() LIMIT 1)"
        if kind.startswith("duplicate"):
            conn.execute(
                f"INSERT INTO proof.entry SELECT * FROM proof.entry WHERE ctid = {which}".encode()
            )
            yield Plant(kind, "proof.entry", None, (), "extra_in_target", False)
        elif kind.startswith("missing"):
            conn.execute(f"DELETE FROM proof.entry WHERE ctid = {which}".encode())
            yield Plant(kind, "proof.entry", None, (), "missing_in_target", False)
        else:
            more = "UPDATE proof.entry SET amount = coalesce(amount, 0) + 10000"
            conn.execute(f"{more} WHERE ctid = {which}".encode())
            yield Plant(kind, "proof.entry", None, (), "missing_in_target", False)
            yield Plant(kind, "proof.entry", None, (), "extra_in_target", False)


@dataclass
class Judged:
    """What a comparison found of what was planted.

    Attributes:
        found: named, with its kind and its columns. overwritten: not named, and the stream has
            written the row since. missed: not named although it is there. invented: named, and
            not planted.
    """

    found: list[Plant] = field(default_factory=list)
    overwritten: list[Plant] = field(default_factory=list)
    missed: list[Plant] = field(default_factory=list)
    invented: list[Any] = field(default_factory=list)


def judge(target: str, planted: list[Plant], report: dict[str, Any]) -> Judged:
    """Hold a report (``reconcile -o json``) against what was planted before."""
    judged = Judged()
    named: dict[tuple[str, int], tuple[str, tuple[str, ...]]] = {}
    keyless: dict[str, int] = {}
    for table in report["tables"]:
        for one in table["differences"]:
            if table["table"] == "proof.item":
                key = int(one["key"]["id"])
                named[table["table"], key] = (one["kind"], tuple(sorted(one["columns"])))
            elif table["table"] == "proof.entry":
                count = abs(one.get("source_count", 1) - one.get("target_count", 1)) or 1
                keyless[one["kind"]] = keyless.get(one["kind"], 0) + count
            else:
                judged.invented.append((table["table"], one))
    by_row: dict[tuple[str, int], list[Plant]] = {}
    for plant in planted:
        if plant.key is None:
            if keyless.get(plant.difference, 0) > 0:
                keyless[plant.difference] -= 1
                judged.found.append(plant)
            else:
                judged.missed.append(plant)
        else:
            by_row.setdefault((plant.table, plant.key), []).append(plant)
    judged.invented += [(kind, count) for kind, count in keyless.items() if count]
    for row, plants in by_row.items():
        last = plants[-1]
        columns = {column for plant in plants for column in plant.columns}
        said = named.pop(row, None)
        if (
            said is not None
            and said[0] == last.difference
            and columns >= set(said[1]) >= set(last.columns)
        ):
            judged.found += plants
        elif said is None and _overwritten(target, last):
            judged.overwritten += plants
        else:
            judged.missed += plants
    judged.invented += list(named.items())
    return judged


def _overwritten(target: str, plant: Plant) -> bool:
    with psycopg.connect(target, autocommit=True) as conn:
        row = conn.execute(
            sql.SQL("SELECT xmin::text FROM proof.item WHERE id = %s"), (plant.key,)
        ).fetchone()
    if plant.difference == "missing_in_target":
        return row is not None
    return row is None or row[0] != plant.xid
