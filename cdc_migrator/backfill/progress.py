"""How far the load is: a value for displays, and the meter that works it out. No clock inside."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from cdc_migrator.model.tables import TableName

_WINDOW = 10.0  # seconds over which rates are taken


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """The load at one moment.

    Attributes:
        tables_done, tables_total: tables whose every chunk is done.
        rows, bytes: copied so far, the unfinished chunks' share included; bytes as COPY sends
            them.
        estimated_rows: of all tables by the source's statistics, 0 where unknown.
        fraction: of the source's bytes that are copied, 0 to 1.
        rows_per_second, bytes_per_second: over the last ten seconds; 0 before anything moved.
        seconds_left: None while there is no rate to tell it by.
        tables: what is being copied now.
        waits: why the load is held back at this moment, or None.
    """

    tables_done: int
    tables_total: int
    rows: int
    bytes: int
    estimated_rows: int
    fraction: float
    rows_per_second: float
    bytes_per_second: float
    seconds_left: float | None
    tables: tuple[TableName, ...]
    waits: str | None = None


class Meter:
    """Counts while chunks are copied; the caller brings the time, in seconds of any clock."""

    def __init__(
        self,
        tables_done: int,
        tables_total: int,
        rows: int,
        size: int,
        estimated_rows: int,
        weight_done: int,
        weight_total: int,
    ) -> None:
        self._tables_done = tables_done
        self._tables_total = tables_total
        self._rows = rows
        self._bytes = size
        self._estimated_rows = estimated_rows
        self._weight_done = weight_done
        self._weight_total = max(weight_total, 1)
        self._live: dict[tuple[TableName, int], list[int]] = {}  # rows, bytes, weight
        self._marks: deque[tuple[float, int, int, float]] = deque()

    def begin(self, table: TableName, chunk: int, weight: int) -> None:
        """A chunk is being copied."""
        self._live[table, chunk] = [0, 0, weight]

    def passed(self, table: TableName, chunk: int, rows: int, size: int) -> None:
        """Some of a begun chunk's rows have passed."""
        live = self._live[table, chunk]
        live[0] += rows
        live[1] += size

    def done(self, table: TableName, chunk: int, rows: int, size: int, last: bool) -> None:
        """A begun chunk is committed with these totals; `last` of its table."""
        weight = self._live.pop((table, chunk))[2]
        self._rows += rows
        self._bytes += size
        self._weight_done += weight
        self._tables_done += last

    def failed(self, table: TableName, chunk: int) -> None:
        """A begun chunk was given up; what had passed of it does not count."""
        self._live.pop((table, chunk), None)

    def read(self, now: float) -> LoadProgress:
        """The progress as of `now`."""
        rows = self._rows + sum(live[0] for live in self._live.values())
        size = self._bytes + sum(live[1] for live in self._live.values())
        # The stream of a chunk is about as long as its blocks, never more is claimed than that.
        weight = self._weight_done + sum(min(live[1], live[2]) for live in self._live.values())
        self._marks.append((now, rows, size, weight))
        while len(self._marks) > 2 and self._marks[1][0] <= now - _WINDOW:
            self._marks.popleft()
        then, rows_then, bytes_then, weight_then = self._marks[0]
        elapsed = now - then
        rate = (weight - weight_then) / elapsed if elapsed > 0 else 0.0
        left = self._weight_total - weight
        return LoadProgress(
            tables_done=self._tables_done,
            tables_total=self._tables_total,
            rows=rows,
            bytes=size,
            estimated_rows=self._estimated_rows,
            fraction=min(1.0, weight / self._weight_total),
            rows_per_second=max(0.0, (rows - rows_then) / elapsed) if elapsed > 0 else 0.0,
            bytes_per_second=max(0.0, (size - bytes_then) / elapsed) if elapsed > 0 else 0.0,
            seconds_left=0.0 if left <= 0 else (left / rate if rate > 0 else None),
            tables=tuple(sorted({table for table, _ in self._live})),
        )
