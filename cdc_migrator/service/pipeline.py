"""Reader and writer of one stream, a thread each, with a queue bounded by bytes between them.

The reader turns records into whole transactions and closes batches; the writer commits them.
Whatever ends one of them ends both. When the reader halts, the whole transactions in front of the
halt are still written; when the writer fails, what is buffered is worthless, because the position
that counts is the one committed on the target.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from cdc_migrator.apply.batcher import Batch, Batcher
from cdc_migrator.apply.prepared import Prepared
from cdc_migrator.errors import StreamHalted
from cdc_migrator.service.queue import ByteQueue, Closed
from cdc_migrator.stream.reader import Read

_READ_MESSAGES = 5_000
_READ_SECONDS = 0.01
_TURN_SECONDS = 0.5
_COLLECT_OBJECTS = 100_000
# The writer mostly waits for its socket, and after each wait for the reader's turn to end; with the
# default of 5 ms the target stood idle for a tenth of the time.
_SWITCH_SECONDS = 0.001
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3)
_LARGE_BLOCK = 4 << 20
_KEPT_FREE = 32 << 20


@dataclass(frozen=True, slots=True)
class Work:
    """A batch on its way to the writer; not prepared where preparing it found a halt."""

    batch: Batch
    prepared: Prepared | None

    @property
    def bytes(self) -> int:
        return self.batch.bytes


class Reader(Protocol):
    """`stream.reader.StreamReader`, as far as the pipeline needs it."""

    def read(self, max_messages: int, timeout: float) -> Read: ...


class Pipeline:
    """Moves transactions from the reader to `apply` until stopped or failed.

    Args:
        reader: where whole transactions come from; used by one thread only.
        batcher: decides when a batch is closed.
        prepare: folds and encodes a batch; called by the reading thread, so that it overlaps
            with the database's work on the batch before.
        apply: commits one batch; called by one thread only, in order.
        queue_bytes: how much may be read ahead of the writer.
    """

    def __init__(
        self,
        reader: Reader,
        batcher: Batcher,
        prepare: Callable[[Batch], Prepared],
        apply: Callable[[Work], None],
        queue_bytes: int,
    ) -> None:
        self._reader = reader
        self._batcher = batcher
        self._prepare = prepare
        self._apply = apply
        self._queue: ByteQueue[Work] = ByteQueue(queue_bytes)
        self._stopping = threading.Event()
        self._read_error: BaseException | None = None
        self._write_error: BaseException | None = None
        self._busy = False
        self.read_turn = time.monotonic()
        self.at_end = False
        self._threads = [
            threading.Thread(target=self._reading, name="reader", daemon=True),
            threading.Thread(target=self._writing, name="writer", daemon=True),
        ]

    @property
    def queued_bytes(self) -> int:
        """Bytes read ahead, in the queue."""
        return self._queue.bytes

    @property
    def idle(self) -> bool:
        """Whether the topic was read to its end and everything read is applied."""
        return self.at_end and self._queue.empty and not self._busy

    def start(self) -> None:
        """Start both threads."""
        # What a stream is made of has no cycles, and there is much of it at a time: looking through
        # it every 700 objects takes a third of the reader's time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_COLLECT_OBJECTS, *gc.get_threshold()[1:])
        sys.setswitchinterval(_SWITCH_SECONDS)
        # The C library would keep blocks of up to 32 MiB for later once it has freed one of them:
        # rows of many MiB would leave holes. With another library there is no such call.
        # And what is free at the end it would give back at once, only to ask for it with the next
        # poll: a page that is new costs more than what is written to it.
        with suppress(AttributeError, OSError):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_MMAP_THRESHOLD, _LARGE_BLOCK)
            mallopt(_TRIM_THRESHOLD, _KEPT_FREE)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop reading; the writer finishes what it is writing and leaves the rest."""
        self._stopping.set()
        self._queue.close()

    def alive(self) -> bool:
        """Whether both threads still run."""
        return all(thread.is_alive() for thread in self._threads)

    def join(self, timeout: float) -> bool:
        """Wait for both threads up to twice `timeout` seconds; returns whether both have ended.

        Raises what ended them, but not before both have: a reader that halted leaves the writer
        whole transactions to write. The writer's error comes first, as it lies at an earlier
        position.
        """
        for thread in self._threads:
            thread.join(timeout)
        if any(thread.is_alive() for thread in self._threads):
            return False
        error = self._write_error or self._read_error
        if error is not None:
            raise error
        return True

    def _reading(self) -> None:
        try:
            self._read()
        except Closed:
            pass
        except BaseException as error:
            # Whole transactions in front of a halt are still to be applied: only close.
            self._read_error = error
        finally:
            self._queue.close()

    def _writing(self) -> None:
        try:
            self._write()
        except Closed:
            pass
        except BaseException as error:
            self._write_error = error
        finally:
            self.stop()

    def _read(self) -> None:
        while not self._stopping.is_set():
            self._read_once()

    # What a turn had in its hands is let go of before the next one: it may be much.
    def _read_once(self) -> None:
        read = self._reader.read(_READ_MESSAGES, _READ_SECONDS)
        self.read_turn = time.monotonic()
        self.at_end = read.at_end
        for transaction in read.transactions:
            full = self._batcher.add(transaction, self.read_turn)
            if full is not None:
                self._put(full)
        self._batcher.reached(read.resume_offset, read.redelivered)
        # With the writer waiting there is nothing to gain by collecting more.
        idle = read.at_end or read.halt is not None or (self._queue.empty and not self._busy)
        batch = self._batcher.take(self.read_turn, idle)
        if batch is not None:
            self._put(batch)

    def _put(self, batch: Batch) -> None:
        prepared = None
        # Where it cannot be prepared, the writer finds the exact place of the halt.
        with suppress(StreamHalted):
            prepared = self._prepare(batch)
        self._queue.put(Work(batch, prepared))
        self.read_turn = time.monotonic()

    def _write(self) -> None:
        while not self._stopping.is_set():
            self._write_once()

    def _write_once(self) -> None:
        work = self._queue.get(_TURN_SECONDS)
        if work is None:
            return
        self._busy = True
        try:
            self._apply(work)
        finally:
            self._busy = False
