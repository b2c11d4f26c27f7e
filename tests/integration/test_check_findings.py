"""Each finding of `check`, made by its real condition: code, severity, object and remedy.

Many conditions are met by one server, and told by one check; nothing else is found there. A list at
the end keeps account of every code that `check` can give.
"""

from __future__ import annotations

import re
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping
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
from cdc_migrator.capture.findings import Finding, Severity
from cdc_migrator.capture.preflight import Preflight, check
from cdc_migrator.model.naming import Names
from cdc_migrator.stack.local import StackInfo
from tests.support.live import wait_for
from tests.support.private_broker import private_broker
from tests.support.private_postgres import odd_server, private_database

pytestmark = [pytest.mark.timeout(180)]

REFUSE, WARN, INFO = Severity.REFUSE, Severity.WARN, Severity.INFO
Conditions = Mapping[tuple[str, str], tuple[Severity, str]]

# A source with all kinds of tables, and a target with some of them already. Neither role is
# a superuser, nor does it own anything.
SOURCE = """
CREATE SCHEMA s;
CREATE TABLE s.plain (id int PRIMARY KEY);
CREATE TABLE s.big (id int PRIMARY KEY, pad text);
INSERT INTO s.big SELECT g, repeat(md5(g::text), 32) FROM generate_series(1, 20000) g;
CREATE TABLE s.bare (a int);
CREATE TABLE s.shapes (id int PRIMARY KEY, p polygon);
CREATE TABLE s.spans (span interval PRIMARY KEY);
CREATE TABLE s.parent (id text PRIMARY KEY, note text);
CREATE TABLE s.child (id int PRIMARY KEY, parent text REFERENCES s.parent ON UPDATE CASCADE);
CREATE TABLE s."a b" (id int PRIMARY KEY);
CREATE TABLE s.a_b (id int PRIMARY KEY);
CREATE TABLE s.private (id int PRIMARY KEY);
ALTER TABLE s.private ENABLE ROW LEVEL SECURITY;
CREATE TABLE s.strict (id int PRIMARY KEY);
ALTER TABLE s.strict ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE FUNCTION s.count() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER tally AFTER INSERT ON s.child FOR EACH ROW EXECUTE FUNCTION s.count();
ALTER TABLE s.child ENABLE ALWAYS TRIGGER tally;
CREATE UNLOGGED TABLE s.fleeting (id int PRIMARY KEY);
CREATE EXTENSION postgres_fdw;
CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw;
CREATE FOREIGN TABLE s.far (a int) SERVER far;
CREATE TABLE s.owner (id serial PRIMARY KEY);
CREATE TABLE s.borrower (id int PRIMARY KEY DEFAULT nextval('s.owner_id_seq'));
CREATE FUNCTION s.seen() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER seen ON ddl_command_end EXECUTE FUNCTION s.seen();
CREATE PUBLICATION theirs;
CREATE SUBSCRIPTION theirs CONNECTION 'dbname=x' PUBLICATION p WITH (connect = false);
CREATE SCHEMA cron;
CREATE TABLE cron.job (jobid bigint PRIMARY KEY, jobname text, database text);
INSERT INTO cron.job VALUES (1, 'nightly', current_database());
SELECT lo_create(0);
GRANT USAGE ON SCHEMA s, cron TO {role};
GRANT SELECT ON ALL TABLES IN SCHEMA s, cron TO {role};
UPDATE pg_database SET datcollversion = '0' WHERE datname = current_database();
"""
TARGET = """
CREATE SCHEMA s;
CREATE TABLE s.plain (id int PRIMARY KEY);
INSERT INTO s.plain VALUES (1);
CREATE TABLE s.private (id int PRIMARY KEY);
ALTER TABLE s.private ENABLE ROW LEVEL SECURITY;
CREATE TABLE s.parent (id text PRIMARY KEY, note text);
CREATE RULE quiet AS ON DELETE TO s.parent DO INSTEAD NOTHING;
ALTER TABLE s.parent ENABLE REPLICA RULE quiet;
GRANT USAGE ON SCHEMA s TO {role};
GRANT SELECT ON ALL TABLES IN SCHEMA s TO {role};
"""
ROLES: Conditions = {
    ("CDCM-SOURCE-WAL-LEVEL", "source"): (REFUSE, "wal_level = 'logical'"),
    ("CDCM-SOURCE-REPLICATION", "source"): (REFUSE, "ALTER ROLE … REPLICATION"),
    ("CDCM-COLLATION-STALE", "source"): (WARN, "REINDEX DATABASE"),
    ("CDCM-TABLES-MISSING", "s.pliant"): (REFUSE, "Did you mean s.plain"),
    ("CDCM-TABLES-EXCLUDE", "s.nothing"): (WARN, "tables.exclude"),
    ("CDCM-TABLE-NO-IDENTITY", "s.bare"): (REFUSE, 'ALTER TABLE "s"."bare" REPLICA IDENTITY FULL'),
    ("CDCM-TYPE-BESIDE", "s.shapes"): (INFO, "remove the trigger"),
    ("CDCM-TYPE-WHOLE-ROWS", "s.spans"): (WARN, "primary key of simple types"),
    ("CDCM-TABLE-KEY-CHANGES", "s.parent"): (INFO, "REPLICA IDENTITY FULL"),
    ("CDCM-TABLE-TOPICS-ALIKE", "s.a b, s.a_b"): (INFO, "connector of your own"),
    ("CDCM-SOURCE-ROW-SECURITY", "s.private"): (REFUSE, "BYPASSRLS"),
    ("CDCM-SOURCE-ROW-SECURITY", "s.strict"): (REFUSE, "BYPASSRLS"),
    ("CDCM-TABLE-UNLOGGED", "s.fleeting"): (REFUSE, "SET LOGGED"),
    ("CDCM-LEFT-LARGE-OBJECTS", "large object"): (REFUSE, "pg_dump --large-objects"),
    ("CDCM-LEFT-FOREIGN-TABLES", "s.far"): (REFUSE, "user mapping"),
    ("CDCM-LEFT-SUBSCRIPTIONS", "theirs"): (REFUSE, "after the switch"),
    ("CDCM-LEFT-EVENT-TRIGGERS", "seen"): (REFUSE, "after the switch"),
    ("CDCM-LEFT-SEQUENCES", "s.owner_id_seq for s.borrower"): (REFUSE, "OWNED BY NONE"),
    ("CDCM-LEFT-JOBS", "nightly"): (WARN, "end them on the source"),
    ("CDCM-LEFT-PUBLICATIONS", "theirs"): (WARN, "subscribers"),
    ("CDCM-LEFT-TABLESPACES", "aside"): (WARN, "CREATE TABLESPACE"),
    ("CDCM-LEFT-SETTINGS", "DateStyle"): (WARN, "Say the same"),
    ("CDCM-LEFT-ROLES", "{other}"): (INFO, "pg_dumpall --roles-only"),
    ("CDCM-ESTIMATE-LOAD", "source"): (INFO, "cdc-migrator status"),
    ("CDCM-TARGET-SPACE-UNKNOWN", "target"): (INFO, "target.free_bytes"),
    ("CDCM-TARGET-REPLICA-ROLE", "target"): (REFUSE, "session_replication_role"),
    ("CDCM-TARGET-ENCODING", "target"): (REFUSE, "ENCODING 'UTF8'"),
    ("CDCM-TARGET-COLLATION", "target"): (WARN, "LOCALE_PROVIDER"),
    ("CDCM-TARGET-DEFAULTS", "target"): (WARN, "ALTER DATABASE"),
    ("CDCM-TARGET-TRIGGERS", "s.child"): (REFUSE, "without ALWAYS or REPLICA"),
    ("CDCM-TARGET-TRIGGERS", "s.parent"): (REFUSE, "without ALWAYS or REPLICA"),
    ("CDCM-TARGET-ROW-SECURITY", "s.private"): (REFUSE, "BYPASSRLS"),
    ("CDCM-TARGET-ROW-SECURITY", "s.strict"): (REFUSE, "BYPASSRLS"),
    ("CDCM-TARGET-NOT-EMPTY", "s.plain"): (REFUSE, "Empty or drop it"),
    ("CDCM-LINT-QUEUE", "connector"): (REFUSE, "capture.connector"),
    ("CDCM-KAFKA-TOPIC", "kafka"): (REFUSE, "takes . and _ for one"),
    ("CDCM-ACCEPT-UNKNOWN", "CDCM-TABLES-MISSING"): (WARN, "These can be accepted"),
}
SETTINGS: Conditions = {
    ("CDCM-SOURCE-PLUGIN", "source"): (REFUSE, "output_plugin_libraries = pgoutput"),
    ("CDCM-SOURCE-SLOTS", "source"): (REFUSE, "Raise max_replication_slots"),
    ("CDCM-SOURCE-SLOT-IDLE", "source"): (WARN, "Set it to 0"),
    ("CDCM-SOURCE-SLOT-LIMIT", "source"): (WARN, "set it to -1"),
    ("CDCM-SOURCE-SLOT-RUNWAY", "source"): (WARN, "Raise max_slot_wal_keep_size"),
    ("CDCM-SOURCE-ENCODING", "source"): (REFUSE, "a database with an encoding"),
    ("CDCM-TARGET-SPACE", "target"): (REFUSE, "more room"),
    ("CDCM-TOPIC-DIFFERS", "kafka"): (REFUSE, "abort"),
}
STANDBY: Conditions = {
    ("CDCM-SOURCE-STANDBY", "source"): (REFUSE, "Name the primary"),
    ("CDCM-TABLES-NONE", "source"): (REFUSE, "`tables`"),
    ("CDCM-TARGET-STANDBY", "target"): (REFUSE, "Name the primary"),
}
OLDER: Conditions = {
    ("CDCM-TARGET-VERSION", "target"): (REFUSE, "the source's version or a newer one"),
}
BROKER: Conditions = {
    ("CDCM-KAFKA-REPLICAS", "broker 1"): (REFUSE, "kafka.replication_factor"),
    ("CDCM-KAFKA-TRANSACTIONS", "broker 1"): (REFUSE, "transaction.max.timeout.ms"),
    ("CDCM-KAFKA-UNCLEAN-ELECTION", "broker 1"): (WARN, "false"),
    ("CDCM-KAFKA-REQUEST-BYTES", "broker 1"): (WARN, "67108864"),
}
HIDDEN: Conditions = {
    ("CDCM-KAFKA-SETTINGS-HIDDEN", "kafka"): (WARN, "DESCRIBE_CONFIGS"),
}
CONDITIONS = (ROLES, SETTINGS, STANDBY, OLDER, BROKER, HIDDEN)
# Other tests meet the real condition.
ELSEWHERE = {
    "CDCM-CONNECT-EXACTLY-ONCE": "tests/integration/test_capture.py",
    "CDCM-CONNECT-OVERRIDES": "tests/integration/test_capture.py",
    "CDCM-CONNECT-PLUGIN": "tests/integration/test_capture.py",
}
# No test can: the decision has one in tests/unit/capture/test_findings.py.
NOT_REAL = {
    "CDCM-SOURCE-VERSION": "no server before 15 is to be had",
    "CDCM-SOURCE-MINOR": "no server of those releases is to be had",
    "CDCM-CONNECT-WORKER": "no worker before Kafka 3.7 is to be had",
    "CDCM-CONNECT-VERSION": "no connector before Debezium 3.7 is to be had",
}


def differences(found: Preflight, conditions: Conditions, **names: str) -> None:
    """Exactly these are found, each with its severity and remedy, a cause and a plain form."""
    wanted = {(code, what.format(**names)): rest for (code, what), rest in conditions.items()}
    told: dict[tuple[str, str], Finding] = {(f.code, f.object): f for f in found.findings}
    assert sorted(told) == sorted(wanted)
    for key, (severity, remedy) in wanted.items():
        assert told[key].severity is severity, key
        assert remedy in told[key].remedy, told[key]
        assert told[key].cause
        assert told[key].as_dict()["code"] == key[0]
    assert found.refused == (REFUSE in {severity for severity, _ in wanted.values()})


def look(stack: StackInfo, source: str, target: str, **changes: Any) -> Preflight:
    given = {
        "connect_url": stack.connect_url,
        "bootstrap_servers": stack.bootstrap_servers,
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
        differences(look(stack, source_db, target_db, bootstrap_servers=servers), BROKER)
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
        differences(look(stack, source_db, target_db, bootstrap_servers=servers), HIDDEN)


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
