"""Where the stream cannot go on for the sake of one table: wait for it, or read it again.

A table that is being added is waited for. One of which the connector has provably or possibly lost
changes, or of which the target lacks rows that the stream changes, is read again from the source,
while the stream stands still in front of the transaction in question; from there on whatever the
new reading has seen is left out for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

import structlog

from cdc_migrator.apply.applier import Applier
from cdc_migrator.apply.fold import UnknownTable
from cdc_migrator.control.progress import Progress
from cdc_migrator.errors import Failed, Fenced, MigratorError
from cdc_migrator.model.tables import TableName
from cdc_migrator.monitor.sample import ServiceState
from cdc_migrator.service.options import RunOptions
from cdc_migrator.service.registry import Registry
from cdc_migrator.service.writer import Writer
from cdc_migrator.stream.parts import TableUnproven

_LOOK_SECONDS = 1.0

_log = structlog.get_logger("cdc_migrator.service")


def reread(
    read: Callable[[Sequence[str]], None],
    tables: Sequence[str],
    turn: Callable[[ServiceState], object],
) -> None:
    """Read tables again, which takes as long as they are large, and tell `turn` meanwhile that
    the service lives: who probes it would end it, and the reading would begin anew.

    Raises what reading has met, and what `turn` raises once the reading is done.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="reread") as pool:
        reading = pool.submit(read, tables)
        while not reading.done():
            turn(ServiceState.REREADING)
            wait([reading], timeout=_LOOK_SECONDS / 4)
        reading.result()


@dataclass(frozen=True, slots=True)
class Resumed:
    """The tables as they are known now, and where reading goes on."""

    known: Registry
    begin: Progress


class Resuming:
    """Gets the stream going again; used between two flows of it.

    Args:
        read: the registry as it is now.
        stop: nothing is waited for any longer once it is set.
        turn: says that the service lives, and in which state; raises what has ended it.
    """

    def __init__(
        self,
        options: RunOptions,
        applier: Applier,
        writer: Writer,
        read: Callable[[], Registry],
        stop: threading.Event,
        turn: Callable[[ServiceState], float],
    ) -> None:
        self._options = options
        self._applier = applier
        self._writer = writer
        self.read = read
        self.stop = stop
        self.turn = turn
        self._read_at: set[tuple[TableName, str]] = set()

    def wait_for(self, unknown: UnknownTable) -> Resumed | None:
        """Wait until the table can be applied to and take it up; None when stopped meanwhile.

        Raises `unknown` where the table is not being added; Fenced; and what has stood against
        it for longer than the target may be away.
        """
        self._writer.interrupt()
        failing: float | None = None
        told = False
        while not self.stop.is_set():
            now = self.turn(ServiceState.WAITING_FOR_TABLE)
            try:
                known = self.read()
                if known.knows(unknown.table):
                    return self.take_up(known)
                failing = None
            except Fenced:
                raise
            except Failed as error:
                failing = failing or now
                if now - failing > self._options.retry_for:
                    raise
                _log.warning("tables-not-read", code=error.code)
            else:
                if unknown.table not in known.joining:
                    raise unknown
                if not told:
                    _log.info("waiting-for-table", reason="a table is being added")
                    told = True
            self.stop.wait(_LOOK_SECONDS)
        return None

    def read_again(self, halt: TableUnproven, known: Registry) -> Resumed | None:
        """Read the table again and go on; None when stopped meanwhile.

        Raises `halt` where the table is larger than is read again without asking, where that has
        not helped, and what reading it has met.
        """
        relation = known.relation_of(halt.table)
        table = next((one for one in known.tables if one.name == relation), None)
        place = (halt.table, halt.position)
        if table is None or table.bytes > self._options.reread_bytes or place in self._read_at:
            raise halt
        self._read_at.add(place)
        self._writer.interrupt()
        _log.warning(
            "table-read-again", table=str(halt.table), code=halt.code, position=halt.position
        )
        try:
            names = [str(name) for name in known.names_of(relation)]
            reread(self._options.reread, names, self.turn)
        except MigratorError as error:
            _log.warning("table-not-read", code=error.code, reason=error.cause)
            raise halt from error
        if self.stop.is_set():
            return None
        return self.take_up(self.read())

    def pass_over(self, halt: TableUnproven, known: Registry) -> Resumed:
        """Go on behind a transaction of which nothing is written. Raises `halt` where one is.

        All that comes in front of it was taken up, so it is known what the stream does there.
        """
        if self._applier.active or halt.commit_lsn is None or halt.commit_lsn <= known.passed:
            raise halt
        self._writer.interrupt()
        _log.info("transaction-passed-over", code=halt.code, position=halt.position)
        return self.take_up(replace(known, passed=halt.commit_lsn))

    def take_up(self, known: Registry) -> Resumed:
        """Go on with these tables."""
        with self._writer.turn():
            begin = self._applier.learn(
                known.tables,
                known.sides,
                known.rereads,
                known.stops(self._options.migration),
                known.routes,
            )
        _log.info("tables-learned", tables=len(known.tables), offset=begin.next_offset)
        return Resumed(known, begin)
