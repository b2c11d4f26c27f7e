"""The conditions that make the findings of `check`, and what each finding must say.

By (code, object): severity, and words of the remedy. The tests are in test_check_findings.
"""

from __future__ import annotations

from collections.abc import Mapping

from cdc_migrator.capture.findings import Severity

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
    ("CDCM-SOURCE-REPLICATION", "source"): (REFUSE, " REPLICATION (managed services"),
    ("CDCM-SOURCE-DDL", "source"): (WARN, "has nothing left to apply"),
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
    ("CDCM-TARGET-ACTS", "target"): (REFUSE, "GRANT SET ON PARAMETER session_replication_role"),
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
    "CDCM-NATIVE-MISSING": "the tests' own installation has its library",
}
