"""Which chunks of a table a run reads: all, or those that are due.

The chunks that keep their proofs are written down before anything is proven of them. Of a table
that is cut anew all are read, as nothing stands of it any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import psycopg

from cdc_migrator.control import proofs
from cdc_migrator.control.proofs import Due, Map
from cdc_migrator.control.reconcile import Part
from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile.chunks import Range, Sizes, Unit
from cdc_migrator.reconcile.jobs import NEEDED
from cdc_migrator.reconcile.planning import Grown, Layout, all_units, some_units

ByRank = Mapping[float, Sequence[Unit]]


@dataclass(frozen=True, slots=True)
class Kept:
    """A table's chunks as they are written down.

    Attributes:
        changed: who applies has to learn of them before a proof stands.
        behind: new chunks at the end, where a known table has grown; None: nothing is known.
    """

    id: int
    layout: Layout
    changed: bool
    behind: range | None

    def still(self, known: Map | None) -> Kept | None:
        """The same for a later pass, if they still are as `known`."""
        if known is None or (known.id, known.chunks) != (self.id, self.layout.chunks):
            return None
        return replace(self, changed=False, behind=range(0))


def keep(
    control: psycopg.Connection, table: TableName, known: Map | None, found: Layout | Grown
) -> Kept:
    """Write a table's chunks down, unless they are as `known`."""
    if known is not None and isinstance(found, Grown):
        assert found.layout.place is not None
        proofs.extend(control, known, found.more, found.layout.place)
        return Kept(known.id, found.layout, True, range(known.chunks, found.layout.chunks))
    layout = found.layout if isinstance(found, Grown) else found
    if known is not None and (known.signature, known.place, known.chunks) == (
        layout.signature,
        layout.place,
        layout.chunks,
    ):
        return Kept(known.id, layout, False, range(0))
    made = proofs.lay_out(
        control, table, layout.by, layout.marked_bounds, layout.place, layout.signature
    )
    return Kept(made, layout, True, None)


def units_by_rank(table: TableName, kept: Kept, due: Iterable[Due] | None, sizes: Sizes) -> ByRank:
    """The units that read what is due (None: all), by their rank among all jobs."""
    if due is None or kept.behind is None:
        chosen = {NEEDED: all_units(table, kept.layout, sizes)}
    else:
        # Where it has grown, its last chunk was written to, and the new ones have no proof.
        numbers = _ranked(due)
        numbers.setdefault(NEEDED, []).extend(kept.behind)
        chosen = {rank: some_units(table, kept.layout, of, sizes) for rank, of in numbers.items()}
    return {rank: [replace(one, map=kept.id) for one in of] for rank, of in chosen.items()}


def _ranked(due: Iterable[Due]) -> dict[float, list[int]]:
    """The chunks by rank: those that need it, then those whose proofs are old."""
    found: dict[float, list[int]] = {}
    for one in due:
        old = None if one.needed else one.proven_at
        rank = NEEDED if old is None else old.timestamp()
        found.setdefault(rank, []).append(one.chunk)
    return found


def numbered(units: ByRank) -> list[tuple[float, Unit]]:
    """All units of a table with their ranks, each with a number of its own."""
    every = [(rank, one) for rank, of in sorted(units.items()) for one in of]
    return [(rank, replace(one, number=n)) for n, (rank, one) in enumerate(every)]


def unit_of(part: Part) -> Unit:
    """A unit as it was written down."""
    return Unit(
        part.table,
        part.number,
        part.ordered_by,
        Range(part.low, part.high),
        part.bounds,
        part.weight,
        part.map,
        part.first_chunk,
        part.picked,
    )


def part_of(unit: Unit) -> Part:
    """A unit as it is written down."""
    return Part(
        unit.table,
        unit.number,
        unit.by,
        unit.range.low,
        unit.range.high,
        unit.bounds,
        unit.weight,
        unit.map,
        unit.first,
        unit.only,
    )
