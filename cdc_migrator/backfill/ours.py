"""The objects on the source that are this migration's own: a backup is better without them."""

from __future__ import annotations

import psycopg

from cdc_migrator.backfill.toc import ObjectId

# The control schema with all that is in it or calls it (the fence's triggers, those that send
# values beside the stream), and the publication with its tables.
_OURS = """
WITH RECURSIVE ours AS (
    SELECT 'pg_namespace'::regclass::oid AS class, oid AS object
    FROM pg_namespace WHERE nspname = 'cdc_migrator'
    UNION ALL
    SELECT 'pg_publication'::regclass::oid, oid FROM pg_publication WHERE pubname = %s
), gone AS (
    SELECT class, object FROM ours
    UNION
    SELECT d.classid, d.objid FROM gone JOIN pg_depend d
    ON d.refclassid = gone.class AND d.refobjid = gone.object AND d.deptype <> 'e'
)
SELECT class::int8, object::int8 FROM gone
"""


def ours(source: psycopg.Connection, publication: str) -> set[ObjectId]:
    """Those objects, by catalog and id."""
    return {(row[0], row[1]) for row in source.execute(_OURS, (publication,))}
