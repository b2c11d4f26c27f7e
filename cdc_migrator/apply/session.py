"""The session that applies: what it switches off, and what it remembers."""

from __future__ import annotations

import psycopg

from cdc_migrator.apply.merge import SESSION_SETTINGS
from cdc_migrator.control import deferring, fence
from cdc_migrator.databases.postgres.connect import connect, describe_dsn
from cdc_migrator.errors import Refused
from cdc_migrator.model.logins import Role, login


def open_session(dsn: str) -> psycopg.Connection:
    """A session on the target in which triggers and foreign keys are off, and that may pass the
    fence.

    Raises Refused (CDCM-TARGET-REPLICA-ROLE) where the role may not switch them off any more,
    CDCM-TARGET-ACTS where they are left out for that reason and one is there, and what `connect`
    raises.
    """
    conn = connect(
        login(dsn, Role.APPLY),
        application_name="cdc-migrator apply",
        side="target",
        settings=SESSION_SETTINGS,
    )
    conn.prepared_max = 1000
    try:
        # Foreign keys hold at the end of each source transaction, not in between; triggers
        # have fired on the source already.
        deferring.hold_off(conn)
        fence.present(conn)
    except psycopg.errors.InsufficientPrivilege:
        conn.close()
        raise Refused(
            "CDCM-TARGET-REPLICA-ROLE",
            f"the role may not switch off triggers and foreign keys for its own session on "
            f"the target at {describe_dsn(dsn)}",
            "As a superuser of the target: GRANT SET ON PARAMETER session_replication_role "
            "TO the role of the target's connection string.",
        ) from None
    except (psycopg.Error, Refused):
        conn.close()
        raise
    return conn
