"""Backups of the source: made, verified by a test restore, or taken on the user's word.

A dump is one snapshot of the whole source without what belongs to the migration. The account of it
stands on the target; the directory can be verified without, and is taken into the account then.
"""

from __future__ import annotations

import shutil
import socket
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from cdc_migrator.backfill import toc
from cdc_migrator.backfill.ours import ours
from cdc_migrator.backfill.tools import Tools, find
from cdc_migrator.control import backups, migration, schema
from cdc_migrator.control.backups import Backup, Kind
from cdc_migrator.control.migration import Migration
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import ConfigurationError, Failed, MigratorError, Refused
from cdc_migrator.faultpoints import reach
from cdc_migrator.model.naming import Names
from cdc_migrator.service import backup_files
from cdc_migrator.service.backup_files import Manifest
from cdc_migrator.service.backup_restore import restore

# A table that is locked for longer by somebody is told, not waited for.
_LOCK_WAIT = "60s"
# Of several sessions each locks the table that it reads once more, and does not get behind one who
# waits to truncate or alter it (pg_dump's documentation, --jobs).
_OVERTAKEN = "could not obtain lock on relation"
_DOUBTS = ("CDCM-BACKUP-DAMAGED", "CDCM-BACKUP-DIFFERS", "CDCM-TOOL-FAILED")
Observe = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """Which migration, and where its databases are. The strings hold passwords.

    Attributes:
        jobs: tables dumped or restored at once.
        postgres_bin: directory of pg_dump and pg_restore; None: searched.
    """

    name: str
    source_dsn: str
    target_dsn: str
    jobs: int = 2
    postgres_bin: Path | None = None

    @property
    def called(self) -> str:
        return f"cdcm-{self.name}-backup"


def create(options: BackupOptions, directory: Path, observe: Observe) -> Backup:
    """Dump the source into a new or empty directory; it still has to be verified.

    Args:
        observe: is told again and again how far it is.

    Raises:
        Refused: CDCM-BACKUP-DIRECTORY, CDCM-MIGRATION-MISSING, CDCM-TOOLS-MISSING,
            CDCM-TOOLS-VERSION.
        Failed: CDCM-TOOL-FAILED. MigratorError: a database does not answer.
    """
    directory = directory.absolute()
    with (
        _account(options) as (target, there),
        connect(
            options.source_dsn,
            application_name=options.called,
            side="source",
            autocommit=False,
            read_only=True,
            settings={"default_transaction_isolation": "repeatable read"},
        ) as source,
    ):
        tools = find(
            source.info.server_version,
            target.info.server_version,
            options.postgres_bin,
            tls=source.pgconn.ssl_in_use,
        )
        backup_files.make_room(directory)
        try:
            try:
                manifest = _dump(options, there.names, source, tools, directory, observe)
            except Failed as error:
                if options.jobs == 1 or _OVERTAKEN not in error.cause:
                    raise
                observe("the application is about to lock a table: again, with one session")
                shutil.rmtree(directory)
                backup_files.make_room(directory)
                # What waited for the table may have emptied it: a later snapshot is needed.
                source.rollback()
                alone = replace(options, jobs=1)
                manifest = _dump(alone, there.names, source, tools, directory, observe)
        except BaseException:
            # It was empty: all that is in it is ours.
            shutil.rmtree(directory, ignore_errors=True)
            raise
        return _note(target, directory, manifest)


def verify(
    options: BackupOptions, directory: Path | None, into_dsn: str | None, observe: Observe
) -> Backup:
    """Check a dump's files and restore it for a test; the newest one where none is named.

    Args:
        into_dsn: a server where a database can be made; None: the target's.

    Raises:
        Refused: CDCM-BACKUP-NONE, CDCM-BACKUP-INCOMPLETE, CDCM-BACKUP-SCRATCH, and as `create`.
        Failed: CDCM-BACKUP-DAMAGED, CDCM-BACKUP-DIFFERS, CDCM-TOOL-FAILED: it does not count as
            a backup any longer.
    """
    with _account(options) as (target, _):
        with speaking("target", "reading the account of backups"):
            place = directory.absolute() if directory else _newest(target)
            known = backups.dump_on(target, socket.gethostname(), str(place))
        try:
            manifest = backup_files.read(place)
            if manifest.migration != options.name:
                raise Refused(
                    "CDCM-BACKUP-INCOMPLETE",
                    f"{place} holds a backup of the migration {manifest.migration!r}",
                    "Name the directory of one of this migration.",
                )
            if known is None or known.taken_at != manifest.taken_at:
                known = _note(target, place, manifest)
            found = _verify(options, place, manifest, into_dsn, observe)
        except MigratorError as error:
            if known is not None and error.code in (*_DOUBTS, "CDCM-BACKUP-INCOMPLETE"):
                with speaking("target", "writing down what was found"):
                    backups.verified(target, known.id, error.as_dict(), ok=False)
            raise
        with speaking("target", "writing down what was found"):
            return backups.verified(target, known.id, found, ok=True)


def note(options: BackupOptions, place: str, taken_at: datetime, reason: str) -> Backup:
    """Take a backup into the account that the user stands for.

    Raises:
        ConfigurationError: CDCM-BACKUP-TIME: it would be taken in the future.
        Refused: CDCM-MIGRATION-MISSING.
    """
    with _account(options) as (target, _):
        if taken_at > datetime.now(UTC):
            raise ConfigurationError(
                "CDCM-BACKUP-TIME",
                f"{taken_at.isoformat()} is in the future",
                "Give the time as of which the source is in the backup, with its offset.",
            )
        with speaking("target", "writing down the backup"):
            return backups.note(target, Kind.REFERENCE, place, taken_at, None, {"reason": reason})


def known(options: BackupOptions) -> list[Backup]:
    """All backups in the account, the newest first. Raises Refused CDCM-MIGRATION-MISSING."""
    with _account(options) as (target, _), speaking("target", "reading the account of backups"):
        return backups.all(target)


@contextmanager
def _account(options: BackupOptions) -> Iterator[tuple[psycopg.Connection, Migration]]:
    with connect(options.target_dsn, application_name=options.called, side="target") as target:
        with speaking("target", "reading the migration"):
            there = migration.require(target, options.name)
            schema.ensure(target, "target")
        yield target, there


def _dump(
    options: BackupOptions,
    names: Names,
    source: psycopg.Connection,
    tools: Tools,
    directory: Path,
    observe: Observe,
) -> Manifest:
    with speaking("source", "taking a snapshot for the backup"):
        row = source.execute(
            "SELECT pg_export_snapshot(), clock_timestamp(), pg_current_wal_lsn()::text, "
            "current_database(), current_setting('server_encoding'), "
            "pg_database_size(current_database())"
        ).fetchone()
        own = ours(source, names.publication)
    assert row is not None
    snapshot, taken_at, position, database, encoding, whole = row
    tools.run(
        "pg_dump",
        [
            "--format=directory",
            "--compress=1",  # gzip's default takes much longer for little less
            f"--jobs={options.jobs}",
            f"--snapshot={snapshot}",
            "--exclude-schema=cdc_migrator",
            f"--lock-wait-timeout={_LOCK_WAIT}",
            f"--file={directory}",
        ],
        source,
        meanwhile=lambda: observe(
            f"dumping: {backup_files.size(directory) >> 20} MiB packed, "
            f"of a database of {whole >> 20} MiB"
        ),
    )
    reach("backup.dumped")
    observe("checksums")
    kept = toc.without(toc.parse(tools.contents(directory)), own, never=())
    (directory / backup_files.CONTENTS).write_text("".join(f"{one.line}\n" for one in kept))
    return backup_files.seal(
        directory,
        lambda files: Manifest(
            migration=options.name,
            database=database,
            encoding=encoding,
            taken_at=taken_at,
            position=position,
            server_version=source.info.server_version,
            tools_version=tools.major,
            files=files,
        ),
    )


def _note(target: psycopg.Connection, directory: Path, manifest: Manifest) -> Backup:
    with speaking("target", "writing down the backup"):
        return backups.note(
            target,
            Kind.DUMP,
            str(directory),
            manifest.taken_at,
            manifest.bytes,
            {"host": socket.gethostname(), **backup_files.details(manifest)},
        )


def _newest(target: psycopg.Connection) -> Path:
    found = backups.dump_on(target, socket.gethostname())
    if found is None:
        raise Refused(
            "CDCM-BACKUP-NONE",
            "there is no backup on this machine to verify",
            "Make one with `cdc-migrator backup create DIRECTORY`, or name its directory.",
        )
    return Path(found.place)


def _verify(
    options: BackupOptions,
    directory: Path,
    manifest: Manifest,
    into_dsn: str | None,
    observe: Observe,
) -> dict[str, object]:
    """What the test found, fit for the account."""
    total = max(manifest.bytes, 1)
    backup_files.check(
        directory, manifest, lambda done: observe(f"checksums: {100 * done // total} %")
    )
    dsn = into_dsn or options.target_dsn
    with connect(dsn, application_name=options.called, side="server of the test restore") as into:
        tools = find(
            manifest.server_version,
            into.info.server_version,
            options.postgres_bin,
            tls=into.pgconn.ssl_in_use,
        )
        # Also says whether its table of contents can be read.
        tools.contents(directory)
        try:
            back = restore(directory, tools, into, dsn, manifest.encoding, options.jobs, observe)
        except (OSError, EOFError, zlib.error) as error:
            raise backup_files.damaged(directory, f"a file cannot be read ({error})") from None
    return {**asdict(back), "bytes": manifest.bytes}
