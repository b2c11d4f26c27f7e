"""`schema diff` on real servers: every attribute is seen, and its statement mends it."""

# ruff: noqa: E501  (a table of statements)
from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from cdc_migrator.backfill.diff.run import differences, script
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.model.naming import Names
from cdc_migrator.model.parts import Difference
from cdc_migrator.model.tables import TableName
from tests.support.private_postgres import private_database
from tests.support.rich_schema import RICH

NAMES = Names("diff")


@pytest.fixture(scope="module")
def source() -> Iterator[str]:
    with private_database() as dsn:
        run(dsn, RICH)
        yield dsn


@pytest.fixture(scope="module")
def tables(source: str) -> list[TableName]:
    with connect(source, application_name="test") as conn:
        return [table.name for table in read_tables(conn)]


@pytest.fixture
def target(source: str) -> Iterator[str]:
    with private_database(like=source) as dsn:
        yield dsn


@pytest.fixture
def empty() -> Iterator[str]:
    with private_database() as dsn:
        yield dsn


def run(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement)  # type: ignore[call-overload]


def diff(
    source: str, target: str, tables: list[TableName], *, loaded: bool = True
) -> list[Difference]:
    return differences(source, target, NAMES, tables, loaded=loaded)


def told(found: list[Difference]) -> list[tuple[str, str, str]]:
    return [(one.kind, one.attribute, str(one.severity)) for one in found]


def mend(dsn: str, found: list[Difference]) -> None:
    run(dsn, "SET check_function_bodies = off", *(sql for sql, _ in script(found)))


def test_equal_schemas_have_no_difference(
    source: str, target: str, tables: list[TableName]
) -> None:
    """Two databases made by the same statements are alike in everything that is compared."""
    assert diff(source, target, tables) == []
    with private_database() as made:
        run(made, RICH)
        assert diff(source, made, tables) == []


def test_empty_target_is_made_by_the_statements(
    source: str, empty: str, tables: list[TableName]
) -> None:
    """From nothing, the statements in their order make a schema without any difference."""
    found = diff(source, empty, tables)
    assert {one.attribute for one in found} == {"presence"}
    mend(empty, found)
    assert diff(source, empty, tables) == []


C, ORDERS = "rich.customers", "rich.orders"

# what is done to the target, then kind, attribute and severity of the difference
PLANTED = [
    # tables
    ("DROP TABLE rich.booked", "table", "presence", "error"),
    ("CREATE TABLE rich.more (id int)", "table", "presence", "info"),
    ("ALTER TABLE rich.booked SET UNLOGGED", "table", "persistence", "warn"),
    ("ALTER TABLE rich.scratch SET LOGGED", "table", "persistence", "warn"),
    (f"ALTER TABLE {C} RESET (fillfactor)", "table", "options", "warn"),
    (f"ALTER TABLE {ORDERS} SET (autovacuum_enabled = off)", "table", "options", "warn"),
    (f"ALTER TABLE {C} DISABLE ROW LEVEL SECURITY", "table", "row security", "warn"),
    (f"ALTER TABLE {ORDERS} ENABLE ROW LEVEL SECURITY", "table", "row security", "warn"),
    (f"ALTER TABLE {C} NO FORCE ROW LEVEL SECURITY", "table", "row security for owner", "warn"),
    (f"COMMENT ON TABLE {C} IS 'other'", "table", "comment", "info"),
    ("ALTER TABLE rich.child NO INHERIT rich.base", "table", "parent", "error"),
    ("ALTER TABLE rich.ev DETACH PARTITION rich.ev1", "table", "parent", "error"),
    (
        "ALTER TABLE rich.ev DETACH PARTITION rich.ev1; ALTER TABLE rich.ev ATTACH PARTITION "
        "rich.ev1 FOR VALUES FROM ('2023-01-01') TO ('2025-01-01')",
        "table",
        "partition bound",
        "error",
    ),
    ("DROP TABLE rich.ev1", "table", "presence", "error"),
    (
        "CREATE TABLE rich.ev3 PARTITION OF rich.ev FOR VALUES FROM ('2026-01-01') TO (MAXVALUE)",
        "table",
        "presence",
        "info",
    ),
    (
        'DROP TABLE rich.ev2; CREATE TABLE rich.ev2 PARTITION OF rich.ev (x DEFAULT 8, '
        "CHECK (x > 0)) FOR VALUES FROM ('2025-01-01') TO ('2026-01-01') PARTITION BY RANGE (id);"
        'CREATE TABLE "Odd ""S"."Ev 2 \'x\'" PARTITION OF rich.ev2 DEFAULT',
        "table",
        "partition key",
        "error",
    ),
    (
        "ALTER TABLE rich.ev DETACH PARTITION rich.ev1; DROP TABLE rich.ev1; CREATE TABLE "
        "rich.ev1 PARTITION OF rich.ev FOR VALUES FROM ('2024-01-01') TO ('2025-01-01') "
        "PARTITION BY LIST (id)",
        "table",
        "form",
        "warn",
    ),
    # columns
    (f"ALTER TABLE {C} DROP bits", "column", "presence", "error"),
    (f"ALTER TABLE {C} ADD more int", "column", "presence", "warn"),
    (f"ALTER TABLE {C} ADD more int NOT NULL", "column", "presence", "error"),
    ('ALTER TABLE "Odd ""S"."Tab le" ALTER "we ird" TYPE varchar(5)', "column", "type", "error"),
    (f'DROP TRIGGER "T 2" ON {ORDERS}; DROP FUNCTION rich.g(text); DROP VIEW rich.v CASCADE; ALTER TABLE {ORDERS} '
     f"ALTER note TYPE varchar(5); CREATE VIEW rich.v AS SELECT id, q, note FROM {ORDERS}; CREATE FUNCTION "
     f"rich.g(a text DEFAULT 'x') RETURNS SETOF {ORDERS} LANGUAGE sql "
     f"BEGIN ATOMIC SELECT * FROM {ORDERS} WHERE note = a; END", "column", "type", "error"),
    (f"ALTER TABLE {C} ALTER amount TYPE numeric(14, 2)", "column", "type", "warn"),
    (f"ALTER TABLE {C} ALTER mood DROP DEFAULT, ALTER mood TYPE text", "column", "type", "warn"),
    (f"ALTER TABLE {C} ALTER amount TYPE int", "column", "type", "error"),
    (f"ALTER TABLE {C} ALTER at TYPE timestamptz(0)", "column", "type", "error"),
    (f"ALTER TABLE {C} ALTER label TYPE varchar(20) COLLATE \"POSIX\"", "column", "collation", "warn"),
    (f"ALTER TABLE {C} ALTER name SET NOT NULL", "column", "not null", "error"),
    (f"ALTER TABLE {C} ALTER amount DROP NOT NULL", "column", "not null", "warn"),
    (f"ALTER TABLE {C} ALTER amount SET DEFAULT 9", "column", "default", "warn"),
    (f"ALTER TABLE {C} ALTER number DROP DEFAULT", "column", "default", "warn"),
    (f"ALTER TABLE {C} ALTER name SET DEFAULT 'x'", "column", "default", "warn"),
    ("ALTER TABLE rich.ev1 ALTER x SET DEFAULT 1", "column", "default", "warn"),
    (f"ALTER TABLE {C} ALTER id DROP IDENTITY", "column", "identity", "warn"),
    (f"ALTER TABLE {C} ALTER id SET GENERATED BY DEFAULT", "column", "identity", "warn"),
    ("ALTER TABLE rich.base ALTER id ADD GENERATED ALWAYS AS IDENTITY", "column", "identity", "warn"),
    (f"ALTER TABLE {C} ALTER id SET INCREMENT 5 SET CYCLE", "column", "identity options", "warn"),
    (f"ALTER TABLE {C} ALTER up SET EXPRESSION AS (lower(name))", "column", "generated", "error"),
    (f"ALTER TABLE {C} ALTER up DROP EXPRESSION", "column", "generated", "error"),
    (
        f"ALTER TABLE {C} DROP bits; "
        f"ALTER TABLE {C} ADD bits bit(4) GENERATED ALWAYS AS (B'1010') STORED",
        "column",
        "generated",
        "error",
    ),
    (f"COMMENT ON COLUMN {C}.email IS NULL", "column", "comment", "info"),
    ("COMMENT ON COLUMN rich.v.note IS NULL", "view column", "comment", "info"),
    # keys and constraints
    (f"ALTER TABLE {C} DROP CONSTRAINT customers_email_key", "constraint", "presence", "warn"),
    (f"ALTER TABLE {ORDERS} DROP CONSTRAINT small", "constraint", "presence", "warn"),
    (f"ALTER TABLE {ORDERS} DROP CONSTRAINT orders_cid_fkey", "constraint", "presence", "warn"),
    ("ALTER TABLE rich.booked DROP CONSTRAINT no_overlap", "constraint", "presence", "warn"),
    ("ALTER TABLE rich.ev DROP CONSTRAINT ev_pkey", "constraint", "presence", "warn"),
    (f"ALTER TABLE {ORDERS} ADD CHECK (id > 0)", "constraint", "presence", "error"),
    (f"ALTER TABLE {ORDERS} ADD UNIQUE (note)", "constraint", "presence", "error"),
    (f"ALTER TABLE {ORDERS} ADD UNIQUE (id)", "constraint", "presence", "warn"),
    (f"ALTER TABLE {ORDERS} ADD FOREIGN KEY (q) REFERENCES {ORDERS}", "constraint", "presence", "warn"),
    (f"ALTER TABLE {C} RENAME CONSTRAINT customers_email_key TO \"Other\"", "constraint", "name", "info"),
    (
        f"ALTER TABLE {ORDERS} DROP CONSTRAINT small, ADD CONSTRAINT small CHECK (q < 5)",
        "constraint",
        "definition",
        "error",
    ),
    (
        f"ALTER TABLE {ORDERS} DROP CONSTRAINT small, ADD CONSTRAINT small CHECK (q < 1000) NOT VALID",
        "constraint",
        "definition",
        "warn",
    ),
    (
        f"ALTER TABLE {ORDERS} DROP CONSTRAINT orders_cid_fkey, ADD CONSTRAINT orders_cid_fkey "
        f"FOREIGN KEY (cid) REFERENCES {C}",
        "constraint",
        "definition",
        "warn",
    ),
    (f"COMMENT ON CONSTRAINT customers_pkey ON {C} IS 'x'", "constraint", "comment", "info"),
    (
        "ALTER TABLE rich.child DROP CONSTRAINT child_pkey, ADD CONSTRAINT one UNIQUE (id), "
        "ADD CONSTRAINT other PRIMARY KEY (b)",
        "constraint",
        "presence",
        "error",
    ),
    # indexes
    ("DROP INDEX rich.orders_q", "index", "presence", "warn"),
    ("DROP INDEX rich.ev_x", "index", "presence", "warn"),
    ("CREATE INDEX more ON rich.orders (note)", "index", "presence", "warn"),
    ("CREATE UNIQUE INDEX more ON rich.orders (note)", "index", "presence", "error"),
    ("ALTER INDEX rich.orders_q RENAME TO other", "index", "name", "info"),
    (
        "DROP INDEX rich.orders_q; CREATE INDEX orders_q ON rich.orders (q)",
        "index",
        "definition",
        "warn",
    ),
    (
        "DROP INDEX rich.orders_note; CREATE UNIQUE INDEX orders_note ON rich.orders (note)",
        "index",
        "definition",
        "error",
    ),
    ("DROP INDEX rich.ev_x; CREATE INDEX ev_x ON ONLY rich.ev (x)", "index", "valid", "warn"),
    ("COMMENT ON INDEX rich.orders_q IS NULL", "index", "comment", "info"),
    # triggers, rules, policies, statistics
    (f"DROP TRIGGER t1 ON {ORDERS}", "trigger", "presence", "warn"),
    (
        f"CREATE TRIGGER t9 BEFORE INSERT ON {ORDERS} FOR EACH ROW EXECUTE FUNCTION rich.f()",
        "trigger",
        "presence",
        "warn",
    ),
    (
        f"CREATE TRIGGER t9 BEFORE INSERT ON {ORDERS} FOR EACH ROW EXECUTE FUNCTION rich.f();"
        f"ALTER TABLE {ORDERS} ENABLE ALWAYS TRIGGER t9",
        "trigger",
        "presence",
        "error",
    ),
    (
        f"CREATE OR REPLACE TRIGGER t1 BEFORE UPDATE ON {ORDERS} FOR EACH ROW EXECUTE FUNCTION rich.f()",
        "trigger",
        "definition",
        "warn",
    ),
    (f"ALTER TABLE {ORDERS} ENABLE TRIGGER \"T 2\"", "trigger", "fires", "warn"),
    (f"ALTER TABLE {ORDERS} ENABLE REPLICA TRIGGER t1", "trigger", "fires", "error"),
    (f"COMMENT ON TRIGGER t1 ON {ORDERS} IS NULL", "trigger", "comment", "info"),
    ("DROP RULE no_delete ON rich.base", "rule", "presence", "warn"),
    ("CREATE RULE r AS ON DELETE TO rich.child DO INSTEAD NOTHING", "rule", "presence", "warn"),
    (
        "CREATE OR REPLACE RULE no_delete AS ON DELETE TO rich.base DO ALSO NOTHING",
        "rule",
        "definition",
        "warn",
    ),
    ("ALTER TABLE rich.base DISABLE RULE no_delete", "rule", "fires", "warn"),
    ("ALTER TABLE rich.base ENABLE ALWAYS RULE no_delete", "rule", "fires", "error"),
    ("COMMENT ON RULE no_delete ON rich.base IS 'x'", "rule", "comment", "info"),
    (f"DROP POLICY pol ON {C}", "policy", "presence", "warn"),
    (f"CREATE POLICY more ON {C}", "policy", "presence", "warn"),
    (f"ALTER POLICY pol ON {C} USING (id > 1)", "policy", "definition", "warn"),
    (f"COMMENT ON POLICY pol ON {C} IS 'x'", "policy", "comment", "info"),
    ("DROP STATISTICS rich.st", "statistics", "presence", "warn"),
    ("CREATE STATISTICS rich.st2 ON id, q FROM rich.orders", "statistics", "presence", "warn"),
    (
        "DROP STATISTICS rich.st; CREATE STATISTICS rich.st ON id, cid FROM rich.orders;"
        "COMMENT ON STATISTICS rich.st IS 'of two'",
        "statistics",
        "definition",
        "warn",
    ),
    ("COMMENT ON STATISTICS rich.st IS NULL", "statistics", "comment", "info"),
    # sequences
    ("DROP SEQUENCE rich.owned", "sequence", "presence", "warn"),
    ("CREATE SEQUENCE rich.more", "sequence", "presence", "warn"),
    ("ALTER SEQUENCE rich.numbers AS bigint", "sequence", "type", "warn"),
    ("ALTER SEQUENCE rich.numbers START 6", "sequence", "start", "warn"),
    ("ALTER SEQUENCE rich.numbers INCREMENT 1", "sequence", "increment", "warn"),
    ("ALTER SEQUENCE rich.numbers MINVALUE 2", "sequence", "minimum", "warn"),
    ("ALTER SEQUENCE rich.numbers MAXVALUE 99", "sequence", "maximum", "warn"),
    ("ALTER SEQUENCE rich.numbers CACHE 1", "sequence", "cache", "warn"),
    ("ALTER SEQUENCE rich.numbers NO CYCLE", "sequence", "cycle", "warn"),
    ("ALTER SEQUENCE rich.owned OWNED BY NONE", "sequence", "owned by", "warn"),
    ("COMMENT ON SEQUENCE rich.numbers IS 'x'", "sequence", "comment", "info"),
    # views
    ("DROP VIEW rich.a_v2 CASCADE", "view", "presence", "warn"),
    ("CREATE VIEW rich.more AS SELECT 1 AS one", "view", "presence", "warn"),
    (
        "CREATE OR REPLACE VIEW rich.v WITH (security_barrier = true) AS "
        "SELECT id, q, note FROM rich.orders WHERE q > 1",
        "view",
        "definition",
        "warn",
    ),
    ("ALTER VIEW rich.v RESET (security_barrier)", "view", "options", "warn"),
    ("COMMENT ON VIEW rich.v IS 'x'", "view", "comment", "info"),
    ("DROP MATERIALIZED VIEW rich.mv", "materialized view", "presence", "warn"),
    ("CREATE MATERIALIZED VIEW rich.mo AS SELECT 1 AS one", "materialized view", "presence", "warn"),
    (
        "DROP MATERIALIZED VIEW rich.mv; CREATE MATERIALIZED VIEW rich.mv AS SELECT n, 1::bigint "
        "AS c FROM rich.a_v2; CREATE UNIQUE INDEX mv_n ON rich.mv (n);"
        "COMMENT ON MATERIALIZED VIEW rich.mv IS 'kept'",
        "materialized view",
        "definition",
        "warn",
    ),
    ("REFRESH MATERIALIZED VIEW rich.mv WITH NO DATA", "materialized view", "populated", "warn"),
    ("ALTER MATERIALIZED VIEW rich.mv SET (fillfactor = 70)", "materialized view", "options", "warn"),
    ("COMMENT ON MATERIALIZED VIEW rich.mv IS NULL", "materialized view", "comment", "info"),
    # functions
    ("DROP FUNCTION rich.g(int)", "function", "presence", "warn"),
    (
        "CREATE FUNCTION rich.g(int, int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "function",
        "presence",
        "warn",
    ),
    (
        "CREATE OR REPLACE FUNCTION rich.f() RETURNS trigger LANGUAGE plpgsql "
        "AS 'BEGIN RETURN NULL; END'",
        "function",
        "definition",
        "warn",
    ),
    ("ALTER FUNCTION rich.f() SECURITY DEFINER", "function", "definition", "warn"),
    (
        f"DROP FUNCTION rich.next_number() CASCADE; CREATE FUNCTION rich.next_number() RETURNS int "
        "LANGUAGE sql AS $$ SELECT nextval('rich.numbers')::int $$;"
        f"ALTER TABLE {C} ALTER number SET DEFAULT rich.next_number()",
        "function",
        "signature",
        "warn",
    ),
    ("COMMENT ON FUNCTION rich.f() IS 'x'", "function", "comment", "info"),
    ("DROP PROCEDURE rich.p", "procedure", "presence", "warn"),
    ("ALTER PROCEDURE rich.p SET work_mem = '8MB'", "procedure", "definition", "warn"),
    ("DROP AGGREGATE rich.total(int)", "aggregate", "presence", "warn"),
    (
        "CREATE OR REPLACE AGGREGATE rich.total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '1')",
        "aggregate",
        "definition",
        "warn",
    ),
    # types
    (
        f"ALTER TABLE {C} DROP born; DROP DOMAIN rich.year; ALTER TABLE {C} ADD born int",
        "domain",
        "presence",
        "error",
    ),
    ("CREATE TYPE rich.more AS ENUM ('a')", "enumeration", "presence", "warn"),
    ("ALTER TYPE rich.mood ADD VALUE 'more' AFTER 'sad'", "enumeration", "labels", "warn"),
    ("ALTER TYPE rich.mood RENAME VALUE 'sad' TO 'more'", "enumeration", "labels", "error"),
    ("COMMENT ON TYPE rich.mood IS NULL", "enumeration", "comment", "info"),
    ("CREATE DOMAIN rich.more AS int", "domain", "presence", "warn"),
    (
        f"ALTER TABLE {C} ALTER code DROP DEFAULT, ALTER code TYPE text; DROP DOMAIN rich.code;"
        'CREATE DOMAIN rich.code AS varchar(5) COLLATE "C" NOT NULL;'
        f"ALTER TABLE {C} ALTER code TYPE rich.code, ALTER code SET DEFAULT 'x'",
        "domain",
        "type",
        "error",
    ),
    (
        f"ALTER TABLE {C} ALTER code DROP DEFAULT, ALTER code TYPE text; DROP DOMAIN rich.code;"
        "CREATE DOMAIN rich.code AS varchar(8) NOT NULL;"
        f"ALTER TABLE {C} ALTER code TYPE rich.code, ALTER code SET DEFAULT 'x'",
        "domain",
        "collation",
        "warn",
    ),
    ("ALTER DOMAIN lib.pos SET DEFAULT 2", "domain", "default", "warn"),
    ("ALTER DOMAIN lib.pos SET NOT NULL", "domain", "not null", "error"),
    ("ALTER DOMAIN rich.code DROP NOT NULL", "domain", "not null", "warn"),
    ("ALTER DOMAIN lib.pos DROP CONSTRAINT pos_check", "constraint", "presence", "warn"),
    ("ALTER DOMAIN lib.pos ADD CHECK (value < 9)", "constraint", "presence", "error"),
    ("COMMENT ON DOMAIN lib.pos IS NULL", "domain", "comment", "info"),
    ("ALTER TYPE rich.loose ALTER ATTRIBUTE a TYPE text", "attribute", "type", "warn"),
    ("ALTER TYPE rich.loose DROP ATTRIBUTE b, ADD ATTRIBUTE b date", "attribute", "type", "error"),
    ('ALTER TYPE rich.loose ALTER ATTRIBUTE b TYPE text COLLATE "C"', "attribute", "collation", "warn"),
    ("ALTER TYPE rich.address DROP ATTRIBUTE zip", "attribute", "presence", "error"),
    ("ALTER TYPE rich.address ADD ATTRIBUTE more int", "attribute", "presence", "error"),
    ("CREATE TYPE rich.more AS (a int)", "composite type", "presence", "warn"),
    ("COMMENT ON TYPE rich.address IS 'x'", "composite type", "comment", "info"),
    ("COMMENT ON COLUMN rich.address.zip IS NULL", "attribute", "comment", "info"),
    (
        "ALTER TABLE rich.booked DROP gap; DROP TYPE rich.span; "
        "CREATE TYPE rich.span AS RANGE (subtype = float8); ALTER TABLE rich.booked ADD gap rich.span",
        "range type",
        "definition",
        "error",
    ),
    ("COMMENT ON TYPE rich.span IS 'x'", "range type", "comment", "info"),
    # the rest
    ("COMMENT ON SCHEMA rich IS NULL", "schema", "comment", "info"),
    ("CREATE EXTENSION pg_trgm", "extension", "presence", "info"),
    ("ALTER TABLE rich.booked DROP CONSTRAINT no_overlap; DROP EXTENSION btree_gist; "
     "ALTER TABLE rich.booked ADD CONSTRAINT no_overlap EXCLUDE USING gist (during WITH &&)",
     "extension", "presence", "warn"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("planted", "kind", "attribute", "severity"),
    PLANTED,
    ids=[
        f"{n}-{kind}-{attribute}-{severity}"
        for n, (_, kind, attribute, severity) in enumerate(PLANTED)
    ],
)
def test_planted_difference_is_told_and_mended(
    source: str,
    target: str,
    tables: list[TableName],
    planted: str,
    kind: str,
    attribute: str,
    severity: str,
) -> None:
    """It is told with its severity, its own statements take it away, and nothing else is left."""
    run(target, planted)
    found = diff(source, target, tables)
    assert (kind, attribute, severity) in told(found)
    one = next(d for d in found if (d.kind, d.attribute, d.severity) == (kind, attribute, severity))
    mend(target, [one])
    rest = diff(source, target, tables)
    assert identity(one) not in [identity(other) for other in rest]
    mend(target, rest)
    left = [other for other in diff(source, target, tables) if other.attribute != "column order"]
    assert left == []


def identity(one: Difference) -> tuple[str, str, str]:
    return one.kind, one.object, one.attribute


MANY = [
    n
    for n, (planted, *_) in enumerate(PLANTED)
    if not any(
        word in planted for word in ("booked", "rich.ev", "rich.mood", "rich.code", "g(text)")
    )
]


@pytest.mark.parametrize("round_", range(6))
def test_many_differences_are_mended_by_one_script(
    source: str, target: str, tables: list[TableName], round_: int
) -> None:
    """Statements of all differences go together: what several need is done once, in one order."""
    planted = 0
    chosen = MANY[round_::6]
    for n in chosen:
        try:
            run(target, PLANTED[n][0])
        except psycopg.Error:
            continue  # another one stands in its way
        planted += 1
    assert planted > len(chosen) // 2
    mend(target, diff(source, target, tables))
    left = [one for one in diff(source, target, tables) if one.attribute != "column order"]
    assert left == []
