"""What real schemas have that is made in two steps, or that every database has already."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest

from cdc_migrator.backfill.diff.run import differences, script
from cdc_migrator.backfill.schema import make_indexes, make_tables, plan
from cdc_migrator.backfill.schema_options import SchemaOptions
from cdc_migrator.control import migration
from cdc_migrator.control import schema as control
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Refused
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

    def diff(self, *, loaded: bool = True, grants: bool = False) -> list[Difference]:
        return differences(
            self.source, self.target, NAMES, self.tables(), loaded=loaded, grants=grants
        )


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


@pytest.fixture
def roles(pair: Pair) -> Iterator[list[str]]:
    """Two roles, one with an odd name; both databases are of one server."""
    names = ["made_app", 'made "Read" er']
    quoted = [f'''"{name.replace('"', '""')}"''' for name in names]
    pair.run(pair.source, *(f"CREATE ROLE {name}" for name in quoted))
    yield quoted
    for dsn in (pair.source, pair.target):
        pair.run(dsn, *(f"DROP OWNED BY {name}" for name in quoted))
    pair.run(pair.source, *(f"DROP ROLE {name}" for name in quoted))


def granted(app: str, reader: str) -> list[str]:
    return [
        "CREATE SCHEMA s; CREATE TYPE s.kind AS ENUM ('a')",
        "CREATE TABLE s.t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a text, k s.kind)",
        "CREATE TABLE s.plain (id int PRIMARY KEY); CREATE SEQUENCE s.q",
        f"CREATE VIEW s.v AS {GROUPED.replace('FROM t', 'FROM s.t')}",
        "CREATE FUNCTION s.f(int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE PROCEDURE s.p() LANGUAGE sql AS 'SELECT 1'",
        "CREATE AGGREGATE s.total(int) (SFUNC = int4pl, STYPE = int)",
        f"GRANT USAGE ON SCHEMA s TO {app}, {reader}; GRANT CREATE ON SCHEMA public TO {app}",
        f"GRANT SELECT, INSERT ON s.t TO {app} WITH GRANT OPTION; GRANT UPDATE ON s.t TO {app}",
        f"GRANT SELECT (a), UPDATE (a, k) ON s.t TO {reader}; GRANT SELECT ON s.v TO PUBLIC",
        f"GRANT SELECT (n) ON s.v TO {reader}; GRANT USAGE ON SEQUENCE s.q TO {app}",
        f"REVOKE EXECUTE ON FUNCTION s.f FROM PUBLIC; GRANT EXECUTE ON FUNCTION s.f TO {app}",
        f"REVOKE ALL ON PROCEDURE s.p FROM PUBLIC; GRANT EXECUTE ON FUNCTION s.total TO {app}",
        f"REVOKE ALL ON TYPE s.kind FROM PUBLIC; GRANT USAGE ON TYPE s.kind TO {reader}",
        f"ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT SELECT ON TABLES TO {reader}",
        "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
    ]


def test_grants_arrive_on_request_and_are_compared(pair: Pair, roles: list[str]) -> None:
    """Without the request nothing is granted and nothing told; with it both sides are alike."""
    pair.run(pair.source, *granted(*roles))
    acls = "SELECT count(*) FROM pg_class WHERE relacl IS NOT NULL AND oid > 16384"
    make_tables(pair.source, pair.target, NAMES, pair.tables())
    make_indexes(pair.source, pair.target, NAMES, pair.tables())
    assert pair.diff() == []
    assert pair.one(pair.target, acls) == 0
    told = pair.diff(grants=True)
    assert {d.attribute for d in told} == {"grants", "presence"}
    assert {d.kind for d in told} == {
        "schema", "table", "column", "view", "view column", "sequence", "function", "procedure",
        "aggregate", "enumeration", "default privileges",
    }  # fmt: skip
    assert {str(d.severity) for d in told} == {"warn"}
    pair.run(pair.target, *(sql for sql, _ in script(told)))
    assert pair.diff(grants=True) == []

    with private_database() as fresh, connect(fresh, application_name="test") as conn:
        control.ensure(conn, "target")
        migration.create(conn, NAMES.migration)
        other = Pair(pair.source, fresh)
        options = SchemaOptions(grants=True)
        planned = plan(other.source, fresh, NAMES, other.tables(), options)
        assert "ACL - SCHEMA public" in planned.before
        make_tables(other.source, fresh, NAMES, other.tables(), options)
        make_indexes(other.source, fresh, NAMES, other.tables(), options)
        assert other.diff(grants=True) == []
        planned = plan(other.source, fresh, NAMES, other.tables(), options)
        assert (planned.before, planned.after) == ((), ())
        for statement in granted(*roles):
            if "REVOKE" in statement:
                other.run(fresh, statement.replace("REVOKE", "GRANT").replace("FROM", "TO"))
            if statement.startswith("GRANT"):
                other.run(fresh, f"REVOKE ALL ON s.t, s.v FROM {roles[0]} CASCADE")
        other.run(fresh, f"GRANT DELETE ON s.plain TO {roles[1]}")
        other.run(fresh, f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {roles[1]}")
        told = other.diff(grants=True)
        assert {"s.t", "s.plain", "s.f(integer)"} <= {d.object for d in told}
        other.run(fresh, *(sql for sql, _ in script(told)))
        assert other.diff(grants=True) == []


def test_roles_that_the_target_lacks_are_named(source_db: str, target_db: str) -> None:
    """Before anything is made: those of policies always, those of privileges with the grants."""
    pair = Pair(source_db, target_db)
    named = ("made_policy", "made_grant", '"made Def"')
    with connect(target_db, application_name="test") as conn:
        control.ensure(conn, "target")
        migration.create(conn, NAMES.migration)
    pair.run(
        source_db,
        *(f"CREATE ROLE {role}" for role in named),
        "CREATE TABLE t (id int PRIMARY KEY); CREATE POLICY p ON t TO made_policy USING (true)",
        "GRANT SELECT ON t TO made_grant",
        'ALTER DEFAULT PRIVILEGES FOR ROLE "made Def" GRANT SELECT ON TABLES TO made_grant',
    )
    try:
        with pytest.raises(Refused, match=r"CDCM-TARGET-ROLES: .*roles made_policy, which pol"):
            make_tables(source_db, target_db, NAMES, pair.tables())
        with pytest.raises(Refused, match="made Def, made_grant, made_policy, which grants and"):
            make_tables(source_db, target_db, NAMES, pair.tables(), SchemaOptions(grants=True))
        assert pair.one(target_db, "SELECT to_regclass('t')") is None
        pair.run(target_db, "CREATE ROLE made_policy")
        make_tables(source_db, target_db, NAMES, pair.tables())
        make_indexes(source_db, target_db, NAMES, pair.tables())
        assert pair.diff() == []
    finally:
        pair.run(source_db, *(f"DROP OWNED BY {role}; DROP ROLE {role}" for role in named))
        pair.run(target_db, "DROP TABLE IF EXISTS t; DROP ROLE IF EXISTS made_policy")


OTHERS = [
    "CREATE SCHEMA s; CREATE TYPE s.pair AS (a int, b int)",
    "CREATE COLLATION s.\"C 2\" (locale = 'C')",
    "CREATE TEXT SEARCH DICTIONARY s.dict (TEMPLATE = simple)",
    "CREATE TEXT SEARCH CONFIGURATION s.conf (COPY = simple)",
    "CREATE FUNCTION s.eq(s.pair, s.pair) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true'",
    "CREATE FUNCTION s.say(s.pair) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT ''x'''",
    "CREATE OPERATOR s.=== (LEFTARG = s.pair, RIGHTARG = s.pair, FUNCTION = s.eq)",
    "CREATE OPERATOR FAMILY s.fam USING hash",
    "CREATE OPERATOR CLASS s.cls FOR TYPE s.pair USING hash FAMILY s.fam AS OPERATOR 1 s.===",
    "CREATE CAST (s.pair AS text) WITH FUNCTION s.say(s.pair)",
    "CREATE CONVERSION s.conv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8",
    'CREATE TABLE s.t (id int PRIMARY KEY, a text COLLATE s."C 2")',
]


def test_rarer_objects_arrive_and_are_missed(pair: Pair) -> None:
    """Collations, text search, operators, casts: made by the dump, told where they are missing."""
    pair.run(pair.source, *OTHERS)
    make_tables(pair.source, pair.target, NAMES, pair.tables())
    make_indexes(pair.source, pair.target, NAMES, pair.tables())
    assert pair.diff() == []
    pair.run(
        pair.target,
        "DROP CAST (s.pair AS text); DROP OPERATOR CLASS s.cls USING hash; DROP CONVERSION s.conv",
        "DROP OPERATOR FAMILY s.fam USING hash; DROP OPERATOR s.=== (s.pair, s.pair)",
        "DROP TEXT SEARCH CONFIGURATION s.conf; DROP TEXT SEARCH DICTIONARY s.dict",
        "CREATE COLLATION s.more (locale = 'C')",
    )
    told = {(d.kind, d.object, d.target) for d in pair.diff()}
    assert told == {
        ("cast", "(s.pair AS pg_catalog.text)", None),
        ("operator class", "s.cls USING hash", None),
        ("operator family", "s.fam USING hash", None),
        ("operator", "s.===(s.pair,s.pair)", None),
        ("conversion", "s.conv", None),
        ("text search configuration", "s.conf", None),
        ("text search dictionary", "s.dict", None),
        ("collation", "s.more", "there"),
    }
    pair.run(pair.target, *(sql for sql, _ in script(pair.diff())))
    make_tables(pair.source, pair.target, NAMES, pair.tables())
    assert pair.diff() == []
