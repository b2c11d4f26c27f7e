"""Up to which moment all that was written on the target was compared since, and what is in doubt.

The age of the oldest proof does not say the first: a chunk that nobody writes to keeps its proof
for days. What counts is how old the oldest mark is. Marks have numbers and no time; so each
comparison notes the moment at which it begins, with the last number given by then. Marks go when
their chunk is proven. Once none is left with a number up to the noted one, all that was written
until then is proven. A number that is given and not committed counts as given: that errs on the
safe side.

In doubt is what was applied on suspicion, and the truncates that were ignored: rows may be wrong
that nobody marked. They are settled once every proof is younger than a comparison that began after
the last of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

# Kept beside what an inspection has found. points: pairs of a moment and a mark's number, the
# oldest first; doubts: how many there are, and when a comparison began with that many.
_PART = "comparisons"
_APART = timedelta(seconds=5)
_OLDEST = timedelta(days=1)
_NOW = """
SELECT clock_timestamp(),
       CASE WHEN has_sequence_privilege('cdc_migrator.reconcile_mark_id_seq', 'SELECT, USAGE')
            THEN coalesce(pg_sequence_last_value('cdc_migrator.reconcile_mark_id_seq'), 0) END,
       (SELECT min(id) FROM cdc_migrator.reconcile_mark),
       (SELECT coalesce(sum(transactions_suspect), 0) FROM cdc_migrator.stream_progress)::int8
       + (SELECT coalesce(sum(truncates_ignored), 0) FROM cdc_migrator.table_progress)::int8,
       (SELECT found FROM cdc_migrator.inspection WHERE part = %s)
"""

Point = tuple[datetime, int]


@dataclass(frozen=True, slots=True)
class Freshness:
    """How recent all proofs together are.

    Attributes:
        up_to: what was written until then was compared since; None: not known. Where a chunk was
            never proven it says nothing.
        doubts_since: every doubt is older than this; None: some are younger than any comparison.
    """

    up_to: datetime | None
    doubts_since: datetime | None


def note(conn: psycopg.Connection) -> None:
    """A comparison begins now; call it before it looks at which chunks are marked."""
    at, last, _, doubts, kept = _now(conn)
    if last is None:  # where it may not be seen, nothing is known to be older than it
        return
    points = thinned([*_points(kept), (at, last)], at)
    if kept.get("doubts", (None,))[0] != doubts:
        kept["doubts"] = (doubts, at.isoformat())
    kept["points"] = [(moment.isoformat(), number) for moment, number in points]
    conn.execute(
        "INSERT INTO cdc_migrator.inspection (part, found) VALUES (%s, %s) "
        "ON CONFLICT (part) DO UPDATE SET found = excluded.found, at = excluded.at",
        (_PART, Jsonb(kept)),
    )


def read(conn: psycopg.Connection) -> Freshness:
    """See `Freshness`. Cheap."""
    at, _, first, doubts, kept = _now(conn)
    settled = kept.get("doubts")
    return Freshness(
        at if first is None else compared_up_to(_points(kept), first),
        datetime.fromisoformat(settled[1]) if settled and settled[0] == doubts else None,
    )


def compared_up_to(points: list[Point], first: int) -> datetime | None:
    """The last point before the oldest mark that is left."""
    return max((at for at, last in points if last < first), default=None)


def thinned(points: list[Point], now: datetime) -> list[Point]:
    """Those of the last day, the older the wider apart: by 5 s, and a twentieth of their age.

    Of those that are close together the oldest stays, so that a new one goes first.
    """
    kept: list[Point] = []
    for at, last in points:
        age = now - at
        if age < _OLDEST and (not kept or at - kept[-1][0] >= max(_APART, age / 20)):
            kept.append((at, last))
    return kept


def _points(kept: dict[str, Any]) -> list[Point]:
    return [(datetime.fromisoformat(at), last) for at, last in kept.get("points", ())]


def _now(
    conn: psycopg.Connection,
) -> tuple[datetime, int | None, int | None, int, dict[str, Any]]:
    row = conn.execute(_NOW, (_PART,)).fetchone()
    assert row is not None
    return (*row[:4], row[4] or {})
