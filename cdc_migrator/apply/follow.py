"""Follow the rows of one table through a batch to their last state. Pure.

A row is followed under its key, as raw bytes, through updates and key changes back to its
*base*: the key under which the target holds it before this batch.

    event                  row known to the batch      unknown key K
    insert at K            halt: it is there           a fresh row
    update at K            next image                  base K, next image
    delete at K            gone; its base goes         base K goes
    key change K -> L      continues at L              base K continues at L
    truncate               all forgotten; from here on an unknown key does not exist

Rows are decoded only when all changes are in: images that a later one replaced never are.

A table may have a side table, whose rows say what the events lack. Such a row counts as one more
image of the row that it names: it stands behind the change that it belongs to, and its newest
values win. Whole rows sent that way take the place of the events, which are then only counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from cdc_migrator.apply.shape import Row, Shape
from cdc_migrator.control.progress import Counts
from cdc_migrator.errors import StreamHalted
from cdc_migrator.model.changes import Change, Image, Op, TruncatePolicy
from cdc_migrator.model.positions import lsn_to_text
from cdc_migrator.stream.rows import UNCHANGED

# An enumeration's member costs more to look up than all else that is done for a change.
_INSERT, _UPDATE, _DELETE, _TRUNCATE = Op.INSERT, Op.UPDATE, Op.DELETE, Op.TRUNCATE


@dataclass(slots=True)
class TableState:
    """What one batch makes of one table.

    Attributes:
        truncated: everything that the target held goes first.
        deletes: keys of the target's rows that go and that no row of `complete` replaces; for a
            keyless table whole rows, as often as they go.
        complete: whole rows to be there; for a keyless table to be added.
        partial: (base key or None, row with UNCHANGED values); the key is given where the row
            has moved away from its base. Where the shape `keeps`, also whole rows: with a base all
            that the target had, and without one new ones under a key of `deletes`.
    """

    shape: Shape
    truncated: bool
    deletes: list[Row] = field(default_factory=list)
    complete: list[Row] = field(default_factory=list)
    partial: list[tuple[tuple[str, ...] | None, Row]] = field(default_factory=list)


def sequence_fault(shape: Shape, change: Change, what: str) -> StreamHalted:
    return StreamHalted(
        "CDCM-STREAM-SEQUENCE",
        f"the stream {what} in {shape.name}",
        f"change at {lsn_to_text(change.lsn)}",
    )


# One row on its way through the batch: first the change that named it under the key at which the
# target holds it (None for a row that the batch inserted), then the changes that carry its
# images, oldest first; images from the side table among them as rows. A bare list, because there
# is one for each row of a batch; and a row that was updated once is that change alone, because
# that is what most are.
_Followed = list[Any]


def _steps(row: _Followed | Change) -> _Followed:
    return row if type(row) is list else [row, row]


class _Counted:
    """How many changes of each kind the stream carried for one table."""

    def __init__(self, shape: Shape, truncates: TruncatePolicy) -> None:
        self.shape = shape
        self._policy = truncates
        self._inserts = self._updates = self._deletes = self._truncates = self._ignored = 0

    @property
    def counts(self) -> Counts:
        return (self._inserts, self._updates, self._deletes, self._truncates, self._ignored)

    def pass_over(self, change: Change) -> None:
        """Count a change that the target has already."""
        self._inserts += change.op is _INSERT
        self._updates += change.op is _UPDATE
        self._deletes += change.op is _DELETE
        self._truncates += change.op is _TRUNCATE

    def _truncate(self, change: Change) -> bool:
        """Count it; whether it is to be applied."""
        self._truncates += 1
        if self._policy is TruncatePolicy.HALT:
            raise StreamHalted(
                "CDCM-APPLY-TRUNCATE",
                f"the source has truncated {self.shape.name}, and truncates are to halt the stream",
                f"change at {lsn_to_text(change.lsn)}",
            )
        self._ignored += self._policy is TruncatePolicy.IGNORE
        return self._policy is TruncatePolicy.APPLY

    def ignore(self, change: Change) -> None:
        """Leave a row of the side table out that belongs to such a change."""


class Keyed(_Counted):
    """Rows told apart by the raw bytes of their keys."""

    def __init__(self, shape: Shape, truncates: TruncatePolicy) -> None:
        super().__init__(shape, truncates)
        self._truncated = False
        self._live: dict[bytes, _Followed | Change] = {}
        # Keys that the target holds and that no row of the target is at any more.
        self._gone: dict[bytes, Change] = {}
        self._moving: _Followed | None = None
        # Only where there is a side table: the keys met, by their parts, as it has them.
        self._met: dict[Row, bytes] = {}
        # What the side table says of keys not met: in a huge transaction that is applied in
        # pieces the change may have been in an earlier one.
        self._alone: dict[Row, Row] = {}
        self._always = shape.values is not None and shape.values.always
        # Changes of which the side table must speak, less those of which it has.
        self._due = 0

    def take(self, change: Change) -> None:
        op = change.op
        key = change.key
        if self.shape.values is not None:
            self._meet(change)
        if op is _UPDATE:
            self._updates += 1
            row = self._live.get(key)
            if row is None:
                self._require_there(change)
                self._live[key] = change
            elif type(row) is list:
                row.append(change)
            else:
                self._live[key] = [row, row, change]
        elif op is _INSERT:
            self._inserts += 1
            if key in self._live:
                raise sequence_fault(self.shape, change, "inserts a row that is already there")
            if change.key_moved_here:
                self._arrive(change)
            else:
                self._live[key] = [None, change]
        elif op is _DELETE:
            self._deletes += 1
            found = self._live.pop(key, None)
            if found is None:
                self._require_there(change)
                steps = [change]
            else:
                steps = _steps(found)
            if steps[0] is not None and steps[0].key == key:
                self._gone[key] = change
            if change.key_moves_on:
                self._require_arrived()
                self._moving = steps
        elif self._truncate(change):
            self._truncated = True
            self._live.clear()
            self._gone.clear()

    def _meet(self, change: Change) -> None:
        keys = self.shape.keys
        assert keys is not None
        if change.op is not _TRUNCATE:
            self._met[keys.decode(change.key, change.lsn)] = change.key
        if self._always and (change.op is _INSERT or change.op is _UPDATE):
            self._due += 1

    def take_beside(self, change: Change) -> None:
        """Add what the side table says of a row; deletes there only make room."""
        values = self.shape.values
        if change.op is not _INSERT or change.after is None or values is None:
            return
        parts, image = values.decode(change.after, change.lsn)
        self._due -= self._always
        key = self._met.get(parts)
        if key is None:
            if self._always:
                raise sequence_fault(self.shape, change, "speaks of a row that did not change")
            self._alone[parts] = self._with_key(image, parts)
            return
        row = self._live.get(key)
        # The row may be gone by the time that the trigger fires.
        if row is not None:
            steps = self._live[key] = _steps(row)
            steps.append(image)

    def _with_key(self, image: Row, parts: Row) -> Row:
        row = list(image)
        for place, part in zip(self.shape.key_places, parts, strict=True):
            row[place] = part
        return tuple(row)

    def _settle_alone(self, state: TableState) -> None:
        """Bring in what the side table said of rows whose change was in an earlier piece."""
        for parts, image in self._alone.items():
            key = self._met.get(parts)
            if key is None:
                state.partial.append((None, image))
                continue
            row = self._live.get(key)
            if row is not None:
                steps = self._live[key] = _steps(row)
                if steps[0] is not None:
                    steps.insert(1, image)

    def _arrive(self, change: Change) -> None:
        row, self._moving = self._moving, None
        if row is None:
            raise sequence_fault(self.shape, change, "moves a row that it did not name before")
        row.append(change)
        self._live[change.key] = row

    def _require_arrived(self) -> None:
        if self._moving is not None:
            raise sequence_fault(
                self.shape, self._moving[0] or self._moving[1], "moves a row to nowhere"
            )

    def _require_there(self, change: Change) -> None:
        if self._truncated or change.key in self._gone:
            raise sequence_fault(self.shape, change, "changes a row after it was removed")

    def finish(self) -> TableState:
        shape, keys = self.shape, self.shape.keys
        assert keys is not None
        self._require_arrived()
        self._require_nothing_due()
        if b"" in self._live or b"" in self._gone:
            nameless = self._gone.get(b"") or _steps(self._live[b""])[-1]
            raise sequence_fault(shape, nameless, "changes a row without its key")
        state = TableState(shape, self._truncated)
        self._settle_alone(state)
        ordered = self._sorted(self._live)
        for key, whole in zip(ordered, self._newest(ordered), strict=True):
            if whole is not None and not shape.keeps:
                state.complete.append(whole)
                self._gone.pop(key, None)
                continue
            row = _steps(self._live[key])
            image = _latest(shape, row) if whole is None else whole
            base: Change | None = row[0]
            told = UNCHANGED not in image
            if told and not (shape.keeps and (base is not None or key in self._gone)):
                state.complete.append(image)
                self._gone.pop(key, None)
            elif base is None:
                if not told:
                    raise sequence_fault(shape, row[1], "inserts a row without all of its values")
                state.partial.append((None, image))
            elif base.key != key:
                state.partial.append((keys.decode(base.key, base.lsn), image))
            else:
                state.partial.append((keys.decode(key, base.lsn) if told else None, image))
                self._gone.pop(key, None)
        for key in self._sorted(self._gone):
            state.deletes.append(keys.decode(key, self._gone[key].lsn))
        return state

    def _newest(self, keys: list[bytes]) -> Sequence[tuple[str | None, ...] | None]:
        """The newest image of each row, where that is a whole row; decoded together."""
        if self.shape.values is not None:
            return [None] * len(keys)
        rows: Iterable[Any] = (self._live[key] for key in keys)
        images = [row[-1].after if type(row) is list else row.after for row in rows]
        return [None] * len(keys) if None in images else self.shape.rows.decode_many(images)

    def _require_nothing_due(self) -> None:
        if self._due:
            raise StreamHalted(
                "CDCM-STREAM-SIDE-MISSING",
                f"the trigger on {self.shape.name} did not say what its events lack: changes and "
                f"rows of its side table differ by {abs(self._due)}",
                str(self.shape.name),
            )

    def _sorted(self, keys: Iterable[bytes]) -> list[bytes]:
        """Neighbours in the index next to each other: worth a fifth of the write."""
        ordered = sorted(keys)
        if self.shape.numeric_key:
            ordered.sort(key=len)
        return ordered


def _latest(shape: Shape, row: _Followed) -> Row:
    """The newest image, its unchanged values filled from the images before it."""
    image = _image(shape, row[-1])
    if UNCHANGED not in image:
        return image
    for older in row[-2:0:-1]:
        image = _fill(image, _image(shape, older))
        if UNCHANGED not in image:
            break
    return image


def _image(shape: Shape, entry: Any) -> Row:
    """A change's image, decoded; one from the side table is a row already."""
    return entry if type(entry) is tuple else _decode(shape, entry.after, entry)


def _fill(image: Row, older: Row) -> Row:
    return tuple(o if n is UNCHANGED else n for n, o in zip(image, older, strict=True))


def _decode(shape: Shape, image: Image | None, change: Change) -> Row:
    if image is None:
        raise sequence_fault(shape, change, "carries a change without its row")
    return shape.rows.decode(image, change.lsn)


class Keyless(_Counted):
    """Rows told apart by their whole content, counted: an update is one less and one more."""

    def __init__(self, shape: Shape, truncates: TruncatePolicy) -> None:
        super().__init__(shape, truncates)
        self._truncated = False
        self._net: dict[Row, int] = {}

    def take(self, change: Change) -> None:
        before = after = None
        if change.op is not _INSERT and change.op is not _TRUNCATE:
            before = _decode(self.shape, change.before, change)
            if UNCHANGED in before:
                raise sequence_fault(self.shape, change, "names a row without all of its values")
        if change.op is not _DELETE and change.op is not _TRUNCATE:
            after = _decode(self.shape, change.after, change)
            if UNCHANGED in after:
                if before is None:
                    raise sequence_fault(
                        self.shape, change, "inserts a row without all of its values"
                    )
                after = _fill(after, before)
        self._take_images(change, before, after)

    def take_beside(self, change: Change) -> None:
        """Count the old and the new row that the side table has; deletes there make room."""
        images = self.shape.images
        if change.op is not _INSERT or change.after is None or images is None:
            return
        op, before, after = images.decode(change.after, change.lsn)
        self._take_images(replace(change, op=op), before, after)

    def _take_images(self, change: Change, before: Row | None, after: Row | None) -> None:
        """Count a change whose rows are decoded."""
        if change.op is _TRUNCATE:
            if self._truncate(change):
                self._truncated = True
                self._net.clear()
            return
        self.pass_over(change)
        if before is not None:
            self._count(before, -1)
        if after is not None:
            self._count(after, +1)

    def _count(self, row: Row, by: int) -> None:
        net = self._net.get(row, 0) + by
        if net:
            self._net[row] = net
        else:
            del self._net[row]

    def finish(self) -> TableState:
        state = TableState(self.shape, self._truncated)
        for row, net in self._net.items():
            if net > 0:
                state.complete.extend([row] * net)
            else:
                state.deletes.extend([row] * -net)
        if self._truncated and state.deletes:
            raise StreamHalted(
                "CDCM-STREAM-SEQUENCE",
                f"the stream removes a row of {self.shape.name} after it was truncated",
                str(self.shape.name),
            )
        return state
