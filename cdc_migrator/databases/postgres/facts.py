"""What can be told of a server to who is to help: its catalog and its state, and no row of a table.

What is asked stands in ``facts.sql``; of the settings, those that are named here. Sources:
PostgreSQL documentation, chapters "System Catalogs", "System Views" and "The Cumulative Statistics
System".
"""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

import psycopg
from psycopg.rows import dict_row

_SETTINGS = (
    "server_version", "server_encoding", "wal_level", "max_wal_senders", "max_replication_slots",
    "max_slot_wal_keep_size", "wal_sender_timeout", "wal_keep_size", "max_wal_size",
    "logical_decoding_work_mem", "max_connections", "max_worker_processes",
    "max_locks_per_transaction", "max_prepared_transactions", "shared_buffers", "work_mem",
    "maintenance_work_mem", "synchronous_commit", "fsync", "full_page_writes",
    "idle_replication_slot_timeout", "statement_timeout", "lock_timeout", "hot_standby",
    "idle_in_transaction_session_timeout", "default_transaction_isolation", "TimeZone",
    "DateStyle", "IntervalStyle", "session_replication_role", "row_security", "ssl",
    "password_encryption", "data_checksums",
)  # fmt: skip

_PATIENCE = "10s"


def read_facts(conn: psycopg.Connection) -> dict[str, Any]:
    """Rows as mappings, by question; where the server refused one, its SQLSTATE under ``error``."""
    found: dict[str, Any] = {}
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute("SELECT set_config('statement_timeout', %s, false)", (_PATIENCE,))
        for name, question in _questions().items():
            try:
                found[name] = cursor.execute(question.encode()).fetchall()
            except psycopg.Error as error:
                found[name] = {"error": error.sqlstate or type(error).__name__}
        found["settings"] = {
            row["name"]: row["setting"]
            for row in cursor.execute(
                "SELECT name, current_setting(name) AS setting FROM pg_settings "
                "WHERE lower(name) = ANY(%s) ORDER BY 1",
                ([name.lower() for name in _SETTINGS],),
            )
        }
    return found


def _questions() -> dict[str, str]:
    text = files(__package__).joinpath("facts.sql").read_text(encoding="utf-8")
    found = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(found[::2], found[1::2], strict=True))
