"""A mapping becomes routes by what both servers say of it; what cannot be exact is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import psycopg
import pytest

from cdc_migrator.control.load import Routes
from cdc_migrator.databases.postgres import mapped
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import ConfigurationError, MigratorError, Refused
from cdc_migrator.model import mapping
from cdc_migrator.model.mapping import MappedColumn, Route, Wanted
from cdc_migrator.model.tables import ReplicaIdentity, TableName
from cdc_migrator.transform.compile import compile_routes
from cdc_migrator.transform.preview import preview
from cdc_migrator.transform.trial import trial
from tests.support.private_postgres import private_database

BOTH = """
CREATE SCHEMA shop;
CREATE SCHEMA crm;
CREATE TYPE shop.mood AS ENUM ('sad', 'glad');
CREATE FUNCTION shop.twice(n int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT n * 2';
CREATE FUNCTION shop.drifting(n int) RETURNS int VOLATILE LANGUAGE plpgsql AS 'BEGIN RETURN n; END';
"""
SOURCE = (
    BOTH
    + """
CREATE TYPE shop.pair AS (a int, b int);
CREATE TABLE shop.customer (
    id bigint PRIMARY KEY, name text NOT NULL, email text, fax text, mood shop.mood,
    born date, credit numeric(12,4), at timestamptz, doc json, deleted boolean NOT NULL,
    street varchar(80), city varchar(40), "Odd ""One" int,
    upper_name text GENERATED ALWAYS AS (upper(name)) STORED);
CREATE TABLE shop.plain (id int PRIMARY KEY, kind "char", n int, m int NOT NULL);
CREATE TABLE shop.heap (n int, t text);
ALTER TABLE shop.heap REPLICA IDENTITY FULL;
CREATE TABLE shop.visits (at timestamp PRIMARY KEY, n int);
CREATE TABLE shop.pairs (id int PRIMARY KEY, p shop.pair);
CREATE TABLE shop.sales (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE shop.sales_1 PARTITION OF shop.sales FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE SCHEMA eu; CREATE SCHEMA us;
CREATE TABLE eu.orders (id int PRIMARY KEY, total numeric(10,2));
CREATE TABLE us.orders (id int PRIMARY KEY, total numeric(10,2));
INSERT INTO shop.customer
SELECT n, 'n' || n, 'm' || n, NULL, 'glad', '2000-01-01', n, '2024-01-01', '{"a": 1}', n % 5 = 0,
       's', 'c', n FROM generate_series(1, 600) n;
INSERT INTO shop.plain SELECT n, 'x', n, n FROM generate_series(0, 9) n;
INSERT INTO shop.heap VALUES (1, 'a'), (1, 'A'), (2, NULL);
"""
)
TARGET = (
    BOTH
    + """
CREATE TYPE crm.feeling AS ENUM ('sad', 'glad');
CREATE TABLE crm.person (
    id bigint PRIMARY KEY, full_name text NOT NULL, email text, mood crm.feeling, born text,
    credit numeric(14,2), doc json, twice int, region varchar(8), tag text DEFAULT 'none',
    shout text GENERATED ALWAYS AS (upper(full_name)) STORED);
CREATE TABLE crm.address (customer bigint PRIMARY KEY, street varchar(80), city varchar(40));
CREATE TABLE crm.plain (id text PRIMARY KEY, n int, m int NOT NULL);
CREATE TABLE crm.bare (id text, n int);
CREATE TABLE crm.days (at date, n int);
CREATE TABLE crm.heap (n int, t text);
CREATE TABLE crm.orders (region char(2), id int, total numeric(10,2), PRIMARY KEY (region, id));
CREATE TABLE crm.all_orders (region text, id int PRIMARY KEY, total numeric(10,2));
CREATE TABLE crm.pairs (id int PRIMARY KEY, a int);
CREATE TABLE shop.plain (id int PRIMARY KEY, kind "char", n int, m int NOT NULL);
"""
)
Compiled = Callable[..., Routes]


@pytest.fixture(scope="module")
def ends() -> Iterator[tuple[psycopg.Connection, psycopg.Connection]]:
    with (
        private_database(locale=" LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'") as here,
        private_database() as there,
        connect(here, application_name="test") as source,
        connect(there, application_name="test") as target,
    ):
        source.execute(SOURCE)
        target.execute(TARGET)
        yield source, target


@pytest.fixture
def compiled(ends: tuple[psycopg.Connection, psycopg.Connection]) -> Iterator[Compiled]:
    """What becomes of wanted mappings; nothing of the asking stays."""
    source, target = ends

    def compile_(*wanted: Wanted, foreseen: bool = False) -> Routes:
        return compile_routes(source, target, wanted, read_tables(source), foreseen=foreseen)

    yield compile_
    for one in ends:
        assert one.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert one.execute(
            "SELECT count(*) FROM pg_class WHERE relpersistence = 't'"
        ).fetchone() == (0,)


def refused(compiled: Compiled, *wanted: Wanted, foreseen: bool = False) -> MigratorError:
    with pytest.raises(MigratorError) as caught:
        compiled(*wanted, foreseen=foreseen)
    return caught.value


PERSON = Wanted(
    "shop.customer",
    "crm.person",
    keep=("id", "name", "email", "mood", "born", "credit", "doc"),
    rename={"name": "full_name"},
    cast={"born": "text"},
    set={
        "email": "'user' || id || '@example.invalid' -- nobody's",
        "twice": "shop.twice(id::int)",
        "region": "'eu'",
    },
)


def only(routes: Routes, table: str = "shop.customer") -> Route:
    schema, _, name = table.partition(".")
    (route,) = routes[TableName(schema, name)]
    return route


def test_each_column_has_its_expression_what_it_reads_and_the_targets_type(
    compiled: Compiled, ends: tuple[psycopg.Connection, psycopg.Connection]
) -> None:
    """And both servers run what comes of it."""
    route = only(compiled(PERSON))
    assert (route.target, route.key) == (TableName("crm", "person"), ("id",))
    by_name = {one.name: one for one in route.columns}
    order = "id full_name email mood born credit doc twice region"
    assert " ".join(by_name) == order
    assert by_name["full_name"] == MappedColumn(
        "full_name", '"name"', ("name",), "name", "text", "pg_catalog.text", cast=False
    )
    assert by_name["email"].uses == ("id",)
    assert by_name["email"].of is None
    assert by_name["doc"].cast is False
    assert (by_name["born"].of, by_name["born"].cast) == ("born", True)
    assert by_name["credit"].type_text == "numeric(14,2)"
    assert by_name["credit"].cast is True
    assert (by_name["mood"].common, by_name["mood"].base_type) == (False, "crm.feeling")
    assert (by_name["twice"].uses, by_name["region"].uses) == (("id",), ())
    assert mapping.read(route.document) == route
    source, _ = ends
    row = source.execute(
        mapped.rows_of_source(route).as_string().join(("SELECT * FROM ", " AS r WHERE id = 7"))
    ).fetchone()
    assert row is not None
    assert row[1:7] == (7, "n7", "user7@example.invalid", "glad", "2000-01-01", row[6])
    assert str(row[6]) == "7.00"


def test_a_table_is_split_and_a_condition_reads_columns(compiled: Compiled) -> None:
    """Each entry gives a route; an expression that is a column is that column."""
    address = Wanted(
        "shop.customer",
        "crm.address",
        keep=("street", "city"),
        set={"customer": " ID "},
    )
    first, second = compiled(PERSON, address)[TableName("shop", "customer")]
    assert (first.target.name, second.target.name) == ("person", "address")
    assert second.key == ("customer",)
    customer = second.column("customer")
    assert (customer.of, customer.cast) == ("id", False)
    route = only(compiled(Wanted("shop.plain", where="n > 3 AND m <> 0 -- some")), "shop.plain")
    assert route.where_uses == ("n", "m")


def test_a_schema_gets_another_name_but_for_what_is_named(compiled: Compiled) -> None:
    """Nothing is asked about columns that stay what they are."""
    routes = compiled(Wanted("shop.*", "fresh.*"), PERSON, foreseen=True)
    assert only(routes).target == TableName("crm", "person")
    pairs = only(routes, "shop.heap")
    assert (pairs.target, pairs.key) == (TableName("fresh", "heap"), ())
    assert only(routes, "shop.sales_1").key == ("id", "at")
    assert all(not one.cast for one in pairs.columns)


def test_shards_share_a_table_by_a_constant_in_its_key(compiled: Compiled) -> None:
    """The key has the target's order; the rest of the table is the others'."""
    eu = Wanted("eu.orders", "crm.orders", set={"region": "'eu'"})
    us = Wanted("us.orders", "crm.orders", set={"region": "'us'"})
    routes = compiled(eu, us)
    route = only(routes, "eu.orders")
    assert route.key == ("region", "id")
    assert route.belongs == "\"region\" = 'eu'::character(2)"
    by_schema = compiled(
        Wanted("eu.*", "crm.*", set={"region": "'eu'"}),
        Wanted("us.*", "crm.*", set={"region": "'us'"}),
    )
    assert {name: [one.belongs for one in of] for name, of in by_schema.items()} == {
        name: [one.belongs for one in of] for name, of in routes.items()
    }
    for wanted, words in (
        ((eu, Wanted("us.orders", "crm.orders", set={"region": "'eu'"})), "nothing tells"),
        (
            (eu, Wanted("us.orders", "crm.orders", set={"region": "'e' || chr(id)"})),
            "nothing tells",
        ),
        (
            (
                Wanted("eu.orders", "crm.all_orders", set={"region": "'eu'"}),
                Wanted("us.orders", "crm.all_orders", set={"region": "'us'"}),
            ),
            "is not in its primary key",
        ),
        ((Wanted("eu.orders", "us.orders", set={"region": "'eu'"}),), "goes as it is"),
    ):
        error = refused(compiled, *wanted, foreseen=wanted[0].to == "us.orders")
        assert (error.code, error.exit_code) == ("CDCM-MAPPING-MERGE", 2)
        assert words in error.cause
    made = compiled(
        Wanted("eu.orders", "crm.new", set={"region": "'eu'", "v": "1"}),
        Wanted("us.orders", "crm.new", set={"region": "'us'", "v": "1"}),
        foreseen=True,
    )
    assert only(made, "us.orders").key == ("region", "id")
    assert only(made, "us.orders").belongs == "\"region\" = 'us'::text"


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("lower(nme)", 'the source says: column "nme" does not exist (at character 7: nme))'),
        ("now()::text", "generation expression is not immutable"),
        (
            "('today'::date - 'epoch'::date)::text",
            "the literal with 'today' in it is read anew by each statement",
        ),
        ("$x$now$x$::timestamp::date - date '2000-01-01' || ''", "the literal with 'now' in it"),
        ("shop.drifting(id::int)::text", "generation expression is not immutable"),
        ("(SELECT name)", "cannot use subquery in column generation expression"),
        ("max(name)", "aggregate functions are not allowed"),
        ("generate_series(1, 2)::text", "set-returning functions are not allowed"),
        ("customer.name", 'missing FROM-clause entry for table "customer"'),
        ("name) FROM shop.customer --", "syntax error"),
        ("name), (email", "it is 2 expressions"),
        ("name; DROP TABLE shop.customer", "syntax error"),
        ("upper_name", "reads upper_name, which is generated"),
        ("tableoid::int::text", "reads a system column"),
        ("at::text", "generation expression is not immutable"),
        ("1 / (id - 7) || ''", "fails on rows of the source: the source says: SQLSTATE 22012"),
    ],
)
def test_an_expression_is_refused_with_postgresqls_own_words_and_place(
    compiled: Compiled, expression: str, words: str
) -> None:
    """No value of a row is among them."""
    error = refused(
        compiled,
        Wanted(
            "shop.customer",
            "crm.person",
            keep=("id", "name"),
            rename={"name": "full_name"},
            set={"tag": expression},
        ),
    )
    assert (error.code, error.exit_code) == ("CDCM-MAPPING-EXPRESSION", 2), error.cause
    assert error.cause.startswith("mapping.0.set.tag: shop.customer, column tag")
    assert words in error.cause


def test_a_filter_is_refused_as_an_expression_is(compiled: Compiled) -> None:
    """It has to be a condition."""
    for where, words in (
        ("n + 1", "argument of WHERE must be type boolean, not type integer"),
        ("n > random()", "not immutable"),
        ("1 / n > 0", "the filter fails on rows of the source"),
    ):
        error = refused(compiled, Wanted("shop.plain", where=where))
        assert error.code == "CDCM-MAPPING-EXPRESSION"
        assert error.cause.startswith("mapping.0.where: shop.plain, the filter")
        assert words in error.cause
    filtered = Wanted("shop.plain", "shop.plain", where="n <> 0", set={"n": "10 / n"})
    assert only(compiled(filtered), "shop.plain").where == "n <> 0"


def test_every_fault_is_told_at_once(compiled: Compiled) -> None:
    """Each with its place."""
    error = refused(
        compiled,
        Wanted("shop.customer", "crm.person", keep=("id", "nam"), rename={"fax": "telex"}),
        Wanted("shop.custmer", "crm.person"),
        Wanted("shop.sales", "crm.sales"),
        Wanted("nowhere.*", "crm.*"),
        Wanted("shop.plain", set={"n": "nothing", "m": "m + "}),
    )
    told = error.cause
    assert "mapping.0.keep: shop.customer has no column nam (did you mean name?)" in told
    assert "mapping.0.rename.fax: shop.customer.fax is renamed, but does not go along" in told
    assert "shop.custmer is no table that moves (did you mean shop.customer?)" in told
    assert "mapping.2.to: the target has no table crm.sales" in told
    assert "no other table of nowhere moves" in told
    assert 'mapping.4.set.n: shop.plain, column n: the source says: column "nothing"' in told
    assert "mapping.4.set.m" in told
    assert isinstance(error, ConfigurationError)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted("shop.customer", "crm.person"), "crm.person has no column name"),
        (
            Wanted("shop.customer", "crm.person", keep=("id",)),
            "crm.person demands full_name (NOT NULL, without a default)",
        ),
        (
            Wanted("shop.plain", set={"n": "m::text"}),
            "shop.plain.n is integer, which text does not turn into by itself",
        ),
        (
            Wanted("shop.plain", rename={"n": "m"}, set={"x": "1"}),
            "two columns of shop.plain would be called m",
        ),
        (Wanted("shop.plain", cast={"nn": "text"}), "no column nn goes to shop.plain (did you"),
        (
            Wanted("shop.customer", "crm.person", keep=("id", "upper_name")),
            "shop.customer.upper_name is generated",
        ),
        (
            Wanted(
                "shop.customer",
                "crm.person",
                keep=("id", "name"),
                rename={"name": "full_name"},
                set={"shout": "'x'"},
            ),
            "crm.person.shout is generated there",
        ),
    ],
)
def test_columns_must_be_there_and_fit(compiled: Compiled, wanted: Wanted, words: str) -> None:
    """On either side."""
    error = refused(compiled, wanted)
    assert (error.code, error.exit_code) == ("CDCM-MAPPING-COLUMN", 2), error.cause
    assert words in error.cause


def test_a_row_is_found_by_the_sources_key(compiled: Compiled) -> None:
    """So it goes along; two keys must not become one."""
    gone = refused(compiled, Wanted("shop.plain", set={"id": "n + 1"}))
    assert (gone.code, gone.exit_code) == ("CDCM-MAPPING-KEY", 2)
    assert "shop.plain lacks id of the key of shop.plain" in gone.cause
    cast = Wanted("shop.plain", "crm.plain", drop=("kind",), cast={"id": "text"})
    assert only(compiled(cast), "shop.plain").column("id").of == "id"
    bare = Wanted("shop.plain", "crm.bare", keep=("id", "n"), cast={"id": "text"})
    assert only(compiled(bare), "shop.plain").key == ("id",)
    days = Wanted("shop.visits", "crm.days", cast={"at": "date"})
    assert "two keys of the source may be one" in refused(compiled, days).cause
    heap = Wanted("shop.heap", "crm.heap"), Wanted("shop.heap", "crm.bare", drop=("t",))
    split = refused(compiled, *heap, foreseen=True)
    assert "shop.heap has no key: it cannot be split" in split.cause


def test_values_that_events_lack_are_demanded(compiled: Compiled) -> None:
    """Where a column stored aside is mixed with others, or decides a filter's row."""
    mixed = Wanted(
        "shop.customer",
        "crm.person",
        keep=("id", "name"),
        rename={"name": "full_name"},
        set={"tag": "name || street"},
    )
    error = refused(compiled, mixed)
    assert isinstance(error, Refused)
    assert error.code == "CDCM-MAPPING-IDENTITY"
    assert error.remedy == 'ALTER TABLE "shop"."customer" REPLICA IDENTITY FULL;'
    filtered = Wanted(
        "shop.customer",
        "crm.person",
        keep=("id", "name"),
        rename={"name": "full_name"},
        where="NOT deleted",
    )
    error = refused(compiled, filtered)
    assert error.cause.startswith("mapping.0.where")
    assert "leaves name alone" in error.cause
    alone = Wanted(
        "shop.customer",
        "crm.person",
        keep=("id", "name"),
        rename={"name": "full_name"},
        set={"tag": "lower(street)"},
    )
    assert only(compiled(alone)).column("tag").uses == ("street",)


def test_a_type_that_the_stream_brings_is_on_the_target(compiled: Compiled) -> None:
    """Its values are read there before they are put into an expression."""
    error = refused(compiled, Wanted("shop.pairs", "crm.pairs", keep=("id",), set={"a": "(p).a"}))
    assert (error.code, error.exit_code) == ("CDCM-MAPPING-TYPE", 3)
    assert "reads p, whose type shop.pair the target lacks" in error.cause
    error = refused(compiled, Wanted("shop.plain", cast={"n": "shop.nothing"}))
    assert "neither server has a type shop.nothing" in error.cause
    unused = only(
        compiled(Wanted("shop.pairs", "crm.pairs", keep=("id",), set={"a": "id"})), "shop.pairs"
    )
    assert unused.columns[1].of == "id"


def test_servers_that_differ_are_found_by_rows(
    compiled: Compiled, ends: tuple[psycopg.Connection, psycopg.Connection]
) -> None:
    """A function with another body; no value of a row is told."""
    _, target = ends
    wanted = Wanted("shop.plain", set={"n": "shop.twice(m)"})
    assert only(compiled(wanted), "shop.plain").column("n").uses == ("m",)
    body = "CREATE OR REPLACE FUNCTION shop.twice(n int) RETURNS int IMMUTABLE LANGUAGE sql AS "
    try:
        target.execute(body + "'SELECT n + n + (n = 5)::int'")
        error = refused(compiled, wanted)
        assert (error.code, error.exit_code) == ("CDCM-MAPPING-UNLIKE", 3)
        assert error.cause.startswith("mapping.0.set.n: shop.plain, column n: the two servers")
        error = refused(compiled, Wanted("shop.plain", where="shop.twice(n) % 2 = 0"))
        assert error.cause.startswith("mapping.0.where: shop.plain, the filter: the two servers")
        target.execute(body + "'SELECT n / (n - 5)'")
        error = refused(compiled, wanted)
        assert "fails on rows of the source: the target says: SQLSTATE 22012" in error.cause
        target.execute(
            body.replace("IMMUTABLE LANGUAGE sql", "STABLE LANGUAGE plpgsql")
            + "'BEGIN RETURN n; END'"
        )
        error = refused(compiled, wanted)
        assert "the target says: generation expression is not immutable" in error.cause
    finally:
        target.execute(body + "'SELECT n * 2'")


def test_sample_rows_come_from_all_over_a_large_table(
    ends: tuple[psycopg.Connection, psycopg.Connection],
) -> None:
    """What only rows at its end would show is seen."""
    source, target = ends
    of = "CREATE FUNCTION shop.late(n int) RETURNS int IMMUTABLE LANGUAGE sql AS "
    source.execute(of + "'SELECT n'")
    target.execute(of + "'SELECT CASE WHEN n < 100000 THEN n END'")
    target.execute("CREATE TABLE shop.many (n int PRIMARY KEY, filler text, late int)")
    source.execute("CREATE TABLE shop.many (n int PRIMARY KEY, filler text)")
    source.execute(
        "INSERT INTO shop.many SELECT n, repeat('x', 80) FROM generate_series(1, 120000) n"
    )
    many = [one for one in read_tables(source) if one.name.name == "many"]
    with pytest.raises(Refused, match="CDCM-MAPPING-UNLIKE"):
        compile_routes(source, target, [Wanted("shop.many", set={"late": "shop.late(n)"})], many)
    for one in ends:
        one.execute("DROP TABLE shop.many; DROP FUNCTION shop.late")


NAMES = """
CREATE SCHEMA "Shop Floor";
CREATE TABLE "Shop Floor"."Été, 1" (
    "user" int PRIMARY KEY, "per%cent" text, "{0}" text, "a ""b"" c" text, "from" text);
"""


def test_names_and_literals_may_be_anything(
    ends: tuple[psycopg.Connection, psycopg.Connection],
) -> None:
    """Quotes, percents, braces, words of SQL."""
    source, target = ends
    source.execute(NAMES + "INSERT INTO \"Shop Floor\".\"Été, 1\" VALUES (1, '%s', '{}', 'q', 'f')")
    target.execute(NAMES + 'ALTER TABLE "Shop Floor"."Été, 1" ADD "$n\'ew" text')
    of = [one for one in read_tables(source) if one.name.schema == "Shop Floor"]
    wanted = Wanted(
        "Shop Floor.Été, 1",
        set={
            "per%cent": '"{0}" || \'%s {} %(n)s\' /* " */',
            "$n'ew": "\"user\" || '%' -- )",
            "from": '"from"',
        },
        where='"a ""b"" c" LIKE \'%q%\' OR "user" % 2 = 0 -- {}',
    )
    source.execute('ALTER TABLE "Shop Floor"."Été, 1" REPLICA IDENTITY FULL')
    of = [replace(one, replica_identity=ReplicaIdentity.FULL) for one in of]
    (routes,) = compile_routes(source, target, [wanted], of).values()
    assert routes[0].where_uses == ("user", 'a "b" c')
    assert routes[0].column("from").of == "from"
    (shown,) = preview(source, of[0], routes, 5)
    assert shown.shown[0].after is not None
    assert list(shown.shown[0].after.values()) == ["1", "{}%s {} %(n)s", "{}", "q", "f", "1%"]
    tried = trial(source, of[0], None, routes[0], examples=1)
    assert (tried.rows, tried.passing, tried.failing) == (1, 1, ())


def test_a_server_of_another_locale_is_found_by_rows(
    ends: tuple[psycopg.Connection, psycopg.Connection],
) -> None:
    """Order and case of letters depend on it; COLLATE "C" does not."""
    source, _ = ends
    source.execute("CREATE TABLE IF NOT EXISTS shop.words (id int PRIMARY KEY, word text)")
    source.execute("INSERT INTO shop.words VALUES (1, 'été'), (2, 'z')")
    of = [one for one in read_tables(source) if one.name.name == "words"]
    with (
        private_database(locale=" LOCALE_PROVIDER libc LOCALE 'C'") as plain,
        connect(plain, application_name="test") as target,
    ):
        target.execute(
            "CREATE SCHEMA shop; CREATE TABLE shop.words (id int PRIMARY KEY, word text)"
        )
        for expression, alike in (
            ("upper(word)", False),
            ('upper(word COLLATE "C")', True),
            ("left(word, 1)", True),
        ):
            wanted = [Wanted("shop.words", set={"word": expression})]
            if alike:
                assert compile_routes(source, target, wanted, of)
            else:
                with pytest.raises(Refused, match="CDCM-MAPPING-UNLIKE"):
                    compile_routes(source, target, wanted, of)
    source.execute("DROP TABLE shop.words")


def test_a_source_that_grants_no_temporary_tables_is_asked_otherwise(
    compiled: Compiled, ends: tuple[psycopg.Connection, psycopg.Connection]
) -> None:
    """And a session that only reads is enough."""
    source, target = ends
    tables = read_tables(source)
    source.execute("CREATE ROLE cdcm_reader; GRANT pg_read_all_data TO cdcm_reader")
    database = source.info.dbname
    source.execute(f'REVOKE TEMP ON DATABASE "{database}" FROM PUBLIC')
    try:
        source.execute("SET ROLE cdcm_reader")
        for one in ends:
            one.read_only = True
        routes = compile_routes(source, target, [PERSON], tables)
        with pytest.raises(ConfigurationError, match="not immutable"):
            compile_routes(
                source, target, [Wanted("shop.plain", set={"n": "random()::int"})], tables
            )
        with pytest.raises(ConfigurationError, match='column "x" does not exist'):
            compile_routes(source, target, [Wanted("shop.plain", set={"n": "x"})], tables)
    finally:
        for one in ends:
            one.read_only = None
        source.execute("RESET ROLE")
        source.execute("REVOKE pg_read_all_data FROM cdcm_reader; DROP ROLE cdcm_reader")
        source.execute(f'GRANT TEMP ON DATABASE "{database}" TO PUBLIC')
    assert routes == compiled(PERSON)
