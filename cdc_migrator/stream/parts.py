"""What one transaction looks like in the topic: its parts, and how they join.

After a lost replication connection, or a restart, the connector goes on in the middle of a
transaction, and the topic then holds it in several parts. These forms were seen:

    (i)   rows 1..k, then rows k+1.. of the same BEGIN, numbered on: nothing shows the cut but
          a pause in front of row k+1;
    (ii)  BEGIN, rows, no END; re-deliveries of older transactions; BEGIN again with only the
          remaining rows, numbered from 1, and an END that counts only these;
    (iii) either of them with a loss: the cut came after the first event of a log record that
          makes several (the delete and create of a key change, the rows of a COPY), and the
          others never come. No count shows it.

Neither offsets nor counts can tell whether parts overlap; positions in the source's log can,
because they never fall inside a transaction. No I/O and no clock: `assembler` decides when a
part ends, `proofs` whether the whole is complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import msgspec

from cdc_migrator.errors import StreamHalted
from cdc_migrator.model.changes import Change, Op
from cdc_migrator.model.tables import TableName
from cdc_migrator.stream.spill import Changes, joined


class Unproven(Exception):
    """This transaction cannot be shown to be whole; `code` and `cause` are for the user.

    `table` is the only one that is in doubt, where that is known: reading it again helps.
    """

    def __init__(self, code: str, cause: str, table: TableName | None = None) -> None:
        super().__init__(cause)
        self.code = code
        self.cause = cause
        self.table = table


class TableUnproven(StreamHalted):
    """The stream cannot go on, but for one table nothing stands against it: read that again.

    `commit_lsn` is of the transaction in doubt, where it was found while that was put together.
    """

    def __init__(
        self, fault: Unproven, table: TableName, position: str, commit_lsn: int | None = None
    ) -> None:
        super().__init__(
            fault.code,
            fault.cause,
            position,
            f"Nothing past this position was applied. `cdc-migrator backfill --again '{table}'` "
            "reads the table again from the source; then start `cdc-migrator run`, which goes on "
            "from here.",
        )
        self.table = table
        self.commit_lsn = commit_lsn


class Part(msgspec.Struct, gc=False):
    """What the topic holds of one transaction between one BEGIN and its END or its cut.

    Attributes:
        begin_lsn: position in the BEGIN record's id.
        first_offset: offset of the BEGIN record.
        size: bytes of its records on the wire.
        cuts: for each place where the connector may have gone on after a cut, the number of
            rows in front of it.
        first_order, last_order: ``total_order`` of its first and last row; 0 without rows.
        plain: nothing is to be proven of its rows beyond their number: each lies above the one
            before, none is half of a key change, and they came without a cut.
    """

    xid: int
    begin_lsn: int
    first_offset: int
    size: int
    changes: Changes = msgspec.field(default_factory=list)
    cuts: list[int] = msgspec.field(default_factory=list)
    first_order: int = 0
    last_order: int = 0
    committed_at_us: int | None = None
    plain: bool = True


def plain_insert(change: Change) -> bool:
    """An insert that is no half of a key change; many of one COPY may share a position."""
    return change.op is Op.INSERT and not change.key_moved_here


class Joint(Enum):
    """How a part that comes again relates to what was put aside."""

    CLOSES = "it has no rows: everything was there before the cut"
    APPENDS = "it begins above the last row put aside, or inside the same COPY: the rest"
    REPLACES = "it begins at or below the first row put aside: all of it again"


def join(aside: Part, again: Part) -> tuple[Part, Joint]:
    """The transaction that `aside` and the same transaction's next part make together.

    Raises Unproven (CDCM-STREAM-OVERLAP) where the positions do not say which rows are new.
    """
    joint = _joint(aside.changes, again.changes)
    if joint is Joint.REPLACES:
        _require_contained(aside.changes, again.changes)
        first, changes, cuts = again, again.changes, again.cuts
    else:
        first, changes = aside, joined(aside.changes, again.changes)
        here = len(aside.changes)
        cuts = [*aside.cuts, here, *(here + cut for cut in again.cuts)]
    last = aside if joint is Joint.CLOSES else again
    whole = Part(
        xid=aside.xid,
        begin_lsn=first.begin_lsn,
        first_offset=aside.first_offset,
        size=aside.size + again.size,
        changes=changes,
        cuts=cuts,
        first_order=first.first_order,
        last_order=last.last_order,
        committed_at_us=last.committed_at_us,
    )
    return whole, joint


def _joint(aside: Sequence[Change], again: Sequence[Change]) -> Joint:
    if not again:
        return Joint.CLOSES
    if not aside or again[0].lsn > aside[-1].lsn or _inside_copy(aside[-1], again[0]):
        return Joint.APPENDS
    if again[0].lsn <= aside[0].lsn < aside[-1].lsn:
        return Joint.REPLACES
    raise Unproven(
        "CDCM-STREAM-OVERLAP",
        "A transaction was cut and came again from a position that it had before the cut, so it "
        "cannot be told which of its rows came twice and which never",
    )


def _inside_copy(last: Change, first: Change) -> bool:
    """Two plain inserts at one position: rows of one log record of a COPY.

    The connector counts how many of them it has sent (from 3.7 on) and goes on with the next;
    `proofs` looks whether one came twice.
    """
    return first.lsn == last.lsn and plain_insert(first) and plain_insert(last)


def _require_contained(aside: Sequence[Change], again: Sequence[Change]) -> None:
    """What replaces must hold, row by row, what it replaces: nothing seen may be lost."""
    start = next((i for i, change in enumerate(again) if change.lsn >= aside[0].lsn), 0)
    if again[start : start + len(aside)] != aside:
        raise Unproven(
            "CDCM-STREAM-OVERLAP",
            "A transaction was cut and came again from its beginning, but not with the rows "
            "that it had before the cut",
        )


def require_numbered(part: Part, aside: Part | None) -> None:
    """Each part numbers its rows without a gap, from 1 or going on from the part before.

    Going on happens where the connector kept its own count over the retry.
    Raises Unproven (CDCM-STREAM-COUNT).
    """
    if not part.changes:
        return
    base = part.first_order - 1
    if base not in _bases(aside) or part.last_order - base != len(part.changes):
        raise _miscounted()


def require_counted(part: Part, aside: Part | None, event_count: int) -> None:
    """END's count is the number that its last row bears.

    In forms (i) and (ii), as in the undisturbed case, this equals the rows since the last
    BEGIN; in form (iii) as well, since the connector counts what it sends, not what it should
    have sent. So no form excuses a mismatch: rows are missing from the topic, or a stranger
    wrote to it. Where the numbering went on over a second BEGIN, the count includes what is
    aside; an END without rows may then count either nothing or all of it.
    Raises Unproven (CDCM-STREAM-COUNT).
    """
    allowed = {part.last_order} if part.changes else _bases(aside)
    if event_count not in allowed:
        raise _miscounted()


def _bases(aside: Part | None) -> set[int]:
    return {0} if aside is None else {0, aside.last_order}


def _miscounted() -> Unproven:
    return Unproven(
        "CDCM-STREAM-COUNT",
        "The rows of a transaction are not the ones that its numbering and its END count",
    )
