"""Equality in text form, for every type there is: nothing is missed, and nothing is made up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile.expressions import RAW, Hashing
from tests.integration.reconcile_rig import World, world
from tests.support import corpus

PLACE = "types"


def setup(kinds: list[corpus.Kind]) -> list[str]:
    made = [f"CREATE EXTENSION {name} SCHEMA public" for name in corpus.EXTENSIONS]
    made += [corpus.TYPES, f"CREATE SCHEMA {PLACE}", "SET search_path = public, pg_catalog"]
    for number, kind in enumerate(kinds):
        made.append(
            f"CREATE TABLE {PLACE}.t{number} (id int PRIMARY KEY, v {kind.type}); "
            f"INSERT INTO {PLACE}.t{number} VALUES "
            + ", ".join(f"({n}, ({value})::{kind.type})" for n, value in enumerate(kind.values))
        )
    return [*made, "SET search_path = pg_catalog"]


@pytest.fixture(scope="module")
def kinds() -> list[corpus.Kind]:
    return corpus.kinds(has_xml=False)


@pytest.fixture(scope="module")
def every(kinds: list[corpus.Kind]) -> Iterator[World]:
    with world(*setup(kinds)) as made:
        yield made


def test_equal_values_of_every_type_are_equal(every: World, kinds: list[corpus.Kind]) -> None:
    """No difference, whatever the value; every table was compared to its end."""
    report = every.run()
    assert every.found(report) == {}
    assert report.equal
    assert {table.rows for table in report.tables} >= {len(kind.values) for kind in kinds}


def test_any_two_values_of_a_type_are_told_apart(every: World, kinds: list[corpus.Kind]) -> None:
    """Each row is given another row's value, and then null: each is found, in its column."""
    every.target.execute("SET search_path = public, pg_catalog")
    wanted = {}
    for number, kind in enumerate(kinds):
        table = f"{PLACE}.t{number}"
        texts = [
            row[0]
            for row in every.source.execute(
                f"SELECT CASE WHEN num_nulls(v) = 0 THEN concat(v) END FROM {table} ORDER BY id"
            )
        ]
        count = len(texts)
        for n in range(count):
            other = texts[(n + 1) % count] if texts[(n + 1) % count] != texts[n] else None
            if other is None and kind.type == "public.label":
                continue
            every.target.execute(
                f"UPDATE {table} SET v = (%s::text)::{kind.type} WHERE id = %s", (other, n)
            )
            wanted[table, (str(n),)] = ("different", "v")
    every.target.execute("SET search_path = pg_catalog")
    report = every.run()
    assert every.found(report) == wanted
    mended = every.run(repair=True)
    assert mended.equal
    assert mended.repaired == len(wanted)
    for number in range(len(kinds)):
        here, there = every.content(TableName(PLACE, f"t{number}"))
        assert here == there


SERVER_BLIND = {
    "the sign of a numeric": ("numeric", "1", "-1"),
    "the sign of a fixed numeric": ("numeric(10,2)", "1", "-1"),
    "nothing and not a number": ("numeric(10,2)", "0", "NaN"),
    "the weight of a fixed numeric": ("numeric(20,2)", "1", "10000"),
    "the scale of a numeric": ("numeric", "1.0", "1.00"),
    "both halves of a bigint": ("bigint", "-1", "4294967295"),
    "swapped halves of a bigint": ("bigint", "4294967298", "8589934593"),
    "a timestamp one turn of its halves later": (
        "timestamptz", "2000-01-01 00:00:00+00", "2000-01-01 01:11:34.967297+00",
    ),
    "an interval's unit": ("interval", "1 mon", "30 days"),
    "an array's bounds": ("int[]", "{1}", "[2:2]={1}"),
    "a jsonb number's scale": ("jsonb", "1.0", "1.00"),
    "a zero's sign": ("float8", "0", "-0"),
    "two infinities": ("numeric", "Infinity", "NaN"),
}  # fmt: skip


def test_values_that_the_servers_hashes_take_for_one_are_told_apart() -> None:
    """Of never-null and of nullable columns alike."""
    tables = [
        f"CREATE TABLE public.b{n} (id int PRIMARY KEY, v {kind[0]} NOT NULL, w {kind[0]}); "
        f"INSERT INTO public.b{n} VALUES (1, '{kind[1]}', '{kind[1]}'), (2, '{kind[1]}', NULL)"
        for n, kind in enumerate(SERVER_BLIND.values())
    ]
    with world(*tables) as made:
        assert made.run().equal
        for n, (_, _, other) in enumerate(SERVER_BLIND.values()):
            made.target.execute(f"UPDATE public.b{n} SET v = '{other}' WHERE id = 2")
            made.target.execute(f"UPDATE public.b{n} SET w = '{other}' WHERE id = 1")
        assert made.found(made.run()) == {
            (f"public.b{n}", (key,)): ("different", column)
            for n in range(len(tables))
            for key, column in (("1", "w"), ("2", "v"))
        }


@pytest.mark.parametrize(
    "hashing",
    [
        Hashing(functions=frozenset()),
        Hashing(raw=frozenset()),
        Hashing(raw=frozenset(), by_server=False),
    ],
    ids=["older servers", "text", "md5"],
)
def test_the_slower_ways_find_the_same(hashing: Hashing, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server cannot hash, or hashes unlike the other, is hashed in another way."""
    columns = ", ".join(f"c_{name} {name}" for name in sorted(RAW))
    values = {
        "int2": ("1", "2"), "int4": ("1", "2"), "int8": ("1", "4294967297"), "oid": ("1", "2"),
        "bool": ("t", "f"), "uuid": ("0" * 32, "0" * 31 + "1"), "text": ("", " "),
        "varchar": ("a", "a "), "numeric": ("1.0", "1.00"),
        "bytea": ("\\x", "\\x00"), "date": ("2024-01-01", "infinity"),
        "timestamp": ("2024-01-01", "2024-01-02"), "timestamptz": ("2024-01-01", "infinity"),
    }  # fmt: skip
    first = ", ".join(f"'{values[name][0]}'" for name in sorted(RAW))
    monkeypatch.setattr("cdc_migrator.reconcile.probe.agree", lambda *_: hashing)
    with world(
        f"CREATE TABLE public.wide (id int PRIMARY KEY, {columns}); "
        f"INSERT INTO public.wide SELECT n, {first} FROM generate_series(1, 40) n; "
        "CREATE TABLE public.bare (t text); ALTER TABLE public.bare REPLICA IDENTITY FULL; "
        "INSERT INTO public.bare VALUES ('x'), ('x'), (NULL)"
    ) as made:
        assert made.run().equal
        for n, name in enumerate(sorted(RAW), start=1):
            made.target.execute(
                f"UPDATE public.wide SET c_{name} = '{values[name][1]}' WHERE id = {n}"
            )
            made.target.execute(f"UPDATE public.wide SET c_{name} = NULL WHERE id = {n + 15}")
        made.target.execute("UPDATE public.bare SET t = '' WHERE t IS NULL")
        found = made.found(made.run())
    wanted = {
        ("public.wide", (str(n + more),)): ("different", f"c_{name}")
        for n, name in enumerate(sorted(RAW), start=1)
        for more in (0, 15)
    }
    assert {key: what for key, what in found.items() if key[0] == "public.wide"} == wanted
    assert len(found) == len(wanted) + 2


def test_a_hash_on_which_the_servers_disagree_raises_no_alarm() -> None:
    """Rows with unequal hashes and equal texts lead to a safer way, not to a difference."""
    with world(
        "CREATE TABLE public.t (id int PRIMARY KEY, v int); "
        "INSERT INTO public.t SELECT n, n FROM generate_series(1, 500) n"
    ) as made:
        made.target.execute("ALTER TABLE public.t ALTER v TYPE text")
        assert made.run().equal
        made.target.execute("UPDATE public.t SET v = '07' WHERE id = 7")
        assert made.found(made.run()) == {("public.t", ("7",)): ("different", "v")}
