"""Every type in every kind of table arrives byte for byte, by the load and by the stream.

One wide table for each kind of identifier has a column of every type; besides, each type has a
table of its own, so that what one type needs does not carry another one along.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.faults.cutover_kills import ROLLBACK, cut, end_of
from tests.support.corpus import EXTENSIONS, STYLES, TYPES, Kind, kinds
from tests.support.live import LiveMigration, one

# Rows that are there before the migration, and as many that come while it streams.
ROWS = 15
SETTINGS = {
    "backup": {"required": False},
    "cutover": {"hooks": [{"kind": "route"}], "budget": "20s"},
}
# Tables without a type of their own to show.
OTHERS = """
CREATE TABLE narrow.big (id int PRIMARY KEY, note text, body bytea);
CREATE TABLE narrow.bag (n int, note text);
ALTER TABLE narrow.bag REPLICA IDENTITY FULL;
CREATE TABLE narrow.emptied (id int PRIMARY KEY);
INSERT INTO narrow.emptied SELECT generate_series(1, 20);
CREATE TABLE narrow.numbered (id bigserial PRIMARY KEY, side text NOT NULL);
"""


@dataclass(frozen=True)
class Made:
    """A table of the corpus: its name, key column, and (column, kind)."""

    name: sql.Identifier
    key: sql.Identifier
    columns: list[tuple[sql.Identifier, Kind]]

    def create(self) -> sql.Composed:
        members = [sql.SQL("{} int PRIMARY KEY").format(self.key)]
        members += [
            sql.SQL("{} {}").format(column, sql.SQL(kind.type)) for column, kind in self.columns
        ]
        # Whatever can be stored out of line is, as soon as it is longer than a word.
        return sql.SQL("CREATE TABLE {} ({}) WITH (toast_tuple_target = 128)").format(
            self.name, sql.SQL(", ").join(members)
        )

    def insert(self, row: int) -> sql.Composed:
        values = [sql.Literal(row)] + [_value(kind, row) for _, kind in self.columns]
        return sql.SQL("INSERT INTO {} VALUES ({})").format(self.name, sql.SQL(", ").join(values))

    def update(self, row: int, columns: list[int], to: int) -> sql.Composed:
        """Set some columns of a row to what row number `to` was made with."""
        chosen = [self.columns[place] for place in columns]
        return sql.SQL("UPDATE {} SET {} WHERE {} = {}").format(
            self.name,
            sql.SQL(", ").join(
                sql.SQL("{} = {}").format(column, _value(kind, to)) for column, kind in chosen
            ),
            self.key,
            sql.Literal(row),
        )

    def where(self, action: str, row: int) -> sql.Composed:
        return sql.SQL(action + " {} = {}").format(self.name, self.key, sql.Literal(row))

    def digests(self, dsn: str) -> list[tuple[int, str]]:
        """(key, md5 of the row's text form), by key."""
        with psycopg.connect(dsn, autocommit=True) as conn:
            for setting in ("TimeZone = 'UTC'", "extra_float_digits = 1", "lc_monetary = 'C'"):
                conn.execute(f"SET {setting}")
            query = sql.SQL("SELECT {}, md5(t::text) FROM {} AS t ORDER BY 1")
            return conn.execute(query.format(self.key, self.name)).fetchall()

    def differing(self, source: str, target: str) -> list[str]:
        """The types of columns whose text differs somewhere, for a helpful failure."""
        found = []
        for column, kind in self.columns:
            query = sql.SQL("SELECT {k}, md5({c}::text) FROM {t} ORDER BY 1").format(
                k=self.key, c=column, t=self.name
            )
            sides = []
            for dsn in (source, target):
                with psycopg.connect(dsn, autocommit=True) as conn:
                    conn.execute("SET TimeZone = 'UTC'")
                    sides.append(conn.execute(query).fetchall())
            if sides[0] != sides[1]:
                found.append(kind.type)
        return found


def _value(kind: Kind, row: int) -> sql.Composable:
    """The row's value of a type: each of its values in turn, then NULL (where it may be)."""
    values = kind.values if kind.type == "public.label" else (*kind.values, "NULL")
    return sql.SQL(values[row % len(values)] + "::" + kind.type)


@dataclass
class Corpus:
    """The migration and its tables."""

    live: LiveMigration
    wide: list[Made]
    narrow: list[Made]

    @property
    def tables(self) -> list[Made]:
        return self.wide + self.narrow


def _tables(has_xml: bool) -> tuple[list[Made], list[Made]]:
    all_kinds = kinds(has_xml)
    wide = [
        Made(
            sql.Identifier(style.schema, style.table),
            sql.Identifier(style.column(0)),
            [(sql.Identifier(style.column(n)), kind) for n, kind in enumerate(all_kinds, 1)],
        )
        for style in STYLES
    ]
    narrow = [
        Made(sql.Identifier("narrow", f"t{n}"), sql.Identifier("id"), [(sql.Identifier("v"), kind)])
        for n, kind in enumerate(all_kinds)
    ]
    return wide, narrow


@pytest.fixture(scope="module")
def corpus(stack: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    """The corpus with its first rows loaded and `run` streaming."""
    from tests.support.stack import fresh_database

    with fresh_database(stack.source_dsn) as source, fresh_database(stack.target_dsn) as target:
        with psycopg.connect(source, autocommit=True) as conn:
            try:
                conn.execute("SELECT '<a/>'::xml")
                has_xml = True
            except psycopg.errors.FeatureNotSupported:
                has_xml = False
            wide, narrow = _tables(has_xml)
            for extension in EXTENSIONS:
                conn.execute(f"CREATE EXTENSION {extension} SCHEMA public")
            conn.execute(TYPES)
            for schema in {style.schema for style in STYLES} | {"narrow"}:
                conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
            with conn.transaction():
                conn.execute(OTHERS)
                for table in wide + narrow:
                    conn.execute(table.create())
                    for row in range(ROWS):
                        conn.execute(table.insert(row))
        directory = tmp_path_factory.mktemp("corpus") / "migration"
        live = LiveMigration(directory, "corpus", source, target, stack, SETTINGS)
        try:
            live.prepare()
            live.start("run")
            yield Corpus(live, wide, narrow)
        finally:
            end_of(live)


def require_equal(corpus: Corpus) -> None:
    """Every table has the same rows on both sides, by the md5 of their text."""
    source, target = corpus.live.source, corpus.live.target
    wrong = {}
    for table in corpus.tables:
        if table.digests(source) != table.digests(target):
            wrong[table.name.as_string()] = table.differing(source, target)
    assert wrong == {}


def run(corpus: Corpus, statements: Sequence[sql.Composable], back: bool = False) -> None:
    """In one transaction on the source, or on the target, until it is on the other side."""
    side = corpus.live.target if back else corpus.live.source
    with psycopg.connect(side, autocommit=True) as conn, conn.transaction():
        for statement in statements:
            conn.execute(statement.as_string(conn).encode())
    assert corpus.live.drain(back=back), corpus.live.halted(back)


def everything(corpus: Corpus, base: int) -> list[sql.Composable]:
    """Each type is inserted, changed alone and moved; keyless, emptied and numbered rows."""
    changes: list[sql.Composable] = []
    for table in (*corpus.wide[:2], *corpus.narrow):
        changes += [table.insert(base + row) for row in range(ROWS)]
        changes += [
            table.update(base + place % ROWS, [place], place % ROWS + 1)
            for place in range(len(table.columns))
        ]
        changes += [
            sql.SQL("UPDATE {0} SET {1} = {1} + 500 WHERE {1} = {2}").format(
                table.name, table.key, sql.Literal(base + 3)
            ),
            table.where("DELETE FROM {} WHERE", base + 4),
        ]
    return [
        *changes,
        sql.SQL("TRUNCATE narrow.emptied"),
        sql.SQL("INSERT INTO narrow.emptied VALUES ({})").format(sql.Literal(base)),
        sql.SQL("INSERT INTO narrow.bag SELECT g % 3, 'same' FROM generate_series(1, 30) g"),
        sql.SQL("UPDATE narrow.bag SET note = {} WHERE n = 1").format(sql.Literal(str(base))),
        sql.SQL(
            "DELETE FROM narrow.bag WHERE ctid IN (SELECT ctid FROM narrow.bag WHERE n = 2 LIMIT 4)"
        ),
        sql.SQL("INSERT INTO narrow.numbered (side) VALUES ({})").format(sql.Literal(str(base))),
        sql.SQL("UPDATE narrow.big SET note = {}").format(sql.Literal(str(base))),
    ]


def test_load_carries_every_type(corpus: Corpus) -> None:
    """What was there before is there, byte for byte."""
    assert corpus.live.drain(), corpus.live.halted()
    require_equal(corpus)


def test_inserts_carry_every_type(corpus: Corpus) -> None:
    """New rows arrive byte for byte, in transactions of one table and of all."""
    run(corpus, [table.insert(row) for table in corpus.wide for row in range(ROWS, 2 * ROWS)])
    run(corpus, [table.insert(row) for table in corpus.narrow for row in range(ROWS, 2 * ROWS)])
    require_equal(corpus)


def test_update_of_one_column_carries_it_and_keeps_the_others(corpus: Corpus) -> None:
    """Each column by itself: the values beside it, also those out of line, stay as they are."""
    changes = [
        table.update(place % ROWS, [place], place % ROWS + 1)
        for table in corpus.tables
        for place in range(len(table.columns))
    ]
    # What the event distorts it distorts again where nothing of it has changed.
    changes += [
        sql.SQL("UPDATE {0} SET {1} = {1}").format(table.name, table.key) for table in corpus.tables
    ]
    run(corpus, changes)
    require_equal(corpus)


def test_rows_change_wholly_move_and_come_again(corpus: Corpus) -> None:
    """All values change; a key moves with its values; a key goes and comes in one transaction."""
    changes = []
    for table in corpus.tables:
        everything = list(range(len(table.columns)))
        changes += [table.update(row, everything, row + 2) for row in range(ROWS)]
        changes += [table.where("DELETE FROM {} WHERE", row) for row in (1, 2)]
        changes += [table.insert(2), table.update(2, [0], 4)]
    moves = [
        sql.SQL("UPDATE {0} SET {1} = {1} + 1000 WHERE {1} % 5 = 3").format(table.name, table.key)
        for table in corpus.tables
    ]
    run(corpus, [*changes, *moves])
    require_equal(corpus)


def test_ten_megabytes_arrive_and_stay(corpus: Corpus) -> None:
    """One value of that size comes, and an update of another column leaves it as it is."""
    run(
        corpus,
        [
            sql.SQL(
                "INSERT INTO narrow.big SELECT 1, 'a', string_agg(sha512(n::text::bytea), '') "
                "FROM generate_series(1, 163840) AS n"
            )
        ],
    )
    run(corpus, [sql.SQL("UPDATE narrow.big SET note = 'b'")])
    query = "SELECT note || length(body) || md5(body) FROM narrow.big"
    seen = [one(dsn, query) for dsn in (corpus.live.source, corpus.live.target)]
    assert seen[0] == seen[1]
    assert seen[0].startswith("b10485760")


def test_check_shows_what_travels_beside(corpus: Corpus, tmp_path: Path) -> None:
    """`check` names each table with a trigger, its columns and why."""
    said = corpus.live.cli("check", "-o", "json", check=None).stdout
    assert "CDCM-TYPE-BESIDE" in said
    assert "v (time with time zone): the connector drops its offset" in said


@pytest.mark.long
def test_every_type_goes_over_and_comes_back(corpus: Corpus) -> None:
    """What is written on the target is on the source, byte for byte, before and after it opens."""
    live = corpus.live
    live.cli("way-back", "prepare")
    live.cli("reconcile")
    cut(live, "--rehearse")
    assert cut(live, "--yes")["state"] == "done"
    run(corpus, everything(corpus, 2000), back=True)
    assert cut(live, "--yes", verb=ROLLBACK)["state"] == "done"
    require_equal(corpus)
    run(corpus, everything(corpus, 4000))
    require_equal(corpus)
    for query in (
        "SELECT string_agg(n || note, ',' ORDER BY n, note) FROM narrow.bag",
        "SELECT string_agg(id::text, ',') FROM narrow.emptied",
        "SELECT string_agg(id || side, ',' ORDER BY id) FROM narrow.numbered",
        "SELECT note || md5(body) FROM narrow.big",
    ):
        assert one(live.source, query) == one(live.target, query), query
