"""What does not move is found, and stands against the migration until it is accepted."""

from __future__ import annotations

import psycopg

from cdc_migrator.capture.findings import Severity
from cdc_migrator.capture.leftover import ACCEPTABLE, accepted, leftover
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.databases.postgres.inventory import left_behind
from tests.support.private_postgres import private_database


def test_everything_that_stays_behind_is_found_and_can_be_accepted() -> None:
    """By kind, with names; what is accepted only warns, and says why."""
    with private_database() as dsn, connect(dsn, application_name="test") as conn:
        assert leftover(left_behind(conn, None, ())) == []
        for statement in (
            "SELECT lo_create(0), lo_create(0)",
            "CREATE SCHEMA s",
            "CREATE UNLOGGED TABLE s.fleeting (a int)",
            "CREATE EXTENSION postgres_fdw",
            "CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw",
            "CREATE FOREIGN TABLE s.far (a int) SERVER far",
            "CREATE FUNCTION s.seen() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
            "CREATE EVENT TRIGGER seen ON ddl_command_end EXECUTE FUNCTION s.seen()",
            "CREATE PUBLICATION theirs",
            "CREATE SUBSCRIPTION theirs CONNECTION 'dbname=x' PUBLICATION p WITH (connect = false)",
        ):
            conn.execute(statement.encode())
        try:
            found = leftover(left_behind(conn, None, ()))
            only = leftover(left_behind(conn, ["s.*"], ["s.far"]))
        finally:
            conn.execute("ALTER SUBSCRIPTION theirs SET (slot_name = NONE)")
            conn.execute("DROP SUBSCRIPTION theirs")
    told = {one.code: (one.severity, one.object) for one in found}
    assert told == {
        "CDCM-LEFT-LARGE-OBJECTS": (Severity.REFUSE, "large object"),
        "CDCM-TABLE-UNLOGGED": (Severity.REFUSE, "s.fleeting"),
        "CDCM-LEFT-FOREIGN-TABLES": (Severity.REFUSE, "s.far"),
        "CDCM-LEFT-SUBSCRIPTIONS": (Severity.REFUSE, "theirs"),
        "CDCM-LEFT-EVENT-TRIGGERS": (Severity.REFUSE, "seen"),
        "CDCM-LEFT-PUBLICATIONS": (Severity.WARN, "theirs"),
    }
    assert "CDCM-LEFT-FOREIGN-TABLES" not in {one.code for one in only}
    calm = accepted(found, dict.fromkeys(ACCEPTABLE, "nobody needs it"))
    assert {one.severity for one in calm} == {Severity.WARN}
    refused = {one.code for one in found if one.severity is Severity.REFUSE}
    assert {one.code for one in calm if "accepted: nobody needs it" in one.cause} == refused


def test_a_sequence_that_stays_with_its_table_is_found() -> None:
    """Where a table that moves takes values from it; not if both move, or neither does."""
    with private_database() as dsn, connect(dsn, application_name="test") as conn:
        conn.execute(
            "CREATE SCHEMA s; CREATE TABLE s.owner (id serial PRIMARY KEY);"
            "CREATE TABLE s.user (id int PRIMARY KEY DEFAULT nextval('s.owner_id_seq'));"
            "CREATE TABLE s.whole (id serial) PARTITION BY RANGE (id);"
            "CREATE TABLE s.part PARTITION OF s.whole DEFAULT"
        )
        for include, exclude in ((None, ()), (["s.owner"], ()), (["s.part"], ())):
            assert leftover(left_behind(conn, include, exclude)) == []
        (found,) = leftover(left_behind(conn, ["s.*"], ["s.owner"]))
        conn.execute("ALTER SEQUENCE s.owner_id_seq OWNED BY NONE")
        assert leftover(left_behind(conn, ["s.*"], ["s.owner"])) == []
    assert (found.code, found.severity) == ("CDCM-LEFT-SEQUENCES", Severity.REFUSE)
    assert found.object == "s.owner_id_seq for s.user"


def test_jobs_of_an_extension_are_found() -> None:
    """Where pg_cron keeps them; only those of this database."""
    with private_database() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "CREATE SCHEMA cron; CREATE TABLE cron.job (jobid bigint, jobname text, database text);"
            "INSERT INTO cron.job VALUES (1, 'nightly', current_database()), (2, 'x', 'other')"
        )
        (found,) = leftover(left_behind(conn, None, ()))
    assert (found.code, found.object) == ("CDCM-LEFT-JOBS", "nightly")
