"""Random work for the source: a seed gives transactions of plain SQL statements.

Few keys and few values, so that rows meet each other: unique values are swapped and passed on,
keys form chains and cycles, rows are deleted and come again, equal rows lie beside each other.
Many statements break a constraint, as an application's do; each is a savepoint of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.oracle.schema import LEAVES, ROOTS

Step = Callable[[Random], str]


@dataclass(frozen=True)
class Transaction:
    """Statements of one transaction, each with whether its savepoint is rolled back again."""

    statements: list[tuple[str, bool]]
    commits: bool


@dataclass(frozen=True)
class Workload:
    """`beginning` makes the state that the work starts from; `pairs` run two at a time."""

    seed: int
    beginning: list[str]
    pairs: list[tuple[Transaction, ...]]


def generate(seed: int) -> Workload:
    """The workload of a seed; the same at every call.

    On some of the tables only, which costs less, and so that they meet each other more often.
    """
    r = Random(seed)
    families = r.sample(_FAMILIES, r.randint(3, 7))
    tables = [table for family in families for table in family]
    pairs = []
    for _ in range(r.randint(2, 6)):
        together = 2 if r.random() < 0.25 else 1
        pairs.append(tuple(_transaction(r, tables) for _ in range(together)))
    return Workload(seed, _beginning(r, tables), pairs)


# Tables that foreign keys tie together come together.
_TIED = ("parent", "child", "grandchild")
_FAMILIES = [_TIED, *((name,) for name in ROOTS if name not in _TIED)]


def _transaction(r: Random, tables: list[str]) -> Transaction:
    # Now and then one table only: whatever folds, folds there.
    chosen = [r.choice(tables)] if r.random() < 0.3 else tables
    steps: list[Step] = [step for table, step in STEPS if table in chosen]
    steps += [lambda r: _truncate(r, tables)] * (1 + len(steps) // 25)
    size = r.randint(20, 60) if r.random() < 0.06 else r.randint(1, 9)
    statements = [(r.choice(steps)(r), r.random() < 0.05) for _ in range(size)]
    return Transaction(statements, r.random() > 0.08)


def _beginning(r: Random, tables: list[str]) -> list[str]:
    """Empty tables, and then the same few rows in each."""
    empty = (
        [f"TRUNCATE {', '.join(f'shop.{name}' for name in tables)} RESTART IDENTITY"]
        if r.random() < 0.25
        else [f"DELETE FROM shop.{name}" for name in tables]
    )
    rows = f"FROM generate_series(1, {r.randint(0, 5)}) AS n"
    return empty + [
        f"INSERT INTO shop.{name} {values} {rows}" for name in tables for values in _ROWS[name]
    ]


_BODY = "CASE WHEN n % 2 = 1 THEN repeat(md5(n::text), 70) ELSE 'short' END"
_ROWS = {
    "item": [f"SELECT n, 'c' || n, n, {_BODY}, {_BODY}"],
    "pair": [f"SELECT n, 'p', 0, {_BODY}"],
    "log": [f"SELECT n % 2, {_BODY}, n / 2"] * 2,
    "badge": [f"SELECT n, 'b', n, 'h' || n, {_BODY}"],
    "counter": [f"(id, body) SELECT n, {_BODY}"],
    "parent": ["SELECT n, 'n' || n"],
    "child": ["SELECT n, n, n"],
    "grandchild": ["SELECT n, 'x', n"],
    "ranking": ["SELECT n, n, n, 'r'"],
    "booking": ["SELECT n, int4range(n * 10, n * 10 + 10), 'k'"],
    "account": ["SELECT n, 'M' || n, n = 1, 'a', n"],
    "stock": [f"SELECT n, chr(96 + n), {_BODY}"],
    "mixed": ["SELECT n, n / 3.0, now(), current_date, '[1]', '\\x00ff', ARRAY['a', NULL], n = 2"],
}


def _id(r: Random) -> int:
    return r.randint(1, 6)


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _body(r: Random) -> str:
    """Short, long, empty, NULL, and what has a meaning to COPY, JSON or the connector."""
    return r.choice(
        [
            "NULL", "''", "'a'", "'NULL'", "'null'", r"'\N'", "E'tab\\there\\nline \\\\ \\r'",
            _text("o'clock \"quoted\" {1,2} ☃"), "'b'",
            f"repeat(md5('{r.randint(1, 3)}'), {r.choice([70, 90])})",
            f"repeat(md5('{r.randint(1, 3)}'), 80)",
        ]
    )  # fmt: skip


def _code(r: Random) -> str:
    return r.choice(["NULL", "'c1'", "'c2'", "'c3'", "'c4'", "E'tab\\there'", r"'back\slash\N'"])


def _swap(table: str, column: str, free: str) -> Step:
    """Two rows exchange a unique value, by way of a free one."""

    def swap(r: Random) -> str:
        one, other = r.sample(range(1, 7), 2)
        key = "id" if column != "id" else column
        if column == key:
            return "; ".join(
                f"UPDATE shop.{table} SET id = {new} WHERE id = {old}"
                for old, new in ((one, free), (other, one), (free, other))
            )
        return (
            f"CREATE TEMP TABLE IF NOT EXISTS kept (id bigint, v text); DELETE FROM kept; "
            f"INSERT INTO kept SELECT id, {column} FROM shop.{table} WHERE id IN ({one}, {other}); "
            f"UPDATE shop.{table} SET {column} = {free} WHERE id = {one} "
            f"AND (SELECT count(*) FROM kept) = 2; "
            f"UPDATE shop.{table} AS t SET {column} = k.v::{_TYPES[column]} FROM kept AS k "
            f"WHERE t.id = {other} AND k.id = {one}; "
            f"UPDATE shop.{table} AS t SET {column} = k.v::{_TYPES[column]} FROM kept AS k "
            f"WHERE t.id = {one} AND k.id = {other}"
        )

    return swap


_TYPES = {"code": "text", "slot": "int", "pin": "int", "mail": "text", "during": "int4range"}


def _chain(table: str, column: str) -> Step:
    """Each row takes over its neighbour's key, from the free end on; or all go round."""

    def chain(r: Random) -> str:
        if r.random() < 0.5:
            moves = [(n, n + 1) for n in range(r.randint(3, 6), 0, -1)]
        else:
            moves = [(1, -99), *((n + 1, n) for n in range(1, 6)), (-99, 6)]
        return "; ".join(
            f"UPDATE shop.{table} SET {column} = {new} WHERE {column} = {old}" for old, new in moves
        )

    return chain


def _range(r: Random) -> str:
    start = r.randint(1, 60)
    return f"int4range({start}, {start + r.randint(1, 15)})"


def _region(r: Random) -> str:
    return r.choice(["'a'", "'a'", "'b'", "'b'", "'c'", "'d'"])


def _truncate(r: Random, tables: list[str]) -> str:
    """One table or several; those that foreign keys refer to only with the ones that refer."""
    names = set(r.sample(tables, r.randint(1, min(3, len(tables)))))
    if r.random() < 0.2 and "stock" in names:
        names = names - {"stock"} | {r.choice(LEAVES)}
    if r.random() < 0.8 and names & {"parent", "child"}:
        names |= set(_TIED)
    listed = ", ".join(f"shop.{name}" for name in sorted(names))
    return f"TRUNCATE {listed}" + r.choice(["", " RESTART IDENTITY"])


# The values of the table of types; the last of each is long, where the type has long ones.
_VALUES = {
    "num": ["0", "1.50", "-0.0001", "'NaN'", "1e30", "'Infinity'",
        "repeat('12345', 1100)::numeric"],
    "at": ["'2026-01-02 03:04:05.678901+00'", "'infinity'", "'1999-12-31 23:59:59-08'"],
    "day": ["'2026-02-28'", "'0044-03-15 BC'", "'-infinity'"],
    "doc": ["'{\"a\": 1.10}'", "'null'", "'\"x\"'", "to_jsonb(repeat('long ', 700))"],
    "raw": ["'\\x'", "'\\x00010aff'", "decode(repeat('00ff', 1500), 'hex')"],
    "tags": ["'{}'", "ARRAY['', NULL, 'NULL', 'a,b', '\"']", "ARRAY[repeat('long ', 700), NULL]"],
    "flag": ["true", "false"],
    "spans": ["'{}'", "'{[1,3),[5,9)}'",
        "(SELECT range_agg(int4range(n * 9, n * 9 + 5)) FROM generate_series(1, 400) AS n)"],
    "ids": ["'{}'", "(SELECT array_agg(md5(n::text)::uuid) FROM generate_series(1, 200) AS n)"],
    "counts": ["'{1,NULL,-3}'", "(SELECT array_agg(n::bigint) FROM generate_series(1, 400) AS n)"],
    "both_of": ["(1, NULL)::shop.both", "(2, repeat('long ', 700))::shop.both"],
}  # fmt: skip


def unchanged() -> Workload:
    """Every column holds a long value, and then an update says nothing of any of them."""
    names = ", ".join(_VALUES)
    longest = ", ".join(values[-1] for values in _VALUES.values())
    update = [("UPDATE shop.mixed SET flag = NOT flag", False)]
    return Workload(
        -1,
        ["DELETE FROM shop.mixed", f"INSERT INTO shop.mixed (id, {names}) VALUES (1, {longest})"],
        [(Transaction(update, True),), (Transaction(update * 2, True),)],
    )


def _mixed(r: Random, statement: str) -> str:
    """A statement on the table of types, with one of its columns and a value for that."""
    column = r.choice(list(_VALUES))
    value = r.choice([*_VALUES[column], "NULL"])
    return statement.format(column=column, value=value, id=_id(r))


# Each with its table, so that a transaction can keep to one.
STEPS: list[tuple[str, Step]] = [
    ("item", lambda r: f"INSERT INTO shop.item VALUES ({_id(r)}, {_code(r)}, {_id(r)}, "
        f"{_body(r)})"),
    ("item", lambda r: f"INSERT INTO shop.item VALUES ({_id(r)}, {_code(r)}, {_id(r)}, {_body(r)}, "
        f"{_body(r)}) ON CONFLICT (id) DO UPDATE SET note = excluded.note"),
    ("item", lambda r: f"UPDATE shop.item SET note = {_body(r)} WHERE id = {_id(r)}"),
    ("item", lambda r: f"UPDATE shop.item SET body = {_body(r)} WHERE id <= {_id(r)}"),
    ("item", lambda r: f"UPDATE shop.item SET code = {_code(r)}, slot = {_id(r)} "
        f"WHERE id = {_id(r)}"),
    ("item", lambda r: f"UPDATE shop.item SET slot = {_id(r)} WHERE id = {_id(r)}"),
    ("item", lambda r: f"UPDATE shop.item SET id = {_id(r)} WHERE id = {_id(r)}"),
    ("item", lambda r: f"UPDATE shop.item SET id = {_id(r)}, body = {_body(r)} "
        f"WHERE id = {_id(r)}"),
    ("item", lambda r: f"DELETE FROM shop.item WHERE id = {_id(r)}"),
    ("item", lambda r: "UPDATE shop.item SET slot = -slot"),
    ("item", lambda r: "UPDATE shop.item SET id = id + 10"),
    ("item", lambda r: "UPDATE shop.item SET id = id - 10 WHERE id > 10"),
    ("item", lambda r: "UPDATE shop.item SET code = NULL, slot = -slot - 50; "
        "UPDATE shop.item SET code = 'c' || 7 - id, slot = 7 - id"),
    ("item", lambda r: f"SELECT FROM shop.item WHERE id <= {_id(r)} FOR UPDATE"),
    ("item", lambda r: f"DELETE FROM shop.item WHERE id = {_id(r)}; "
        f"INSERT INTO shop.item VALUES ({_id(r)}, {_code(r)}, {_id(r)}, {_body(r)})"),
    ("item", _swap("item", "code", "'free'")),
    ("item", _swap("item", "slot", "-99")),
    ("item", _swap("item", "id", "-99")),
    ("item", _chain("item", "id")),
    ("item", _chain("item", "slot")),
    ("pair", lambda r: f"INSERT INTO shop.pair VALUES ({_id(r)}, 'p', {_id(r)}, {_body(r)})"),
    ("pair", lambda r: f"UPDATE shop.pair SET n = {_id(r)} WHERE a = {_id(r)}"),
    ("pair", lambda r: f"UPDATE shop.pair SET a = {_id(r)} WHERE a = {_id(r)}"),
    ("pair", lambda r: f"UPDATE shop.pair SET b = b || 'p' WHERE a = {_id(r)}"),
    ("pair", lambda r: f"UPDATE shop.pair SET b = {_body(r)} WHERE a = {_id(r)}"),
    ("pair", lambda r: f"DELETE FROM shop.pair WHERE a >= {_id(r)}"),
    ("pair", _chain("pair", "a")),
    ("log", lambda r: f"INSERT INTO shop.log VALUES ({r.randint(0, 1)}, {_body(r)}, "
        f"{r.choice(['NULL', '1', '1.0', '1.00'])})"),
    ("log", lambda r: f"INSERT INTO shop.log SELECT {r.randint(0, 1)}, {_body(r)}, 1 "
        f"FROM generate_series(1, {_id(r)})"),
    ("log", lambda r: "INSERT INTO shop.log SELECT * FROM shop.log LIMIT 4"),
    ("log", lambda r: f"UPDATE shop.log SET body = {_body(r)} WHERE what = {r.randint(0, 1)}"),
    ("log", lambda r: f"UPDATE shop.log SET what = 1 - what WHERE body IS NULL OR what = {_id(r)}"),
    ("log", lambda r: "UPDATE shop.log SET amount = amount + 0.5"),
    ("log", lambda r: "UPDATE shop.log SET what = what"),
    ("log", lambda r: "DELETE FROM shop.log WHERE ctid = (SELECT min(ctid) FROM shop.log)"),
    ("log", lambda r: f"DELETE FROM shop.log WHERE what = {r.randint(0, 1)}"),
    ("badge", lambda r: f"INSERT INTO shop.badge VALUES ({_id(r)}, {_text(r.choice('abc'))}, "
        f"{_id(r)}, {_body(r)}, {_body(r)})"),
    ("badge", lambda r: f"UPDATE shop.badge SET holder = {_body(r)} WHERE serial = {_id(r)}"),
    ("badge", lambda r: f"UPDATE shop.badge SET id = {r.choice([_id(r), 'NULL'])} "
        f"WHERE serial <= {_id(r)}"),
    ("badge", lambda r: f"UPDATE shop.badge SET code = {_text(r.choice('abc'))} "
        f"WHERE serial = {_id(r)}"),
    ("badge", lambda r: f"DELETE FROM shop.badge WHERE serial = {_id(r)}"),
    ("badge", _chain("badge", "serial")),
    ("counter", lambda r: f"INSERT INTO shop.counter (id, body) VALUES ({_id(r)}, {_body(r)})"),
    ("counter", lambda r: f"INSERT INTO shop.counter (number, id, body) OVERRIDING SYSTEM VALUE "
        f"VALUES ({_id(r)}, {_id(r)}, {_body(r)})"),
    ("counter", lambda r: f"UPDATE shop.counter SET number = DEFAULT WHERE id = {_id(r)}"),
    ("counter", lambda r: f"UPDATE shop.counter SET id = {_id(r)} WHERE id = {_id(r)}"),
    ("counter", lambda r: f"DELETE FROM shop.counter WHERE id = {_id(r)}"),
    ("counter", _chain("counter", "id")),
    ("parent", lambda r: f"INSERT INTO shop.parent VALUES ({_id(r)}, {_body(r)})"),
    ("parent", lambda r: f"UPDATE shop.parent SET id = {_id(r)} WHERE id = {_id(r)}"),
    ("parent", lambda r: f"DELETE FROM shop.parent WHERE id = {_id(r)}"),
    ("parent", _chain("parent", "id")),
    ("child", lambda r: f"INSERT INTO shop.child VALUES ({_id(r)}, {_id(r)}, "
        f"{r.choice([_id(r), 'NULL'])})"),
    ("child", lambda r: f"UPDATE shop.child SET parent = {_id(r)} WHERE n = {_id(r)}"),
    ("child", lambda r: f"UPDATE shop.child SET id = {_id(r)} WHERE id = {_id(r)}"),
    ("child", lambda r: f"DELETE FROM shop.child WHERE n = {_id(r)}"),
    ("grandchild", lambda r: f"INSERT INTO shop.grandchild VALUES ({_id(r)}, {_body(r)}, "
        f"{_id(r)})"),
    ("grandchild", lambda r: f"DELETE FROM shop.grandchild WHERE id = {_id(r)}"),
    ("ranking", lambda r: f"INSERT INTO shop.ranking VALUES ({_id(r)}, {_id(r)}, {_id(r)}, 'r')"),
    ("ranking", lambda r: "UPDATE shop.ranking SET place = 7 - place"),
    ("ranking", lambda r: "UPDATE shop.ranking SET late = late + 1"),
    ("ranking", lambda r: "UPDATE shop.ranking SET late = late % 6 + 1"),
    ("ranking", lambda r: f"UPDATE shop.ranking SET place = {_id(r)} WHERE id = {_id(r)}"),
    ("ranking", lambda r: f"DELETE FROM shop.ranking WHERE id = {_id(r)}"),
    ("booking", lambda r: f"INSERT INTO shop.booking VALUES ({_id(r)}, {_range(r)}, {_body(r)})"),
    ("booking", lambda r: f"UPDATE shop.booking SET during = {_range(r)} WHERE id = {_id(r)}"),
    ("booking", lambda r: f"UPDATE shop.booking SET during = NULL WHERE id = {_id(r)}"),
    ("booking", lambda r: f"UPDATE shop.booking SET id = {_id(r)} WHERE id = {_id(r)}"),
    ("booking", lambda r: f"DELETE FROM shop.booking WHERE id = {_id(r)}"),
    ("booking", _swap("booking", "during", "'empty'")),
    ("account", lambda r: f"INSERT INTO shop.account VALUES ({_id(r)}, {_code(r)}, "
        f"{r.choice(['true', 'false', 'NULL'])}, {_region(r)}, {r.choice([_id(r), 'NULL'])})"),
    ("account", lambda r: f"UPDATE shop.account SET mail = upper(mail) WHERE id = {_id(r)}"),
    ("account", lambda r: f"UPDATE shop.account SET active = NOT active WHERE id <= {_id(r)}"),
    ("account", lambda r: f"UPDATE shop.account SET active = false WHERE active; "
        f"UPDATE shop.account SET active = true WHERE id = {_id(r)}"),
    ("account", lambda r: f"UPDATE shop.account SET pin = NULL WHERE pin = {_id(r)}"),
    ("account", lambda r: f"UPDATE shop.account SET pin = {_id(r)} WHERE pin IS NULL; "
        f"UPDATE shop.account SET pin = NULL WHERE id = {_id(r)}"),
    ("account", lambda r: f"UPDATE shop.account SET region = {_region(r)} WHERE id = {_id(r)}"),
    ("account", lambda r: f"DELETE FROM shop.account WHERE id = {_id(r)}"),
    ("account", _swap("account", "pin", "-99")),
    ("account", _swap("account", "mail", "'free'")),
    ("stock", lambda r: f"INSERT INTO shop.stock VALUES ({_id(r)}, {_region(r)}, {_body(r)})"),
    ("stock", lambda r: f"UPDATE shop.stock SET region = {_region(r)} WHERE id = {_id(r)}"),
    ("stock", lambda r: f"UPDATE shop.stock SET region = CASE region WHEN 'a' THEN 'b' ELSE 'a' "
        f"END WHERE id <= {_id(r)}"),
    ("stock", lambda r: f"UPDATE shop.stock SET body = {_body(r)} WHERE region = {_region(r)}"),
    ("stock", lambda r: f"UPDATE shop.stock SET id = {_id(r)}, region = {_region(r)} "
        f"WHERE id = {_id(r)}"),
    ("stock", lambda r: f"DELETE FROM shop.stock WHERE region = {_region(r)}"),
    ("mixed", lambda r: _mixed(r, "INSERT INTO shop.mixed (id, {column}) VALUES ({id}, {value})")),
    ("mixed", lambda r: _mixed(r, "UPDATE shop.mixed SET {column} = {value} WHERE id = {id}")),
    ("mixed", lambda r: _mixed(r, "UPDATE shop.mixed SET {column} = {value} WHERE id <= {id}")),
    ("mixed", lambda r: f"UPDATE shop.mixed SET id = {_id(r)} WHERE id = {_id(r)}"),
    ("mixed", lambda r: f"DELETE FROM shop.mixed WHERE id = {_id(r)}"),
]  # fmt: skip
