"""A shop whose tables change their shape on the way, its writers, and what the target must hold.

`differing` says that by nothing but SQL over the source, with the writers at rest: split, merged,
filtered, cast, computed, masked, given by a Python function, and without a key.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from tests.support.live import LiveMigration

ROWS = 12_000
# Every 40th is stored aside: an update that leaves it alone does not carry it.
_NOTE = "repeat('note', CASE WHEN n % 40 < 2 THEN 600 ELSE 40 END)"
_SCHEMA = f"""
CREATE SCHEMA shop; CREATE SCHEMA eu; CREATE SCHEMA us;
CREATE TABLE shop.customer (id bigint PRIMARY KEY, name text NOT NULL, street text, city text,
    total numeric(12,4), gone boolean NOT NULL DEFAULT false);
ALTER TABLE shop.customer REPLICA IDENTITY FULL;
CREATE TABLE eu.orders (id bigint PRIMARY KEY, amount numeric(10,4) NOT NULL, note text);
CREATE TABLE us.orders (LIKE eu.orders INCLUDING ALL);
CREATE TABLE shop.log (what int NOT NULL, word text);
ALTER TABLE shop.log REPLICA IDENTITY FULL;
CREATE TABLE shop.plain (id bigint PRIMARY KEY, note text);
INSERT INTO shop.customer SELECT n, 'name ' || n, repeat('street ', 30), 'city', n * 1.23456,
    n % 4 = 0 FROM generate_series(1, {ROWS}) n;
ALTER TABLE eu.orders ALTER note SET STORAGE EXTERNAL;
ALTER TABLE us.orders ALTER note SET STORAGE EXTERNAL;
INSERT INTO eu.orders SELECT n, n * 1.0051, {_NOTE} FROM generate_series(1, {ROWS}) n;
INSERT INTO us.orders SELECT n, n * 2.0051, {_NOTE} FROM generate_series(1, {ROWS}) n;
INSERT INTO shop.log SELECT n % 50, 'word ' || n % 7 FROM generate_series(1, 4000) n;
INSERT INTO shop.plain SELECT n, 'plain' FROM generate_series(1, 4000) n;
"""
_HOOK = """
def initials(rows):
    return [{"initials": row["full_name"][:1].upper() + row["full_name"][-1:]} for row in rows]
"""


def _shard(region: str) -> dict[str, Any]:
    return {
        "table": f"{region}.orders",
        "to": "crm.orders",
        "rename": {"note": "said"},
        "drop": ["amount"],
        "set": {"region": f"'{region}'", "cents": "(amount * 100)::bigint"},
    }


SETTINGS: dict[str, Any] = {
    # Some parts of each table, so that a kill leaves some done and some not.
    "load": {"workers": 2, "chunk_bytes": "1MiB", "freeze_bytes": 0},
    # Rows go by a temporary table as well.
    "apply": {"inline_rows": 5},
    "mapping": [
        {
            "table": "shop.customer",
            "to": "crm.person",
            "keep": ["id", "name", "total"],
            "rename": {"name": "full_name"},
            "cast": {"total": "numeric(14,2)"},
            "set": {"email": "'user' || id || '@example.invalid'"},
            "where": "NOT gone",
            "hook": {
                "call": "names:initials",
                "reads": ["full_name"],
                "gives": {"initials": "text"},
            },
        },
        {"table": "shop.customer", "to": "crm.address", "keep": ["id", "street", "city"]},
        _shard("eu"),
        _shard("us"),
        {"table": "shop.log", "to": "crm.log", "rename": {"word": "line"}},
    ],
}
# Of each table of the target: what it holds, and what it must hold of the source's rows.
_ORACLE = {
    "crm.person": (
        "SELECT id, full_name, total, email, initials FROM crm.person",
        "SELECT id, name, round(total, 2), 'user' || id || '@example.invalid', "
        "upper(left(name, 1)) || right(name, 1) FROM shop.customer WHERE NOT gone",
    ),
    "crm.address": (
        "SELECT id, street, city FROM crm.address",
        "SELECT id, street, city FROM shop.customer",
    ),
    "crm.orders": (
        "SELECT region, id, cents, said FROM crm.orders",
        "SELECT 'eu', id, round(amount * 100)::bigint, note FROM eu.orders UNION ALL "
        "SELECT 'us', id, round(amount * 100)::bigint, note FROM us.orders",
    ),
    "crm.log": ("SELECT what, line FROM crm.log", "SELECT what, word FROM shop.log"),
    "shop.plain": ("SELECT id, note FROM shop.plain", "SELECT id, note FROM shop.plain"),
}
_WRITERS = 2


def create(live: LiveMigration) -> None:
    """The source's tables with their rows, and the function beside migration.yaml."""
    Path(live.directory, "names.py").write_text(_HOOK)
    with psycopg.connect(live.source, autocommit=True) as conn:
        conn.execute(_SCHEMA.encode())


def differing(live: LiveMigration) -> list[str]:
    """The target's tables that do not hold what they must; nobody may write meanwhile."""
    with psycopg.connect(live.source) as source, psycopg.connect(live.target) as target:
        return [
            table
            for table, (held, wanted) in _ORACLE.items()
            if Counter(target.execute(held.encode())) != Counter(source.execute(wanted.encode()))
        ]


class _Writer(threading.Thread):
    """Transactions over rows of its own, also through restarts of the source, until stopped."""

    def __init__(self, source: str, number: int, seed: int) -> None:
        super().__init__(name=f"shop writer {number}", daemon=True)
        self.gate = threading.Lock()
        self.committed = 0
        self.failed: BaseException | None = None
        self._source = source
        self._number = number
        self._random = random.Random(seed * _WRITERS + number)
        self._ending = threading.Event()
        self._fresh = 1_000_000 + number

    def stop(self) -> None:
        self._ending.set()
        self.join(60)

    def run(self) -> None:
        try:
            while not self._ending.is_set():
                with (
                    suppress(psycopg.OperationalError),
                    psycopg.connect(self._source, autocommit=True) as conn,
                ):
                    while not self._ending.wait(0.02):
                        with self.gate:
                            self._transaction(conn)
                self._ending.wait(0.1)
        except BaseException as error:
            self.failed = error
            raise

    def _transaction(self, conn: psycopg.Connection) -> None:
        lost = self._random.random() < 0.05
        with conn.transaction(force_rollback=lost):
            for _ in range(self._random.randint(1, 4)):
                statement, *values = self._statement()
                conn.execute(statement.encode(), values)
        self.committed += not lost

    def _statement(self) -> tuple[Any, ...]:
        """One statement over rows whose number leaves the writer's own remainder."""
        mine = self._random.randrange(ROWS // _WRITERS) * _WRITERS + self._number
        shard = self._random.choice(["eu", "us"])
        self._fresh += _WRITERS
        choice = self._random.random()
        if choice < 0.15:
            return ("UPDATE shop.customer SET gone = NOT gone WHERE id = %s", mine)
        if choice < 0.3:
            name = f"{self._random.choice('abc')} {self._fresh}"
            return ("UPDATE shop.customer SET name = %s, city = name WHERE id = %s", name, mine)
        if choice < 0.4:
            return ("UPDATE shop.customer SET id = %s WHERE id = %s", self._fresh, mine)
        if choice < 0.5:
            return (
                "INSERT INTO shop.customer VALUES (%s, 'new', 's', NULL, random(), random() < 0.5)",
                self._fresh,
            )
        if choice < 0.55:
            return ("DELETE FROM shop.customer WHERE id = %s", mine)
        if choice < 0.65:
            return (f"INSERT INTO {shard}.orders VALUES (%s, 1.005, NULL)", self._fresh)
        if choice < 0.72:
            some = mine // 40 * 40 + self._number if choice < 0.69 else mine
            return (f"UPDATE {shard}.orders SET amount = amount + 0.0051 WHERE id = %s", some)
        if choice < 0.75:
            return (
                f"UPDATE {shard}.orders SET id = %s WHERE id = %s",
                self._fresh,
                mine // 40 * 40 + self._number,
            )
        if choice < 0.8:
            return (f"DELETE FROM {shard}.orders WHERE id = %s", mine)
        if choice < 0.805:
            # So many at once go another way into the target than some do.
            return (
                f"INSERT INTO {shard}.orders SELECT n, 1, 'many' "
                "FROM generate_series(%s::bigint, %s::bigint, %s::bigint) n",
                self._fresh,
                (last := self._fresh + 400 * _WRITERS),
                self._past(last),
            )
        if choice < 0.8055 and self._number == 0:
            return (f"TRUNCATE {shard}.orders",)
        if choice < 0.9:
            return ("INSERT INTO shop.log SELECT %s, 'w' FROM generate_series(1, 2)", mine % 50)
        if choice < 0.95:
            return (
                "DELETE FROM shop.log WHERE ctid = (SELECT ctid FROM shop.log WHERE what %% 2 = %s "
                "LIMIT 1)",
                self._number,
            )
        return ("UPDATE shop.plain SET note = note || 'x' WHERE id = %s", mine % 4000)

    def _past(self, last: int) -> int:
        self._fresh = last
        return _WRITERS


class Writers:
    """The shop's writers; a context manager."""

    def __init__(self, source: str, seed: int) -> None:
        self._writers = [_Writer(source, number, seed) for number in range(_WRITERS)]

    def __enter__(self) -> Writers:
        for one in self._writers:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._writers:
            one.stop()

    @property
    def committed(self) -> int:
        return sum(one.committed for one in self._writers)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No transaction is open meanwhile. Raises AssertionError if a writer has failed."""
        for one in self._writers:
            one.gate.acquire()
        try:
            failed = [one.failed for one in self._writers if one.failed]
            assert not failed, f"a writer failed: {failed}"
            yield
        finally:
            for one in self._writers:
                one.gate.release()
