"""The account of backups: copies of the source that exist elsewhere.

A dump counts once it was verified, and no longer when a later look at it failed. A reference is
what the user says of a backup of their own, and counts because they said so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import psycopg
from psycopg.rows import kwargs_row
from psycopg.types.json import Jsonb

from cdc_migrator.control import journal


class Kind(StrEnum):
    """`DUMP`: a directory made by `backup create`; `REFERENCE`: the user's word for one."""

    DUMP = "dump"
    REFERENCE = "reference"


@dataclass(frozen=True, slots=True)
class Backup:
    """One row of ``backup``.

    Attributes:
        place: a dump's directory on the machine ``details.host``; else where the user says it is.
        taken_at: as of when the source is in it.
        bytes: size on disk; None where nobody knows.
        details: of a dump its server version and files, and what its verification found; of a
            reference the user's reason.
        verified_at: when a dump was last restored for a test; None: never, or it failed since.
    """

    id: int
    kind: Kind
    place: str
    taken_at: datetime
    bytes: int | None
    details: dict[str, Any]
    verified_at: datetime | None
    actor: str
    noted_at: datetime

    @property
    def usable(self) -> bool:
        """Whether it may be relied on."""
        return self.kind is Kind.REFERENCE or self.verified_at is not None


_SELECT = (
    "SELECT id, kind, place, taken_at, bytes, details, verified_at, actor, noted_at "
    "FROM cdc_migrator.backup"
)


def _backup(**row: Any) -> Backup:
    return Backup(kind=Kind(row.pop("kind")), **row)


def all(conn: psycopg.Connection) -> list[Backup]:
    """Every backup, the newest first."""
    with conn.cursor(row_factory=kwargs_row(_backup)) as cursor:
        return cursor.execute(f"{_SELECT} ORDER BY taken_at DESC, id DESC").fetchall()


def latest(conn: psycopg.Connection) -> Backup | None:
    """The newest one that may be relied on, by when it was taken; None where there is none."""
    return next((one for one in all(conn) if one.usable), None)


def dump_on(conn: psycopg.Connection, host: str, place: str | None = None) -> Backup | None:
    """The newest dump that is on this machine, or in this directory there; or None."""
    return next(
        (
            one
            for one in all(conn)
            if one.kind is Kind.DUMP
            and one.details.get("host") == host
            and place in (None, one.place)
        ),
        None,
    )


def note(
    conn: psycopg.Connection,
    kind: Kind,
    place: str,
    taken_at: datetime,
    bytes: int | None,
    details: Mapping[str, Any],
) -> Backup:
    """Write a backup down, journalled; it is not verified yet."""
    with conn.transaction():
        row = conn.execute(
            "INSERT INTO cdc_migrator.backup (kind, place, taken_at, bytes, details, actor) "
            "VALUES (%s, %s, %s, %s, %s, %s) RETURNING id",
            (kind, place, taken_at, bytes, Jsonb(dict(details)), journal.actor()),
        ).fetchone()
        assert row is not None
        noted = _read(conn, row[0])
        journal.write(conn, "backup-noted", backup=noted.id, kind=kind, place=place)
    return noted


def verified(conn: psycopg.Connection, id: int, found: Mapping[str, Any], ok: bool) -> Backup:
    """Write down, journalled, that a dump was looked at: what was found, and whether it is whole.

    Args:
        found: kept as ``details.verification``.
    """
    with conn.transaction():
        conn.execute(
            "UPDATE cdc_migrator.backup SET verified_at = CASE WHEN %s THEN clock_timestamp() END, "
            "details = details || jsonb_build_object('verification', %s::jsonb) WHERE id = %s",
            (ok, Jsonb(dict(found)), id),
        )
        journal.write(conn, "backup-verified" if ok else "backup-doubted", backup=id)
        return _read(conn, id)


def _read(conn: psycopg.Connection, id: int) -> Backup:
    with conn.cursor(row_factory=kwargs_row(_backup)) as cursor:
        row = cursor.execute(f"{_SELECT} WHERE id = %s", (id,)).fetchone()
    assert row is not None
    return row
