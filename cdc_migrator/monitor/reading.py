"""Read from the target what comparisons have proven, as `sampler` shows it."""

from __future__ import annotations

import psycopg

from cdc_migrator.control import proofs
from cdc_migrator.monitor.sample import ProofSample

_TABLES = "SELECT source_schema, source_table FROM cdc_migrator.table_progress"
_DIFFERENCES = (
    "SELECT count(*) FILTER (WHERE state = 'open'), count(*) FILTER (WHERE state = 'accepted') "
    "FROM cdc_migrator.difference WHERE state IN ('open', 'accepted')"
)


def read_proofs(conn: psycopg.Connection) -> ProofSample:
    """How both sides' rows stand, over all tables of the migration."""
    # Not `standing`: it says by which values tables are cut, which who only measures must not see.
    found = {(one.table.schema, one.table.name): one for one in proofs.tables(conn)}
    tables = conn.execute(_TABLES).fetchall()
    known = [found[name] for name in tables if name in found]
    moments = [one.since for one in known if one.since is not None and one.proven == one.chunks]
    opened, accepted = conn.execute(_DIFFERENCES).fetchone() or (0, 0)
    return ProofSample(
        verified_as_of=min(moments) if tables and len(moments) == len(tables) else None,
        chunks=sum(one.chunks for one in known),
        dirty=sum(one.dirty for one in known),
        unproven_tables=len(tables) - len(moments),
        open=opened,
        accepted=accepted,
    )
