"""What a transaction writes with: a connection, a source of chance, the bounds of the shop.

Rows are chosen as "the first one at or after a random key", which an index answers, and locked
with SKIP LOCKED where writers would otherwise queue behind each other.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of transaction.

    Attributes:
        name: as counted in the ledger.
        cards: how often it stands in a writer's deck of about a hundred.
        run: makes the changes and returns whether it could.
        single: played by the first writer alone.
    """

    name: str
    cards: int
    run: Callable[[Pen], bool]
    single: bool = False


@dataclass(frozen=True, slots=True)
class Bounds:
    """The highest ids when the writers started; keys are drawn between 1 and these."""

    customers: int
    products: int
    orders: int
    events: int
    reviews: int
    redemptions: int
    seats: int
    shelves: int
    gift_cards: int


def read_bounds(conn: psycopg.Connection) -> Bounds:
    """Read the highest ids of the shop; raises ValueError if a table of it is empty."""
    (row,) = conn.execute(
        "SELECT (SELECT max(id) FROM shop.customers), (SELECT max(id) FROM shop.products), "
        "(SELECT max(id) FROM shop.orders), (SELECT max(id) FROM shop.events), "
        "(SELECT max(id) FROM shop.reviews), (SELECT max(id) FROM shop.redemptions), "
        "(SELECT max(id) FROM shop.workshop_seats), (SELECT max(shelf) FROM shop.shelf_places), "
        '(SELECT max("Id") FROM shop."GiftCards")'
    ).fetchall()
    if None in row:
        raise ValueError("a table of the shop is empty")
    return Bounds(*row)


# Texts that have been trouble somewhere: quotes, backslashes, line ends, other scripts, nothing.
_WORDS = ("plain ", "naïve ", "名前 ", "it's ", 'say "hi" ', "back\\ ", "two\nlines ", "🙂 ", "")


class Pen:
    """Writes statements into the open transaction of one writer."""

    def __init__(self, conn: psycopg.Connection, chance: random.Random, bounds: Bounds) -> None:
        self.conn = conn
        self.chance = chance
        self.bounds = bounds

    def write(self, sql: LiteralString, **values: object) -> int:
        """Run one statement; returns how many rows it changed."""
        return self.conn.execute(sql, values).rowcount

    def one(self, sql: LiteralString, **values: object) -> bool:
        """Run one statement; returns whether it changed exactly one row."""
        return self.write(sql, **values) == 1

    def read(self, sql: LiteralString, **values: object) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows."""
        return self.conn.execute(sql, values).fetchall()

    def two(self, sql: LiteralString, **values: object) -> list[tuple[Any, ...]]:
        """Two of the rows of one statement, in random order; none if it has fewer."""
        rows = self.read(sql, **values)
        return self.chance.sample(rows, 2) if len(rows) > 1 else []

    def id(self, highest: int) -> int:
        """A key to look from: 1 to `highest`."""
        return self.chance.randint(1, highest)

    def uuid(self) -> str:
        """A uuid to look from."""
        return str(uuid.UUID(int=self.chance.getrandbits(128)))

    def new_uuid(self) -> str:
        """A uuid that nobody has: not seeded, since a second run must not meet the first one's."""
        return str(uuid.uuid4())

    def coupon(self) -> str:
        """A coupon code to look from: codes are upper-case hexadecimal."""
        return f"{self.chance.getrandbits(32):08X}"

    def word(self) -> str:
        """A short text, often one of those that are difficult."""
        return self.chance.choice(_WORDS) + str(self.chance.randrange(10_000))
