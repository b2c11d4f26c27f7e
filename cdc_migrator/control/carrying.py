"""What one way has proven of both sides is proven for the other way, too: carry it over.

Each way keeps its proofs on the side that it writes to. The chunks are laid out there before a side
is opened, so that whoever applies marks what it changes from the first change on; what was equal
when nobody could write is written down afterwards. Marks made since stand against a proof, as ever.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime

import psycopg

from cdc_migrator.control import load, markers, proofs, relations
from cdc_migrator.control.proofs import Map

_LOOK_SECONDS = 0.05
_EQUAL = """
SELECT p.chunk, p.sees, p.rows, p.hashes_either, p.hashes_total
FROM cdc_migrator.reconcile_proof p WHERE p.map = %s AND p.equal AND NOT EXISTS (
    SELECT FROM cdc_migrator.reconcile_mark k WHERE (k.map, k.chunk) = (p.map, p.chunk))
"""
_WRITE = """
INSERT INTO cdc_migrator.reconcile_proof
    (map, chunk, run, proven_at, sees, rows, hashes_either, hashes_total, equal)
SELECT m.id, c.chunk, 0, %s, c.sees, c.rows, c.either, c.total, true
FROM cdc_migrator.reconcile_map m, unnest(%s::int[], %s::text[], %s::bigint[], %s::bigint[],
    %s::numeric[]) AS c (chunk, sees, rows, either, total)
WHERE m.id = %s AND m.marked ON CONFLICT (map, chunk) DO NOTHING
"""


def lay_out(here: psycopg.Connection, there: psycopg.Connection) -> dict[int, int]:
    """Have the chunks of `here` on the other side as well; by the id of each map the other's.

    Those of tables that change their shape are not those of the other way. Nobody may be writing
    over there for the other way yet.
    """
    known = {one.table: one for one in proofs.maps(there)}
    plain = set(relations.plain(load.read_tables(here)))
    laid = {}
    for one in proofs.maps(here):
        if one.table not in plain:
            continue
        same = known.get(one.table)
        if same is None or _shape(same) != _shape(one):
            laid[one.id] = proofs.lay_out(
                there, one.table, one.ordered_by, one.bounds, one.place, one.signature
            )
        else:
            laid[one.id] = same.id
    return laid


def carry(
    here: psycopg.Connection,
    there: psycopg.Connection,
    laid: Mapping[int, int],
    at: datetime,
    start: str,
    patience: float,
) -> int:
    """Write down on the other side what is equal here; the number of chunks.

    Args:
        laid: what `lay_out` gave, before the other way began to write.
        at: when nobody could write on either side.
        start: token of the marker behind which the other way counts: there it forgets what was
            proven for it earlier, and marks from then on. patience: seconds to wait for that.
    """
    until = time.monotonic() + patience
    while not markers.is_applied(there, start) or proofs.unmarked(there):
        if time.monotonic() > until:
            return 0
        time.sleep(_LOOK_SECONDS)
    carried = 0
    for mine, others in laid.items():
        rows = here.execute(_EQUAL, (mine,)).fetchall()
        columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(5)]
        carried += there.execute(_WRITE, (at, *columns, others)).rowcount
    return carried


def _shape(one: Map) -> tuple[object, ...]:
    return one.ordered_by, one.bounds, one.place, one.signature
