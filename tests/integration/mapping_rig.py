"""A source whose tables change their shape on the way, and a target that holds what comes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from cdc_migrator.control import load, proofs
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.model.mapping import MappedColumn, Route
from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile.pairs import Pair, Unpaired, pairs_of
from tests.integration.reconcile_rig import World, world

SOURCE = """
CREATE SCHEMA shop; CREATE SCHEMA eu; CREATE SCHEMA us;
CREATE TABLE shop.customer (id int PRIMARY KEY, name text NOT NULL, street text, city text,
    amount numeric, mood text, code text, fax text UNIQUE, gone boolean NOT NULL);
INSERT INTO shop.customer SELECT n, 'name ' || n, 'street ' || n, CASE WHEN n % 7 > 0 THEN 'x' END,
    n + 0.0051, (ARRAY['sad', 'ok'])[n % 2 + 1], 'c' || n, 'f' || n, n % 10 = 0
    FROM generate_series(1, 900) n;
CREATE TABLE eu.item (id bigint PRIMARY KEY, v text);
CREATE TABLE us.item (id bigint PRIMARY KEY, v text);
INSERT INTO eu.item SELECT n, 'eu ' || n FROM generate_series(1, 700) n;
INSERT INTO us.item SELECT n, 'us ' || n FROM generate_series(1, 700) n;
CREATE TABLE shop.line (a int, b text COLLATE "C", v text, PRIMARY KEY (a, b));
INSERT INTO shop.line SELECT 1 + n / 600, 'b' || n, 'v' FROM generate_series(0, 1199) n;
CREATE TABLE shop.log (level int, line text);
ALTER TABLE shop.log REPLICA IDENTITY FULL;
INSERT INTO shop.log SELECT n % 5, 'line ' || n % 60 FROM generate_series(1, 400) n;
CREATE TABLE shop.plain (id int PRIMARY KEY, v text REFERENCES shop.customer (fax));
INSERT INTO shop.plain SELECT n, 'f' || n FROM generate_series(1, 50) n;
CREATE TABLE shop.note (id int PRIMARY KEY, customer int REFERENCES shop.customer, number int);
INSERT INTO shop.note SELECT n, n % 90 * 10 + 1, n FROM generate_series(1, 300) n;
ANALYZE
"""
TARGET = """
CREATE SCHEMA shop; CREATE SCHEMA crm;
CREATE TYPE crm.mood AS ENUM ('ok', 'sad');
CREATE TABLE crm.person (person_id bigint PRIMARY KEY, full_name text NOT NULL,
    total numeric(10,2), mood crm.mood, code varchar(5), email text UNIQUE, ours text DEFAULT 'o');
CREATE TABLE crm.address (id int PRIMARY KEY, city text, street text);
CREATE TABLE crm.item (region text, id bigint, value text, once text UNIQUE,
    PRIMARY KEY (region, id));
CREATE TABLE crm.line (a int, b text COLLATE "C", v text, upper text, PRIMARY KEY (a, b));
CREATE TABLE crm.log (level bigint, text text, what text);
CREATE TABLE shop.plain (id int PRIMARY KEY, v text);
CREATE TABLE shop.note (id int PRIMARY KEY, customer int, number int)
"""
# What each table of the target must hold, written by hand.
HELD = {
    "crm.person (person_id, full_name, total, mood, code, email)": (
        "SELECT id, name, round(amount, 2), mood, code, 'user' || id || '@x' "
        "FROM shop.customer WHERE NOT gone"
    ),
    "crm.address (id, city, street)": "SELECT id, city, street FROM shop.customer",
    "crm.item (region, id, value, once)": (
        "SELECT 'eu', id, v, 'eu' || id FROM eu.item "
        "UNION ALL SELECT 'us', id, v, 'us' || id FROM us.item"
    ),
    "crm.line (a, b, v, upper)": "SELECT a, b, v, upper(b) FROM shop.line",
    "crm.log (level, text, what)": "SELECT level, line, 'shop' FROM shop.log WHERE level > 0",
    "shop.plain (id, v)": "SELECT id, v FROM shop.plain",
    "shop.note (id, customer, number)": "SELECT id, customer, number FROM shop.note",
}
# Rows that no route brings, in tables that are shared.
FOREIGN = {
    "crm.item": ("zz", 1, "somebody else's", "zz1"),
    "crm.log": (1, "line 1", "zz"),
}

CUSTOMER = TableName("shop", "customer")
ADDRESS = TableName("shop", "customer -> crm.address")
EU, US = TableName("eu", "item"), TableName("us", "item")
LINE, LOG, PLAIN, NOTE = (TableName("shop", name) for name in ("line", "log", "plain", "note"))


def column(
    name: str,
    expression: str,
    type_text: str,
    base_type: str,
    uses: Sequence[str] | None = None,
    cast: bool = True,
) -> MappedColumn:
    """A column that is computed from others; of one column where no others are named."""
    used = (expression,) if uses is None else tuple(uses)
    of = expression if uses is None else None
    return MappedColumn(name, expression, used, of, type_text, base_type, cast)


def text(name: str, expression: str | None = None) -> MappedColumn:
    return column(name, expression or name, "text", "pg_catalog.text", cast=False)


def _item(source: TableName, region: str) -> Route:
    return Route(
        source,
        TableName("crm", "item"),
        (
            column("region", f"'{region}'", "text", "pg_catalog.text", ()),
            column("id", "id", "bigint", "pg_catalog.int8", cast=False),
            text("value", "v"),
            column("once", f"'{region}' || id", "text", "pg_catalog.text", ("id",)),
        ),
        ("region", "id"),
        belongs=f"region = '{region}' -- the shard",
    )


PERSON = Route(
    CUSTOMER,
    TableName("crm", "person"),
    (
        column("person_id", "id", "bigint", "pg_catalog.int8"),
        text("full_name", "name"),
        column("total", "amount", "numeric(10,2)", "pg_catalog.numeric"),
        column("mood", "mood", "crm.mood", "crm.mood"),
        column("code", "code", "character varying(5)", "pg_catalog.varchar"),
        column("email", "'user' || id || '@x'", "text", "pg_catalog.text", ("id",)),
    ),
    ("person_id",),
    where="NOT gone -- only those that are there",
    where_uses=("gone",),
)
ROUTES: Mapping[TableName, Sequence[Route]] = {
    CUSTOMER: (
        PERSON,
        Route(
            CUSTOMER,
            TableName("crm", "address"),
            (
                column("id", "id", "integer", "pg_catalog.int4", cast=False),
                text("street"),
                text("city"),
            ),
            ("id",),
        ),
    ),
    EU: (_item(EU, "eu"),),
    US: (_item(US, "us"),),
    LINE: (
        Route(
            LINE,
            TableName("crm", "line"),
            (
                column("a", "a", "integer", "pg_catalog.int4", cast=False),
                text("b"),
                text("v"),
                column("upper", "upper(b)", "text", "pg_catalog.text", ("b",)),
            ),
            ("a", "b"),
        ),
    ),
    LOG: (
        Route(
            LOG,
            TableName("crm", "log"),
            (
                column("level", "level", "bigint", "pg_catalog.int8"),
                text("text", "line"),
                column("what", "'shop'", "text", "pg_catalog.text", ()),
            ),
            (),
            where="level > 0",
            where_uses=("level",),
            belongs="\"what\" = 'shop'::text",
        ),
    ),
}
TABLES = {CUSTOMER, ADDRESS, EU, US, LINE, LOG, PLAIN, NOTE}
# What is done to the target past the stream, and what it is called: (table, key) with the kind.
PLANTED: Mapping[str, tuple[str, dict[tuple[TableName, str], tuple[str, ...]]]] = {
    "a row is missing": (
        "DELETE FROM crm.person WHERE person_id = 11",
        {(CUSTOMER, "11"): ("missing_in_target",)},
    ),
    "a row is there that nobody has": (
        "INSERT INTO crm.person VALUES (5000, 'x')",
        {(CUSTOMER, "5000"): ("extra_in_target",)},
    ),
    "a row that the filter leaves out": (
        "INSERT INTO crm.person SELECT 20, 'name 20', 20.01, 'sad', 'c20', 'user20@x'",
        {(CUSTOMER, "20"): ("extra_in_target",)},
    ),
    "a renamed column": (
        "UPDATE crm.person SET full_name = 'y' WHERE person_id = 31",
        {(CUSTOMER, "31"): ("different", "full_name")},
    ),
    "a scale": (
        "UPDATE crm.person SET total = total + 0.01 WHERE person_id = 32",
        {(CUSTOMER, "32"): ("different", "total")},
    ),
    "a label of a type that only the target has": (
        "UPDATE crm.person SET mood = CASE mood WHEN 'ok' THEN 'sad' ELSE 'ok' END::crm.mood "
        "WHERE person_id = 33",
        {(CUSTOMER, "33"): ("different", "mood")},
    ),
    "a column with a length": (
        "UPDATE crm.person SET code = NULL WHERE person_id = 34",
        {(CUSTOMER, "34"): ("different", "code")},
    ),
    "computed values that are swapped": (
        "UPDATE crm.person SET email = 'user' || person_id || '@y' WHERE person_id = 35; "
        "UPDATE crm.person SET email = 'user35@x' WHERE person_id = 36; "
        "UPDATE crm.person SET email = 'user36@x' WHERE person_id = 35",
        {
            (CUSTOMER, "35"): ("different", "email"),
            (CUSTOMER, "36"): ("different", "email"),
        },
    ),
    "the other half of a table that is split": (
        "UPDATE crm.address SET city = NULL WHERE id = 20; DELETE FROM crm.address WHERE id = 41",
        {
            (ADDRESS, "20"): ("different", "city"),
            (ADDRESS, "41"): ("missing_in_target",),
        },
    ),
    "a shard": (
        "UPDATE crm.item SET value = 'x' WHERE (region, id) = ('eu', 50)",
        {(EU, "50"): ("different", "value")},
    ),
    "a row in the wrong shard": (
        "UPDATE crm.item SET region = 'us', id = 9000 WHERE (region, id) = ('eu', 51)",
        {(EU, "51"): ("missing_in_target",), (US, "9000"): ("extra_in_target",)},
    ),
    "a key of two columns": (
        "UPDATE crm.line SET upper = 'b', v = '' WHERE (a, b) = (1, 'b17')",
        {(LINE, "1 b17"): ("different", "v upper")},
    ),
}


@dataclass
class Mapped:
    """Both sides, and what was put on the target by hand."""

    made: World

    def fill(self) -> None:
        """The target as a load would leave it, and nothing proven."""
        target = self.made.target
        for into, query in HELD.items():
            target.execute(f"TRUNCATE {into.partition(' ')[0]}".encode())
            with (
                self.made.source.cursor() as reading,
                target.cursor() as writing,
                reading.copy(f"COPY ({query}) TO STDOUT".encode()) as rows,
                writing.copy(f"COPY {into} FROM STDIN".encode()) as copy,
            ):
                for block in rows:
                    copy.write(block)
        for table, row in FOREIGN.items():
            target.execute(f"INSERT INTO {table} VALUES {row}".replace('"', "$$").encode())
        target.execute("ANALYZE")
        proofs.begin_anew(target)
        target.execute("TRUNCATE cdc_migrator.difference, cdc_migrator.repair CASCADE")

    def pairs(self) -> dict[TableName, Pair | Unpaired]:
        """Each table's pair."""
        tables = load.read_tables(self.made.target)
        found = pairs_of(self.made.source, self.made.target, tables)
        return {one.table if isinstance(one, Unpaired) else one.source.name: one for one in found}

    def pair(self, table: TableName) -> Pair:
        found = self.pairs()[table]
        assert isinstance(found, Pair)
        return found

    def plant(self, *names: str) -> dict[tuple[str, tuple[str, ...]], tuple[str, ...]]:
        """Do some of `PLANTED`; what is to be found."""
        wanted = {}
        for name in names or PLANTED:
            statements, found = PLANTED[name]
            for statement in statements.split("; "):
                assert self.made.target.execute(statement.encode()).rowcount == 1
            for (table, key), what in found.items():
                wanted[str(table), tuple(key.split())] = (what[0], *" ".join(what[1:]).split())
        return wanted

    def exact(self, foreign: bool = True) -> None:
        """See that every table of the target holds what was written by hand, and the row of
        somebody else, if one is to be there."""
        for into, query in HELD.items():
            table, _, columns = into.partition(" ")
            held = self.made.source.execute(f"SELECT * FROM ({query}) q".encode()).fetchall()
            held += [FOREIGN[table]] if foreign and table in FOREIGN else []
            found = self.made.target.execute(
                f"SELECT {columns.strip('()')} FROM {table}".encode()
            ).fetchall()
            assert sorted(map(str, found)) == sorted(map(str, held)), table


@contextmanager
def mapped_world() -> Iterator[Mapped]:
    """Both sides, the target's tables empty."""
    with world() as empty:
        for conn, statements in ((empty.source, SOURCE), (empty.target, TARGET)):
            conn.execute(statements.encode())
        tables = [(table, 0) for table in read_tables(empty.source)]
        load.register(empty.target, tables, ROUTES)
        empty.target.execute("UPDATE cdc_migrator.table_progress SET load_state = 'loaded'")
        yield Mapped(empty)
        empty.aligner.release()
