"""What must hold of the bank on the target: at every commit, and against the source when drained.

Plain SQL; nothing here knows how rows travelled.
"""

from __future__ import annotations

import threading
from collections import Counter

import psycopg

from tests.faults import bank

_ROWS = b"SELECT (t.*)::text FROM ONLY bank.%s AS t"


def differences(source: str, target: str) -> list[str]:
    """What is lost or too much on the target, by table, as multisets of whole rows' text.

    An altered row counts on both sides.
    """
    found = []
    with psycopg.connect(source) as one, psycopg.connect(target) as other:
        for table in bank.TABLES:
            query = _ROWS % table.encode()
            left, right = (Counter(r[0] for r in c.execute(query).fetchall()) for c in (one, other))
            lost, extra = (left - right).total(), (right - left).total()
            if lost or extra:
                found.append(f"{table}: {lost} lost, {extra} too much")
            assert left or table in ("tick", "scratch"), f"{table} is empty"
    return found


# One statement sees one snapshot. Not `scratch`: a TRUNCATE empties older snapshots too.
_LOOK = """
SELECT (SELECT next_offset FROM cdc_migrator.stream_progress),
    (SELECT sum(balance) FROM bank.account),
    (SELECT count(*) FROM bank.ledger) - (SELECT sum(ledger) FROM bank.tally),
    (SELECT count(*) FROM bank.tick) - (SELECT sum(tick) FROM bank.tally),
    (SELECT count(*) FROM bank.trace) - (SELECT sum(trace) FROM bank.tally),
    (SELECT count(*) FROM bank.document), (SELECT count(*) FROM bank.seat)
"""
_HOLDS = {
    "sum of balances": bank.TOTAL,
    "ledger less tally": 0,
    "tick less tally": 0,
    "trace less tally": 0,
    "documents": bank.DOCUMENTS,
    "seats": bank.SEATS,
}


class Reader(threading.Thread):
    """Looks at the target every few milliseconds; every state that it sees must balance.

    Attributes:
        looks: answers so far. states: different positions of the stream among them.
        deviations: what did not hold; empty if all is well.
        breaks: sessions that it lost.
    """

    def __init__(self, target: str) -> None:
        super().__init__(name="bank reader", daemon=True)
        self.looks = self.states = self.breaks = 0
        self.deviations: list[str] = []
        self.failed: BaseException | None = None
        self._target = target
        self._ending = threading.Event()
        self._reached = -1

    def __enter__(self) -> Reader:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self.join(30)

    def run(self) -> None:
        try:
            while not self._ending.is_set():
                try:
                    with psycopg.connect(self._target, autocommit=True) as conn:
                        while not self._ending.wait(0.003):
                            self._look(conn)
                except psycopg.OperationalError:
                    self.breaks += 1
                    self._ending.wait(0.05)
        except BaseException as error:
            self.failed = error
            raise

    def _look(self, conn: psycopg.Connection) -> None:
        row = conn.execute(_LOOK).fetchone()
        assert row is not None
        offset, *found = row
        self.looks += 1
        self.states += offset != self._reached
        if offset < self._reached:
            self.deviations.append(f"the position went back from {self._reached} to {offset}")
        self._reached = offset
        self.deviations += [
            f"{name} is {value} and not {wanted} at offset {offset}"
            for (name, wanted), value in zip(_HOLDS.items(), found, strict=True)
            if value != wanted
        ]
