"""Whole transactions out of the ordered stream: a transaction is complete or it is not given.

The state is what is *open* (a BEGIN was read, its END not yet) and what is *aside* (parts of
one transaction T that was cut: the next BEGIN came before its END). What each record does:

    record     open                aside    does
    BEGIN      nothing             any      opens
    BEGIN      T                   - or T   T's part goes aside; opens
    BEGIN      U without rows      T        forgets U, nothing of it was read; opens
    BEGIN      U with rows         T        halts: INTERRUPTED
    row        its own             any      is added to what is open
    row        another or nothing  any      halts: UNOPENED
    END <= L   any                 any      re-delivery: what it ends is dropped; counted
    END in A   any                 any      as well
    END > L    another or nothing  any      halts: UNOPENED
    END > L    U                   T        halts: INTERRUPTED
    END > L    T                   - or T   parts joined, proven and given; L := END

L is the commit position of the last transaction given or, at the start, of the last one that the
target holds: a transaction's END position says whether it was delivered before; nothing else
does. A are positions above L that the target holds all the same: they were applied ahead of one
that was held back. Only END knows it, so every proof waits for END, and a re-delivery is never
doubted.

A transaction of which only the BEGIN was read before the cut is aside as well: it must come
again, or something was lost. A cut may also leave nothing but a pause inside the transaction;
where a new Kafka transaction begins behind such a pause, a cut is taken for granted, and what
it may have lost is examined. No Kafka here and no clock: times are those of the records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from cdc_migrator.errors import StreamHalted
from cdc_migrator.model.changes import Change, Transaction
from cdc_migrator.model.tables import TableName
from cdc_migrator.stream.blocks import Stretch, first_lsn, last_lsn
from cdc_migrator.stream.envelope import Begin, End, Record, Rows, Tombstone
from cdc_migrator.stream.parts import (
    Joint,
    Part,
    TableUnproven,
    Unproven,
    join,
    require_counted,
    require_numbered,
)
from cdc_migrator.stream.proofs import (
    begins_elsewhere,
    drop_repeats,
    require_joints,
    require_ordered,
    require_pairs,
)
from cdc_migrator.stream.spill import Changes, Spilled, SpillLimits

# Retrying takes the connector a second or more (1.4 s at its shortest setting, seen). Between
# records that it sends without one, 5 ms were the most; where CPU is short, some 100 ms.
PAUSE_MS = 700


@dataclass(slots=True)
class Counters:
    """How often, since this assembler was made, something other than the plain case was met.

    redelivered: transactions skipped by their commit position. suspect: given although only
    the connector can know that nothing is missing. joined, replaced, closed_empty: cut
    transactions whose rest was appended, that came again as a whole, or that were complete
    before the cut. spilled: parts that went to a file for their size.
    """

    redelivered: int = 0
    suspect: int = 0
    joined: int = 0
    replaced: int = 0
    closed_empty: int = 0
    spilled: int = 0


class Assembler:
    """Turns the records of one partition, in their order, into whole transactions.

    Args:
        topic, partition: for messages only.
        next_offset: offset that reading starts at (the target's progress row).
        last_commit_lsn: commit position of the last transaction that the target holds.
        spill: what an open transaction may hold in memory.
        settled: whether a table was read again since a transaction (its id, its commit
            position), so that what was lost of that does not matter.
        applied_ahead: commit positions above `last_commit_lsn` that the target holds.

    After StreamHalted was raised the assembler is of no further use.
    """

    def __init__(
        self,
        topic: str,
        next_offset: int,
        last_commit_lsn: int,
        partition: int = 0,
        spill: SpillLimits = SpillLimits(),
        settled: Callable[[TableName, int, int], bool] = lambda *_: False,
        applied_ahead: Iterable[int] = (),
    ) -> None:
        self.counters = Counters()
        self._applied_ahead = frozenset(applied_ahead)
        self._spill = spill
        self._settled = settled
        self._place = f"{topic}[{partition}]"
        self._next_offset = next_offset
        self._last_sent_ms = 0
        self._last_commit = last_commit_lsn
        self._open: Part | None = None
        self._aside: list[Part] = []

    @property
    def last_commit_lsn(self) -> int:
        """Commit position of the last transaction given."""
        return self._last_commit

    @property
    def resume_offset(self) -> int:
        """Where reading may start again once every transaction given so far is applied.

        Never past the BEGIN of what is open or aside; otherwise behind the last record read,
        so that it moves past skipped re-deliveries too.
        """
        if self._aside:
            return self._aside[0].first_offset
        if self._open is not None:
            return self._open.first_offset
        return self._next_offset

    @property
    def pending_bytes(self) -> int:
        """Size on the wire of what is open and aside: held in memory, not given yet."""
        held = sum(part.size for part in self._aside)
        return held + (self._open.size if self._open is not None else 0)

    def assemble(self, records: Iterable[Record]) -> Iterator[Transaction]:
        """Take each record; yield the transactions that they complete.

        Raises StreamHalted with one of the codes CDCM-STREAM-UNOPENED, -INTERRUPTED, -OVERLAP,
        -COUNT, -ORDER, -UNPROVEN-KEY, -UNPROVEN-COPY.
        """
        for record in records:
            if isinstance(record, list):
                yield from self._wholes(record)
            elif (transaction := self._feed(record)) is not None:
                yield transaction

    def _feed(self, record: Begin | End | Rows | Tombstone) -> Transaction | None:
        given: Transaction | None = None
        # Control records leave a hole between two Kafka transactions; a cut always lies there.
        if record.offset != self._next_offset:
            self._note_pause(record)
        self._next_offset = record.offset + 1
        if type(record) is Rows:
            self._rows(record)
            self._next_offset = record.offset + len(record.changes)
        elif type(record) is Begin:
            self._begin(record)
        elif type(record) is End:
            given = self._end(record)
        self._last_sent_ms = record.sent_ms
        return given

    def _note_pause(self, record: Begin | Rows | End | Tombstone) -> None:
        if self._open is not None and record.sent_ms - self._last_sent_ms >= PAUSE_MS:
            self._open.cuts.append(len(self._open.changes))
            self._open.plain = False

    def _wholes(self, wholes: list[Transaction]) -> Iterable[Transaction]:
        if (
            self._open is not None
            or self._aside
            or self._applied_ahead
            or wholes[0].commit_lsn <= self._last_commit
        ):
            return self.assemble(record for whole in wholes for record in _records(whole))
        last = wholes[-1]
        self._next_offset = last.next_offset
        self._last_sent_ms = last.sent_ms or 0
        self._last_commit = last.commit_lsn
        self.counters.suspect += sum(whole.suspect for whole in wholes)
        return wholes

    def _rows(self, rows: Rows) -> None:
        part = self._open
        if part is None or part.xid != rows.xid:
            raise self._unopened(rows)
        changes = part.changes
        if not changes:
            part.first_order = rows.first_order
            part.changes = _own(rows.changes)
            part.plain = part.plain and rows.plain
        else:
            if part.plain:
                part.plain = rows.plain and first_lsn(rows.changes) > last_lsn(changes)
            if part.size + rows.size > self._spill.bytes or len(changes) >= self._spill.rows:
                changes = self._spill_out(part)
            if isinstance(changes, Stretch) and not isinstance(rows.changes, Stretch):
                part.changes = changes = list(changes)
            changes.extend(rows.changes)
        part.last_order = rows.last_order
        part.committed_at_us = rows.committed_at_us
        part.size += rows.size

    def _spill_out(self, part: Part) -> Spilled:
        if not isinstance(part.changes, Spilled):
            part.changes = Spilled.of(part.changes, self._spill.directory)
            part.plain = False
            self.counters.spilled += 1
        return part.changes

    def _begin(self, begin: Begin) -> None:
        if self._open is not None:
            self._put_aside(self._open, begin)
        self._open = Part(begin.xid, begin.lsn, begin.offset, begin.size)

    def _put_aside(self, cut: Part, by: Begin) -> None:
        if not self._aside or self._aside[0].xid == cut.xid:
            _take_apart(cut)
            # However often a transaction is cut: together its parts hold no more than one does.
            held = sum(part.size for part in self._aside if not isinstance(part.changes, Spilled))
            if held + cut.size > self._spill.bytes:
                self._spill_out(cut)
            self._aside.append(cut)
        elif cut.changes:
            raise self._interrupted(by.offset, cut.xid)

    def _end(self, end: End) -> Transaction | None:
        if end.commit_lsn <= self._last_commit or end.commit_lsn in self._applied_ahead:
            self._skip(end)
            return None
        part = self._open
        if part is None or part.xid != end.xid:
            raise self._unopened(end)
        if self._aside and self._aside[0].xid != end.xid:
            raise self._interrupted(end.offset, end.xid)
        changes = part.changes
        if (
            part.plain
            and changes
            and not self._aside
            and part.first_order == 1
            and part.last_order == len(changes) == end.event_count
            and last_lsn(changes) <= end.commit_lsn
        ):
            # So is nearly every transaction; `_prove` would find the same.
            whole, suspect = part, begins_elsewhere(part)
            self.counters.suspect += suspect
        else:
            whole, suspect = self._proven(part, end)
        self._open, self._aside, self._last_commit = None, [], end.commit_lsn
        return Transaction(
            xid=whole.xid,
            begin_lsn=whole.begin_lsn,
            commit_lsn=end.commit_lsn,
            committed_at_us=whole.committed_at_us,
            changes=whole.changes,
            first_offset=whole.first_offset,
            next_offset=end.offset + 1,
            suspect=suspect,
            bytes=whole.size + end.size,
            tables=frozenset(whole.changes.tables) if isinstance(whole.changes, Spilled) else None,
            sent_ms=end.sent_ms,
        )

    def _proven(self, last: Part, end: End) -> tuple[Part, bool]:
        """The whole transaction, and whether it is suspect. Raises StreamHalted."""
        try:
            whole, joints, suspect = self._prove(self._aside, last, end)
        except Unproven as fault:
            first = self._aside[0] if self._aside else last
            where = (
                f"{self._at(end.offset)}, transaction {end.xid} from offset {first.first_offset}"
            )
            if fault.table is not None:
                raise TableUnproven(fault, fault.table, where, end.commit_lsn) from None
            raise StreamHalted(fault.code, fault.cause, where) from None
        self._count(joints, suspect)
        return whole, suspect

    def _skip(self, end: End) -> None:
        """A re-delivery: whatever was collected of it was applied long ago."""
        self.counters.redelivered += 1
        if self._open is not None and self._open.xid == end.xid:
            self._open = None
        if self._aside and self._aside[0].xid == end.xid:
            self._aside = []

    def _prove(self, aside: list[Part], last: Part, end: End) -> tuple[Part, list[Joint], bool]:
        """The whole transaction, how it was joined, whether it is suspect; or Unproven."""
        joints: list[Joint] = []
        whole: Part | None = None
        lying = last.changes
        _take_apart(last)
        for part in (*aside, last):
            require_numbered(part, whole)
            if part is last:
                require_counted(part, whole, end.event_count)
            if whole is None:
                whole = part
            else:
                whole, joint = join(whole, part)
                joints.append(joint)
        assert whole is not None
        drop_repeats(whole)

        def settled(table: TableName) -> bool:
            return self._settled(table, end.xid, end.commit_lsn)

        require_ordered(whole.changes, end.commit_lsn, settled)
        require_pairs(whole.changes, settled)
        doubtful = require_joints(whole.changes, whole.cuts, settled)
        if whole is last and len(lying) == len(whole.changes):
            whole.changes = lying  # nothing was dropped
        return whole, joints, doubtful or begins_elsewhere(whole)

    def _count(self, joints: list[Joint], suspect: bool) -> None:
        counters = self.counters
        counters.suspect += suspect
        if not joints:
            return
        counters.joined += joints.count(Joint.APPENDS)
        counters.replaced += joints.count(Joint.REPLACES)
        counters.closed_empty += joints.count(Joint.CLOSES)

    def _at(self, offset: int, part: Part | None = None) -> str:
        place = f"{self._place}@{offset}"
        if part is None:
            return place
        return f"{place}, transaction {part.xid} from offset {part.first_offset}"

    def _unopened(self, record: Rows | End) -> StreamHalted:
        what = "A row" if isinstance(record, Rows) else "The end"
        return StreamHalted(
            "CDCM-STREAM-UNOPENED",
            f"{what} of transaction {record.xid} comes without its BEGIN; the connector must "
            "run as an exactly-once source and nothing else may write to this topic",
            self._at(record.offset),
        )

    def _interrupted(self, offset: int, xid: int) -> StreamHalted:
        waiting = self._aside[0]
        return StreamHalted(
            "CDCM-STREAM-INTERRUPTED",
            f"Transaction {waiting.xid} was cut and must come again before anything new, but "
            f"transaction {xid} came",
            self._at(offset, waiting),
        )


def _records(whole: Transaction) -> tuple[Begin, Rows, End]:
    """What a transaction was in the topic, but for the sizes and times of single records."""
    count, at, ms = len(whole.changes), whole.first_offset, whole.sent_ms or 0
    committed_at_us = whole.committed_at_us or 0
    return (
        Begin(at, 0, ms, whole.xid, whole.begin_lsn),
        Rows(
            at + 1,
            whole.bytes,
            ms,
            whole.xid,
            1,
            count,
            committed_at_us,
            whole.changes,
            plain=True,
        ),
        End(at + 1 + count, 0, ms, whole.xid, whole.commit_lsn, count),
    )


def _own(changes: Sequence[Change]) -> Changes:
    """The same, to be added to."""
    return changes.copied() if isinstance(changes, Stretch) else list(changes)


def _take_apart(part: Part) -> None:
    """What is looked at row by row is decoded once."""
    if isinstance(part.changes, Stretch):
        part.changes = list(part.changes)
