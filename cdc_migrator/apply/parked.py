"""Which keys are kept back, and what of a run of transactions goes with them. Pure.

A key whose record was not accepted is *parked*, and every later record of it as well, or the rows
would come in another order. A key change parks both keys: the old one's row stays on the target as
it was, and what is at the new one is built on it. Keys that became one another are a *chain*, which
is applied together or not at all. A truncate would empty rows that are kept back: it halts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from msgspec.structs import replace

from cdc_migrator.apply.follow import sequence_fault
from cdc_migrator.apply.shape import Row, Shape
from cdc_migrator.control.dead_letters import Key, KeyState
from cdc_migrator.errors import StreamHalted
from cdc_migrator.model.changes import Change, Op, Transaction, TruncatePolicy
from cdc_migrator.model.positions import lsn_to_text
from cdc_migrator.model.tables import TableName


class ParkedKeys:
    """The keys that are kept back, by table, and their chains.

    A chain without a number yet has one below zero.
    """

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._chains: dict[TableName, dict[bytes, int]] = {}
        self._skipped: set[int] = set()
        self._fresh: dict[tuple[TableName, bytes], None] = {}
        self._moved: dict[tuple[TableName, bytes], None] = {}
        for one in keys:
            self._chains.setdefault(one.table, {})[one.key] = one.chain
            if one.state is KeyState.SKIPPED:
                self._skipped.add(one.chain)

    def __len__(self) -> int:
        return sum(map(len, self._chains.values()))

    @property
    def tables(self) -> AbstractSet[TableName]:
        """The tables that have such keys."""
        return self._chains.keys()

    def of(self, table: TableName) -> Mapping[bytes, int]:
        """The keys of a table, each with its chain."""
        return self._chains.get(table, {})

    def copy(self) -> ParkedKeys:
        """The same, to be changed on its own."""
        made = ParkedKeys()
        made._chains = {table: dict(keys) for table, keys in self._chains.items()}
        made._skipped = set(self._skipped)
        return made

    def skipped(self, table: TableName, key: bytes) -> bool:
        """Whether this key, which is kept back, was given up."""
        return self._chains[table][key] in self._skipped

    def park(self, table: TableName, keys: Iterable[bytes]) -> None:
        """Keep these keys back, as one chain."""
        of = self._chains.setdefault(table, {})
        chains = {of[key] for key in keys if key in of}
        chain = max(chains, default=-1 - len(self._fresh))
        for key, former in of.items():
            if former in chains and former != chain:
                of[key] = chain
                self._moved[table, key] = None
        for key in keys:
            if key not in of:
                of[key] = chain
                self._fresh[table, key] = None
        if chains & self._skipped:
            self._skipped.add(chain)

    def number(self, new_chains: Callable[[int], Sequence[int]]) -> None:
        """Give every chain that has none its number."""
        nameless = sorted({c for of in self._chains.values() for c in of.values() if c < 0})
        numbers = dict(zip(nameless, new_chains(len(nameless)), strict=True)) if nameless else {}
        for of in self._chains.values():
            of.update({key: numbers[chain] for key, chain in of.items() if chain in numbers})
        self._skipped = {numbers.get(chain, chain) for chain in self._skipped}

    def take_changed(self) -> tuple[list[Key], list[Key]]:
        """The keys that are new, and those now in another chain, since the last call."""
        found = []
        for names in (self._fresh, self._moved):
            found.append([Key(t, key, self._chains[t][key], KeyState.PARKED) for t, key in names])
        self._fresh, self._moved = {}, {}
        return found[0], found[1]


@dataclass(slots=True)
class Unit:
    """Records of one table that are applied together or not at all, with all their keys.

    Without keys it is what a side table says of a row that an earlier piece has changed.

    Attributes:
        changes: each with its place in the run and its transaction, in the stream's order.
        chain: where it has one already.
    """

    keys: dict[bytes, None] = field(default_factory=dict)
    changes: list[tuple[int, Transaction, Change]] = field(default_factory=list)
    chain: int | None = None


@dataclass(frozen=True, slots=True)
class Aside:
    """One record that goes with a key that is kept back."""

    shape: Shape
    key: bytes
    transaction: Transaction
    change: Change


def set_aside(
    run: Sequence[Transaction], parked: ParkedKeys, shapes: Mapping[TableName, Shape]
) -> tuple[list[Transaction], list[Aside]]:
    """The run without the records of keys that are kept back, and these; `parked` gains keys.

    Raises StreamHalted: CDCM-PARK-TRUNCATE.
    """
    owners = _Owners(parked)
    rest: list[Transaction] = []
    aside: list[Aside] = []
    for transaction in run:
        kept: list[Change] = []
        changes = transaction.changes
        for place, change in enumerate(changes):
            shape = shapes.get(change.table)
            if shape is None or shape.name not in parked.tables or _has(shape, transaction):
                kept.append(change)
                continue
            if change.op is Op.TRUNCATE:
                raise _truncated(shape, change)
            key = owners.key(shape, change)
            if change.key_moves_on and shape.name == change.table:
                # The very next change is its create.
                both = (change.key, changes[place + 1].key)
                if any(one in parked.of(shape.name) for one in both):
                    parked.park(shape.name, both)
            if key is not None and key in parked.of(shape.name):
                aside.append(Aside(shape, key, transaction, change))
            else:
                kept.append(change)
        if len(kept) < len(changes):
            transaction = replace(transaction, changes=kept)
        rest.append(transaction)
    return rest, aside


def _has(shape: Shape, transaction: Transaction) -> bool:
    """Whether the target holds the transaction's changes of this table since it was loaded."""
    return shape.reread is not None and shape.reread.holds(transaction)


def _truncated(shape: Shape, change: Change) -> StreamHalted:
    return StreamHalted(
        "CDCM-PARK-TRUNCATE",
        f"the source has truncated {shape.name}, of which records are kept back",
        f"change at {lsn_to_text(change.lsn)}",
        "Settle what is kept back of it first: `cdc-migrator dead-letters retry --table "
        f"{shape.name}` where the target accepts it by now, else `cdc-migrator backfill --again "
        f"'{shape.name}'`, which reads the table anew; then start `cdc-migrator run`.",
    )


class _Owners:
    """Which key a record belongs to: its own, or for a side table's that which it speaks of."""

    def __init__(self, parked: ParkedKeys) -> None:
        self._parked = parked
        self._parts: dict[TableName, dict[Row, bytes]] = {}

    def key(self, shape: Shape, change: Change) -> bytes | None:
        if change.table == shape.name:
            return change.key
        if shape.values is None or change.op is not Op.INSERT or change.after is None:
            return None
        parts, _ = shape.values.decode(change.after, change.lsn)
        return self._of(shape).get(parts)

    def _of(self, shape: Shape) -> Mapping[Row, bytes]:
        keys = self._parked.of(shape.name)
        known = self._parts.setdefault(shape.name, {})
        if len(known) < len(keys):
            known.update(_parts(shape, keys))
        return known


def _parts(shape: Shape, keys: Iterable[bytes]) -> dict[Row, bytes]:
    assert shape.keys is not None
    return {shape.keys.decode(key, 0): key for key in keys}


def units(run: Sequence[Transaction], shape: Shape, truncates: TruncatePolicy) -> list[Unit]:
    """What a run holds of a keyed table, in units that do not depend on each other.

    What comes before a truncate that was applied is gone.
    """
    found: list[tuple[int, Transaction, Change]] = []
    order = 0
    for transaction in run:
        for change in transaction.changes:
            order += 1
            if change.table == shape.name and change.op is Op.TRUNCATE:
                if truncates is TruncatePolicy.APPLY:
                    found = []
            elif change.table in (shape.name, shape.side):
                found.append((order, transaction, change))
    return _joined(found, shape)


def _joined(found: Sequence[tuple[int, Transaction, Change]], shape: Shape) -> list[Unit]:
    of: dict[bytes, Unit] = {}
    moving: Unit | None = None
    own = [one for one in found if one[2].table == shape.name]
    for _, _, change in own:
        unit = of.get(change.key)
        if change.key_moved_here:
            if moving is None:
                raise sequence_fault(shape, change, "moves a row that it did not name before")
            unit, moving = _merged(of, moving, unit), None
        unit = of[change.key] = unit or Unit()
        unit.keys[change.key] = None
        if change.key_moves_on:
            moving = unit
    found_units = {id(unit): unit for unit in of.values()}
    parts = _parts(shape, of) if shape.values is not None else {}
    alone: dict[Row, Unit] = {}
    for one in found:
        change = one[2]
        if change.table == shape.name:
            of[change.key].changes.append(one)
        elif shape.values is not None and change.op is Op.INSERT and change.after is not None:
            told, _ = shape.values.decode(change.after, change.lsn)
            unit = of[parts[told]] if told in parts else alone.setdefault(told, Unit())
            unit.changes.append(one)
    return [*found_units.values(), *alone.values()]


def _merged(of: dict[bytes, Unit], one: Unit, other: Unit | None) -> Unit:
    if other is None or other is one:
        return one
    for key in other.keys:
        of[key] = one
    one.keys |= other.keys
    return one


def only(some: Iterable[Unit]) -> list[Transaction]:
    """The transactions with nothing but the records of these units."""
    found: list[Transaction] = []
    last: Transaction | None = None
    for _, transaction, change in sorted(
        (one for unit in some for one in unit.changes), key=lambda one: one[0]
    ):
        if transaction is not last:
            last = transaction
            found.append(replace(transaction, changes=[]))
        found[-1].changes.append(change)  # type: ignore[attr-defined]
    return found
