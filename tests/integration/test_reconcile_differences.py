"""Whatever was done to a row of the target is named by key and column; nothing else is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from psycopg import sql

from cdc_migrator.control import differences
from cdc_migrator.model.differences import DIGEST
from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile import probe
from cdc_migrator.reconcile.chunks import Range, Sizes, Slicer, Unit
from cdc_migrator.reconcile.digest import Digest, add, statement
from cdc_migrator.reconcile.pairs import only, read_pairs
from tests.integration.reconcile_rig import World, world
from tests.support.corpus import STYLES

ROWS = 2_000
SHOP = f"""
CREATE SCHEMA shop;
CREATE TYPE shop.mood AS ENUM ('sad', 'ok', 'glad');
CREATE TABLE shop.orders (
    id bigint PRIMARY KEY, customer int NOT NULL, other int NOT NULL, state text NOT NULL,
    total numeric(12,2) NOT NULL, placed timestamptz NOT NULL, shipped timestamp, token uuid,
    paid boolean, mood shop.mood, raw bytea, share float8, tags text[], extra jsonb, note text,
    day date, code char(4), big bigint NOT NULL,
    twice bigint GENERATED ALWAYS AS (customer * 2) STORED
);
INSERT INTO shop.orders SELECT n, n % 50, n % 49, 'state ' || n % 4, n + 0.25,
    timestamptz '2024-01-01 12:00:00.123456+00' + n * interval '7 s',
    timestamp '2024-02-01' + n * interval '7 s', md5(n::text)::uuid, n % 2 = 0,
    (ARRAY['sad', 'ok', 'glad'])[n % 3 + 1]::shop.mood, decode(md5(n::text), 'hex'), n / 7.0,
    ARRAY['a', n::text], jsonb_build_object('n', n), '', date '2024-01-01' + n % 300, 'ab',
    n * 4294967296 FROM generate_series(1, {ROWS}) n;
CREATE TABLE shop.log (level int, line text);
ALTER TABLE shop.log REPLICA IDENTITY FULL;
INSERT INTO shop.log SELECT n % 5, 'line ' || n % 300 FROM generate_series(1, {ROWS}) n;
ANALYZE;
"""
ORDERS = TableName("shop", "orders")

# What is done to a row of the target, and the columns in which it then differs.
DAMAGE = {
    "a bit of an integer": ("customer = customer # 64", "customer twice"),
    "a high bit of a bigint": ("big = big # 1::int8 << 62", "big"),
    "a bit of a text": ("state = 'rtate ' || id % 4", "state"),
    "a bit of a bytea": ("raw = set_bit(raw, 77, 1 - get_bit(raw, 77))", "raw"),
    "a bit of a uuid": ("token = overlay(token::text placing (CASE substr(token::text, 36, 1) "
                        "WHEN '0' THEN '1' ELSE '0' END) from 36)::uuid", "token"),
    "a bit of a float": ("share = share * (1 + 2.3e-16)", "share"),
    "another boolean": ("paid = NOT paid", "paid"),
    "another label": ("mood = CASE mood WHEN 'sad' THEN 'ok' ELSE 'sad' END::shop.mood", "mood"),
    "another day": ("day = day + 1", "day"),
    "values swapped between columns": ("customer = other, other = customer",
                                       "customer other twice"),
    "null for empty": ("note = NULL", "note"),
    "a trailing space": ("state = state || ' '", "state"),
    "a sign": ("total = -total", "total"),
    "a truncated fraction": ("placed = date_trunc('second', placed)", "placed"),
    "a lost scale of a fraction": ("share = round(share::numeric, 3)", "share"),
    "a time zone shift": ("placed = placed + interval '2 hours'", "placed"),
    "a time zone shift of a plain timestamp": ("shipped = shipped - interval '1 hour'", "shipped"),
    "an element of an array": ("tags[2] = tags[2] || 'x'", "tags"),
    "an array's bounds": ("tags = ('[0:1]=' || tags::text)::text[]", "tags"),
    "a member of a document": ("extra = extra || '{\"m\": null}'", "extra"),
    "a number's form in a document": ("extra = jsonb_build_object('n', id || '.0')", "extra"),
    "padding": ("code = 'a'", "code"),
    "null for a value": ("token = NULL", "token"),
}  # fmt: skip


@pytest.fixture(scope="module")
def shop() -> Iterator[World]:
    with world(SHOP) as made:
        yield made


@pytest.fixture
def healed(shop: World) -> Iterator[World]:
    """Nothing differs before a test, and after its repair everything is equal again."""
    yield shop
    assert shop.run(repair=True).equal
    for name in (ORDERS, TableName("shop", "log")):
        here, there = shop.content(name)
        assert here == there


def test_every_kind_of_damage_is_named_to_the_column(healed: World) -> None:
    """One row for each, all found in one pass and nothing beside them."""
    wanted = {}
    for place, (assignment, columns) in enumerate(DAMAGE.values()):
        key = 41 + place * 83
        done = healed.target.execute(f"UPDATE shop.orders SET {assignment} WHERE id = {key}")
        assert done.rowcount == 1
        wanted[str(ORDERS), (str(key),)] = ("different", *columns.split())
    report = healed.run()
    assert not report.equal
    assert healed.found(report) == wanted


def test_missing_and_extra_rows_are_named(healed: World) -> None:
    """At both ends, in the middle, and where a whole chunk is gone."""
    healed.target.execute("DELETE FROM shop.orders WHERE id IN (1, 1000, 2000)")
    healed.target.execute("DELETE FROM shop.orders WHERE id BETWEEN 1200 AND 1400")
    for key in (-7, 99999):
        healed.target.execute(
            "INSERT INTO shop.orders (id, customer, other, state, total, placed, big) "
            f"VALUES ({key}, 1, 1, '', 1, now(), 1)"
        )
    gone = [1, 1000, 2000, *range(1200, 1401)]
    wanted = {(str(ORDERS), (str(key),)): ("missing_in_target",) for key in gone}
    wanted |= {(str(ORDERS), (str(key),)): ("extra_in_target",) for key in (-7, 99999)}
    assert healed.found(healed.run()) == wanted


def test_values_swapped_between_rows_are_found(healed: World) -> None:
    """Of never-null and of nullable columns: every plain sum of hashes stays as it was."""
    for column, one, two in (("state", 10, 11), ("raw", 20, 21), ("big", 30, 31)):
        healed.target.execute(
            f"UPDATE shop.orders t SET {column} = o.{column} FROM shop.orders o "
            f"WHERE (t.id, o.id) IN (({one}, {two}), ({two}, {one}))"
        )
    wanted = {
        (str(ORDERS), (str(key),)): ("different", column)
        for column, keys in (("state", (10, 11)), ("raw", (20, 21)), ("big", (30, 31)))
        for key in keys
    }
    assert healed.found(healed.run()) == wanted


def test_rows_of_a_keyless_table_are_counted(healed: World) -> None:
    """Pairs of duplicates, which every exclusive or cancels, and one row in place of another."""
    healed.target.execute("INSERT INTO shop.log VALUES (1, 'line 1'), (1, 'line 1')")
    healed.target.execute(
        "DELETE FROM shop.log WHERE ctid = ANY(ARRAY(SELECT ctid FROM shop.log "
        "WHERE (level, line) = (2, 'line 2') LIMIT 2))"
    )
    healed.target.execute("INSERT INTO shop.log VALUES (NULL, ''), (0, NULL)")
    report = healed.run()
    found = {
        (known.kind.value, known.source_count - known.target_count)
        for table in report.tables
        for known in table.standing
    }
    assert found == {("extra_in_target", -2), ("missing_in_target", 2), ("extra_in_target", -1)}
    assert all(set(known.key) == {DIGEST} for table in report.tables for known in table.standing)


def test_a_swap_of_keys_is_repaired_though_each_needs_the_others_value() -> None:
    """What collides with another row's unique value joins the set, whatever the index."""
    with world(
        "CREATE TABLE public.seats (id int PRIMARY KEY, place text UNIQUE, holder text, "
        "n int GENERATED ALWAYS AS IDENTITY); "
        "CREATE UNIQUE INDEX lowered ON public.seats (lower(holder)) WHERE id > 0; "
        "INSERT INTO public.seats SELECT n, 'place ' || n, 'H' || n FROM generate_series(1, 50) n"
    ) as made:
        made.target.execute("UPDATE public.seats SET place = 'x' || id WHERE id IN (1, 2)")
        made.target.execute("UPDATE public.seats SET place = 'place 1' WHERE id = 2")
        made.target.execute("UPDATE public.seats SET holder = 'tmp' WHERE id = 7")
        made.target.execute("UPDATE public.seats SET holder = 'h7' WHERE id = 8")
        report = made.run(repair=True)
        assert report.equal
        assert report.repaired == 4
        here, there = made.content(TableName("public", "seats"))
        assert here == there
        # Only one row is known to differ; the other is found when the first is written.
        made.target.execute("DELETE FROM public.seats WHERE id = 3")
        made.target.execute("UPDATE public.seats SET place = 'place 3' WHERE id = 4")
        pair = [one for one in made.run().tables[0].standing if one.key["id"] == "4"]
        differences.accept(made.target, [pair[0].id], "known", "somebody")
        made.run(repair=True)
        here, there = made.content(TableName("public", "seats"))
        assert here == there
        audit = made.target.execute(
            "SELECT key->>'id', action FROM cdc_migrator.repair ORDER BY id DESC LIMIT 2"
        ).fetchall()
        assert sorted(audit) == [("3", "inserted"), ("4", "replaced")]


KEYS = {
    "composite": ("a int, b text, PRIMARY KEY (a, b)", "n % 3, 'k' || n"),
    "text": ("a text PRIMARY KEY", "'k' || n || chr(n % 60 + 40)"),
    "collated": ('a text COLLATE "pg_c_utf8" PRIMARY KEY', "'K' || n || chr(n % 60 + 40)"),
    "uuid": ("a uuid PRIMARY KEY", "md5(n::text)::uuid"),
    "numeric": ("a numeric PRIMARY KEY", "n / 4.0"),
    "date": ("a date PRIMARY KEY", "date '2020-01-01' + n::int"),
    "moment": ("a timestamptz PRIMARY KEY", "timestamptz '2020-01-01+00' + n * interval '1 s'"),
    "bytes": ("a bytea PRIMARY KEY", "decode(md5(n::text), 'hex')"),
    "varchar": ("a varchar(40), b bigint, PRIMARY KEY (a, b)", "'one', n"),
    "float": ("a float8 PRIMARY KEY", "n / 7.0"),
    "boolean first": ("a boolean, b smallint, PRIMARY KEY (a, b)", "n % 2 = 0, n"),
    "padded": ("a char(9) PRIMARY KEY", "'k' || n"),
    "array": ("a int[] PRIMARY KEY", "ARRAY[n::int, 7]"),
}


def test_keys_of_every_kind_are_cut_into_chunks_and_named() -> None:
    """A missing, an extra and a changed row of each, in a table of many chunks."""
    made_tables = [
        f'CREATE TABLE public."k {name}" ({columns}, v int); '
        f'INSERT INTO public."k {name}" SELECT {value}, n FROM generate_series(1, 1500) n; '
        f'ANALYZE public."k {name}"'
        if "PRIMARY KEY (" not in columns
        else f'CREATE TABLE public."k {name}" ({columns.replace(", PRIMARY", ", v int, PRIMARY")});'
        f' INSERT INTO public."k {name}" SELECT {value}, n FROM generate_series(1, 1500) n; '
        f'ANALYZE public."k {name}"'
        for name, (columns, value) in KEYS.items()
    ]
    with world(*made_tables) as made:
        assert made.run().equal
        wanted = {}
        for name in KEYS:
            table = f'public."k {name}"'
            key = "CASE WHEN num_nulls(a) = 0 THEN concat(a) END"
            has_b = "b" if "b " in KEYS[name][0] else None
            texts = f"{key}, concat(b)" if has_b else key
            for n, kind in (
                (700, "missing_in_target"),
                (900, "different"),
                (1499, "extra_in_target"),
            ):
                row = made.source.execute(f"SELECT {texts} FROM {table} WHERE v = {n}").fetchone()
                assert row is not None
                wanted[f"public.k {name}", tuple(row)] = (
                    (kind, "v") if kind == "different" else (kind,)
                )
            made.target.execute(f"DELETE FROM {table} WHERE v = 700")
            made.target.execute(f"UPDATE {table} SET v = 0 WHERE v = 900")
            made.source.execute(f"DELETE FROM {table} WHERE v = 1499")
        assert made.found(made.run()) == wanted
        report = made.run(repair=True)
        assert report.equal
        assert report.repaired == len(wanted)


def test_odd_names_are_quoted() -> None:
    """Names with quotes, dots, percent signs and words that are reserved."""
    statements = []
    for style in STYLES:
        schema, table, key, value = (
            '"' + part.replace('"', '""') + '"'
            for part in (style.schema, style.table, style.column(0), style.column(1))
        )
        statements.append(
            f"CREATE SCHEMA IF NOT EXISTS {schema}; CREATE TABLE {schema}.{table} "
            f"({key} int PRIMARY KEY, {value} text); "
            f"INSERT INTO {schema}.{table} SELECT n, 'x' FROM generate_series(1, 300) n"
        )
    with world(*statements) as made:
        assert made.run().equal
        for table in made.run().tables:
            pair = f'"{table.table.schema}"."{table.table.name}"'
            if table.table.schema == "plain":
                made.target.execute(f"UPDATE {pair} SET c1 = 'y' WHERE c0 = 3".encode())
            elif table.table.schema.startswith("odd"):
                made.target.execute(f"DELETE FROM {pair}".encode())
        found = made.found(made.run())
        assert len(found) == 301
        assert made.run(repair=True).equal


def test_a_large_chunk_is_cut_by_hash_before_rows_are_fetched(healed: World) -> None:
    """The same rows are named, with and without a key, also where half of them are wrong."""
    whole = {"sizes": Sizes(chunk_rows=1_000_000)}
    healed.target.execute("UPDATE shop.orders SET paid = NULL WHERE id IN (3, 777)")
    healed.target.execute("DELETE FROM shop.log WHERE line = 'line 7'")
    found = healed.found(healed.run(work=whole))
    lines = {key: what for key, what in found.items() if key[0] == "shop.log"}
    assert {key: what for key, what in found.items() if key not in lines} == {
        (str(ORDERS), ("3",)): ("different", "paid"),
        (str(ORDERS), ("777",)): ("different", "paid"),
    }
    assert set(lines.values()) == {("missing_in_target",)}
    healed.target.execute("UPDATE shop.orders SET note = 'x' WHERE id % 2 = 0")
    report = healed.run(work=whole)
    notes = [what for what in healed.found(report).values() if "note" in what]
    assert len(notes) == ROWS // 2


def sums(made: World) -> tuple[Digest, Digest]:
    """Both sides' digests of the whole table of swaps."""
    name = TableName("public", "swaps")
    pair = only(read_pairs(made.source, made.target, {name: name}))[name]
    hashing = probe.agree(made.source, made.target)
    unit = Unit(name, 0, None, Range(), (), 0)
    found = []
    for conn, target in ((made.source, False), (made.target, True)):
        query = statement(pair, Slicer(pair, None, hashing), hashing, unit, target, sql.SQL("true"))
        one_side: dict[int | None, Digest] = {}
        add(conn.execute(query).fetchall(), one_side)
        found.append(one_side[0])
    return found[0], found[1]


SWAPS = {
    "between rows": "UPDATE {t} t SET {c} = o.{c} FROM {t} o "
    "WHERE (t.id, o.id) IN ((1, 2), (2, 1))",
    "between columns": "UPDATE {t} SET a = b, b = a, x = y, y = x WHERE id = 3",
    "pairs of rows": "UPDATE {t} SET id = 7, a = 7, b = 7, x = 7, y = 7 WHERE id = 6",
}


def test_each_of_the_two_sums_notices_what_is_only_moved() -> None:
    """Of never-null and nullable columns; but pairs of rows, which an exclusive or cannot see."""
    rows = (
        "TRUNCATE public.swaps; "
        "INSERT INTO public.swaps SELECT n, n, n * 3, n, n * 3 FROM generate_series(1, 5) n; "
        "INSERT INTO public.swaps SELECT 6, 6, 6, 6, 6 FROM generate_series(1, 2)"
    )
    with world(
        "CREATE TABLE public.swaps (id int, a int NOT NULL, b int NOT NULL, x int, y int); "
        "ALTER TABLE public.swaps REPLICA IDENTITY FULL"
    ) as made:
        for name, swap in SWAPS.items():
            for column in ("a", "x"):
                made.both(rows)
                here, there = sums(made)
                assert here == there
                made.target.execute(swap.format(t="public.swaps", c=column).encode())
                here, there = sums(made)
                assert here.rows == there.rows
                assert here.total != there.total
                assert (here.either == there.either) == (name == "pairs of rows")


def test_a_key_that_is_equal_to_the_database_but_not_as_text_is_repaired() -> None:
    """Missing by one spelling, extra by the other, and one row afterwards."""
    with world(
        "CREATE EXTENSION citext SCHEMA public; "
        "CREATE TABLE public.numbers (id numeric PRIMARY KEY, v int); "
        "INSERT INTO public.numbers SELECT n + 0.5, n FROM generate_series(1, 300) n; "
        "CREATE TABLE public.words (id public.citext PRIMARY KEY, v int); "
        "INSERT INTO public.words SELECT 'Word' || n, n FROM generate_series(1, 300) n"
    ) as made:
        made.target.execute("UPDATE public.numbers SET id = 7.50 WHERE id = 7.5")
        made.target.execute("UPDATE public.words SET id = 'wORD7' WHERE v = 7")
        assert made.found(made.run()) == {
            ("public.numbers", ("7.5",)): ("missing_in_target",),
            ("public.numbers", ("7.50",)): ("extra_in_target",),
            ("public.words", ("Word7",)): ("missing_in_target",),
            ("public.words", ("wORD7",)): ("extra_in_target",),
        }
        assert made.run(repair=True).equal
        for name in ("numbers", "words"):
            here, there = made.content(TableName("public", name))
            assert here == there


def test_a_target_without_the_keys_constraint_may_hold_it_twice_or_not_at_all() -> None:
    """A second row of a key and one whose key is null are extra; a repair removes the second."""
    with world(
        "CREATE TABLE public.loose (id int PRIMARY KEY, v int); "
        "INSERT INTO public.loose SELECT n, n FROM generate_series(1, 500) n; ANALYZE"
    ) as made:
        made.target.execute(
            "ALTER TABLE public.loose DROP CONSTRAINT loose_pkey, ALTER id DROP NOT NULL"
        )
        made.target.execute("INSERT INTO public.loose VALUES (17, 17), (NULL, 1)")
        report = made.run()
        (table,) = report.tables
        found = {
            (k.key["id"], k.kind.value, k.source_count, k.target_count) for k in table.standing
        }
        assert found == {("17", "extra_in_target", 1, 2), (None, "extra_in_target", 0, 1)}
        made.target.execute("DELETE FROM public.loose WHERE id IS NULL")
        assert made.run(repair=True).equal
