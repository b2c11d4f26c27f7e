"""Apply what the target accepts, and keep back what it does not, in the transaction under way.

Only where the settings say so, and only what speaks against single rows: values that do not fit,
constraints. What speaks against a table, a right, a connection or a disk is never a row's fault.
The plain way to apply knows nothing of this: a batch comes here when it was refused, or when it
touches a table of which keys are kept back already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import psycopg

from cdc_migrator.apply.applied import Tally
from cdc_migrator.apply.batcher import Batch
from cdc_migrator.apply.follow import TableState
from cdc_migrator.apply.halts import OF_ROWS, Rejected
from cdc_migrator.apply.hands import Hands
from cdc_migrator.apply.isolate import isolate
from cdc_migrator.apply.parked import Aside, ParkedKeys, Unit, set_aside, units
from cdc_migrator.apply.prepared import Prepared
from cdc_migrator.apply.shape import Shape
from cdc_migrator.apply.stage import Staged, encode
from cdc_migrator.apply.trying import Declined, attempt, staged
from cdc_migrator.control import dead_letters
from cdc_migrator.control.dead_letters import Fault, Key, Letter
from cdc_migrator.databases.postgres.sqlstate import disposition
from cdc_migrator.errors import StreamHalted
from cdc_migrator.model.changes import BadRecords, Transaction
from cdc_migrator.model.tables import TableName

_FOLLOWS = Fault("CDCM-PARK-FOLLOWS", "an earlier record of its key is kept back")


class Parking:
    """What is kept back, as the owner of the stream knows it; used by one thread.

    Args:
        policy: whether anything more may be kept back. What is stays so in any case.
        most: keys that are kept back at a time.
    """

    def __init__(self, policy: BadRecords = BadRecords.HALT, most: int = 1000) -> None:
        self._policy = policy
        self._most = most
        self._keys: ParkedKeys | None = None
        self._draft: ParkedKeys | None = None

    def forget(self) -> None:
        """What is kept back may be other than is known here: it will be looked up."""
        self._keys = self._draft = None

    def look_up(self, conn: psycopg.Connection) -> None:
        """Learn what is kept back, where that is not known; a transaction begins."""
        self._draft = None
        if self._keys is None:
            self._keys = ParkedKeys(dead_letters.keys(conn))

    def committed(self) -> None:
        """The transaction that kept something back is committed."""
        if self._draft is not None:
            self._keys, self._draft = self._draft, None

    def concerns(self, prepared: Prepared) -> bool:
        """Whether the batch touches a table of which keys are kept back."""
        return bool(self._keys) and not self._known.tables.isdisjoint(prepared.touched)

    def takes(self, rejected: Rejected, shapes: Mapping[TableName, Shape]) -> bool:
        """Whether rows of this table may be kept back for such a fault."""
        shape = shapes.get(rejected.table) if rejected.table is not None else None
        return (
            self._policy is BadRecords.PARK
            and isinstance(rejected.cause, psycopg.Error)
            and disposition(rejected.cause) in OF_ROWS
            and shape is not None
            and shape.keys is not None
        )

    @property
    def _known(self) -> ParkedKeys:
        assert self._keys is not None, "nobody has looked up what is kept back"
        return self._keys

    def write(self, by: Hands, batch: Batch, tally: Tally) -> None:
        """Write a batch but for what is to be kept back, which is put down beside it.

        Raises:
            StreamHalted: CDCM-PARK-TRUNCATE, CDCM-PARK-LIMIT, or what folding raises.
            RowsMissing, psycopg.Error: it is not a row's fault; `tally.at` names the table.
        """
        draft = self._draft = self._known.copy()
        seen: Counter[int] = Counter()
        for run in by.preparer.runs(batch):
            places = _places(run, seen)
            rest, aside = set_aside(run, draft, by.preparer.shapes)
            letters = [(one, _FOLLOWS) for one in aside]
            piece = by.preparer.piece(batch, rest)
            by.begin(piece, tally)
            tally.set_aside(aside)
            for rows in piece.staged:
                tally.at = rows.shape.name
                for unit, refused in self._settle(by, rest, rows, len(draft)):
                    draft.park(rows.shape.name, unit.keys)
                    letters += [(one, refused.fault) for one in _aside(unit, rows.shape)]
            tally.at = None
            tally.parked += len(letters)
            letters.sort(key=lambda one: places[id(one[0].change)])
            self._put_down(
                by,
                draft,
                [
                    Letter(
                        one.shape.name,
                        one.key,
                        one.transaction,
                        one.change,
                        places[id(one.change)][1],
                        fault,
                    )
                    for one, fault in letters
                ],
            )

    def _settle(
        self, by: Hands, run: Sequence[Transaction], rows: Staged, parked: int
    ) -> list[tuple[Unit, Declined]]:
        """Write one table's rows, or as many of them as are accepted; those that are not."""
        shape = rows.shape
        refused = attempt(by, rows)
        if refused is None:
            return []
        if self._policy is not BadRecords.PARK or shape.keys is None:
            raise refused.cause

        def count(found: int) -> None:
            if parked + found > self._most:
                raise self._too_many(shape.name)

        left = isolate(
            units(run, shape, by.preparer.truncates),
            lambda some: attempt(by, staged(by, shape, some)),
            refused,
            count,
        )
        for unit, why in left:
            if not unit.keys:
                raise why.cause
        return left

    def _too_many(self, table: TableName) -> StreamHalted:
        return StreamHalted(
            "CDCM-PARK-LIMIT",
            f"the target does not accept rows of {table}, and more than {self._most} keys would "
            "be kept back: something is wrong with more than single rows",
            str(table),
            "Correct what the target demands beyond the source, then start `cdc-migrator run`, "
            "which goes on from here, and type `cdc-migrator dead-letters retry --all`. Or raise "
            "apply.most_parked.",
        )

    def _put_down(self, by: Hands, draft: ParkedKeys, letters: Sequence[Letter]) -> None:
        draft.number(lambda count: dead_letters.new_chains(by.conn, count))
        fresh, moved = draft.take_changed()
        if fresh and len(draft) > self._most:
            raise self._too_many(fresh[0].table)
        if fresh or moved:
            looked = [replace(one, texts=_look(by, one)) for one in fresh]
            dead_letters.park(by.conn, [*looked, *moved])
        kept = [one for one in letters if not draft.skipped(one.table, one.key)]
        if kept:
            dead_letters.keep(by.conn, kept)
        if len(kept) < len(letters):
            given_up = Counter((one.table, one.key) for one in letters)
            given_up.subtract((one.table, one.key) for one in kept)
            for (table, key), count in given_up.items():
                if count:
                    dead_letters.leave_out(by.conn, table, key, count)
        dead_letters.note_parked(by.conn, fresh, kept)


def _places(run: Iterable[Transaction], seen: Counter[int]) -> dict[int, tuple[int, int]]:
    """By each change's identity: its place in the run, and in its transaction.

    `seen`: how many changes of a transaction earlier runs had.
    """
    found: dict[int, tuple[int, int]] = {}
    for transaction in run:
        before = seen[transaction.commit_lsn]
        for place, change in enumerate(transaction.changes, before):
            found[id(change)] = (len(found), place)
        seen[transaction.commit_lsn] += len(transaction.changes)
    return found


def _aside(unit: Unit, shape: Shape) -> list[Aside]:
    """The records of a unit that was refused; what a side table says goes with its row's key."""
    found = []
    key = b""
    for _, transaction, change in unit.changes:
        if change.table == shape.name:
            key = change.key
        found.append(Aside(shape, key, transaction, change))
    return found


def _look(by: Hands, parked: Key) -> tuple[str, ...] | None:
    """A key's columns as comparisons have them; its chunk is marked, for its row differs now.

    None where the target cannot read the key.
    """
    shape = by.preparer.shapes[parked.table]
    assert shape.keys is not None
    state = TableState(shape, truncated=False, deletes=[shape.keys.decode(parked.key, 0)])
    rows = encode(state, inline=1)
    try:
        with by.conn.transaction():
            texts = by.merger.key_texts(rows)
            by.marks.note((rows,), by.merger.places)
    except psycopg.Error as exc:
        if disposition(exc) not in OF_ROWS:
            raise
        return None
    return texts
