"""The worked example of docs/transform.md: a monolith's tables become two services', live."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from tests.faults.cutover_kills import cut, end_of
from tests.support.live import LISTENS, LiveMigration, one, wait_for
from tests.support.writing import Writing

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "services"
SETTINGS = {
    **yaml.safe_load((EXAMPLE / "mapping.yaml").read_text()),
    "backup": {"required": False},
    "cutover": {
        "hooks": [{"kind": "route"}],
        "without_way_back": "the services' tables cannot be turned back into the monolith's",
        "budget": "4s",
    },
}
ROWS = """
INSERT INTO mono.users (email, full_name, phone, street, city, deleted_at)
    SELECT 'u' || g || '@example.org', 'Usér ' || g, nullif(g % 5, 0)::text || '00123',
        'Street ' || g, 'City', CASE WHEN g % 4 = 0 THEN now() END FROM generate_series(1, 450) g;
INSERT INTO mono.orders (user_id, status, total)
    SELECT 1 + g % 400, (ARRAY['open', 'paid', 'odd'])[1 + g % 3], g + 0.25
    FROM generate_series(1, 600) g;
INSERT INTO mono.archived_orders SELECT id, user_id, 'cancelled', total, placed_at
    FROM mono.orders WHERE id < 200;
"""
# What each of the target's tables must hold, said by nothing but SQL over the source.
ORACLE = {
    "accounts.person": "SELECT id, email, full_name, translate(lower(full_name), 'é', 'e'), "
    "'…' || right(phone, 2), (created_at AT TIME ZONE 'UTC')::date "
    "FROM mono.users WHERE deleted_at IS NULL",
    "accounts.address": "SELECT id, street, city FROM mono.users WHERE deleted_at IS NULL",
    "sales.purchase": "SELECT o, id, user_id, CASE status WHEN 'odd' THEN 'unknown' ELSE status "
    "END, (total * 100)::bigint, placed_at FROM (SELECT 'live' o, * FROM mono.orders "
    "UNION ALL SELECT 'archive', * FROM mono.archived_orders) q",
}


class Monolith(Writing):
    """The application: it signs people up, lets them move and leave, sells and archives."""

    fenced = False

    def write(self, conn: psycopg.Connection, turn: int) -> None:
        try:
            with conn.transaction():
                self._work(conn, turn)
        except psycopg.errors.ReadOnlySqlTransaction:
            self.fenced = True
            self.ending.set()

    def _work(self, conn: psycopg.Connection, turn: int) -> None:
        one_of = 1 + turn % 400
        for statement in (
            f"INSERT INTO mono.users (email, full_name) VALUES ('n{turn}@example.org', 'New')",
            f"UPDATE mono.users SET street = 'Moved {turn}' WHERE id = {one_of}",
            "UPDATE mono.users SET deleted_at = CASE WHEN deleted_at IS NULL THEN now() END "
            f"WHERE id = {1 + turn * 7 % 400}",
            "INSERT INTO mono.orders (user_id, status, total) "
            f"VALUES ({one_of}, 'open', {turn % 1000})",
            f"UPDATE mono.orders SET status = 'paid' WHERE id = {1 + turn % 600}",
            f"WITH gone AS (DELETE FROM mono.orders WHERE id = {200 + turn % 300} RETURNING *) "
            "INSERT INTO mono.archived_orders SELECT * FROM gone ON CONFLICT DO NOTHING",
        ):
            conn.execute(statement.encode())


@pytest.fixture
def live(stack: Any, source_db: str, target_db: str, tmp_path: Path) -> Iterator[LiveMigration]:
    with psycopg.connect(source_db) as conn:
        conn.execute((EXAMPLE / "monolith.sql").read_bytes())
        conn.execute(ROWS.encode())
    with psycopg.connect(target_db) as conn:
        conn.execute((EXAMPLE / "services.sql").read_bytes())
    shutil.copy(EXAMPLE / "names.py", tmp_path)
    live = LiveMigration(tmp_path, "services", source_db, target_db, stack, SETTINGS)
    try:
        yield live
    finally:
        end_of(live)


def held(dsn: str, query: str) -> list[str]:
    with psycopg.connect(dsn) as conn:
        conn.execute("SET TimeZone = 'UTC'")
        return sorted(row[0] for row in conn.execute(f"SELECT q::text FROM ({query}) q".encode()))


def wrong(live: LiveMigration) -> list[str]:
    """The target's tables that are not what the source's rows make of them."""
    return [
        table
        for table, query in ORACLE.items()
        if held(live.source, query) != held(live.target, f"SELECT * FROM {table}")
    ]


def test_a_monolith_becomes_two_services_under_its_writers(live: LiveMigration) -> None:
    """Loaded, followed, proven, repaired and switched over, with every table of another shape."""
    checked = json.loads(live.cli("transform", "check", "-o", "json").stdout)
    assert checked["failed"] == 0
    shown = live.cli("transform", "preview", "mono.users").stdout
    assert "accounts.person" in shown
    with Monolith(live.source) as application:
        live.cli("migrate", "--no-run")
        run = live.start("run")
        wait_for("the stream is applied", lambda: one(live.target, LISTENS))
        assert live.drain()
        equal = json.loads(live.cli("reconcile", "-o", "json").stdout)
        assert equal["equal"], equal
        with psycopg.connect(live.target, autocommit=True) as conn:
            conn.execute("SET session_replication_role = replica")
            conn.execute("ALTER TABLE accounts.person DISABLE TRIGGER cdc_migrator_fence")
            conn.execute("UPDATE accounts.person SET phone_hint = 'unmasked' WHERE id = 441")
            conn.execute("UPDATE accounts.person SET search_name = 'x' WHERE id = 443")
            conn.execute("DELETE FROM accounts.person WHERE id = 442")
            conn.execute("ALTER TABLE accounts.person ENABLE ALWAYS TRIGGER cdc_migrator_fence")
        found = json.loads(live.cli("reconcile", "--mode", "full", "-o", "json", check=1).stdout)
        kinds = {d["kind"] for table in found["tables"] for d in table["differences"]}
        assert kinds == {"different", "missing_in_target"}
        live.cli("reconcile", "--mode", "full", "--repair", check=None)
        assert json.loads(live.cli("reconcile", "-o", "json").stdout)["equal"]
        assert run.poll() is None
        cut(live, "--rehearse")
        cut(live, "--yes")
        wait_for("the application meets the fence", lambda: application.fenced)
    assert wrong(live) == []
    assert one(live.target, "SELECT count(*) FROM accounts.person WHERE phone_hint !~ '^…..$'") == 0
