"""Sort database errors by what to do about them. Decides only; retrying lives in the applier.

Codes: PostgreSQL documentation, Appendix A.
"""

from __future__ import annotations

from enum import StrEnum

import psycopg


class Disposition(StrEnum):
    """What an error asks for.

    RETRY: the same work may succeed later.
    CONFLICT: a unique or exclusion constraint; another order of statements may succeed.
    BAD_ROW: the data cannot be stored there; find the row.
    HALT: anything else: privileges, missing objects, a bug.
    """

    RETRY = "retry"
    CONFLICT = "conflict"
    BAD_ROW = "bad_row"
    HALT = "halt"


_RETRY_CODES = frozenset(
    {
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
        "55P03",  # lock_not_available
        "55006",  # object_in_use
        "57014",  # query_canceled: statement timeout or somebody's cancel
        "57P01",  # admin_shutdown
        "57P02",  # crash_shutdown
        "57P03",  # cannot_connect_now
        "57P05",  # idle_session_timeout
        "25P03",  # idle_in_transaction_session_timeout
        "25006",  # read_only_sql_transaction: a standby during fail-over, or a full disk
    }
)
_RETRY_CLASSES = frozenset({"08", "53", "58"})  # connection, resources, system errors
_CONFLICT_CODES = frozenset({"23505", "23P01"})
_BAD_ROW_CLASSES = frozenset({"22", "23", "44"})  # data, constraint, WITH CHECK OPTION


def disposition(exc: psycopg.Error) -> Disposition:
    """Sort one error of the driver or the server."""
    state = exc.sqlstate
    if state is None:
        return Disposition.RETRY if connection_lost(exc) else Disposition.HALT
    if state in _RETRY_CODES or state[:2] in _RETRY_CLASSES:
        return Disposition.RETRY
    if state in _CONFLICT_CODES:
        return Disposition.CONFLICT
    if state[:2] in _BAD_ROW_CLASSES:
        return Disposition.BAD_ROW
    return Disposition.HALT


def connection_lost(exc: psycopg.Error) -> bool:
    """Whether the session is gone, so that a COMMIT under way may or may not have happened."""
    state = exc.sqlstate
    if state is None:
        # libpq reports a broken connection without a code.
        return isinstance(exc, psycopg.OperationalError)
    return state[:2] == "08" or state in ("57P01", "57P02", "57P03", "57P05", "25P03")
