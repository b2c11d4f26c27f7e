"""What the source says of the migration: its slot, its identity, its tables. Reads only."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import psycopg

from cdc_migrator.control import schema
from cdc_migrator.databases.postgres.catalog import table_names
from cdc_migrator.model.naming import Names
from cdc_migrator.monitor import schema_reading, way_back
from cdc_migrator.monitor.facts import SourceFacts
from cdc_migrator.monitor.ground_facts import SourceIdentity
from cdc_migrator.monitor.sample import ServerSample, SlotSample, WayBackSample
from cdc_migrator.monitor.servers import read_server
from cdc_migrator.monitor.session import Paced, clock, unless_slow

_WRITTEN = """
SELECT pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                       ELSE pg_current_wal_lsn() END, '0/0')::bigint
"""

_SLOT = """
SELECT active, wal_status, safe_wal_size, confirmed_flush_lsn::text,
       greatest(%(written)s - pg_wal_lsn_diff(restart_lsn, '0/0'), 0)::bigint,
       greatest(%(written)s - pg_wal_lsn_diff(confirmed_flush_lsn, '0/0'), 0)::bigint,
       to_jsonb(s) ->> 'invalidation_reason'
FROM pg_replication_slots s WHERE slot_name = %(name)s
"""

# The timeline that is written now: the control file tells that of the last checkpoint.
_IDENTITY = """
SELECT CASE WHEN has_function_privilege('pg_control_system()', 'EXECUTE')
       THEN (SELECT system_identifier::text FROM pg_control_system()) END,
       CASE WHEN NOT pg_is_in_recovery()
       THEN ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END,
       EXISTS (SELECT FROM pg_publication WHERE pubname = %s)
"""


def read_source(
    conn: psycopg.Connection,
    name: str,
    names: Names | None,
    look_at_tables: bool,
    paced_server: Paced[ServerSample | None],
    paced_way_back: Paced[WayBackSample | None],
    applied: datetime | None,
) -> SourceFacts:
    """Look at the source of the migration `name`; `names` are None where the target did not say.

    Args:
        applied: when the last transaction that was applied was committed here.
    """
    _, ahead = clock(conn)
    if names is None:
        names = _names_on_source(conn, name)
    server = paced_server.get(lambda: unless_slow(conn, lambda: read_server(conn)))
    (written,) = conn.execute(_WRITTEN).fetchone() or (None,)
    if names is None:
        return SourceFacts(ahead, None, (), written, server)
    tables = tuple(table_names(conn)) if look_at_tables else ()
    row = conn.execute(_SLOT, {"written": written, "name": names.slot}).fetchone()
    reason = None
    if row is None:
        slot = SlotSample(names.slot, exists=False)
    else:
        active, status, safe, confirmed, retained, unconfirmed, reason = row
        slot = SlotSample(names.slot, True, active, status, retained, safe, confirmed, unconfirmed)
    back = paced_way_back.get(lambda: unless_slow(conn, lambda: way_back.read(conn, name)))
    who = conn.execute(_IDENTITY, (names.publication,)).fetchone()
    assert who is not None
    identity = SourceIdentity(who[0], who[1], who[2], reason)
    told = schema_reading.read_told(conn, name, applied)
    return SourceFacts(ahead, slot, tables, written, server, back, identity, told)


def _names_on_source(conn: psycopg.Connection, name: str) -> Names | None:
    """While the target does not answer, the source still knows the generation."""
    if not schema.has(conn, "captured"):
        return None
    row: Any = conn.execute(
        "SELECT generation FROM cdc_migrator.captured WHERE name = %s", (name,)
    ).fetchone()
    return Names(name, row[0]) if row else None
