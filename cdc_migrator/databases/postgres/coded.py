"""Turn a server's error into a coded one that a user can act on, without any row's values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from cdc_migrator.databases.postgres.sqlstate import connection_lost
from cdc_migrator.errors import Failed, MigratorError, Refused

# Messages of these classes speak of names and settings; those of 22 and 23 may quote values.
_SPEAKING = frozenset({"0A", "28", "3D", "3F", "42", "53", "54", "55", "57", "58"})


def describe(exc: psycopg.Error) -> str:
    """The error's SQLSTATE with names only: message where it holds no values, table, constraint."""
    if exc.sqlstate is None:
        return "the connection was lost" if connection_lost(exc) else type(exc).__name__
    parts = [f"SQLSTATE {exc.sqlstate}"]
    diag = exc.diag
    if exc.sqlstate[:2] in _SPEAKING and diag.message_primary:
        parts.append(diag.message_primary)
    names = ".".join(filter(None, (diag.schema_name, diag.table_name, diag.column_name)))
    if names:
        parts.append(names)
    if diag.constraint_name:
        parts.append(f"constraint {diag.constraint_name}")
    return ", ".join(parts)


def coded(exc: psycopg.Error, side: str, doing: str) -> MigratorError:
    """The coded form of `exc`, raised by the `side`'s server while `doing` something."""
    if connection_lost(exc):
        return Failed(
            "CDCM-DB-LOST",
            f"the connection to the {side} was lost while {doing}",
            "Run the same command again; it goes on where it was.",
        )
    if exc.sqlstate == "42501":
        return Refused(
            "CDCM-DB-PRIVILEGE",
            f"the {side} does not allow {doing}: {exc.diag.message_primary}",
            f"Grant the role of the {side}'s connection string what is missing, or use another.",
        )
    if exc.sqlstate == "55P03":
        return Failed(
            "CDCM-DB-LOCKED",
            f"a lock on the {side} was not to be had while {doing}",
            "See what holds it (`SELECT * FROM pg_locks WHERE NOT granted`), then run the same "
            "command again.",
        )
    return Failed(
        "CDCM-DB-ERROR",
        f"the {side} reported an error while {doing}: {describe(exc)}",
        "Correct the cause and run the same command again.",
    )


@contextmanager
def speaking(side: str, doing: str) -> Iterator[None]:
    """Raise every error of the driver inside the block in its coded form."""
    try:
        yield
    except psycopg.Error as exc:
        raise coded(exc, side, doing) from exc
