"""A migration's whole life under the roles that `init --grants` makes; nobody is a superuser."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc_migrator.capture import privileges
from cdc_migrator.capture.findings import Finding, Severity
from cdc_migrator.cli.steps import migrate_steps
from cdc_migrator.config.loader import load
from cdc_migrator.databases.postgres import grants
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.grants import Part
from cdc_migrator.model.logins import Role
from tests.faults.cutover_kills import cut
from tests.support.live import LiveMigration, one, wait_for
from tests.support.roles import CANARY, Server, printed, under_roles

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

SETTINGS = {
    "tables": {"include": ["app.*"]},
    "apply": {"bad_records": "park"},
    "backup": {"required": False},
    "cutover": {"hooks": [{"kind": "route"}], "budget": "4s"},
}
Pair = tuple[LiveMigration, Server, Server]


@pytest.fixture
def pair(stack: Any, source_db: str, target_db: str, tmp_path: Path) -> Iterator[Pair]:
    with under_roles(stack, source_db, target_db, tmp_path, "roles", SETTINGS) as made:
        yield made


def entries(dsn: str) -> Any:
    return one(dsn, "SELECT md5(string_agg(e::text, '|' ORDER BY id)) FROM app.entry e")


def sessions(server: Server) -> set[str]:
    """The users of the migration's sessions, but for the test's own."""
    with psycopg.connect(server.admin, autocommit=True) as conn:
        rows = conn.execute(
            "SELECT DISTINCT usename FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid()"
        ).fetchall()
    return {str(row[0]) for row in rows}


def test_the_whole_life_of_a_migration(pair: Pair) -> None:
    """Schema, load, stream, compare, repair, join, leave, come back, leave for good, finish."""
    live, source, target = pair
    live.prepare()
    live.start("run")
    source.execute("INSERT INTO app.entry (customer, took, note) VALUES (3, '1 mon', 'n')")
    assert live.drain(), live.halted()
    for server, working in ((source, (Role.CAPTURE, Role.MONITOR)), (target, (Role.APPLY,))):
        assert {server.user(role) for role in working} <= sessions(server)
        assert sessions(server) <= {server.user(role) for role in Role}
    live.cli("reconcile")
    rules = str(live.directory / "rules.yaml")
    of = [f"--tables=app.{name}" for name in ("entry", "person", "tenant", "day")]
    live.cli("validate", "init", "--output", rules, *of)
    live.cli("validate", "--rules", rules, "--aligned")
    assert exact_after_parking(live, source, target)
    target.execute(
        "ALTER TABLE app.entry DISABLE TRIGGER cdc_migrator_fence",
        "UPDATE app.entry SET note = 'odd' WHERE id = 7",
        "ALTER TABLE app.entry ENABLE ALWAYS TRIGGER cdc_migrator_fence",
        "ALTER TABLE app.person DISABLE TRIGGER cdc_migrator_fence",
        f"DELETE FROM app.person WHERE name = '{CANARY}7'",
        "ALTER TABLE app.person ENABLE ALWAYS TRIGGER cdc_migrator_fence",
    )
    live.cli("reconcile", check=1)
    live.cli("reconcile", "--repair")
    assert entries(live.source) == entries(live.target)
    live.cli("repair", "--rebuild", "app.person")
    source.execute(f"SET ROLE {source.app}; CREATE TABLE app.late (id int PRIMARY KEY)")
    source.execute(f"GRANT SELECT ON app.late TO {source.user(Role.VERIFY)}")
    live.cli("migrate", "--no-run")
    source.execute("INSERT INTO app.late VALUES (1)")
    assert live.drain(), live.halted()
    wait_for("a comparison saw the marks' numbers", lambda: noted_mark(live) > 0)
    assert password_of_connector(live) == source.password(Role.CAPTURE)
    live.cli("way-back", "prepare")
    cut(live, "--rehearse")
    cut(live, "--yes")
    target.execute("INSERT INTO app.entry (customer, took, note) VALUES (4, '1 day', 'back')")
    wait_for("it came over", lambda: entries(live.source) == entries(live.target))
    cut(live, "--yes", verb="rollback")
    source.execute("INSERT INTO app.entry (customer, took, note) VALUES (5, '2 mon', 'again')")
    cut(live, "--yes")
    assert entries(live.source) == entries(live.target)
    live.cli("status")
    live.cli("report")
    for server in (source, target):
        assert not [place for place, text in seen(server) if CANARY in text]
    live.cli("finish", "--yes")
    assert one(live.target, "SELECT to_regnamespace('cdc_migrator') IS NULL")


def noted_mark(live: LiveMigration) -> Any:
    """After one more comparison: of those that begin within 5 s, only the first is noted."""
    live.cli("reconcile")
    return one(
        live.target,
        "SELECT (found #>> '{points,-1,1}')::bigint FROM cdc_migrator.inspection "
        "WHERE part = 'comparisons'",
    )


def password_of_connector(live: LiveMigration) -> str:
    """What the worker lets the connector in with, when `run` has looked at it."""
    path = Path(live.stack.secrets_dir) / f"cdcm-{live.name}-1.properties"
    return path.read_text().strip().removeprefix("password=")


@pytest.mark.parametrize("why", ["asked for", pytest.param("given up", marks=pytest.mark.long)])
def test_capture_begins_anew(pair: Pair, why: str) -> None:
    """A former slot is dropped, rows that differ are written, the stream goes on."""
    live, source, _ = pair
    live.settings |= {"capture": {**LIMITS, "drop_slot_confirmed": live.slot}}
    live.__post_init__()
    live.prepare()
    run = live.start("run")
    source.execute("INSERT INTO app.entry (customer, took, note) VALUES (3, '1 mon', 'n')")
    assert live.drain(), live.halted()
    if why == "given up":
        live.cli("capture", "stop")
        source.execute("SELECT pg_logical_emit_message(false, 'x', repeat('x', 8 << 20))")
        count = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s"
        wait_for("run gives the slot up", lambda: one(live.source, count, live.slot) == 0)
    live.stop(run)
    source.execute("DELETE FROM app.entry WHERE id = 5", "UPDATE app.person SET note = note || 'x'")
    force = ("--force", "it is tried") if why == "asked for" else ()
    live.cli("migrate", "--new-capture", *force, "--no-run")
    live.start("run")
    source.execute("INSERT INTO app.entry (customer, took, note) VALUES (3, '2 mon', 'n')")
    assert live.drain(), live.halted()
    assert entries(live.source) == entries(live.target)
    live.cli("reconcile")


LIMITS = {
    "retained_wal_warn": "1MiB",
    "retained_wal_limit": "4MiB",
    "retained_wal_action": "drop-slot",
}


def exact_after_parking(live: LiveMigration, source: Server, target: Server) -> bool:
    """A record that the target refuses is kept back, seen by nobody who measures, and settled."""
    target.execute("ALTER TABLE app.person ADD CONSTRAINT tame CHECK (note <> 'wild') NOT VALID")
    source.execute(f"UPDATE app.person SET note = 'wild' WHERE name = '{CANARY}5'")
    assert live.drain(), live.halted()
    assert live.status()["dead_letters"] == 1
    assert not [place for place, text in seen(target) if CANARY in text]
    target.execute("ALTER TABLE app.person DROP CONSTRAINT tame")
    done = json.loads(live.cli("dead-letters", "retry", "--all", "-o", "json").stdout)
    return (done["by_service"], done["left"], live.status()["dead_letters"]) == (True, [], 0)


def seen(server: Server) -> list[tuple[str, str]]:
    """All that `monitor` can read of our tables and the user's: of which column, and the values."""
    with psycopg.connect(server.dsn(Role.MONITOR), autocommit=True) as conn:
        columns = conn.execute(READABLE).fetchall()
        assert columns
        return [
            (f"{schema}.{table}.{column}", str(conn.execute(query.encode()).fetchall()))
            for schema, table, column, query in columns
        ]


READABLE = """
SELECT n.nspname, c.relname, attname,
       format(CASE WHEN atttypid = 'bytea'::regtype THEN 'SELECT encode(%I, ''escape'') FROM %I.%I'
                   ELSE 'SELECT DISTINCT %I::text FROM %I.%I' END, attname, n.nspname, c.relname)
FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace
WHERE n.nspname IN ('app', 'cdc_migrator') AND attnum > 0 AND NOT attisdropped
AND relkind IN ('r', 'p', 'v', 'm') AND has_schema_privilege(n.oid, 'USAGE')
AND has_column_privilege(c.oid, attnum, 'SELECT')
"""


class Silent:
    """An observer that is told for nothing."""

    def step(self, text: str) -> None: ...

    def loading(self, progress: object) -> None: ...


def taken(statement: str) -> str:
    """The opposite of a printed statement."""
    if statement.startswith("ALTER ROLE"):
        head, _, attribute = statement.rstrip(";").rpartition(" ")
        return f"{head} NO{attribute}"
    return statement.replace("GRANT", "REVOKE", 1).replace(" TO ", " FROM ", 1)


def single(grant: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """A printed right as the catalog has it: one on columns is one on each."""
    privilege, _, columns = grant["privilege"].partition(" (")
    for column in columns.rstrip(")").split(", "):
        on = f"{grant['object']}.{column}" if column else grant["object"]
        yield grant["user"], on, privilege


def acls_elsewhere(server: Server) -> set[str]:
    """Catalogs with rights of the migration's roles that `held` does not read."""
    with psycopg.connect(server.admin, autocommit=True) as conn:
        rows = conn.execute(
            "SELECT DISTINCT classid::regclass::text FROM pg_shdepend "
            "WHERE refclassid = 'pg_authid'::regclass AND deptype = 'a' "
            "AND dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())) "
            "AND refobjid IN (SELECT oid FROM pg_roles WHERE rolname = ANY (%s))",
            ([server.user(role) for role in Role],),
        ).fetchall()
    read = {"pg_class", "pg_proc", "pg_namespace", "pg_database", "pg_parameter_acl"}
    return {str(name) for (name,) in rows} - read


def held(server: Server) -> set[tuple[str, str, str]]:
    """What the catalog says that the migration's roles may do, and nobody grants by being owner:
    (role, on what, privilege)."""
    users = [server.user(role) for role in Role]
    with psycopg.connect(server.admin, autocommit=True) as conn:
        rows = conn.execute(ACLS, {"users": users}).fetchall()
    return {(str(user), str(on), str(privilege)) for user, on, privilege in rows}


ACLS = """
WITH ours AS (SELECT * FROM pg_roles WHERE rolname = ANY (%(users)s)),
acl AS (
    SELECT n.nspname || '.' || c.relname AS on_what, relowner AS owner, relacl AS acl
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    UNION ALL SELECT attrelid::regclass::text || '.' || attname, relowner, attacl
    FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
    UNION ALL SELECT proname, proowner, proacl FROM pg_proc
    UNION ALL SELECT nspname, nspowner, nspacl FROM pg_namespace
    UNION ALL SELECT datname, datdba, datacl FROM pg_database WHERE datname = current_database()
    UNION ALL SELECT parname, 10, paracl FROM pg_parameter_acl
)
SELECT ours.rolname, on_what, a.privilege_type FROM acl, aclexplode(acl.acl) a
JOIN ours ON ours.oid = a.grantee WHERE a.grantee <> acl.owner
UNION ALL SELECT ours.rolname, pg_get_userbyid(m.roleid), 'MEMBER'
FROM pg_auth_members m JOIN ours ON ours.oid = m.member
UNION ALL SELECT rolname, rolname, 'LOGIN' FROM ours WHERE rolcanlogin
UNION ALL SELECT rolname, rolname, 'REPLICATION' FROM ours WHERE rolreplication
UNION ALL SELECT rolname, rolname, 'BYPASSRLS' FROM ours WHERE rolbypassrls
UNION ALL SELECT rolname, rolname, 'MORE' FROM ours WHERE rolsuper OR rolcreaterole OR rolcreatedb
"""


def test_each_single_grant_is_needed_and_missed(pair: Pair) -> None:
    """What roles hold is what is printed, no more and no less; `check` names whichever is gone."""
    live, source, target = pair
    live.prepare()
    run = live.start("run")
    right = f"SET ON PARAMETER session_replication_role %s {source.user(Role.APPLY)}"
    source.execute(f"REVOKE {right % 'FROM'}")
    done = live.cli("way-back", "prepare", "-o", "json", check=3)
    assert "CDCM-WAY-BACK-REPLICA-ROLE" in done.stderr
    source.execute(f"GRANT {right % 'TO'}")
    live.cli("way-back", "prepare")
    live.stop(run)
    steps = migrate_steps(load(live.config), Silent())
    assert [f for f in steps.check().findings if "GRANT" in f.code] == []
    scripts = printed(live, source, target)["servers"]
    for script, server in zip(scripts, (source, target), strict=True):
        listed = script["grants"]
        assert {one for g in listed for one in single(g)} == held(server)
        assert not acls_elsewhere(server)
        assert all(g["held"] for g in listed)
        with looking(live, server) as look, psycopg.connect(server.admin, autocommit=True) as admin:
            for grant in listed:
                admin.execute(taken(grant["statement"]).encode())
                # All of `check` where it tries; else the part of it that looks at grants.
                tried = grant["privilege"] in ("REPLICATION", "SET") or (
                    grant["role"] == "cutover" and grant["privilege"] in ("LOGIN", "CONNECT")
                )
                found = steps.check().findings if tried else look()
                admin.execute(grant["statement"].encode())
                assert [f for f in found if names(f, grant)], (grant, found)
    live.cli("abort", "--yes")
    for server in (source, target):
        assert one(server.admin, "SELECT to_regnamespace('cdc_migrator') IS NULL")


@contextmanager
def looking(live: LiveMigration, server: Server) -> Iterator[Callable[[], Sequence[Finding]]]:
    """What `check` looks up about this server's grants, as the role that it looks as."""
    part: Part = "source" if server.part == "source" else "target"
    settings = load(live.config)
    dsn = getattr(settings, part).dsn_with_password()
    with (
        psycopg.connect(live.source, autocommit=True) as source,
        psycopg.connect(dsn, autocommit=True) as conn,
    ):
        tables = [table.name for table in read_tables(source, settings.tables.include)]
        secured = grants.look(source, tables).secured
        yield lambda: privileges.look(conn, dsn, part, tables, True, secured)


def names(finding: Finding, grant: dict[str, Any]) -> bool:
    """Whether a finding says which role lacks what, and how it is granted."""
    told = f"{finding.code} {finding.object} {finding.cause} {finding.remedy}"
    if grant["privilege"] == "REPLICATION" and finding.code == "CDCM-SOURCE-REPLICATION":
        return grant["user"] in told
    if finding.code in ("CDCM-TARGET-REPLICA-ROLE", "CDCM-DB-DENIED"):
        return grant["user"] in told
    right = grant["object"] if grant["kind"] == "member" else grant["privilege"]
    return (
        finding.code == f"CDCM-GRANT-{grant['role'].upper()}"
        and all(word in finding.cause for word in (grant["user"], grant["object"], right))
        and finding.remedy == grant["statement"]
        and (finding.severity is Severity.WARN) == (grant["lost_without"] != "the migration")
    )
