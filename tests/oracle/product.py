"""The way under test: the connector's records through our own stream and apply, on a real target.

What a workload made the connector send is given to the product's parts in every way that may
happen: in batches cut anywhere, transactions delivered again, a transaction broken off and sent
again as a whole, the applier thrown away and started anew from the position on the target.
"""

from __future__ import annotations

import json
import time
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import cycle
from random import Random
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from cdc_migrator.apply.applier import Applier
from cdc_migrator.apply.batcher import Batch, Batcher, BatchLimits
from cdc_migrator.apply.pieces import PieceLimits
from cdc_migrator.control import load, migration, progress
from cdc_migrator.control.progress import Progress
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.databases.postgres.side import sides
from cdc_migrator.stream.assembler import Assembler
from cdc_migrator.stream.blocks import BlockDecoder
from cdc_migrator.stream.envelope import Envelope
from cdc_migrator.stream.spill import SpillLimits
from tests.oracle.records import Sent

# A connector that begins anew needs at least as long.
_RETRY_MS = 1500
# Changes of one transaction that are kept in memory, and written at a time, where memory is short.
SPILL_ROWS = 10


@dataclass(frozen=True, slots=True)
class Message:
    """One record of the topic; `offset` is the real one until it is placed in a `Feed`."""

    offset: int
    sent_ms: int
    key: bytes | None
    value: bytes | None
    headers: Any

    def status(self) -> tuple[str, int] | None:
        """BEGIN or END and the transaction's id, read without the product's decoder."""
        if self.value is None or b'"status"' not in self.value:
            return None
        event = json.loads(self.value)
        if event.get("op") is not None or "status" not in event:
            return None
        return event["status"], int(event["id"].partition(":")[0])


class Topic:
    """Reads the connector's topic in order, a workload's records at a time."""

    def __init__(self, bootstrap_servers: str, topic: str, offset: int) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": f"oracle-{topic}",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 20,
                "log_level": 0,
            }
        )
        self._consumer.assign([TopicPartition(topic, 0, offset)])
        self._ahead: list[Message] = []

    def close(self) -> None:
        self._consumer.close()

    def until(self, xid: int, seconds: float = 60) -> list[list[Message]]:
        """Everything up to the END of transaction `xid`, as one list for each transaction.

        Heartbeats come by the clock: without them a seed does the same again.
        """
        deadline = time.monotonic() + seconds
        transactions: list[list[Message]] = []
        opened: list[Message] = []
        while time.monotonic() < deadline:
            while self._ahead:
                message = self._ahead.pop(0)
                opened.append(message)
                status = message.status()
                if status is not None and status[0] == "END":
                    if not _heartbeat(opened):
                        transactions.append(opened)
                    opened = []
                    if status[1] == xid:
                        return transactions
            for polled in self._consumer.consume(500, 0.01):
                error = polled.error()
                assert error is None, error
                offset = polled.offset()
                assert offset is not None
                self._ahead.append(
                    Message(
                        offset,
                        polled.timestamp()[1],
                        polled.key(),
                        polled.value(),
                        polled.headers(),
                    )
                )
        raise AssertionError(f"the END of transaction {xid} did not come within {seconds:g} s")


def _heartbeat(transaction: list[Message]) -> bool:
    rows = [m.value for m in transaction[1:-1] if m.value is not None]
    return bool(rows) and all(json.loads(row)["source"]["schema"] == "cdc_migrator" for row in rows)


@dataclass(slots=True)
class Ways:
    """How often a workload was delivered in another way than the plain one."""

    batches: int = 0
    redelivered: int = 0
    torn: int = 0
    restarts: int = 0
    spilled: int = 0


def _tellable(broken: list[Message]) -> bool:
    """Whether the whole shows that it replaces this part: else the assembler has to halt.

    It shows where the part has no rows, or rows at two positions of the source's log.
    """
    rows = [json.loads(m.value)["source"]["lsn"] for m in broken[1:] if m.value is not None]
    return not rows or len(set(rows)) > 1


def deliveries(r: Random, transactions: list[list[Message]], ways: Ways) -> list[list[Message]]:
    """The same transactions as a connector delivers them that is now and then started anew."""
    again = r.choice([0.0, 0.1, 0.4])
    given: list[list[Message]] = []
    for n, transaction in enumerate(transactions):
        broken = transaction[: r.randint(1, len(transaction) - 1)]
        if _tellable(broken) and r.random() < again:
            ways.torn += 1
            back = r.randint(0, min(n, 3))
            ways.redelivered += back
            given += [broken, *transactions[n - back : n]]
        given.append(transaction)
        if r.random() < again:
            back = r.randint(1, n + 1)
            ways.redelivered += back
            given += transactions[n + 1 - back : n + 1]
    return given


class Feed:
    """The records as the applier's side sees them: each delivery at later offsets."""

    def __init__(self, next_offset: int) -> None:
        self._next_offset = next_offset
        self.messages: list[Message] = []

    def place(self, given: list[list[Message]]) -> None:
        """Go on with these; holes inside a transaction stay as they are, one lies behind it."""
        self.messages = []
        latest, late = -1, 0
        for transaction in given:
            if transaction[0].offset < latest:
                late += _RETRY_MS
            latest = transaction[-1].offset
            shift = self._next_offset - transaction[0].offset
            self.messages += [
                replace(m, offset=m.offset + shift, sent_ms=m.sent_ms + late) for m in transaction
            ]
            self._next_offset = self.messages[-1].offset + 2

    def at(self, offset: int) -> int:
        """Place of the first message at or behind `offset`."""
        return bisect_left(self.messages, offset, key=lambda message: message.offset)


class Product:
    """Applies feeds to a prepared migration's target; see `LiveMigration.prepare`."""

    def __init__(self, source_dsn: str, target_dsn: str) -> None:
        self._target_dsn = target_dsn
        self._control = connect(target_dsn, application_name="oracle")
        there = migration.read(self._control)
        assert there is not None
        self._migration = there.name
        self._placeholder = there.placeholder
        wanted = {one.source for one in load.read_tables(self._control)}
        with connect(source_dsn, application_name="oracle") as source:
            self._tables = [table for table in read_tables(source) if table.name in wanted]
        # A session after the other writes everything inline, nothing, and some of it.
        self._inline = cycle((250, 0, 2))
        self._applier = self._start()
        self.feed = Feed(self.stored().next_offset)

    def close(self) -> None:
        self._applier.close()
        self._control.close()

    def stored(self) -> Progress:
        """The progress row as committed."""
        found = progress.read(self._control)
        assert found is not None
        return found

    def _start(self) -> Applier:
        """Claim the stream with a new session, as a new process does."""
        applier = Applier(
            self._target_dsn,
            self._tables,
            self._placeholder,
            sides=sides(self._tables, self._migration),
            pieces=PieceLimits(rows=SPILL_ROWS, inline=next(self._inline)),
        )
        claimed = applier.start("oracle", stale_after=0)
        assert claimed is not None
        return applier

    @staticmethod
    def _assembler(stored: Progress, spill_rows: int | None) -> Assembler:
        """One that keeps `spill_rows` changes of a transaction in memory; None: as usual."""
        spill = SpillLimits() if spill_rows is None else SpillLimits(rows=spill_rows)
        return Assembler(stored.topic, stored.next_offset, stored.commit_position, spill=spill)

    def apply(self, r: Random, transactions: list[list[Message]]) -> Ways:
        """Everything in `transactions` is applied when this returns; how is up to `r`."""
        assert transactions
        ways = Ways()
        before = self.stored()
        self.feed.place(deliveries(r, transactions, ways))
        restarts = r.choice([0, 0, 0, 0, 0, 1, 1, 2])
        at: int | None = 0
        while at is not None:
            at = self._life(r, at, ways, ways.restarts < restarts)
        after = self.stored()
        applied = after.transactions_applied - before.transactions_applied
        assert applied == len(transactions), f"{len(transactions)} given, {applied} applied"
        return ways

    def _life(self, r: Random, at: int, ways: Ways, may_end: bool) -> int | None:
        """One process: to the end of the feed (None), or to where the next one has to begin."""
        stored = self.stored()
        limits = BatchLimits(rows=r.choice([1, 5, 20, 20_000]), age=3600)
        reader = _Reader(
            Envelope(stored.topic),
            self._assembler(stored, r.choice([None, SPILL_ROWS])),
            Batcher(limits, stored.next_offset, stored.commit_position),
            r,
        )
        lazy = r.choice([0.0, 0.5])
        waiting: list[Batch] = []
        while at < len(self.feed.messages):
            size = r.randint(1, 40)
            waiting += reader.read(self.feed.messages[at : at + size])
            at += size
            while waiting and r.random() >= lazy:
                self._write(r, waiting.pop(0), ways)
                if may_end and r.random() < 0.2:
                    # What was read and not applied goes with the process.
                    ways.restarts += 1
                    self._applier.close()
                    self._applier = self._start()
                    return self.feed.at(self.stored().next_offset)
        for batch in (*waiting, *reader.rest()):
            self._write(r, batch, ways)
        return None

    def _write(self, r: Random, batch: Batch, ways: Ways) -> None:
        ways.batches += 1
        ways.spilled += sum(one.tables is not None for one in batch.transactions)
        prepared = self._applier.prepare(batch) if r.random() < 0.8 else None
        self._applier.apply(batch, prepared)


class _Reader:
    """Records into batches, as the service's reading thread does it, but cut at random."""

    def __init__(
        self, envelope: Envelope, assembler: Assembler, batcher: Batcher, r: Random
    ) -> None:
        # Some read record by record, and some as blocks, which the library in C takes apart.
        self._decode = r.choice((envelope, BlockDecoder(envelope, few=0))).decode_many
        self._assembler = assembler
        self._batcher = batcher
        self._r = r
        self._cutting = r.choice([0.0, 0.3, 0.7, 1.0])

    def read(self, messages: list[Message]) -> Iterator[Batch]:
        polled = [Sent(m.offset, m.key, m.value, m.headers, m.sent_ms) for m in messages]
        # Several may come out of the assembler at once: it stands behind the last of them.
        for record in self._decode(polled):
            together = list(self._assembler.assemble([record]))
            for place, complete in enumerate(together, 1):
                full = self._batcher.add(complete, 0.0)
                if full is not None:
                    yield full
                elif self._r.random() < self._cutting:
                    yield from self._taken() if place < len(together) else self.rest()

    def rest(self) -> list[Batch]:
        """What is collected so far, or only how far the stream was read."""
        assembler = self._assembler
        self._batcher.reached(assembler.resume_offset, assembler.counters.redelivered)
        return self._taken()

    def _taken(self) -> list[Batch]:
        batch = self._batcher.take(0.0, idle=True)
        return [] if batch is None else [batch]
