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
from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile.chunks import Sizes, Unit
from cdc_migrator.reconcile.jobs import NEEDED
from cdc_migrator.reconcile.pairs import Pair
from cdc_migrator.reconcile.planning import Grown, Layout, all_units, some_units
from cdc_migrator.reconcile.snapshot import Sides

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


def units_by_rank(
    sides: Sides, pair: Pair, kept: Kept, due: Iterable[Due] | None, sizes: Sizes
) -> ByRank:
    """The units that read what is due (None: all), by their rank among all jobs."""
    if due is None or kept.behind is None:
        chosen = {NEEDED: all_units(sides, pair, kept.layout, sizes)}
    else:
        # Where it has grown, its last chunk was written to, and the new ones have no proof.
        numbers = _ranked(due)
        numbers.setdefault(NEEDED, []).extend(kept.behind)
        chosen = {
            rank: some_units(sides, pair, kept.layout, of, sizes) for rank, of in numbers.items()
        }
    return {rank: [replace(one, map=kept.id) for one in of] for rank, of in chosen.items()}


def _ranked(due: Iterable[Due]) -> dict[float, list[int]]:
    """The chunks by rank: those that need it, then those whose proofs are old."""
    found: dict[float, list[int]] = {}
    for one in due:
        old = None if one.needed else one.proven_at
        rank = NEEDED if old is None else old.timestamp()
        found.setdefault(rank, []).append(one.chunk)
    return found
