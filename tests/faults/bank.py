"""A bank that writes all the time; `balance` has what must hold of it at every commit.

Its transactions are small and between them need every statement that the applier has: whole and
partial rows, rows that move with values left out of the event, unique values that change hands, a
keyless table with equal rows, a truncated table. Each leaves one more row, equal to others, in
`trace`: whatever is applied twice shows there. Two writers never touch each other's rows beside the
accounts, which they lock in order.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psycopg

ACCOUNTS, SEATS, DOCUMENTS = 40, 40, 40
TOTAL = ACCOUNTS * 1000
WRITERS = 2
TABLES = ("account", "ledger", "tally", "document", "seat", "tick", "trace", "scratch")
# More than 2 kB and kept as it is: such a value stands beside its row, and an update that leaves
# it alone does not carry it.
_LONG = "repeat(md5(random()::text), 80)"

_SCHEMA = """
CREATE SCHEMA bank;
CREATE TABLE bank.account (id int PRIMARY KEY, balance bigint NOT NULL);
CREATE TABLE bank.ledger (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    writer int NOT NULL, debit int NOT NULL, credit int NOT NULL, amount int NOT NULL);
CREATE TABLE bank.tally (writer int PRIMARY KEY,
    ledger int NOT NULL DEFAULT 0, tick int NOT NULL DEFAULT 0, trace int NOT NULL DEFAULT 0);
CREATE TABLE bank.document (id bigint PRIMARY KEY, title int NOT NULL, body text NOT NULL);
CREATE TABLE bank.seat (id int PRIMARY KEY, place int NOT NULL UNIQUE, body text NOT NULL);
CREATE TABLE bank.tick (what int NOT NULL, word text);
CREATE TABLE bank.trace (writer int NOT NULL);
CREATE TABLE bank.scratch (id int PRIMARY KEY, n int NOT NULL);
ALTER TABLE bank.document ALTER body SET STORAGE EXTERNAL;
ALTER TABLE bank.seat ALTER body SET STORAGE EXTERNAL;
ALTER TABLE bank.tick REPLICA IDENTITY FULL;
ALTER TABLE bank.trace REPLICA IDENTITY FULL;
"""


def create(source: str) -> None:
    """Make the bank on the source."""
    with psycopg.connect(source, autocommit=True) as conn:
        conn.execute(_SCHEMA)
        fill = (
            f"INSERT INTO bank.account SELECT n, 1000 FROM generate_series(1, {ACCOUNTS}) n",
            f"INSERT INTO bank.tally SELECT n FROM generate_series(0, {WRITERS - 1}) n",
            f"INSERT INTO bank.document SELECT n, 0, {_LONG} FROM generate_series(1, {DOCUMENTS}) "
            "n",
            # Every other pair of seats has a body that travels with every event.
            f"INSERT INTO bank.seat SELECT n, n, CASE WHEN n % 4 < 2 THEN {_LONG} ELSE 'short' END "
            f"FROM generate_series(1, {SEATS}) n",
        )
        for statement in fill:
            conn.execute(statement.encode())


class Writer(threading.Thread):
    """Transactions at a rate, until stopped; none while `gate` is held by another."""

    def __init__(self, source: str, number: int, rate: float, seed: int) -> None:
        super().__init__(name=f"bank writer {number}", daemon=True)
        self.gate = threading.Lock()
        self.failed: BaseException | None = None
        self.committed = 0
        self._number = number
        self._rate = rate
        self._random = random.Random(seed * WRITERS + number)
        self._ending = threading.Event()
        self._source = source
        self._conn: psycopg.Connection
        self._documents: list[int]
        self._seats: list[int]
        self._fresh: Iterator[int]
        self._ticks = 0
        self._kinds: dict[Callable[[], None], int] = {
            self._transfer: 8,
            self._prune: 1,
            self._retitle: 2,
            self._rewrite: 1,
            self._exchange: 1,
            self._rekey: 2,
            self._swap: 3,
            self._tick: 3,
            self._scratch: 1,
        }

    def stop(self) -> None:
        self._ending.set()
        self.join(30)

    def run(self) -> None:
        try:
            with psycopg.connect(self._source, autocommit=True) as self._conn:
                self._write()
        except BaseException as error:
            self.failed = error
            raise

    def _write(self) -> None:
        self._conn.execute("SET synchronous_commit = off")
        self._documents = self._own("SELECT id FROM bank.document WHERE id %% 2 = %s")
        self._seats = self._own("SELECT id FROM bank.seat WHERE id %% 2 = %s")
        self._fresh = itertools.count(max(self._documents) + WRITERS, WRITERS)
        kinds, weights = list(self._kinds), list(self._kinds.values())
        due = time.monotonic()
        while not self._ending.is_set():
            with self.gate, self._conn.transaction():
                self._random.choices(kinds, weights)[0]()
                self._do("INSERT INTO bank.trace VALUES (%s)", self._number)
                self._count("trace", 1)
            self.committed += 1
            due = max(due + 1 / self._rate, time.monotonic())
            self._ending.wait(max(due - time.monotonic(), 0.001))

    def _own(self, query: str) -> list[int]:
        return [row[0] for row in self._conn.execute(query.encode(), (self._number,)).fetchall()]

    def _do(self, statement: str, *parameters: object) -> int:
        return self._conn.execute(statement.encode(), parameters).rowcount

    def _count(self, column: str, by: int) -> None:
        self._do(
            f"UPDATE bank.tally SET {column} = {column} + %s WHERE writer = %s", by, self._number
        )

    def _transfer(self) -> None:
        debit, credit = self._random.sample(range(1, ACCOUNTS + 1), 2)
        amount = self._random.randint(1, 100)
        for account in sorted((debit, credit)):
            by = -amount if account == debit else amount
            self._do("UPDATE bank.account SET balance = balance + %s WHERE id = %s", by, account)
        self._do(
            "INSERT INTO bank.ledger (writer, debit, credit, amount) VALUES (%s, %s, %s, %s)",
            *(self._number, debit, credit, amount),
        )
        self._count("ledger", 1)

    def _prune(self) -> None:
        """The oldest entries and some traces go, so that the bank stays small."""
        gone = self._do(
            "DELETE FROM bank.ledger WHERE id IN (SELECT id FROM bank.ledger WHERE writer = %s "
            "ORDER BY id DESC OFFSET 300)",
            self._number,
        ) + self._do(
            "DELETE FROM bank.ledger WHERE id = "
            "(SELECT min(id) FROM bank.ledger WHERE writer = %s)",
            self._number,
        )
        self._count("ledger", -gone)
        traces = self._do(
            "DELETE FROM bank.trace WHERE ctid = ANY (ARRAY("
            "SELECT ctid FROM bank.trace WHERE writer = %s OFFSET 200))",
            self._number,
        )
        self._count("trace", -traces)

    def _retitle(self) -> None:
        """The body is not in the event."""
        document = self._random.choice(self._documents)
        self._do("UPDATE bank.document SET title = title + 1 WHERE id = %s", document)

    def _rewrite(self) -> None:
        document = self._random.choice(self._documents)
        self._do(f"UPDATE bank.document SET body = {_LONG} WHERE id = %s", document)

    def _exchange(self) -> None:
        """A document goes and another one comes."""
        old, new = self._random.randrange(len(self._documents)), next(self._fresh)
        self._do("DELETE FROM bank.document WHERE id = %s", self._documents[old])
        self._do(f"INSERT INTO bank.document VALUES (%s, 0, {_LONG})", new)
        self._documents[old] = new

    def _rekey(self) -> None:
        """A row moves; its body is not in the event."""
        place, new = self._random.randrange(len(self._documents)), next(self._fresh)
        self._do("UPDATE bank.document SET id = %s WHERE id = %s", new, self._documents[place])
        self._documents[place] = new

    def _swap(self) -> None:
        """Two rows exchange a unique value: no order of single rows avoids a violation."""
        one, other = self._random.sample(self._seats, 2)
        found = self._conn.execute(
            "SELECT id, place FROM bank.seat WHERE id IN (%s, %s)", (one, other)
        )
        place: dict[int, int] = dict(found.fetchall())
        for seat, to in ((one, -one), (other, place[one]), (one, place[other])):
            self._do("UPDATE bank.seat SET place = %s WHERE id = %s", to, seat)

    def _tick(self) -> None:
        """Equal rows come and go in a table without a key."""
        one = (
            "WHERE ctid = (SELECT ctid FROM bank.tick WHERE what %% 2 = %s "
            "ORDER BY random() LIMIT 1)"
        )
        if self._ticks < 100 and self._random.random() < 0.6:
            what = self._random.randrange(3) * WRITERS + self._number
            count = self._random.randint(1, 3)
            word = self._random.choice(["a", "b\\\t\n'", None])
            self._do(
                "INSERT INTO bank.tick SELECT %s, %s FROM generate_series(1, %s)", what, word, count
            )
        else:
            count = -self._do(f"DELETE FROM bank.tick {one}", self._number)
            self._do(f"UPDATE bank.tick SET word = word || 'x' {one}", self._number)
        self._ticks += count
        self._count("tick", count)

    def _scratch(self) -> None:
        if self._number == 0:
            self._do("TRUNCATE bank.scratch")
            # Some of them are more than the applier keeps in memory, and come in pieces.
            rows = self._random.choice([5, 5, 5, 5, 250])
            self._do("INSERT INTO bank.scratch SELECT n, n FROM generate_series(1, %s) n", rows)
            self._do("UPDATE bank.scratch SET n = -n WHERE id > 5")
        else:
            self._do("UPDATE bank.scratch SET n = n + 1 WHERE id > 2")


@dataclass
class Bank:
    """The writers on the source; a context manager."""

    source: str
    rate: float = 120.0
    seed: int = 0
    _writers: list[Writer] = field(default_factory=list)

    def __enter__(self) -> Bank:
        for number in range(WRITERS):
            self._writers.append(Writer(self.source, number, self.rate / WRITERS, self.seed))
            self._writers[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._writers:
            writer.stop()

    def pause(self) -> None:
        """Returns when no transaction is open any more."""
        for writer in self._writers:
            writer.gate.acquire()
            assert writer.failed is None, f"a writer failed: {writer.failed!r}"

    def resume(self) -> None:
        for writer in self._writers:
            writer.gate.release()

    @property
    def committed(self) -> int:
        return sum(writer.committed for writer in self._writers)
