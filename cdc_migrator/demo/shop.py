"""The shop that the demo moves: its schema and rows are plain SQL beside this module."""

from __future__ import annotations

from importlib.resources import files

import psycopg

SCHEMA = "shop"
LEDGER_SCHEMA = "shop_ledger"  # the writers' own counters
SCHEMAS = (SCHEMA, LEDGER_SCHEMA)

_SCRIPTS = ("1_tables.sql", "2_rows.sql", "3_constraints.sql", "ledger.sql")
_SEED = 0.42


def create(dsn: str, scale: float = 1.0) -> None:
    """Create and fill the schemas ``shop`` and ``shop_ledger`` in one transaction.

    Args:
        dsn: an empty database on PostgreSQL 15 or newer; its schema ``shop`` must not exist.
        scale: 1.0 is about 400,000 rows in 100 MB; the small tables do not shrink below
            what the workload needs, so that 0.02 still serves a test.

    Raises:
        psycopg.Error: the server refused; nothing was created.
    """
    with psycopg.connect(dsn, application_name="cdc-migrator-demo shop") as conn:
        conn.execute("SET LOCAL TimeZone = 'UTC'")
        conn.execute("SET LOCAL work_mem = '64MB'")
        conn.execute("SET LOCAL maintenance_work_mem = '128MB'")
        conn.execute("SELECT set_config('shop.scale', %s, true), setseed(%s)", (str(scale), _SEED))
        for script in _SCRIPTS:
            conn.execute(files(__package__).joinpath("sql", script).read_bytes())
