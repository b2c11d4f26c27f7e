"""A queue between reader and writer that is bounded by bytes, not by items."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Anything that knows how many bytes it stands for."""

    @property
    def bytes(self) -> int: ...


T = TypeVar("T", bound=Sized)


class Closed(Exception):
    """The other side is gone; nothing more will be taken or given."""


class ByteQueue(Generic[T]):
    """First in, first out; `put` waits while the queue holds `limit` bytes or more.

    An item beyond the limit passes alone: when nothing waits, and what was taken last is done with,
    which it is when the next one is asked for.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: deque[T] = deque()
        self._bytes = 0
        self._taken = False
        self._closed = False
        self._changed = threading.Condition()

    @property
    def bytes(self) -> int:
        """Bytes waiting now."""
        return self._bytes

    @property
    def empty(self) -> bool:
        """Whether the writer would wait."""
        return not self._items

    def put(self, item: T) -> None:
        """Append, waiting for room. Raises Closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_room(item))
            if self._closed:
                raise Closed
            self._items.append(item)
            self._bytes += item.bytes
            self._changed.notify_all()

    def _has_room(self, item: T) -> bool:
        if item.bytes > self._limit:
            return not self._items and not self._taken
        return not self._items or self._bytes + item.bytes <= self._limit

    def get(self, timeout: float) -> T | None:
        """The oldest item, or None after `timeout` seconds. Raises Closed when drained."""
        with self._changed:
            self._taken = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed or bool(self._items), timeout)
            if not self._items:
                if self._closed:
                    raise Closed
                return None
            item = self._items.popleft()
            self._bytes -= item.bytes
            self._taken = True
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Take no more; what is inside can still be had."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
