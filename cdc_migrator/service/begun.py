"""Tables whose reading anew was begun and not ended: it is ended before the stream goes on.

Whoever was at it was killed, or somebody has typed it and left. Meanwhile the source may have
changed such a table once more; then the target follows to what it is by now, as at a change in the
stream.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import psycopg
import structlog

from cdc_migrator.control import progress, shapes
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.model.described import Described
from cdc_migrator.model.wording import few
from cdc_migrator.monitor.sample import ServiceState
from cdc_migrator.service import registry
from cdc_migrator.service.options import RunOptions
from cdc_migrator.service.resuming import reread
from cdc_migrator.service.schema_following import Following
from cdc_migrator.service.schema_step import Step
from cdc_migrator.service.schema_words import Place

_LOOK_SECONDS = 1.0

_log = structlog.get_logger("cdc_migrator.service")


class Begun:
    """Ends what was begun. Arguments as of `Following`; `target` opens a session there."""

    def __init__(
        self,
        options: RunOptions,
        target: Callable[[], psycopg.Connection],
        stop: threading.Event,
        turn: Callable[[ServiceState], float],
    ) -> None:
        self._options = options
        self._target = target
        self._stop = stop
        self._turn = turn

    def end(self, alone: bool = False) -> bool:
        """Have nothing left of it; False when stopped meanwhile. While another process applies the
        stream, it is that one's to do.

        Args:
            alone: nobody else does: this process has claimed the stream.

        Raises what reading has met, and StreamHalted where the target cannot follow.
        """
        told = False
        while not self._stop.is_set():
            with self._target() as conn, speaking("target", "reading the tables of the migration"):
                left = dict.fromkeys(one.relation for one in registry.unread(conn))
                if not left:
                    return True
                noted = shapes.read(conn)
                mine = alone or not progress.alive(conn, self._options.takeover_after)
            if mine:
                _log.warning("tables-read-again", reason="it was begun and not ended")
                return self._read([noted[one] for one in left if one in noted])
            self._turn(ServiceState.STANDBY)
            if not told:
                _log.info("standby", reason="another process may be reading tables again")
                told = True
            self._stop.wait(_LOOK_SECONDS)
        return False

    def _read(self, noted: Sequence[Described]) -> bool:
        """`noted`: what these tables are at the stream's position, or were when they were read."""
        options = self._options
        if options.way_back or not noted:
            reread(options.reread, [], self._turn)
            return True
        following = Following(options, self._stop, self._turn)
        at = Place(f"the reading of {few(one.name for one in noted)}", 0, found=True)
        wanted = [Step(one, one, (), (), reload=True) for one in noted]
        wanted = following.borne([following.as_of_now(one) for one in wanted], at)
        changed = [one for one in wanted if one.after is not one.before]
        for one in changed:
            following.require_same_side(one, at)
        if changed and not following.follow(changed, (), (), at):
            return False
        return following.read_again(wanted, at)
