"""Align both sides again and again while the bank writes; compare whole rows at each point.

The comparison is plain SQL over the two exported snapshots and knows nothing of the service. With
plants, a row at rest is corrupted on the target first: it has to be seen.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import psycopg

from cdc_migrator.errors import Failed
from cdc_migrator.model.alignment import Aligned
from cdc_migrator.service.alignment import RequestedAlignment
from tests.faults import bank

_TEXT = b"SELECT (t.*)::text FROM ONLY bank.%s AS t"
_FILES = (
    b"SELECT (SELECT relfilenode FROM pg_class WHERE oid = r), pg_relation_filenode(r) "
    b"FROM to_regclass(%s) r"
)


class LongWriters(threading.Thread):
    """Transactions that stay open for a while, so that some are open at every snapshot."""

    def __init__(self, source: str, seconds: tuple[float, float] = (0.1, 0.8)) -> None:
        super().__init__(name="long writer", daemon=True)
        self._source = source
        self._seconds = seconds
        self._ending = threading.Event()
        self.committed = 0

    def __enter__(self) -> LongWriters:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self.join(30)

    def run(self) -> None:
        with psycopg.connect(self._source, autocommit=True) as conn:
            while not self._ending.is_set():
                with conn.transaction():
                    # Rows of its own: it must not keep the bank's writers waiting.
                    conn.execute("INSERT INTO bank.trace VALUES (7), (7)")
                    conn.execute("INSERT INTO bank.long (word) VALUES ('begun')")
                    self._ending.wait(random.uniform(*self._seconds))
                    conn.execute("UPDATE bank.long SET word = word || '.' WHERE id % 3 = 0")
                    conn.execute(
                        "DELETE FROM bank.long WHERE id < (SELECT max(id) FROM bank.long) - 20"
                    )
                self.committed += 1


def create(source: str) -> None:
    """The bank, and the table of the long writers."""
    bank.create(source)
    with psycopg.connect(source, autocommit=True) as conn:
        conn.execute("CREATE TABLE bank.long (id bigserial PRIMARY KEY, word text)")
        conn.execute("INSERT INTO bank.trace VALUES (0)")
        conn.execute("INSERT INTO bank.ledger (writer, debit, credit, amount) VALUES (0, 1, 1, 0)")
        conn.execute("UPDATE bank.tally SET ledger = 1, trace = 1 WHERE writer = 0")


TABLES = (*bank.TABLES, "long")


def differences(source: str, target: str, at: Aligned) -> dict[str, tuple[int, int]]:
    """By table: rows that only the source has, and rows that only the target has.

    Tables that were truncated since the point are left out: a TRUNCATE empties older snapshots.
    """
    found = {}
    with psycopg.connect(source) as one, psycopg.connect(target) as other:
        for conn, name in ((one, at.source_snapshot), (other, at.target_snapshot)):
            conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            conn.execute(f"SET TRANSACTION SNAPSHOT '{name}'".encode())
        for table in TABLES:
            query = _TEXT % table.encode()
            left, right = (Counter(r[0] for r in c.execute(query).fetchall()) for c in (one, other))
            if any(_rewritten(conn, table) for conn in (one, other)):
                continue
            if left != right:
                found[table] = ((left - right).total(), (right - left).total())
    return found


def _rewritten(conn: psycopg.Connection, table: str) -> bool:
    row = conn.execute(_FILES, (f"bank.{table}",)).fetchone()
    assert row is not None
    return bool(row[0] != row[1])


@dataclass
class Rounds:
    """What came of some rounds."""

    aligned: int = 0
    false_alarms: list[Any] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    held: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    retakes: int = 0
    still: int = 0

    def summary(self) -> dict[str, Any]:
        """For the results: counts, and milliseconds as p50, p99, maximum."""
        return {
            "aligned": self.aligned,
            "false_alarms": len(self.false_alarms),
            "refused": self.refused,
            "held_ms": self._spread(self.held),
            "took_ms": self._spread(self.took),
            "retakes": self.retakes,
            "still": self.still,
        }

    def _spread(self, values: list[float]) -> list[float]:
        return [round(1000 * self.percentile(values, p), 1) for p in (0.5, 0.99, 1.0)]

    def percentile(self, values: list[float], share: float) -> float:
        return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.summary().items())


def align_often(
    source: str, target: str, rounds: int, pause: float = 0.05, compare: bool = True
) -> Rounds:
    """`rounds` points, each compared."""
    result = Rounds()
    with RequestedAlignment(target) as asking:
        for _ in range(rounds):
            try:
                at = asking.align()
            except Failed as error:
                result.refused.append(f"{error.code}: {error.cause}")
                continue
            result.aligned += 1
            result.held.append(asking.answer["held_seconds"])
            result.took.append(asking.answer["seconds"])
            result.retakes += asking.answer["retakes"]
            result.still += asking.answer["still"]
            if compare:
                wrong = differences(source, target, at)
                if wrong:
                    result.false_alarms.append((at.sees, wrong))
            time.sleep(pause)
    return result
