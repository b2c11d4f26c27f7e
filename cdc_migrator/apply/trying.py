"""Try to write some rows: all of them are written, or none of them and it is known why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from cdc_migrator.apply.fold import fold
from cdc_migrator.apply.follow import TableState
from cdc_migrator.apply.halts import OF_ROWS
from cdc_migrator.apply.hands import Hands
from cdc_migrator.apply.merge import RowsMissing
from cdc_migrator.apply.parked import Unit, only
from cdc_migrator.apply.shape import Shape
from cdc_migrator.apply.stage import Staged, encode
from cdc_migrator.control.dead_letters import Fault
from cdc_migrator.databases.postgres.coded import describe
from cdc_migrator.databases.postgres.sqlstate import Disposition, disposition
from cdc_migrator.errors import StreamHalted


@dataclass(frozen=True, slots=True)
class Declined:
    """Why rows were not accepted; `cause` is what the server said."""

    cause: psycopg.Error | RowsMissing | StreamHalted

    @property
    def clashes(self) -> bool:
        """Whether another row's unique value is in the way."""
        cause = self.cause
        return isinstance(cause, psycopg.Error) and disposition(cause) is Disposition.CONFLICT

    @property
    def fault(self) -> Fault:
        """The same without the error itself."""
        cause = self.cause
        if isinstance(cause, StreamHalted):
            return Fault(cause.code, cause.cause)
        if isinstance(cause, RowsMissing):
            return Fault("CDCM-APPLY-ROW-MISSING", str(cause))
        told, name = describe(cause), cause.diag.constraint_name
        return Fault("CDCM-APPLY-REJECTED", told, cause.sqlstate, name)


def staged(by: Hands, shape: Shape, some: Sequence[Unit]) -> Staged:
    folded = fold(only(some), by.preparer.shapes, by.preparer.truncates)
    state = folded.tables[0] if folded.tables else TableState(shape, truncated=False)
    return encode(state, by.preparer.inline)


def attempt(by: Hands, rows: Staged) -> Declined | None:
    """Write rows and mark their chunks; None, or why none of them is written.

    Raises RowsMissing, and psycopg.Error where it is not a row's fault.
    """
    try:
        with by.conn.transaction():
            by.merger.write(rows)
            by.marks.note((rows,), by.merger.places)
    except psycopg.Error as exc:
        if disposition(exc) not in OF_ROWS:
            raise
        return Declined(exc)
    return None
