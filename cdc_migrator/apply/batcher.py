"""Runs of whole transactions, closed when big, old or idle. Pure: the time is passed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cdc_migrator.model.changes import Transaction

# Bytes of an event beyond which rows are prepared one by one: as text they may take four times as
# much, and are held several times over while they are put into the form of COPY.
LARGE_ROW = 1 << 20


@dataclass(frozen=True, slots=True)
class Batch:
    """What is applied in one transaction of the target.

    Attributes:
        transactions: whole ones, in commit order; may be empty where only the position moves.
        next_offset: where reading goes on once this batch is applied.
        commit_position: commit position of the last transaction that is applied by then.
        redelivered: transactions that were skipped since the batch before.
        bytes: size of its records on the wire.
        ahead: the commit positions of these transactions, where they are applied ahead of one
            that is held back: the stream's position then stays in front of that (`holding`).
    """

    transactions: tuple[Transaction, ...]
    next_offset: int
    commit_position: int
    redelivered: int = 0
    bytes: int = 0
    ahead: tuple[int, ...] = ()

    @property
    def changes(self) -> int:
        """Number of row events."""
        return sum(len(transaction.changes) for transaction in self.transactions)

    @property
    def spilled(self) -> bool:
        """Whether it is too large to be prepared as a whole: its changes are not in memory, or
        are rows so large that what is made of them would not be.
        """
        some = self.transactions
        return any(one.tables is not None for one in some) or (
            self.bytes > LARGE_ROW * len(some) and self.bytes > LARGE_ROW * self.changes
        )

    @property
    def suspect(self) -> int:
        """Number of transactions whose first row is not where their BEGIN says."""
        return sum(transaction.suspect for transaction in self.transactions)

    @property
    def committed_at_us(self) -> int | None:
        """Latest known source commit time, microseconds since 1970 UTC."""
        times = (t.committed_at_us for t in reversed(self.transactions))
        return next((time for time in times if time is not None), None)

    def halves(self) -> tuple[Batch, Batch]:
        """The same work in two steps; needs at least two transactions."""
        return self.cut(len(self.transactions) // 2)

    def cut(self, middle: int) -> tuple[Batch, Batch]:
        """The same work in two steps, of which the first has so many transactions."""
        first, second = self.transactions[:middle], self.transactions[middle:]
        if self.ahead:
            return self.ahead_with(first), self.ahead_with(second)
        return (
            Batch(first, first[-1].next_offset, first[-1].commit_lsn, 0, _bytes(first)),
            Batch(second, self.next_offset, self.commit_position, self.redelivered, _bytes(second)),
        )

    def ahead_with(self, transactions: tuple[Transaction, ...]) -> Batch:
        """These transactions ahead of what is held back at this batch's positions."""
        return Batch(
            transactions,
            self.next_offset,
            self.commit_position,
            bytes=_bytes(transactions),
            ahead=tuple(one.commit_lsn for one in transactions),
        )


def _bytes(transactions: Sequence[Transaction]) -> int:
    return sum(transaction.bytes for transaction in transactions)


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """A batch is closed by the transaction that reaches one of these.

    Attributes:
        rows: row events. bytes: size on the wire. age: seconds since its first transaction.
    """

    rows: int = 50_000
    bytes: int = 32 << 20
    age: float = 0.5


class Batcher:
    """Collects transactions; gives each batch once.

    Args:
        next_offset, commit_position: where the stream stands on the target at the start.
    """

    def __init__(self, limits: BatchLimits, next_offset: int, commit_position: int) -> None:
        self._limits = limits
        self._reached = next_offset
        self._commit_position = commit_position
        self._transactions: list[Transaction] = []
        self._rows = 0
        self._bytes = 0
        self._since = 0.0
        self._redelivered_before = 0
        self._redelivered = 0

    def add(self, transaction: Transaction, now: float) -> Batch | None:
        """Take the next transaction; the batch that it fills or finds no room in, or None.

        `now` is a monotonic time in seconds.
        """
        full = None
        # Two that are large by themselves are not to be in memory as one.
        if self._transactions and self._bytes + transaction.bytes > 2 * self._limits.bytes:
            full = self._close()
        if not self._transactions:
            self._since = now
        self._transactions.append(transaction)
        self._rows += len(transaction.changes)
        self._bytes += transaction.bytes
        self._reached = max(self._reached, transaction.next_offset)
        return full or (self._close() if self._full else None)

    def reached(self, resume_offset: int, redelivered: int | None = None) -> None:
        """Say where reading may go on once everything added so far is applied.

        `redelivered` counts the transactions that were skipped so far, in total.
        """
        self._reached = max(self._reached, resume_offset)
        if redelivered is not None:
            self._redelivered = redelivered

    def take(self, now: float, idle: bool) -> Batch | None:
        """The batch so far if it is old enough, or if there is nothing to wait for (`idle`).

        Where only re-deliveries were skipped the batch has no transactions.
        """
        if not self._transactions:
            skipped = self._redelivered > self._redelivered_before
            return self._close() if idle and skipped else None
        if idle or self._full or now - self._since >= self._limits.age:
            return self._close()
        return None

    @property
    def _full(self) -> bool:
        return self._rows >= self._limits.rows or self._bytes >= self._limits.bytes

    def _close(self) -> Batch:
        if self._transactions:
            self._commit_position = self._transactions[-1].commit_lsn
        batch = Batch(
            tuple(self._transactions),
            self._reached,
            self._commit_position,
            self._redelivered - self._redelivered_before,
            self._bytes,
        )
        self._transactions, self._rows, self._bytes = [], 0, 0
        self._redelivered_before = self._redelivered
        return batch
