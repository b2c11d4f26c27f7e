"""Sessions that write what the source has written: nothing on the target acts on it a second time.

As a rule `session_replication_role` holds foreign keys and triggers off. Where the role may not set
it they are not there until the target is opened: that is decided once, before anything is made,
and whoever writes sees that it still holds.
"""

from __future__ import annotations

import psycopg

from cdc_migrator.control import journal, load, migration, schema
from cdc_migrator.control.migration import Phase
from cdc_migrator.databases.postgres import acting
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Refused
from cdc_migrator.model.logins import Role, login
from cdc_migrator.model.wording import few


def may_hold_off(dsn: str) -> bool:
    """Whether who applies may keep triggers and foreign keys from acting; tried for its sake.

    Managed services grant it in ways of their own. Raises MigratorError: it cannot connect.
    """
    called = "cdc-migrator check"
    with connect(login(dsn, Role.APPLY), application_name=called, side="target") as conn:
        try:
            conn.execute("SET session_replication_role = replica")
        except psycopg.errors.InsufficientPrivilege:
            return False
    return True


def begin(conn: psycopg.Connection) -> None:
    """Write down that foreign keys and triggers are left out until the target is opened."""
    with conn.transaction():
        row = conn.execute(
            "INSERT INTO cdc_migrator.deferral DEFAULT VALUES ON CONFLICT DO NOTHING RETURNING 1"
        ).fetchone()
        if row is not None:
            journal.write(conn, "keys-and-triggers-deferred")


def defers(conn: psycopg.Connection) -> bool:
    """Whether they are left out on this migration's target, now or until it was opened."""
    if not schema.has(conn, "deferral"):  # what an earlier release has begun
        return False
    row = conn.execute("SELECT EXISTS (SELECT FROM cdc_migrator.deferral)").fetchone()
    return row == (True,)


def waits(conn: psycopg.Connection) -> bool:
    """Whether they are left out now: the target is not open yet."""
    if not defers(conn):
        return False
    there = migration.read(conn)
    return there is None or not there.phase.reached(Phase.SWITCHED)


def hold_off(conn: psycopg.Connection) -> None:
    """Have nothing act on what this session writes.

    Raises:
        Refused: CDCM-TARGET-ACTS: they are left out, and somebody has made some.
        psycopg.errors.InsufficientPrivilege: the role may not hold them off any more.
    """
    if not defers(conn):
        conn.execute("SET session_replication_role = replica")
    elif waits(conn):
        found = acting.always(conn, [one.target for one in load.read_tables(conn)])
        if found:
            raise acts(found)


def acts(found: list[str]) -> Refused:
    """CDCM-TARGET-ACTS: these act on whatever is applied."""
    return Refused(
        "CDCM-TARGET-ACTS",
        f"on the target there are {few(found)}, and its role may not hold them off: they would act "
        "on what is applied a second time",
        "Drop them there: `cdc-migrator cutover` makes what the source has in the moment in which "
        "it opens the target. Or grant SET ON PARAMETER session_replication_role before a new "
        "start.",
    )
