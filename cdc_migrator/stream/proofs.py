"""What shows that a transaction has all of its rows once, or that nobody can know.

Asked once per transaction, over all of its rows. Where a proof fails, Unproven is raised and
the stream halts; where only the connector can know that nothing is missing, the transaction is
suspect: given, counted, shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise, takewhile

from cdc_migrator.model.changes import Change, Op
from cdc_migrator.model.tables import TableName
from cdc_migrator.stream.blocks import first_lsn
from cdc_migrator.stream.parts import Part, Unproven, plain_insert
from cdc_migrator.stream.spill import joined

# Whether a table holds the transaction in question already, because it was read again since.
Settled = Callable[[TableName], bool]


def nothing_settled(_: TableName) -> bool:
    """No table was read again."""
    return False


def begins_elsewhere(whole: Part) -> bool:
    """Whether the BEGIN points at something that is not the first row.

    The connector takes the position in a BEGIN's id from the first thing that it was sent of
    the transaction. Where no row is there, that thing was a logical message or an unpublished
    write, which is innocent, or a row that is lost.
    """
    return not whole.changes or first_lsn(whole.changes) != whole.begin_lsn


def drop_repeats(whole: Part) -> None:
    """Take out the rows that a COPY brings again right behind a cut.

    Behind a cut after the last row of a transaction's first COPY record that row comes again
    (seen with 3.7.0). A key is inserted at one position only once, so an equal change at the
    same position is the same row; without a key nobody can know (`require_joint`).
    """
    for place in reversed(range(len(whole.cuts))):
        cut, changes = whole.cuts[place], whole.changes
        sent = [c for c in _run_before(changes, cut) if c.key and plain_insert(c)]
        repeats = sum(1 for _ in takewhile(sent.__contains__, _run_behind(changes, cut)))
        if repeats:
            whole.changes = joined(changes[:cut], changes[cut + repeats :])
            whole.cuts[place + 1 :] = [later - repeats for later in whole.cuts[place + 1 :]]


def _run_before(changes: Sequence[Change], cut: int) -> Sequence[Change]:
    """The rows in front of `cut` that share the position of the last of them."""
    start = cut
    while start > 0 and changes[start - 1].lsn == changes[cut - 1].lsn:
        start -= 1
    return changes[start:cut]


def _run_behind(changes: Sequence[Change], cut: int) -> Sequence[Change]:
    """The rows behind `cut` that share the position of the row in front of it."""
    stop = cut
    while cut > 0 and stop < len(changes) and changes[stop].lsn == changes[cut - 1].lsn:
        stop += 1
    return changes[cut:stop]


def require_ordered(
    changes: Sequence[Change], commit_lsn: int, settled: Settled = nothing_settled
) -> None:
    """Positions inside a transaction never fall, and its commit lies behind all of them.

    Rows at one position are those of one COPY record; no row is among them twice.
    Raises Unproven (CDCM-STREAM-ORDER, CDCM-STREAM-OVERLAP).
    """
    last = 0
    previous: Change | None = None
    shared: set[tuple[object, bytes]] = set()
    for change in changes:
        if change.lsn > last:
            last = change.lsn
            shared.clear()
        elif change.lsn < last:
            raise _out_of_order()
        elif change.key and plain_insert(change):
            if not shared and previous is not None:
                shared.add((previous.table, previous.key))
            row = (change.table, change.key)
            if row in shared and not settled(change.table):
                raise _twice(change.table)
            shared.add(row)
        previous = change
    if last > commit_lsn:
        raise _out_of_order()


def require_pairs(changes: Sequence[Change], settled: Settled = nothing_settled) -> None:
    """A delete that moves a key on is followed at once by the create at the same position.

    `settled` tells tables that hold this transaction already, whatever of it was delivered.
    Raises Unproven (CDCM-STREAM-UNPROVEN-KEY): half of a key change is missing.
    """
    moving: Change | None = None
    for change in changes:
        if moving is None and not (change.key_moves_on or change.key_moved_here):
            continue
        if settled(change.table):
            continue
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


def require_joints(
    changes: Sequence[Change], cuts: Sequence[int], settled: Settled = nothing_settled
) -> bool:
    """Whether something may be missing in front of one of these rows, after which it was cut.

    Raises as `require_joint`.
    """
    # Asked once at most: it goes through all rows, and a long transaction may have many cuts.
    has_copy = cache(lambda: _has_copy(changes))
    doubtful = False
    for cut in cuts:
        doubtful |= require_joint(changes, cut, has_copy, settled)
    return doubtful


def require_joint(
    changes: Sequence[Change], cut: int, has_copy: Callable[[], bool], settled: Settled
) -> bool:
    """Whether something may be missing in front of row number `cut`, after which it was cut.

    An update or delete is a log record of its own: what comes after it was sent as a whole.
    Behind an insert, rows of the same COPY record may have come or not: of a record of which
    only the first row was sent, the connector forgets the others (seen with 3.7.0). So a lone
    insert halts in a transaction that has COPY records, and is suspect elsewhere. The same
    goes for the tables of one TRUNCATE. Of a table that holds the transaction already
    (`settled`) nothing is asked.
    Raises Unproven (CDCM-STREAM-UNPROVEN-COPY, CDCM-STREAM-OVERLAP).
    """
    if cut == 0:
        return False
    last = changes[cut - 1]
    if last.op is Op.TRUNCATE:
        return True
    if not plain_insert(last) or settled(last.table):
        return False

    before = _run_before(changes, cut)
    after = _run_behind(changes, cut)
    keyless = {(change.table, bytes(change.after or b"")) for change in before if not change.key}
    if any((change.table, bytes(change.after or b"")) in keyless for change in after):
        raise _twice(last.table)
    if len(before) == 1 and not after and has_copy():
        raise Unproven(
            "CDCM-STREAM-UNPROVEN-COPY",
            f"The connector lost its connection behind a row of {last.table} in a transaction "
            "with a COPY; where that row is the first of a log record, the connector does not "
            "deliver the others",
            last.table,
        )
    return True


def _has_copy(changes: Sequence[Change]) -> bool:
    return any(a.lsn == b.lsn and plain_insert(a) and plain_insert(b) for a, b in pairwise(changes))


def _out_of_order() -> Unproven:
    return Unproven(
        "CDCM-STREAM-ORDER",
        "Inside a transaction the position in the source's log falls, which it never does "
        "there; the records are not in the order of the source",
    )


def _twice(table: TableName) -> Unproven:
    return Unproven(
        "CDCM-STREAM-OVERLAP",
        f"The connector went on inside a COPY with a row of {table} that it had sent before",
        table,
    )


def _half(change: Change) -> Unproven:
    present, absent = ("delete", "insert") if change.key_moves_on else ("insert", "delete")
    return Unproven(
        "CDCM-STREAM-UNPROVEN-KEY",
        f"An update changed the key of a row of {change.table}; the connector delivered the "
        f"{present} of the pair but not the {absent} that belongs to it",
        change.table,
    )
