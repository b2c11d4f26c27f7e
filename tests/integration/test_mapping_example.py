"""The worked example of docs/transform.md: a monolith's tables become two services', live, and come
back with what the services have written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from tests.faults.cutover_kills import cut, end_of
from tests.support.live import LISTENS, LiveMigration, one, wait_for
from tests.support.writing import Writing

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(600)]

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "services"
SETTINGS = {
    **yaml.safe_load((EXAMPLE / "mapping.yaml").read_text()),
    "backup": {"required": False},
    "cutover": {"hooks": [{"kind": "route"}], "budget": "4s"},
}
ROWS = """
INSERT INTO mono.users (email, full_name, phone, street, city, deleted_at)
    SELECT 'u' || g || '@example.org', 'Usér ' || g, nullif(g % 5, 0)::text || '00123',
        'Street ' || g, 'City', CASE WHEN g % 4 = 0 THEN now() END FROM generate_series(1, 450) g;
INSERT INTO mono.orders (user_id, status, total)
    SELECT 1 + g % 400, (ARRAY['open', 'paid', 'odd'])[1 + g % 3], g + 0.25
    FROM generate_series(1, 620) g;
INSERT INTO mono.logins (user_id, address) SELECT g, '10.0.0.1' FROM generate_series(1, 40) g;
INSERT INTO mono.archived_orders SELECT id, user_id, 'cancelled', total, placed_at
    FROM mono.orders WHERE id < 200;
"""
# What each of the target's tables must hold, said by nothing but SQL over the source.
ORACLE = {
    "accounts.person": "SELECT id, email, full_name, translate(lower(full_name), 'é', 'e'), "
    "'…' || right(phone, 2), (created_at AT TIME ZONE 'UTC')::date "
    "FROM mono.users WHERE deleted_at IS NULL",
    "accounts.address": "SELECT id, street, city FROM mono.users WHERE deleted_at IS NULL",
    "accounts.login": "SELECT id, user_id, at FROM mono.logins",
    "sales.purchase": "SELECT o, id, user_id, CASE status WHEN 'odd' THEN 'unknown' ELSE status "
    "END, (total * 100)::bigint, placed_at FROM (SELECT 'live' o, * FROM mono.orders "
    "UNION ALL SELECT 'archive', * FROM mono.archived_orders) q",
}
# What comes back: what the source must hold, and what the target has of it.
BACK = {
    "SELECT id, email, full_name, street, city FROM mono.users WHERE deleted_at IS NULL": (
        "SELECT id, email, name, street, city FROM accounts.person "
        "LEFT JOIN accounts.address ON person_id = id"
    ),
    **{
        "SELECT id, user_id, CASE status WHEN 'odd' THEN 'unknown' ELSE status END, "
        f"(total * 100)::bigint, placed_at FROM mono.{table}": (
            "SELECT id, buyer_id, state, total_cents, placed_at FROM sales.purchase "
            f"WHERE origin = '{origin}'"
        )
        for table, origin in (("orders", "live"), ("archived_orders", "archive"))
    },
}
# What the target does not have, of rows that nobody removes there.
KEPT = (
    "SELECT id, phone, created_at FROM mono.users WHERE id <= 450",
    "SELECT * FROM mono.users WHERE deleted_at IS NOT NULL",
    "SELECT * FROM mono.logins",
    "SELECT id, total, status FROM mono.orders WHERE id BETWEEN 500 AND 99999",
)


class Application(Writing):
    """Writes until it meets the fence."""

    fenced = False
    turns = 0

    def write(self, conn: psycopg.Connection, turn: int) -> None:
        try:
            with conn.transaction():
                for statement in self.statements(turn):
                    conn.execute(statement.encode())
            self.turns = turn
        except psycopg.errors.ReadOnlySqlTransaction:
            self.fenced = True
            self.ending.set()

    def statements(self, turn: int) -> Sequence[str]:
        raise NotImplementedError


class Monolith(Application):
    """It signs people up, lets them move and leave, sells and archives."""

    def statements(self, turn: int) -> Sequence[str]:
        one_of = 1 + turn % 400
        return (
            f"INSERT INTO mono.users (email, full_name) VALUES ('n{turn}@example.org', 'New')",
            f"UPDATE mono.users SET street = 'Moved {turn}' WHERE id = {one_of}",
            "UPDATE mono.users SET deleted_at = CASE WHEN deleted_at IS NULL THEN now() END "
            f"WHERE id = {1 + turn * 7 % 400}",
            "INSERT INTO mono.orders (user_id, status, total) "
            f"VALUES ({one_of}, 'open', {turn % 1000})",
            f"UPDATE mono.orders SET status = 'paid' WHERE id = {1 + turn % 600}",
            f"INSERT INTO mono.logins (user_id, address) VALUES ({one_of}, '10.0.0.2')",
            f"WITH gone AS (DELETE FROM mono.orders WHERE id = {200 + turn % 300} RETURNING *) "
            "INSERT INTO mono.archived_orders SELECT * FROM gone ON CONFLICT DO NOTHING",
        )


class Services(Application):
    """The same work by the tables of the services; orders are archived by another `origin`."""

    def statements(self, turn: int) -> Sequence[str]:
        new, one_of = 100_000 + turn, 1 + turn % 400
        return (
            "INSERT INTO accounts.person (id, email, name, search_name, phone_hint, since) "
            f"VALUES ({new}, 's{turn}@example.org', 'New', 'new', '…99', current_date)",
            f"INSERT INTO accounts.address VALUES ({new}, 'Street', 'City')",
            f"INSERT INTO accounts.login VALUES ({new}, {new}, now())",
            f"UPDATE accounts.person SET name = 'Renamed {turn}', search_name = 'renamed {turn}' "
            f"WHERE id = {one_of}",
            f"UPDATE accounts.address SET city = 'Elsewhere' WHERE person_id = {one_of}",
            f"DELETE FROM accounts.address WHERE person_id = {1 + turn * 7 % 400}",
            f"DELETE FROM accounts.address WHERE person_id = {new - 3}",
            f"DELETE FROM accounts.person WHERE id = {new - 3}",
            "INSERT INTO sales.purchase (origin, id, buyer_id, state, total_cents, placed_at) "
            f"VALUES ('live', {new}, {new}, 'open', {turn}, now())",
            "UPDATE sales.purchase SET state = 'cancelled', total_cents = total_cents + 1 "
            f"WHERE origin = 'live' AND id = {200 + turn % 300}",
            f"UPDATE sales.purchase SET buyer_id = 7 WHERE id = {500 + turn % 99}",
            f"UPDATE sales.purchase SET origin = 'archive' WHERE id = {new - 2}",
            f"DELETE FROM sales.purchase WHERE id = {new - 9}",
        )


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
        live.cli("way-back", "prepare")
        cut(live, "--rehearse")
        cut(live, "--yes")
        wait_for("the application meets the fence", lambda: application.fenced)
    assert wrong(live) == []
    assert one(live.target, "SELECT count(*) FROM accounts.person WHERE phone_hint !~ '^…..$'") == 0
    kept = [held(live.source, query) for query in KEPT]
    with Services(live.target) as services:
        wait_for("the services have worked", lambda: services.turns > 20)
        run.kill()
        run.wait(20)
        so_far = services.turns
        wait_for("they go on", lambda: services.turns > so_far + 20)
        live.start("run")
        assert live.drain(back=True)
        cut(live, "--yes", verb="rollback")
        wait_for("the services meet the fence", lambda: services.fenced)
    with (
        psycopg.connect(live.target) as conn,
        pytest.raises(psycopg.errors.ReadOnlySqlTransaction),
    ):
        conn.execute("DELETE FROM accounts.login")
    for here, there in BACK.items():
        assert held(live.source, here) == held(live.target, there)
    assert [held(live.source, query) for query in KEPT] == kept
    assert one(live.source, "SELECT count(*) FROM mono.orders WHERE status = 'odd'") > 0
    assert one(live.source, "SELECT nextval('mono.orders_id_seq') > max(id) FROM mono.orders")
    with psycopg.connect(live.source) as conn:
        conn.execute("INSERT INTO mono.users (email, full_name) VALUES ('last@example.org', 'L')")
        conn.execute("UPDATE mono.users SET city = 'Home' WHERE id IN (3, 100020)")
    # What only the target knew is the source's again.
    live.cli("reconcile", "--repair", check=None)
    live.cli("reconcile")
    assert live.drain()
    assert wrong(live) == []
