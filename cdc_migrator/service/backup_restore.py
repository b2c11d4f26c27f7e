"""Restore a dump for a test into a database of its own, and compare the rows table by table.

The database is dropped afterwards, whatever happened. One that a killed test left has no sessions
once its pg_restore has ended, and goes with the next test.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from cdc_migrator.backfill import toc
from cdc_migrator.backfill.toc import Entry
from cdc_migrator.backfill.tools import Tools
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Failed, Refused
from cdc_migrator.faultpoints import reach
from cdc_migrator.model.wording import few
from cdc_migrator.service import backup_files

_PREFIX = "cdcm_restore_"
_SIDE = "server of the test restore"
_LOCALE = """
SELECT datlocprovider::text, datcollate, datctype,
       coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale')
FROM pg_database d WHERE datname = current_database()
"""
_TABLES = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""


@dataclass(frozen=True, slots=True)
class Restored:
    """What came back: tables with rows in the dump, rows in all of them, and the server's
    version."""

    tables: int
    rows: int
    server_version: int


def restore(
    directory: Path,
    tools: Tools,
    server: psycopg.Connection,
    server_dsn: str,
    encoding: str,
    jobs: int,
    observe: Callable[[str], None],
) -> Restored:
    """Restore the dump and count.

    Args:
        server: a session where databases can be made. server_dsn: leads there, too.
        encoding: of the dumped database.
        observe: is told again and again what is being done.

    Raises:
        Refused: CDCM-BACKUP-SCRATCH: the role may not make a database.
        Failed: CDCM-TOOL-FAILED; CDCM-BACKUP-DIFFERS: not all came back.
    """
    entries = toc.parse((directory / backup_files.CONTENTS).read_text())
    # These act at once, or on somebody else's behalf: not in a test.
    wanted = toc.without(entries, ())
    with (
        scratch(server, encoding) as name,
        connect(
            make_conninfo(server_dsn, dbname=name),
            application_name=server.info.get_parameters().get("application_name", "cdc-migrator"),
            side=_SIDE,
        ) as conn,
        tempfile.TemporaryDirectory(prefix="cdcm-backup-") as place,
    ):
        chosen = Path(place) / "list"
        chosen.write_text("".join(f"{entry.line}\n" for entry in wanted))
        reach("backup.scratch")
        tools.run(
            "pg_restore",
            [
                "--exit-on-error",
                f"--jobs={jobs}",
                "--no-owner",
                "--no-privileges",
                "--no-tablespaces",
                f"--use-list={chosen}",
                str(directory),
            ],
            conn,
            meanwhile=lambda: observe("restoring for a test"),
        )
        observe("counting rows")
        tables, rows = _compare(conn, directory, wanted)
        return Restored(tables, rows, conn.info.server_version)


@contextmanager
def scratch(server: psycopg.Connection, encoding: str) -> Iterator[str]:
    """The name of a new database, dropped at the end; leftovers of others go first.

    Its locale is that of the database that `server` is in.
    """
    with speaking(_SIDE, "making a database for it"):
        _require_right(server)
        _sweep(server)
        name = f"{_PREFIX}{secrets.token_hex(6)}"
        server.execute(_creating(server, name, encoding))
    try:
        yield name
    finally:
        with speaking(_SIDE, "dropping the database of the test"):
            server.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )


def _require_right(server: psycopg.Connection) -> None:
    row = server.execute(
        "SELECT rolcreatedb OR rolsuper, rolname FROM pg_roles WHERE rolname = current_user"
    ).fetchone()
    assert row is not None
    if not row[0]:
        raise Refused(
            "CDCM-BACKUP-SCRATCH",
            f"the role {row[1]} may not make a database to restore into",
            f"ALTER ROLE {row[1]} CREATEDB, or name another server with --into.",
        )


def _sweep(server: psycopg.Connection) -> None:
    """Drop what a killed test left. One that is being restored into has a session."""
    left = server.execute(
        "SELECT datname FROM pg_database d WHERE starts_with(datname, %s) "
        "AND pg_has_role(datdba, 'USAGE') "
        "AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.datid = d.oid)",
        (_PREFIX,),
    ).fetchall()
    for (name,) in left:
        try:
            server.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))
        except psycopg.errors.ObjectInUse:
            continue  # somebody was about to use it


def _creating(server: psycopg.Connection, name: str, encoding: str) -> sql.Composed:
    row = server.execute(_LOCALE).fetchone()
    assert row is not None
    provider, collate, ctype, locale = row
    text = sql.SQL(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}"
    ).format(sql.Identifier(name), sql.Literal(encoding), sql.Literal(collate), sql.Literal(ctype))
    special = {"i": ("icu", "ICU_LOCALE"), "b": ("builtin", "BUILTIN_LOCALE")}.get(provider)
    if special is None:
        return text + sql.SQL(" LOCALE_PROVIDER libc")
    return text + sql.SQL(" LOCALE_PROVIDER {} {} {}").format(
        sql.SQL(special[0]), sql.SQL(special[1]), sql.Literal(locale)
    )


def _compare(
    conn: psycopg.Connection, directory: Path, entries: Sequence[Entry]
) -> tuple[int, int]:
    """Count each table on both sides: tables and rows.

    Raises:
        Failed: CDCM-BACKUP-DIFFERS.
    """
    with speaking(_SIDE, "counting the restored rows"):
        there = {f"{schema} {name}": (schema, name) for schema, name in conn.execute(_TABLES)}
        total, wrong = 0, []
        data = [entry for entry in entries if entry.kind == "TABLE DATA"]
        for entry in data:
            # The owner's name ends the line; names may hold blanks.
            said = entry.line.split(" TABLE DATA ", 1)[1]
            found = [key for key in there if said.startswith(_on_one_line(key) + " ")]
            if not found:
                wrong.append(f"{said.rpartition(' ')[0]} is not there")
                continue
            schema, name = there[max(found, key=len)]
            row = conn.execute(
                sql.SQL("SELECT count(*) FROM ONLY {}").format(sql.Identifier(schema, name))
            ).fetchone()
            assert row is not None
            expected = backup_files.rows(directory, entry.number)
            if expected is not None and row[0] != expected:
                wrong.append(f"{schema}.{name} has {row[0]} rows of {expected}")
            total += row[0]
    if wrong:
        raise Failed(
            "CDCM-BACKUP-DIFFERS",
            f"not all that is in the backup came back: {few(wrong)}",
            "Do not rely on it: make another with `cdc-migrator backup create`.",
        )
    return len(data), total


def _on_one_line(name: str) -> str:
    """As pg_restore lists it."""
    return name.replace("\r", " ").replace("\n", " ")
