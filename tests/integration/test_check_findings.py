"""Each finding of `check`, made by its real condition: code, severity, object and remedy.

Many conditions are met by one server, and told by one check; nothing else is found there. A list at
the end keeps account of every code that `check` can give.
"""

from __future__ import annotations

import re
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from psycopg.conninfo import make_conninfo

from cdc_migrator.capture import checks
from cdc_migrator.capture.checks.estimate import Stated
from cdc_migrator.capture.findings import Finding
from cdc_migrator.capture.preflight import Preflight, check
from cdc_migrator.model.naming import Names
from cdc_migrator.model.outside import Brokers, Workers
from cdc_migrator.stack.local import StackInfo
from tests.integration.check_conditions import (
    BROKER,
    CONDITIONS,
    ELSEWHERE,
    HIDDEN,
    NOT_REAL,
    OLDER,
    REFUSE,
    ROLES,
    SETTINGS,
    SOURCE,
    STANDBY,
    TARGET,
    Conditions,
)
from tests.support.live import wait_for
from tests.support.private_broker import private_broker
from tests.support.private_postgres import odd_server, private_database

pytestmark = [pytest.mark.timeout(180)]


def differences(found: Preflight, conditions: Conditions, **names: str) -> None:
    """Exactly these are found, each with its severity and remedy, a cause and a plain form."""
    wanted = {(code, what.format(**names)): rest for (code, what), rest in conditions.items()}
    told: dict[tuple[str, str], Finding] = {
        (f.code, f.object): f
        for f in found.findings
        if not f.code.startswith("CDCM-GRANT-")  # each of these is met in test_roles
    }
    assert sorted(told) == sorted(wanted)
    for key, (severity, remedy) in wanted.items():
        assert told[key].severity is severity, key
        assert remedy in told[key].remedy, told[key]
        assert told[key].cause
        assert told[key].as_dict()["code"] == key[0]
    assert found.refused == (REFUSE in {severity for severity, _ in wanted.values()})


def look(stack: StackInfo, source: str, target: str, **changes: Any) -> Preflight:
    given = {
        "workers": Workers.at(stack.connect_url),
        "brokers": Brokers(stack.bootstrap_servers),
        "names": Names(f"f{secrets.token_hex(4)}"),
        "include": None,
    }
    return check(source, target, **(given | changes))


@contextmanager
def topic(stack: StackInfo, name: str, **config: str) -> Iterator[None]:
    admin = AdminClient({"bootstrap.servers": stack.bootstrap_servers})
    admin.create_topics([NewTopic(name, 1, 1, config=config)])[name].result(30)
    wait_for("the topic is listed", lambda: name in admin.list_topics(timeout=10).topics)
    try:
        yield
    finally:
        admin.delete_topics([name])[name].result(30)


@contextmanager
def weak_pair() -> Iterator[tuple[str, str, dict[str, str]]]:
    """Source, target and role names: both sides in trouble, each as a role without rights."""
    role, other = (f"{word}_{secrets.token_hex(4)}" for word in ("mover", "reader"))
    with (
        private_database(locale=" LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'") as source,
        private_database(locale=" ENCODING 'LATIN1' LOCALE 'C'") as target,
        psycopg.connect(source, autocommit=True) as conn,
        psycopg.connect(target, autocommit=True) as there,
    ):
        conn.execute(f"CREATE ROLE {role} LOGIN")
        conn.execute(f"CREATE ROLE {other}")
        conn.execute("SET allow_in_place_tablespaces = on")
        conn.execute("CREATE TABLESPACE aside LOCATION ''")
        try:
            for statement in SOURCE.format(role=role).split(";\n"):
                conn.execute(statement.encode())
            conn.execute(f"GRANT SELECT ON s.plain TO {other}")
            conn.execute("CREATE INDEX plain_aside ON s.plain (id) TABLESPACE aside")
            conn.execute(f"ALTER DATABASE {conn.info.dbname} SET DateStyle = 'SQL, DMY'")
            there.execute(TARGET.format(role=role))
            yield (
                make_conninfo(source, user=role),
                make_conninfo(target, user=role),
                {"role": role, "other": other},
            )
        finally:
            conn.execute("ALTER SUBSCRIPTION theirs SET (slot_name = NONE)")
            conn.execute("DROP SUBSCRIPTION theirs")
            conn.execute("DROP EVENT TRIGGER seen")
            conn.execute("DROP INDEX IF EXISTS s.plain_aside")
            conn.execute("DROP TABLESPACE aside")
            for session in (conn, there):
                session.execute(f"DROP OWNED BY {role}, {other}")
            conn.execute(f"DROP ROLE {role}, {other}")


def test_what_is_wrong_with_tables_roles_and_locales_is_told_at_once(stack: StackInfo) -> None:
    """One check of two databases in trouble; the reasons of the user stay with what he accepts."""
    names = Names(f"f{secrets.token_hex(4)}")
    with weak_pair() as (source, target, roles), topic(stack, names.topic.replace(".", "_")):
        found = look(
            stack,
            source,
            target,
            names=names,
            include=["s.*", "cron.job", "s.pliant"],
            exclude=["s.owner", "s.nothing"],
            accept={"CDCM-LEFT-JOBS": "made by hand", "CDCM-TABLES-MISSING": "never mind"},
            connector={"max.queue.size": "100"},
        )
    differences(found, ROLES, **roles)
    told = {(f.code, f.object): f for f in found.findings}
    assert told["CDCM-LEFT-JOBS", "nightly"].accepted == "made by hand"
    assert "collides" in told["CDCM-KAFKA-TOPIC", "kafka"].cause
    assert "DateStyle (SQL, DMY; ISO, MDY)" in told["CDCM-TARGET-DEFAULTS", "target"].cause
    assert "rule quiet" in told["CDCM-TARGET-TRIGGERS", "s.parent"].cause
    assert "come from the source" in told["CDCM-TARGET-TRIGGERS", "s.child"].cause
    assert found.estimate is not None
    assert found.estimate.read_table == "s.big"
    assert found.estimate.free_bytes is None
    assert 20_000_000 < found.estimate.bytes <= found.estimate.bytes_with_indexes < 60_000_000


@contextmanager
def busy(dsn: str) -> Iterator[None]:
    """Somebody writes log all the while."""
    ended = threading.Event()

    def write() -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            while not ended.wait(0.01):
                conn.execute("SELECT pg_logical_emit_message(false, 'x', repeat('x', 100000))")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        ended.set()
        writer.join()


def test_what_the_settings_of_servers_threaten_is_told(stack: StackInfo, target_db: str) -> None:
    """Settings of the source, its log under writes, room on the target as it is stated."""
    names = Names(f"f{secrets.token_hex(4)}")
    settings = (
        "output_plugin_libraries=test_decoding",
        "idle_replication_slot_timeout=1h",
        "max_slot_wal_keep_size=64MB",
        "max_replication_slots=1",
    )
    with odd_server(*settings) as server:
        with psycopg.connect(server, autocommit=True) as conn:
            conn.execute("CREATE DATABASE bytes ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
            conn.execute("SELECT pg_create_physical_replication_slot('theirs')")
        source = make_conninfo(server, dbname="bytes")
        with psycopg.connect(source, autocommit=True) as conn:
            conn.execute("CREATE TABLE t (id int PRIMARY KEY)")
            conn.execute("INSERT INTO t SELECT generate_series(1, 1000)")
        with busy(source), topic(stack, names.topic, **{"retention.ms": "3600000"}):
            found = look(
                stack,
                source,
                target_db,
                names=names,
                stated=Stated(measure=1.2, free_bytes=10_000),
            )
    differences(found, SETTINGS)
    assert found.estimate is not None
    assert found.estimate.log_seconds is not None
    assert found.estimate.log_seconds >= 1.2
    assert found.estimate.log_rate is not None
    assert found.estimate.log_rate > 1_000_000


def test_a_standby_is_refused_on_either_side(stack: StackInfo) -> None:
    """Where nothing can be made or written."""
    with odd_server(standby=True) as server:
        differences(look(stack, server, server), STANDBY)


def older_servers() -> list[Path]:
    return sorted(Path("/usr/lib/postgresql").glob("1[567]/bin"))


@pytest.mark.skipif(not older_servers(), reason="this machine has no older PostgreSQL")
def test_an_older_target_is_refused_and_an_older_source_is_not(
    stack: StackInfo, source_db: str, target_db: str
) -> None:
    """And what is asked of a server is understood by both releases."""
    with psycopg.connect(source_db, autocommit=True) as conn:
        conn.execute("CREATE TABLE t (id int PRIMARY KEY)")
    with odd_server("timezone=UTC", binaries=older_servers()[0]) as older:
        differences(look(stack, source_db, older), OLDER)
        with psycopg.connect(older, autocommit=True) as conn:
            conn.execute("CREATE TABLE t (id int PRIMARY KEY)")
        differences(look(stack, older, target_db), {})


@pytest.mark.slow
@pytest.mark.usefixtures("local_stack")
def test_what_brokers_would_not_do_is_told_or_said_to_be_unknown(
    stack: StackInfo, source_db: str, target_db: str, tmp_path: Path
) -> None:
    """Replicas, transactions, elections and sizes; and brokers that tell nothing of them."""
    with psycopg.connect(source_db, autocommit=True) as conn:
        conn.execute("CREATE TABLE t (id int PRIMARY KEY)")
    odd = {
        "min.insync.replicas": "2",
        "transaction.max.timeout.ms": "5000",
        "unclean.leader.election.enable": "true",
        "socket.request.max.bytes": "33554432",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    with private_broker(stack, tmp_path, odd) as servers:
        differences(look(stack, source_db, target_db, brokers=Brokers(servers)), BROKER)
        admin = AdminClient({"bootstrap.servers": servers})
        for operation, permission in (
            (AclOperation.ALL, AclPermissionType.ALLOW),
            (AclOperation.DESCRIBE_CONFIGS, AclPermissionType.DENY),
        ):
            rule = AclBinding(
                ResourceType.BROKER,
                "kafka-cluster",
                ResourcePatternType.LITERAL,
                "User:ANONYMOUS",
                "*",
                operation,
                permission,
            )
            admin.create_acls([rule])[rule].result(30)
        differences(look(stack, source_db, target_db, brokers=Brokers(servers)), HIDDEN)


@pytest.mark.usefixtures("local_stack")
def test_the_room_on_a_target_of_this_machine_is_measured(
    stack: StackInfo, source_db: str, target_db: str
) -> None:
    """It is what the disk of its data has, which nobody states."""
    with psycopg.connect(source_db, autocommit=True) as conn:
        conn.execute("CREATE TABLE t (id int PRIMARY KEY)")
    found = look(stack, source_db, target_db)
    differences(found, {})
    with psycopg.connect(target_db) as conn:
        row = conn.execute("SHOW data_directory").fetchone()
    assert row is not None
    free = shutil.disk_usage(row[0]).free
    assert found.estimate is not None
    assert found.estimate.free_bytes is not None
    assert abs(found.estimate.free_bytes - free) < 5 << 30
    assert "this machine" in (found.estimate.free_basis or "")


def test_no_finding_is_without_its_condition() -> None:
    """Every code that the checks can give is met above, elsewhere, or cannot be, for a reason."""
    root = Path(__file__).parents[2]
    package = Path(next(iter(checks.__path__)))
    files = [*package.glob("*.py"), package.parent / "leftover.py"]
    given = {
        code for path in files for code in re.findall(r'"(CDCM-[A-Z-]+)",\n', path.read_text())
    }
    met = {code for conditions in CONDITIONS for code, _ in conditions}
    assert given - met - ELSEWHERE.keys() - NOT_REAL.keys() == set()
    assert (met | ELSEWHERE.keys() | NOT_REAL.keys()) - given == {"CDCM-LINT-QUEUE"}
    assert not met & (ELSEWHERE.keys() | NOT_REAL.keys())
    for code, place in ELSEWHERE.items():
        assert code in (root / place).read_text(), code
    unit = (root / "tests/unit/capture/test_findings.py").read_text()
    for code in NOT_REAL:
        assert code in unit, code
