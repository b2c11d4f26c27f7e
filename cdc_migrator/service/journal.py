"""The journals of a migration: the target's, and the source's where a way back was prepared.

Reads only. The way back is a migration of its own, named after the forward one; its journal lies on
the source.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg

from cdc_migrator.control import chain, journal, migration, schema
from cdc_migrator.control.chain import Checked, Entry
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Refused
from cdc_migrator.model.logins import Role, login
from cdc_migrator.model.naming import way_back_of

SIDES = ("target", "source")


@dataclass(frozen=True, slots=True)
class Journals:
    """Which migration, and where its databases are. The strings hold passwords."""

    name: str
    source_dsn: str
    target_dsn: str

    def dsn(self, side: str) -> str:
        return self.target_dsn if side == "target" else self.source_dsn


@dataclass(frozen=True, slots=True)
class Journal:
    """One side's journal, whole."""

    side: str
    migration: str
    read_at: datetime
    entries: tuple[Entry, ...]

    @property
    def checked(self) -> Checked:
        return chain.check(self.entries)


def of_side(conn: psycopg.Connection, name: str, side: str) -> Journal | None:
    """The journal in this database; None where the source has none of this migration."""
    if side == "source":
        if not schema.has(conn, "journal"):
            return None
        there = migration.read(conn)
        if there is None or there.name != way_back_of(name):
            return None
        return Journal(side, there.name, datetime.now(UTC), tuple(journal.entries(conn)))
    migration.require(conn, name)
    return Journal(side, name, datetime.now(UTC), tuple(journal.entries(conn)))


def read(where: Journals, side: str) -> Journal | None:
    """One side's journal; None where the source has none.

    Raises:
        MigratorError: the database does not answer. Refused: CDCM-MIGRATION-MISSING,
            CDCM-TARGET-TAKEN.
    """
    called = f"cdcm-{where.name}-journal"
    with (
        connect(
            login(where.dsn(side), Role.MONITOR),
            application_name=called,
            side=side,
            read_only=True,
        ) as conn,
        speaking(side, "reading the journal"),
    ):
        return of_side(conn, where.name, side)


def require(where: Journals, side: str) -> Journal:
    """As `read`. Raises Refused: CDCM-JOURNAL-NONE: the source has none."""
    found = read(where, side)
    if found is None:
        raise Refused(
            "CDCM-JOURNAL-NONE",
            "the source has no journal: no way back was prepared there",
            "The migration's own journal is the target's: leave --side out.",
        )
    return found


def latest(
    where: Journals, side: str, most: int, action: str | None, since: timedelta | None
) -> list[Entry]:
    """The last entries of one side, oldest first. Raises as `require`.

    Args:
        since: not older than so long, by the clock of this machine.
    """
    entries = require(where, side).entries
    after = datetime.now(UTC) - since if since is not None else None
    chosen = [
        one
        for one in entries
        if (action is None or one.action == action) and (after is None or one.at >= after)
    ]
    return chosen[-most:]
