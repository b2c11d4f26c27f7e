"""Reader and writer side by side: whatever ends one, what counts is what was written before."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from cdc_migrator.apply.batcher import Batch, Batcher, BatchLimits
from cdc_migrator.apply.prepared import Prepared
from cdc_migrator.errors import Failed, StreamHalted
from cdc_migrator.model.changes import Change, Op, Transaction
from cdc_migrator.model.tables import TableName
from cdc_migrator.service.pipeline import Pipeline, Work
from cdc_migrator.stream.reader import Read

SOON = 10.0
SIZE = 10


def halt() -> StreamHalted:
    return StreamHalted("CDCM-STREAM-UNDECODABLE", "not an event", "topic[0]@30")


def transaction(number: int) -> Transaction:
    change = Change(TableName("s", "t"), Op.INSERT, b"", None, b"", number)
    return Transaction(number, 1, 1000 + number, 1, [change], number, number + 1, bytes=SIZE)


def read(*numbers: int, halted: bool = False, at_end: bool = False) -> Read:
    resume = (max(numbers) if numbers else 0) + 1
    return Read([transaction(n) for n in numbers], at_end, resume, 0, halt() if halted else None)


class Log:
    """A topic in memory: gives its reads one after the other, then its end again and again."""

    def __init__(self, reads: Iterable[Read | Exception]) -> None:
        self._reads = list(reads)
        self.given = 0

    def read(self, max_messages: int, timeout: float) -> Read:
        if self.given == len(self._reads):
            threading.Event().wait(timeout)
            return read(at_end=True)
        self.given += 1
        one = self._reads[self.given - 1]
        if isinstance(one, Exception):
            raise one
        return one


class Target:
    """Takes what is applied; waits before each batch while `held`, and fails on `refused`."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()
        self.reached = threading.Event()
        self.works: list[Work] = []
        self.refused: int | None = None

    @property
    def applied(self) -> list[int]:
        return [t.xid for work in self.works for t in work.batch.transactions]

    def hold(self) -> None:
        self.free.clear()

    def apply(self, work: Work) -> None:
        self.reached.set()
        assert self.free.wait(SOON)
        if self.refused in [t.xid for t in work.batch.transactions]:
            raise Failed("CDCM-APPLY-UNAVAILABLE", "the target is away", "start it")
        self.works.append(work)


def prepared(batch: Batch) -> Prepared:
    return Prepared(batch, frozenset(), ())


def pipeline(
    log: Log,
    target: Target,
    prepare: Callable[[Batch], Prepared] = prepared,
    queue_bytes: int = 1000,
    rows: int = 1,
) -> Pipeline:
    """Not started; each transaction is a batch of its own unless `rows` says otherwise."""
    batcher = Batcher(BatchLimits(rows=rows), next_offset=0, commit_position=0)
    return Pipeline(log, batcher, prepare, target.apply, queue_bytes)


def until(what: str, condition: Callable[[], Any]) -> None:
    turn = threading.Event()
    for _ in range(int(SOON * 500)):
        if condition():
            return
        turn.wait(0.002)
    raise AssertionError(f"not in time: {what}")


def test_everything_read_is_applied_in_its_order() -> None:
    """And only then the pipeline is idle."""
    log, target = Log([read(1, 2), read(), read(3), read(4, 5, 6)]), Target()
    line = pipeline(log, target)
    target.hold()
    line.start()
    until("the log is read", lambda: log.given == 4 and line.at_end)
    assert target.reached.wait(SOON)
    assert not line.idle
    target.free.set()
    until("all is applied", lambda: line.idle)
    assert target.applied == [1, 2, 3, 4, 5, 6]
    assert line.queued_bytes == 0
    line.stop()
    assert line.join(SOON)


def test_the_pipeline_is_not_idle_while_its_last_batch_is_written() -> None:
    """An empty queue at the end of the log is not enough."""
    target = Target()
    target.hold()
    line = pipeline(Log([read(1)]), target)
    line.start()
    assert target.reached.wait(SOON)
    until("the end of the log is seen", lambda: line.at_end)
    assert line.queued_bytes == 0
    assert not line.idle
    target.free.set()
    until("it is written", lambda: line.idle)
    line.stop()
    line.join(SOON)


def test_what_is_in_front_of_a_halt_is_written_then_it_is_raised() -> None:
    """Also what the reading thread had not put into a full batch yet."""
    target = Target()
    line = pipeline(Log([read(1, 2), read(3, halted=True), halt()]), target, rows=100)
    line.start()
    with pytest.raises(StreamHalted, match="CDCM-STREAM-UNDECODABLE"):
        line.join(SOON)
    assert target.applied == [1, 2, 3]


def test_an_error_of_the_writer_comes_before_the_readers_halt() -> None:
    """It lies at an earlier position: what the reader found further on is not reached."""
    target = Target()
    target.refused = 1
    target.hold()
    line = pipeline(Log([read(1), read(2, halted=True), halt()]), target)
    line.start()
    until("the reader has halted", lambda: not line.alive())
    target.free.set()
    with pytest.raises(Failed, match="CDCM-APPLY-UNAVAILABLE"):
        line.join(SOON)
    assert target.applied == []


def test_an_error_of_the_writer_ends_the_reader_and_drops_what_is_buffered() -> None:
    """Nothing behind the failed batch is applied, and no more is read."""
    target = Target()
    target.refused = 2
    target.hold()
    log = Log(read(n) for n in range(1, 100))
    line = pipeline(log, target, queue_bytes=5 * SIZE)
    line.start()
    until("the queue is full", lambda: line.queued_bytes == 5 * SIZE)
    target.free.set()
    with pytest.raises(Failed):
        line.join(SOON)
    assert target.applied == [1]
    assert log.given < 20


def test_the_reader_waits_for_a_slow_writer() -> None:
    """It reads ahead no more than the queue holds."""
    target = Target()
    target.hold()
    log = Log(read(n) for n in range(1, 31))
    line = pipeline(log, target, queue_bytes=4 * SIZE)
    line.start()
    assert target.reached.wait(SOON)
    until("the queue is full", lambda: line.queued_bytes == 4 * SIZE)
    # One with the writer, four in the queue, one that waits for room.
    until("the reader waits", lambda: log.given == 6)
    target.free.set()
    until("all is applied", lambda: line.idle)
    assert target.applied == list(range(1, 31))
    line.stop()
    line.join(SOON)


def test_stopping_finishes_the_batch_under_way_and_leaves_the_rest() -> None:
    """No error; what was read and not written will be read again."""
    target = Target()
    target.hold()
    line = pipeline(Log(read(n) for n in range(1, 10)), target)
    line.start()
    assert target.reached.wait(SOON)
    line.stop()
    target.free.set()
    assert line.join(SOON)
    assert target.applied == [1]
    assert line.queued_bytes > 0


def test_a_batch_that_cannot_be_prepared_reaches_the_writer_unprepared() -> None:
    """In its turn, so that the writer finds the exact place; the batches before are prepared."""

    def prepare(batch: Batch) -> Prepared:
        if batch.transactions[0].xid == 2:
            raise halt()
        return prepared(batch)

    target = Target()
    line = pipeline(Log([read(1), read(2), read(3, at_end=True)]), target, prepare)
    line.start()
    until("all is applied", lambda: line.idle and len(target.works) == 3)
    assert [work.prepared is not None for work in target.works] == [True, False, True]
    assert target.applied == [1, 2, 3]
    line.stop()
    line.join(SOON)


def test_an_unexpected_error_while_preparing_ends_the_pipeline() -> None:
    """After what was read before it; it is raised as it is."""

    def prepare(batch: Batch) -> Prepared:
        if batch.transactions[0].xid == 2:
            raise KeyError("of our own making")
        return prepared(batch)

    target = Target()
    line = pipeline(Log([read(1), read(2), read(3)]), target, prepare)
    line.start()
    with pytest.raises(KeyError):
        line.join(SOON)
    assert target.applied == [1]


def test_joining_for_a_while_does_not_give_up_on_a_writer_that_works() -> None:
    """The halt is raised once the writer is through with what lies in front of it, not before."""
    target = Target()
    target.hold()
    line = pipeline(Log([read(1), read(2, halted=True), halt()]), target)
    line.start()
    assert target.reached.wait(SOON)
    until("the reader has halted", lambda: not line.alive())
    assert line.join(0.01) is False
    target.free.set()
    with pytest.raises(StreamHalted):
        line.join(SOON)
    assert target.applied == [1, 2]
