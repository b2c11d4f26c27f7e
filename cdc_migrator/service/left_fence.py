"""The fence of the side that is left, as one cutover makes, raises, asks and lifts it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from cdc_migrator.control import cutover as rows
from cdc_migrator.control import fence as target_fence
from cdc_migrator.control import schema, within
from cdc_migrator.control.cutover import Attempt
from cdc_migrator.cutover import fence
from cdc_migrator.cutover.fence import Raised
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.fence import Guard
from cdc_migrator.errors import Failed
from cdc_migrator.model.tables import TableName
from cdc_migrator.model.wording import few
from cdc_migrator.service.cutover_options import CutoverOptions
from cdc_migrator.service.cutover_sessions import Sessions


class LeftFence:
    """Each part can be repeated. `tables` are the migration's, by the names of the side left."""

    def __init__(self, options: CutoverOptions, sessions: Sessions) -> None:
        self._options = options
        self._sessions = sessions

    def prepare(self, tables: Sequence[TableName]) -> int:
        """Make it, not raised; how many tables it will stand around. Raises as `fence.prepare`."""
        made = fence.prepare(
            self._sessions.source,
            self._options.name,
            tables,
            self._passing(),
            side=self._options.leaving,
            guard=self._guard,
        )
        return len(made)

    def up(self, tables: Sequence[TableName], attempt: Attempt) -> Raised:
        """Raise it, and write down on that side that it is. Raises as `fence.raise_fence`."""
        with speaking(self._options.leaving, "reading its fence"):
            fenced = fence.prepared(self._sessions.source, tables)
        return fence.raise_fence(
            self._sessions.source,
            self._options.name,
            fenced,
            attempt.marker,
            self._options.fence,
            [rows.copy_fenced(self._options.name, attempt, fenced, self._sessions.entered())],
            self._options.leaving,
            self._guard,
        )

    def require(self, tables: Sequence[TableName]) -> None:
        """What was read so far was read behind it. Raises Failed: CDCM-CUTOVER-HOLE."""
        left = self._options.leaving
        if holes := fence.holes(self._sessions.source, tables, left, self._guard):
            raise Failed(
                "CDCM-CUTOVER-HOLE",
                f"the {left}'s fence is not up on {few(holes)}: somebody took it off, or made a "
                "partition",
                "Find out who did; then run the same command again.",
            )

    def down(self, attempt: Attempt) -> None:
        """Lift it from where it was raised. Raises Failed: CDCM-FENCE-LOCKED."""
        source, name = self._sessions.source, self._options.name
        copy = rows.read_copy(source, name)
        fence.lower(
            source,
            name,
            copy.tables if copy else (),
            attempt.lifted_marker,
            self._options.leaving,
            self._guard,
        )

    @cached_property
    def _guard(self) -> Guard:
        with speaking(self._options.leaving, "looking whether it is the other side as well"):
            return within.guard(self._sessions.source)

    def _passing(self) -> str:
        """What stands for the token that passes it."""
        if self._guard is Guard.LEFT:
            return ""  # the token here is the applier's, which has no business on this side
        # Of that side itself, where the other way will write there.
        for conn in (self._sessions.source, self._sessions.control):
            if schema.has(conn, "fence") and (digest := target_fence.digest(conn)):
                return digest
        return ""
