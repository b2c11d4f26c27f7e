"""A partitioned table is mapped as a whole: what tells its partitions' rows apart on the target."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from cdc_migrator.control.load import Routes
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import MigratorError
from cdc_migrator.model.mapping import Wanted
from cdc_migrator.model.tables import TableName
from cdc_migrator.service.transforming import TransformOptions, previewed, tried
from cdc_migrator.transform.compile import compile_routes
from cdc_migrator.transform.entries import plain_place
from cdc_migrator.transform.making import missing_tables
from tests.support.private_postgres import private_database

TYPES = "CREATE SCHEMA shop; CREATE SCHEMA crm; CREATE TYPE shop.mood AS ENUM ('sad', 'glad');"
SOURCE = (
    TYPES
    + """
CREATE TABLE shop.sale (id int, "At" timestamptz, kind text, PRIMARY KEY (id, "At"))
    PARTITION BY RANGE ("At");
CREATE INDEX ON shop.sale (kind);
CREATE TABLE shop.sale_1 PARTITION OF shop.sale FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE shop.sale_2 (kind text, id int NOT NULL, "At" timestamptz NOT NULL);
ALTER TABLE shop.sale ATTACH PARTITION shop.sale_2 FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
CREATE TABLE shop.sale_rest PARTITION OF shop.sale DEFAULT;
INSERT INTO shop.sale SELECT n, timestamptz '2024-01-01' + n * interval '1 day', 'k' || n
    FROM generate_series(0, 99) n;
CREATE TABLE shop.part (mood shop.mood, id uuid, v int, PRIMARY KEY (mood, id))
    PARTITION BY LIST (mood);
CREATE TABLE shop.part_sad PARTITION OF shop.part FOR VALUES IN ('sad') PARTITION BY HASH (id);
CREATE TABLE shop.part_sad_0 PARTITION OF shop.part_sad FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE shop.part_sad_1 PARTITION OF shop.part_sad FOR VALUES WITH (MODULUS 3, REMAINDER 1);
CREATE TABLE shop.part_sad_2 PARTITION OF shop.part_sad FOR VALUES WITH (MODULUS 3, REMAINDER 2);
CREATE TABLE shop.part_glad PARTITION OF shop.part FOR VALUES IN ('glad');
INSERT INTO shop.part SELECT (ARRAY['sad', 'glad'])[n % 2 + 1]::shop.mood,
    md5(n::text)::uuid, n FROM generate_series(1, 200) n;
CREATE TABLE shop.h (id int, word text) PARTITION BY HASH (id);
CREATE TABLE shop.h_0 PARTITION OF shop.h FOR VALUES WITH (MODULUS 2, REMAINDER 0)
    PARTITION BY HASH (word);
CREATE TABLE shop.h_0_0 PARTITION OF shop.h_0 FOR VALUES WITH (MODULUS 5, REMAINDER 3);
CREATE TABLE shop.h_0_1 PARTITION OF shop.h_0 FOR VALUES WITH (MODULUS 5, REMAINDER 1);
CREATE TABLE shop.h_0_2 PARTITION OF shop.h_0 FOR VALUES WITH (MODULUS 5, REMAINDER 2);
CREATE TABLE shop.h_0_3 PARTITION OF shop.h_0 FOR VALUES WITH (MODULUS 5, REMAINDER 0);
CREATE TABLE shop.h_0_4 PARTITION OF shop.h_0 FOR VALUES WITH (MODULUS 5, REMAINDER 4);
CREATE TABLE shop.h_1 PARTITION OF shop.h FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO shop.h SELECT CASE WHEN n % 9 > 0 THEN n - 40 END, CASE WHEN n % 7 > 0 THEN md5(n::text)
    END FROM generate_series(1, 100) n;
CREATE TABLE shop.by_word (id int, word text, PRIMARY KEY (id, word)) PARTITION BY RANGE (word);
CREATE TABLE shop.by_word_1 PARTITION OF shop.by_word FOR VALUES FROM ('a') TO ('m');
CREATE TABLE shop.by_day (id int, at timestamp) PARTITION BY RANGE ((at::date));
CREATE TABLE shop.by_day_1 PARTITION OF shop.by_day DEFAULT;
CREATE TABLE shop.by_both (a int, b int, PRIMARY KEY (a, b)) PARTITION BY HASH (a, b);
CREATE TABLE shop.by_both_1 PARTITION OF shop.by_both FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE TABLE shop.alone (id int, at date) PARTITION BY RANGE (at);
CREATE TABLE shop.alone_1 PARTITION OF shop.alone (PRIMARY KEY (id))
    FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
"""
)
TARGET = (
    TYPES
    + """
CREATE TABLE crm.sale (region text, id bigint, sold_at timestamptz, kind text,
    PRIMARY KEY (region, id, sold_at));
CREATE TABLE crm.part (id shop.mood, mood uuid, v text, PRIMARY KEY (id, mood));
CREATE TABLE crm.h (number bigint, word varchar(40));
CREATE TABLE crm.dated (id int, at timestamptz, kind text);
CREATE TABLE crm.narrow (id int PRIMARY KEY, at timestamptz, kind text);
CREATE TABLE crm.t (id int, a int, b int, at timestamp, day date, word text, kind text);
"""
)
SALE = Wanted(
    "shop.sale", "crm.sale", rename={"At": "sold_at"}, cast={"id": "int8"}, set={"region": "'eu'"}
)
Ends = tuple[psycopg.Connection, psycopg.Connection]


@pytest.fixture(scope="module")
def ends() -> Iterator[Ends]:
    with (
        private_database() as here,
        private_database() as there,
        connect(here, application_name="test") as source,
        connect(there, application_name="test") as target,
    ):
        source.execute(SOURCE)
        target.execute(TARGET)
        yield source, target


def compiled(ends: Ends, *wanted: Wanted) -> Routes:
    return compile_routes(*ends, wanted, read_tables(ends[0]))


@pytest.mark.parametrize(
    ("wanted", "columns", "into"),
    [
        (SALE, "'eu', id, \"At\", kind", "crm.sale"),
        # The two columns of the key exchange their names on the way.
        (
            Wanted(
                "shop.part", "crm.part", rename={"id": "mood", "mood": "id"}, cast={"v": "text"}
            ),
            "mood, id, v",
            "crm.part",
        ),
        (
            Wanted("shop.h", "crm.h", rename={"id": "number"}, cast={"number": "int8"}),
            "id, word",
            "crm.h",
        ),
    ],
    ids=["ranges and the rest", "lists of hashes", "hashes of hashes, without a key"],
)
def test_what_belongs_to_a_partition_is_what_it_has(
    ends: Ends, wanted: Wanted, columns: str, into: str
) -> None:
    """By ranges, lists and hashes, of several levels, whatever the columns are called."""
    source, target = ends
    routes = compiled(ends, wanted)
    with target.transaction(force_rollback=True):
        query = f"COPY (SELECT {columns} FROM {wanted.table}) TO STDOUT"
        with (
            source.cursor() as reading,
            target.cursor() as writing,
            reading.copy(query.encode()) as rows,
            writing.copy(f"COPY {into} FROM STDIN".encode()) as copy,
        ):
            for block in rows:
                copy.write(block)
        found = {}
        for name, (route,) in routes.items():
            count = f"SELECT count(*) FROM {into} WHERE {route.belongs}"
            (found[str(name)],) = target.execute(count.encode()).fetchone() or ()
    counted = f"SELECT tableoid::regclass::text, count(*) FROM {wanted.table} GROUP BY 1"
    expected: dict[str, int] = dict(source.execute(counted.encode()).fetchall())
    assert found == {name: expected.get(name, 0) for name in found}
    assert sum(found.values()) == sum(expected.values()) > 0
    assert len(found) > 2


def test_partitions_have_the_shape_of_their_table(ends: Ends) -> None:
    """Each is a table of its own in the migration; a partition that an entry names goes by that."""
    rest = Wanted("shop.sale_rest", "crm.dated", rename={"At": "at"})
    routes = compiled(ends, SALE, rest)
    assert {str(name): str(one.target) for name, (one,) in routes.items()} == {
        "shop.sale_1": "crm.sale",
        "shop.sale_2": "crm.sale",
        "shop.sale_rest": "crm.dated",
    }
    (first,) = routes[TableName("shop", "sale_1")]
    assert first.key == ("region", "id", "sold_at")
    assert first.bound is not None
    assert first.bound.columns == ("sold_at",)
    assert first.belongs == first.bound.condition


def test_a_partitioned_table_is_looked_at_by_its_name(ends: Ends) -> None:
    """Before a migration: all partitions are tried, rows of one that has some are shown."""
    options = TransformOptions(
        "parts", *(one.info.dsn for one in ends), ["shop.sale*"], [], [SALE], plain_place
    )
    found = tried(options, "shop.sale", 0)
    assert [(str(one.route.source), one.rows, one.failing) for one in found] == [
        ("shop.sale_1", 31, ()),
        ("shop.sale_2", 29, ()),
        ("shop.sale_rest", 40, ()),
    ]
    shown = previewed(options, "shop.sale", 2)
    assert [one.before["id"] for one in shown.rows] == ["0", "1"]


def test_the_table_that_is_made_is_an_ordinary_one(ends: Ends) -> None:
    """And it is told that it has no partitions."""
    wanted = Wanted("shop.sale", "crm.whole", rename={"At": "at"})
    (one,) = missing_tables(*ends, [wanted], read_tables(ends[0]))
    assert str(one) == "table crm.whole (without: partitions, index sale_kind_idx)"
    assert one.sources == (TableName("shop", "sale"),)
    assert one.statement.count("PARTITION") == 0
    assert "PRIMARY KEY" in one.statement


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted("shop.by_word", "crm.t"), "by ranges of word, whose order depends"),
        (Wanted("shop.by_day", "crm.t"), "is partitioned by an expression"),
        (Wanted("shop.by_both", "crm.t"), "is partitioned by hash of several columns"),
        (
            Wanted("shop.alone", "crm.t", rename={"at": "day"}),
            "the key of shop.alone_1 (id) lacks at, by which shop.alone is partitioned",
        ),
        (
            Wanted("shop.h", "crm.t", drop=("id",)),
            "shop.h is partitioned by id, which does not go to crm.t as it is",
        ),
        (
            Wanted("shop.sale", "crm.narrow", rename={"At": "at"}),
            "unique index narrow_pkey of crm.narrow lacks at, by which shop.sale is partitioned",
        ),
    ],
)
def test_partitions_that_the_target_cannot_tell_apart_are_refused(
    ends: Ends, wanted: Wanted, words: str
) -> None:
    """With the reason, once for all partitions that have the same."""
    with pytest.raises(MigratorError) as caught:
        compiled(ends, wanted)
    assert caught.value.code == "CDCM-MAPPING-PARTITION"
    assert caught.value.cause.count("\n") == 0
    assert words in caught.value.cause


def test_a_table_beside_a_partitioned_one_needs_a_discriminator(ends: Ends) -> None:
    """Its rows are in no bounds."""
    wanted = [
        Wanted("shop.sale", "crm.dated", rename={"At": "at"}),
        Wanted("shop.alone_1", "crm.dated", cast={"at": "timestamptz"}),
    ]
    with pytest.raises(MigratorError) as caught:
        compiled(ends, *wanted)
    assert caught.value.code == "CDCM-MAPPING-MERGE"
    assert "nothing tells their rows apart there" in caught.value.cause
