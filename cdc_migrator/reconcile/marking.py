"""Mark the chunks of keys that are written to otherwise than by the stream: by a repair.

Looking at the keys again proves the keys, not their chunks: these are to be read again.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import sql

from cdc_migrator.control import proofs
from cdc_migrator.reconcile import expressions
from cdc_migrator.reconcile.narrow import Key
from cdc_migrator.reconcile.pairs import Pair


def mark_keys(target: psycopg.Connection, pair: Pair, keys: Sequence[Key]) -> None:
    """Mark the chunks of these keys, inside the transaction that wrote their rows."""
    known = proofs.of_table(target, pair.source.name) if keys else None
    if known is None:
        return
    if known.place is None:
        numbers = list(range(known.chunks))
    else:
        own = [column.target for column in pair.key]
        query = sql.SQL("SELECT DISTINCT {place} FROM (SELECT {key} FROM {wanted}) AS q").format(
            place=sql.SQL(known.place),
            key=sql.SQL(", ").join(
                sql.SQL("{}::{} AS {}").format(
                    sql.Identifier("w", f"k{place}"),
                    expressions.bare_type(column),
                    sql.Identifier(column.name),
                )
                for place, column in enumerate(own)
            ),
            wanted=expressions.wanted_keys(own, keys),
        )
        numbers = [row[0] for row in target.execute(query)]
    proofs.mark(target, [(known.id, number) for number in numbers])
