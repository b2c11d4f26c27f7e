"""The demo's shop under the printed rights alone: roles, ACLs, TLS and passwords everywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from cdc_migrator.demo import shop
from cdc_migrator.demo.digest import compare, digest
from cdc_migrator.demo.ledger import read_by_writer
from cdc_migrator.demo.report import held_against, together
from cdc_migrator.demo.workload import ALL_KINDS, Settings, Workload
from cdc_migrator.model.logins import Role
from tests.faults.cutover_kills import cut
from tests.support.live import LiveMigration, one, wait_for
from tests.support.roles import Server
from tests.support.secure_roles import least
from tests.support.secure_stack import SecureStack

pytestmark = [pytest.mark.timeout(400), pytest.mark.long]

NAME = "leastshop"
SMALL = 0.02
Shop = tuple[LiveMigration, Server, Server]


def client(server: Server) -> str:
    """The application's own login."""
    return make_conninfo(server.admin, user=f"{server.prefix}_client", password="client")


def make_shop(source: Server) -> None:
    source.execute(f"GRANT CREATE, TEMPORARY ON DATABASE {source.prefix} TO {source.app}")
    shop.create(make_conninfo(source.admin, options=f"-c role={source.app}"), SMALL)
    source.execute(
        f"REVOKE CREATE ON DATABASE {source.prefix} FROM {source.app}",
        f"CREATE ROLE {source.prefix}_client LOGIN PASSWORD 'client' IN ROLE {source.app}",
        f"GRANT CONNECT ON DATABASE {source.prefix} TO {source.prefix}_client",
    )


@pytest.fixture
def shop_pair(secure_stack: SecureStack, tmp_path: Path) -> Iterator[Shop]:
    settings = {
        "tables": {"include": [f"{schema}.*" for schema in shop.SCHEMAS]},
        "backup": {"required": False},
        "cutover": {"hooks": [{"kind": "route", "readers": [f"{NAME}_client"]}]},
    }
    try:
        with least(secure_stack, tmp_path, NAME, settings, make_shop) as made:
            yield made
    finally:
        for side in ("source", "target"):
            secure_stack.administer(side, f"DROP ROLE IF EXISTS {NAME}_client")


def equal(source: Server, target: Server) -> bool:
    """By plain SQL on both sides."""
    mine, theirs = (digest(server.admin, *shop.SCHEMAS) for server in (source, target))
    return all(one.equal for one in compare(mine, theirs))


def test_the_shop_moves_there_and_back_and_there(shop_pair: Shop) -> None:
    """Under writers that follow the route, by logins that have what was printed and no more."""
    live, source, target = shop_pair
    target.execute(f"CREATE ROLE {NAME}_client LOGIN PASSWORD 'client'")
    settings = Settings(rate=60, bulk_rows=200, bulk_seconds=0.2, kinds=ALL_KINDS)
    with Workload(client(source), settings, client(target)) as workload:
        live.prepare()
        target.execute(*as_on_the_source(target))
        live.start("run")
        assert live.drain(), live.halted()
        assert live.status()["dead_letters"] == 0
        live.cli("reconcile")
        live.cli("way-back", "prepare")
        for server in (source, target):
            foreign = strangers(server)
            assert not foreign, foreign
        cut(live, "--rehearse")
        cut(live, "--yes")
        wait_for("they have gone over", lambda: at_work(target), 30)
        cut(live, "--yes", verb="rollback")
        wait_for("they came back", lambda: at_work(source), 30)
        cut(live, "--yes")
        wait_for("they have gone over again", lambda: at_work(target), 30)
        summary = workload.stop()
    assert summary.failure is None
    assert all(summary.acknowledged[side] for side in ("source", "target"))
    known = together(*summary.acknowledged.values())
    assert held_against(read_by_writer(target.admin), known, summary.unsure) == ((), ())
    wait_for("the way back follows", lambda: equal(source, target), 60, 1.0)
    found = json.loads(live.cli("status", "-o", "json").stdout)
    assert found["last_error"] is None
    live.cli("finish", "--yes")


def as_on_the_source(target: Server) -> Iterator[str]:
    """What the owner of the application gives it on the target."""
    yield f"GRANT CONNECT ON DATABASE {target.prefix} TO {target.prefix}_client"
    for schema in shop.SCHEMAS:
        yield f"GRANT USAGE ON SCHEMA {schema} TO {target.prefix}_client"
        for kind in ("TABLES", "SEQUENCES", "FUNCTIONS"):
            yield f"GRANT ALL ON ALL {kind} IN SCHEMA {schema} TO {target.prefix}_client"


def strangers(server: Server) -> set[str]:
    """Whose sessions there are but ours and the application's."""
    ours = [*(server.user(role) for role in Role), f"{server.prefix}_client"]
    with psycopg.connect(server.admin, autocommit=True) as conn:
        rows = conn.execute(
            "SELECT DISTINCT usename FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND usename <> ALL (%s)",
            (ours,),
        ).fetchall()
    return {str(name) for (name,) in rows}


def at_work(server: Server) -> bool:
    """Whether the application has just asked this side for something."""
    query = (
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = %s "
        "AND datname = current_database() AND query_start > clock_timestamp() - interval '0.5 s'"
    )
    return bool(one(server.admin, query, f"{server.prefix}_client"))
