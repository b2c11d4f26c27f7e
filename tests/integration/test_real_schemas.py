"""Schemas that nobody here wrote go through; `schema diff` and pg_dump see no difference."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import psycopg
import pytest

from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.stack.local import StackInfo
from tests.schemas import oracle
from tests.schemas.sources import pagila, procrastinate
from tests.schemas.trip import trip
from tests.support.live import LiveMigration
from tests.support.stack import fresh_database

pytestmark = pytest.mark.stack


def test_schema_arrives_as_a_dump_would_bring_it(stack: StackInfo) -> None:
    """The diff is empty, the target dumps to the same text as what pg_dump made, rows are equal.

    `make prove-schemas` does so with larger ones.
    """
    with trip(procrastinate(), stack.source_dsn, stack.target_dsn) as way:
        assert (way.refused, len(way.tables)) == (0, 4)
        way.go()
        assert way.differences() == []
        assert way.dumps_unlike() == []
        assert way.rows_unlike() == []


def test_pagila_moves_as_a_user_would_move_it(stack: StackInfo, tmp_path: Path) -> None:
    """`migrate` takes the shop, its 46,000 rows and its grants to the stream; nothing differs."""
    shop = pagila()
    with (
        fresh_database(stack.source_dsn) as source,
        fresh_database(stack.target_dsn) as target,
        fresh_database(stack.target_dsn) as reference,
    ):
        assert sum(oracle.psql(source, script) for script in shop.scripts) == shop.refused
        keyed(source)
        oracle.psql(
            source,
            "GRANT SELECT ON film, actor TO PUBLIC; REVOKE ALL ON FUNCTION inventory_in_stock FROM "
            "PUBLIC; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
        )
        oracle.psql(reference, oracle.dumped(source, grants=True))
        live = LiveMigration(tmp_path, f"t{secrets.token_hex(4)}", source, target, stack)
        try:
            live.cli("migrate", "--no-run", "--grants")
            diff = json.loads(live.cli("schema", "diff", "--grants", "-o", "json").stdout)
            assert diff["differences"] == []
            assert oracle.statements(target, grants=True) == oracle.statements(
                reference, grants=True
            )
            with connect(source, application_name="test") as conn:
                tables = [table.name for table in read_tables(conn)]
            there = oracle.contents(target, tables)
            assert there == oracle.contents(source, tables)
            assert sum(count for count, _ in there.values()) > 46_000
        finally:
            live.cli("abort", "--yes", check=None)


def keyed(source: str) -> None:
    """What `check` asks for where a table has no key."""
    with connect(source, application_name="test") as conn:
        names = [t.name for t in read_tables(conn) if not t.key]
    with psycopg.connect(source, autocommit=True) as conn:
        for name in names:
            quoted = psycopg.sql.Identifier(name.schema, name.name)
            conn.execute(psycopg.sql.SQL("ALTER TABLE {} REPLICA IDENTITY FULL").format(quoted))
