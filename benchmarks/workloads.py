"""The workloads of the apply benchmark: tables, and changes of them that run on the source itself.

Each table has a row 0 that is told apart: the first transaction of the changes writes ``begin``
into its note (or inserts it so), the last one ``end``. So every way of applying shows by the same
sign when it has begun and when it is through.
"""

from __future__ import annotations

from dataclasses import dataclass

_ORDERS = """
CREATE TABLE orders (id bigint PRIMARY KEY, customer int NOT NULL, state text NOT NULL,
    total numeric(12,2) NOT NULL, tax numeric(12,4) NOT NULL, placed timestamptz NOT NULL,
    changed timestamptz NOT NULL, paid boolean NOT NULL, items int NOT NULL, note text NOT NULL);
INSERT INTO orders SELECT n, n % 50000, 'new', n % 9999 + 0.5, n % 777 / 7.0,
    timestamptz '2024-01-01' + n * interval '7 s', timestamptz '2024-01-01', n % 2 = 0, n % 9,
    repeat('note ', (n % 5)::int) FROM generate_series(0, {rows}) n
"""
_UPDATE = """
UPDATE orders SET total = total + 1, changed = clock_timestamp(), state = 'n' || one % 7,
    paid = NOT paid, items = items + 1 WHERE id = ANY (picked)
"""
# Keys are picked by a hash of a number, not at random: every run changes the same rows.
_UNIFORM = "picked := ARRAY(SELECT 1 + (hashint8(one * {each} + k) & 2147483647) % {rows} {series})"
_HOT = (
    "picked := ARRAY(SELECT 1 + (hashint8(one * {each} + k) & 2147483647) % "
    "CASE WHEN k % 5 = 0 THEN {rows} ELSE 1000 END {series})"
)
_INSERT = """
INSERT INTO orders SELECT n, n % 50000, 'new', n % 9999 + 0.5, n % 777 / 7.0,
    timestamptz '2024-01-01' + n * interval '7 s', clock_timestamp(), n % 2 = 0, n % 9,
    repeat('note ', (n % 5)::int)
    FROM generate_series(one * {each} + 1 + {rows}, (one + 1) * {each} + {rows}) n
"""
_FAMILY = """
CREATE TABLE customers (id bigint PRIMARY KEY, name text NOT NULL, spent numeric(12,2) NOT NULL,
    note text NOT NULL);
CREATE TABLE goods (id bigint PRIMARY KEY, stock int NOT NULL, note text NOT NULL);
CREATE TABLE sales (id bigint PRIMARY KEY, customer bigint NOT NULL REFERENCES customers,
    at timestamptz NOT NULL, state text NOT NULL, note text NOT NULL);
CREATE TABLE positions (id bigint PRIMARY KEY, sale bigint NOT NULL REFERENCES sales,
    good bigint NOT NULL REFERENCES goods, pieces int NOT NULL, note text NOT NULL);
CREATE TABLE payments (id bigint PRIMARY KEY, sale bigint NOT NULL REFERENCES sales,
    paid numeric(12,2) NOT NULL, note text NOT NULL);
INSERT INTO customers SELECT n, 'customer ' || n, 0, '' FROM generate_series(0, 50000) n;
INSERT INTO goods SELECT n, 1000, '' FROM generate_series(0, 10000) n;
INSERT INTO sales SELECT n, n % 50000, timestamptz '2024-01-01' + n * interval '7 s', 'new', ''
    FROM generate_series(0, {rows}) n;
INSERT INTO positions SELECT n, n, n % 10000, n % 9, '' FROM generate_series(0, {rows}) n;
INSERT INTO payments SELECT n, n, n % 999, '' FROM generate_series(0, {rows}) n
"""
_SALE = """
IF one % 2 = 0 THEN
    INSERT INTO sales VALUES ({rows} + 1 + one, one % 50000, clock_timestamp(), 'new', '');
    INSERT INTO positions VALUES ({rows} + 1 + one, {rows} + 1 + one, one % 10000, 3, '');
    UPDATE goods SET stock = stock - 3 WHERE id = 1 + one % 9999;
ELSE
    INSERT INTO payments VALUES ({rows} + 1 + one, {rows} + one, one % 999, '');
    UPDATE sales SET state = 'paid' WHERE id = {rows} + one;
    UPDATE customers SET spent = spent + one % 999 WHERE id = 1 + one % 49999;
END IF
"""


@dataclass(frozen=True, slots=True)
class Workload:
    """A database and its changes.

    Attributes:
        each: row events in one transaction.
        made: SQL that makes the tables and their first rows; ``{rows}`` of the largest.
        change: PL/pgSQL of one transaction, whose number is ``one``.
        copied: only inserts, so that a COPY does the same.
        times: as many events as of the others, for it is over in a second or two.
    """

    name: str
    told: str
    tables: tuple[str, ...]
    each: int
    made: str
    change: str
    copied: bool = False
    times: int = 1

    def base(self, rows: int) -> list[str]:
        """The statements that make the database."""
        return [*self.made.format(rows=rows).split(";\n"), "VACUUM ANALYZE"]

    def changes(self, events: int, rows: int) -> str:
        """One DO block that commits about so many row events, in transactions of `each`."""
        series = f"FROM generate_series(0, {self.each - 1}) k"
        change = self.change.format(rows=rows, each=self.each, series=series)
        signs = {
            sign: "; ".join(f"UPDATE {t} SET note = '{sign}' WHERE id = 0" for t in self.tables)
            for sign in ("begin", "end")
        }
        return (
            f"DO $$ DECLARE picked bigint[]; BEGIN {signs['begin']}; COMMIT; "
            f"FOR one IN 0..{events // self.each - 1} LOOP {change}; COMMIT; END LOOP; "
            f"{signs['end']}; COMMIT; END $$"
        )

    def seen(self, sign: str) -> str:
        """A query that is true once every table shows this sign, for ``begin`` or a later one."""
        wanted = "IN ('begin', 'end')" if sign == "begin" else "= 'end'"
        each = (f"EXISTS (SELECT FROM {t} WHERE id = 0 AND note {wanted})" for t in self.tables)
        joint = " OR " if sign == "begin" else " AND "
        return f"SELECT {joint.join(each)}"


def _picking(pick: str) -> str:
    return pick + ";" + _UPDATE


WORKLOADS = {
    one.name: one
    for one in (
        Workload(
            "uniform",
            "updates of 10 columns, keys all over the table, 10 rows a transaction",
            ("orders",),
            10,
            _ORDERS,
            _picking(_UNIFORM),
        ),
        Workload(
            "hot",
            "the same, 80 % of the updates on 1,000 keys",
            ("orders",),
            10,
            _ORDERS,
            _picking(_HOT),
            times=2,
        ),
        Workload(
            "inserts",
            "inserts of 10 columns, 10 rows a transaction",
            ("orders",),
            10,
            _ORDERS,
            _INSERT,
            copied=True,
        ),
        Workload(
            "family",
            "five tables with foreign keys, 3 rows a transaction",
            ("customers", "goods", "sales", "positions", "payments"),
            3,
            _FAMILY,
            _SALE,
        ),
        Workload(
            "single",
            "updates of 10 columns, one row a transaction",
            ("orders",),
            1,
            _ORDERS,
            _picking(_UNIFORM),
        ),
    )
}
