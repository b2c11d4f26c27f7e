"""What one transaction looks like in the topic: its parts, how they join, what proves it whole.

After a lost replication connection the connector goes on in its own process, and the topic then
holds one transaction in several parts. Three forms were seen:

    (i)   rows 1..k, then rows k+1.. of the same BEGIN: one part, nothing to join;
    (ii)  BEGIN, rows, no END; re-deliveries of older transactions; BEGIN again with only the
          remaining rows, numbered from 1, and an END that counts only these;
    (iii) the cut fell between the delete and the create of a key change: the create never
          comes, and the END counts one row less. No count shows it, only the missing pair.

Neither offsets nor counts can tell whether parts overlap; positions in the source's log can,
because they never fall inside a transaction. No I/O and no clock; `assembler` decides when.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from itertools import takewhile

from cdc_migrator.model.changes import Change, Op
from cdc_migrator.model.tables import TableName


class Unproven(Exception):
    """This transaction cannot be shown to be whole; `code` and `cause` are for the user."""

    def __init__(self, code: str, cause: str) -> None:
        super().__init__(cause)
        self.code = code
        self.cause = cause


@dataclass(slots=True)
class Part:
    """What the topic holds of one transaction between one BEGIN and its END or its cut.

    Attributes:
        begin_lsn: position in the BEGIN record's id.
        first_offset: offset of the BEGIN record.
        size: bytes of its records on the wire.
        first_order, last_order: ``total_order`` of its first and last row; 0 without rows.
    """

    xid: int
    begin_lsn: int
    first_offset: int
    size: int
    changes: list[Change] = field(default_factory=list)
    first_order: int = 0
    last_order: int = 0
    committed_at_us: int | None = None
    doubtful_joint: bool = False

    @property
    def suspect(self) -> bool:
        """Whether it is given although a row may be missing.

        The connector takes the position in a BEGIN's id from the first thing that it was sent
        of the transaction. Where no row is there, that thing was a logical message or an
        unpublished write, which is innocent, or a row that is lost. A doubtful joint is one
        at which only the connector knows that nothing is missing (`Joint.CONTINUES`).
        """
        return self.doubtful_joint or not self.changes or self.changes[0].lsn != self.begin_lsn


class Joint(Enum):
    """How a part that comes again relates to what was put aside."""

    CLOSES = "it has no rows: everything was there before the cut"
    APPENDS = "it begins above the last row put aside: the rest"
    CONTINUES = "it begins at the last row's position, with other rows of the same COPY: the rest"
    REPLACES = "it begins at or below the first row put aside: all of it again"


def join(aside: Part, again: Part) -> tuple[Part, Joint]:
    """The transaction that `aside` and the same transaction's next part make together.

    Raises Unproven (CDCM-STREAM-OVERLAP) where the positions do not say which rows are new.
    """
    if not again.changes:
        whole, joint = aside.changes, Joint.CLOSES
    elif not aside.changes or again.changes[0].lsn > aside.changes[-1].lsn:
        whole, joint = aside.changes + again.changes, Joint.APPENDS
    elif _continues(aside.changes, again.changes):
        whole, joint = aside.changes + again.changes, Joint.CONTINUES
    elif again.changes[0].lsn <= aside.changes[0].lsn < aside.changes[-1].lsn:
        _require_contained(aside.changes, again.changes)
        whole, joint = again.changes, Joint.REPLACES
    else:
        raise Unproven(
            "CDCM-STREAM-OVERLAP",
            "A transaction was cut and came again from a position that it had before the cut, "
            "so it cannot be told which of its rows came twice and which never",
        )
    first = again if joint is Joint.REPLACES else aside
    last = aside if joint is Joint.CLOSES else again
    return (
        Part(
            xid=aside.xid,
            begin_lsn=first.begin_lsn,
            first_offset=aside.first_offset,
            size=aside.size + again.size,
            changes=whole,
            first_order=first.first_order,
            last_order=last.last_order,
            committed_at_us=last.committed_at_us,
            doubtful_joint=joint is Joint.CONTINUES or first.doubtful_joint,
        ),
        joint,
    )


def _continues(aside: list[Change], again: list[Change]) -> bool:
    """Whether `again` begins with further rows of the COPY that `aside` ends in.

    One record of the source's log holds many rows of a COPY, so a cut inside it leaves both
    parts with its position. The connector counts how many of them it has sent (from 3.7 on),
    so it goes on with the next. That no row comes twice is seen here: all are plain inserts,
    and none is on both sides; identical rows of a keyless table cannot be told apart, so
    they halt.
    """
    shared = aside[-1].lsn
    before = list(takewhile(lambda change: change.lsn == shared, reversed(aside)))
    after = list(takewhile(lambda change: change.lsn == shared, again))
    if not after or any(c.op is not Op.INSERT or c.key_moved_here for c in (*before, *after)):
        return False
    return {_identity(c) for c in before}.isdisjoint(_identity(c) for c in after)


def _identity(change: Change) -> tuple[TableName, bytes]:
    return change.table, change.key or change.after or b""


def _require_contained(aside: list[Change], again: list[Change]) -> None:
    """What replaces must hold, row by row, what it replaces.

    Rows of one COPY share a position, so a position alone does not show that the second
    delivery began at the first of them.
    """
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


def require_ordered(changes: list[Change], commit_lsn: int) -> None:
    """Positions inside a transaction never fall, and its commit lies behind all of them.

    Raises Unproven (CDCM-STREAM-ORDER).
    """
    last = 0
    for change in changes:
        if change.lsn < last:
            break
        last = change.lsn
    else:
        if last <= commit_lsn:
            return
    raise Unproven(
        "CDCM-STREAM-ORDER",
        "Inside a transaction the position in the source's log falls, which it never does "
        "there; the records are not in the order of the source",
    )


def require_pairs(changes: list[Change]) -> None:
    """A delete that moves a key on is followed at once by the create at the same position.

    Raises Unproven (CDCM-STREAM-UNPROVEN-KEY): half of a key change is missing.
    """
    moving: Change | None = None
    for change in changes:
        if moving is None:
            if change.key_moves_on:
                moving = change
            elif change.key_moved_here:
                raise _half(change)
        elif change.key_moved_here and change.lsn == moving.lsn and change.table == moving.table:
            moving = None
        else:
            raise _half(moving)
    if moving is not None:
        raise _half(moving)


def _half(change: Change) -> Unproven:
    present, absent = ("delete", "insert") if change.key_moves_on else ("insert", "delete")
    return Unproven(
        "CDCM-STREAM-UNPROVEN-KEY",
        f"An update changed the key of a row of {change.table}; the connector delivered the "
        f"{present} of the pair but not the {absent} that belongs to it",
    )
