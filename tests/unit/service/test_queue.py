"""The queue between reader and writer: bounded by bytes, and it never loses what is inside."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import pytest

from cdc_migrator.service.queue import ByteQueue, Closed

SOON = 10.0


@dataclass(frozen=True)
class Item:
    name: str
    bytes: int


class Observed(ByteQueue[Item]):
    """Says when somebody waits in it, so that no test has to guess how long that takes."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.waits = threading.Event()
        wait = self._changed.wait

        def told(timeout: float | None = None) -> bool:
            self.waits.set()
            return wait(timeout)

        self._changed.wait = told  # type: ignore[method-assign]


def meanwhile(work: Callable[[], object]) -> Future[object]:
    """`work` in a thread of its own, which holds up nobody, should it never end."""
    future: Future[object] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def test_items_come_out_in_their_order_and_are_counted_in_bytes() -> None:
    """First in, first out; `bytes` is what waits inside."""
    queue = ByteQueue[Item](100)
    assert queue.empty
    for name in "abc":
        queue.put(Item(name, 10))
    assert (queue.bytes, queue.empty) == (30, False)
    assert [queue.get(0) for _ in range(3)] == [Item("a", 10), Item("b", 10), Item("c", 10)]
    assert (queue.bytes, queue.empty) == (0, True)


def test_put_waits_until_there_is_room_for_its_bytes() -> None:
    """Not for a number of items: one large item out lets one large item in."""
    queue = Observed(100)
    queue.put(Item("large", 70))
    queue.put(Item("fits", 30))
    waiting = meanwhile(lambda: queue.put(Item("waits", 50)))
    assert queue.waits.wait(SOON)
    assert not waiting.done()
    assert queue.bytes == 100
    assert queue.get(0) == Item("large", 70)
    waiting.result(SOON)
    assert queue.bytes == 80


def test_the_bytes_inside_never_pass_the_limit() -> None:
    """While a writer is slower than its reader, and with items of every size."""
    queue = ByteQueue[Item](100)
    items = [Item(str(n), 1 + n * 37 % 100) for n in range(500)]

    def feed() -> None:
        for item in items:
            queue.put(item)

    feeding = meanwhile(feed)
    taken = []
    for _ in items:
        assert queue.bytes <= 100
        taken.append(queue.get(SOON))
    feeding.result(SOON)
    assert taken == items


def test_an_item_beyond_the_limit_passes_alone() -> None:
    """A transaction larger than the bound still gets through: when nothing else is in memory."""
    queue = Observed(100)
    queue.put(Item("small", 1))
    waiting = meanwhile(lambda: queue.put(Item("huge", 5_000)))
    assert queue.waits.wait(SOON)
    assert queue.bytes == 1
    assert queue.get(0) == Item("small", 1)
    queue.waits.clear()
    queue.put(Item("behind it", 0))
    assert not waiting.done(), "what was taken may still be at work"
    assert queue.get(0) == Item("behind it", 0)
    assert queue.get(SOON) == Item("huge", 5_000)
    waiting.result(SOON)


def test_get_waits_for_an_item_and_gives_up_in_time() -> None:
    """None after the timeout, which is no end; the item as soon as there is one."""
    queue = Observed(100)
    assert queue.get(0.01) is None
    queue.waits.clear()
    waiting = meanwhile(lambda: queue.get(SOON))
    assert queue.waits.wait(SOON)
    queue.put(Item("a", 1))
    assert waiting.result(SOON) == Item("a", 1)


def test_closing_takes_no_more_and_lets_what_is_inside_out() -> None:
    """Only then the reader of the queue is told that it is closed."""
    queue = ByteQueue[Item](100)
    queue.put(Item("a", 1))
    queue.put(Item("b", 1))
    queue.close()
    with pytest.raises(Closed):
        queue.put(Item("late", 1))
    assert [queue.get(0), queue.get(0)] == [Item("a", 1), Item("b", 1)]
    with pytest.raises(Closed):
        queue.get(0)


def test_closing_wakes_who_waits_on_either_side() -> None:
    """A put that waits for room and a get that waits for an item both end with Closed."""
    full = Observed(100)
    full.put(Item("a", 100))
    putting = meanwhile(lambda: full.put(Item("b", 100)))
    empty = Observed(100)
    getting = meanwhile(lambda: empty.get(SOON))
    for queue, waiting in ((full, putting), (empty, getting)):
        assert queue.waits.wait(SOON)
        queue.close()
        with pytest.raises(Closed):
            waiting.result(SOON)
    assert full.get(0) == Item("a", 100)
