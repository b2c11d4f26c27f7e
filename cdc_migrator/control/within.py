"""Whether a database is both sides of one migration: its tables move into another schema of it."""

from __future__ import annotations

import psycopg

from cdc_migrator.control import schema
from cdc_migrator.databases.postgres.fence import Guard
from cdc_migrator.errors import Refused


def both_sides(conn: psycopg.Connection) -> bool:
    """As the control schema here has it, which a way back gives two sides of two migrations."""
    if not (schema.has(conn, "captured") and schema.has(conn, "migration")):
        return False
    row = conn.execute(
        "SELECT EXISTS (SELECT FROM cdc_migrator.captured JOIN cdc_migrator.migration USING (name))"
    ).fetchone()
    return row == (True,)


def require_apart(conn: psycopg.Connection) -> None:
    """For what goes back to the source. Raises Refused: CDCM-WAY-BACK-SAME-DATABASE."""
    if both_sides(conn):
        raise no_way_back()


def no_way_back() -> Refused:
    """CDCM-WAY-BACK-SAME-DATABASE."""
    return Refused(
        "CDCM-WAY-BACK-SAME-DATABASE",
        "source and target are one database, which has one migration into it: there is no way "
        "back inside it",
        "Say in cutover.without_way_back why none is needed. The source's tables stay as they "
        "were when they were left, until you drop them.",
    )


def guard(conn: psycopg.Connection) -> Guard:
    """The function of the fence around the tables that are left here."""
    return Guard.LEFT if both_sides(conn) else Guard.OWN
