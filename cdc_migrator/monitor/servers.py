"""Read how full a database server is, and who waits there for a lock of the migration's tables."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from cdc_migrator.monitor.sample import ServerSample

# Without the right to see more, a session's kind is hidden; one in a database is then counted.
_FULL = """
SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'
            OR backend_type IS NULL AND datid IS NOT NULL),
       current_setting('max_connections')::int,
       pg_database_size(current_database())
"""
# A wait for another transaction's row is a wait for that transaction, and names no table: of
# those only ours are known to be about the migration. By the catalog: `to_regclass` refuses who may
# not use the schema.
_WAITING = """
SELECT count(DISTINCT l.pid),
       coalesce(extract(epoch FROM max(clock_timestamp() - l.waitstart)), 0)::float8
FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE NOT l.granted AND (l.database = (SELECT oid FROM pg_database
                                       WHERE datname = current_database())
                         AND l.relation IN (SELECT c.oid
                                            FROM unnest(%s::text[], %s::text[]) AS given (s, t)
                                            JOIN pg_namespace AS n ON n.nspname = s
                                            JOIN pg_class AS c ON c.relnamespace = n.oid
                                                               AND c.relname = t)
                         OR a.datname = current_database()
                            AND a.application_name LIKE 'cdc-migrator%%')
"""


def read_server(
    conn: psycopg.Connection, tables: Sequence[tuple[str, str]] | None = None
) -> ServerSample:
    """How full the server is; with `tables` (schema, name) also who waits for locks on them."""
    full = conn.execute(_FULL).fetchone()
    assert full is not None
    if tables is None:
        return ServerSample(*full)
    waiting = conn.execute(
        _WAITING, ([schema for schema, _ in tables], [name for _, name in tables])
    ).fetchone()
    assert waiting is not None
    return ServerSample(*full, *waiting)
