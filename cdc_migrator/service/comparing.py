"""Beside the pipeline: compares both sides all the time, at a share of it, and never disturbs.

Round after round, each with an alignment point of its own: what the stream has written to since it
was proven, then the oldest proofs. It gives way to a command that compares. What fails here is
shown, and tried again later; the stream does not notice.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta

import psycopg
import structlog

from cdc_migrator.control import load, locks
from cdc_migrator.control.reconcile import CONTINUOUS
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import MigratorError, name_of
from cdc_migrator.model.logins import Role, login
from cdc_migrator.reconcile.chunks import Sizes
from cdc_migrator.reconcile.options import PassOptions
from cdc_migrator.reconcile.passes import Pass
from cdc_migrator.service import reconcile
from cdc_migrator.service.alignment import RequestedAlignment
from cdc_migrator.service.beside import Beside
from cdc_migrator.service.reconcile import ReconcileOptions
from cdc_migrator.service.reconcile_report import Report

_CHUNKS_A_ROUND = 256
_TURN_SECONDS = 0.25
_FIRST_PAUSE = 5.0
_LONGEST_PAUSE = 300.0

_log = structlog.get_logger("cdc_migrator.service")


@dataclass(frozen=True, slots=True)
class Continuous:
    """How the service compares by itself.

    Attributes:
        share: of the time in which it keeps a session of either server busy.
        repair: write anew what differs.
        proof_age: after which a chunk comes before those that are only the oldest.
        pause: seconds from one round to the next. sizes: of the chunks.
    """

    share: float
    repair: bool
    proof_age: timedelta
    pause: float = 10.0
    sizes: Sizes = field(default_factory=Sizes)


class Comparing(Beside):
    """Compares until left. A context manager.

    Attributes:
        state: what it is doing, or why it is not: for people.
    """

    def __init__(
        self,
        source_dsn: Callable[[], str],
        target_dsn: Callable[[], str],
        migration: str,
        options: Continuous,
    ) -> None:
        super().__init__("comparing")
        self._source_dsn = source_dsn
        self._target_dsn = target_dsn
        self._migration = migration
        self._options = options
        self._pass: Pass | None = None
        self._open = 0
        self.state = "begins"

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stop.is_set():
            try:
                self._one_round()
            except (psycopg.Error, MigratorError) as error:
                if self._stop.is_set():
                    break
                code = name_of(error)
                cause = error.cause if isinstance(error, MigratorError) else error.sqlstate
                self.state = f"failed: {code}, tried again in {pause:g} s"
                _log.warning("not-compared", code=code, reason=cause, again_in=pause)
                self._stop.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                pause = _FIRST_PAUSE

    def _one_round(self) -> None:
        """A round that goes to its end, once there is something to compare. Raises what failed."""
        with (
            connect(
                login(self._target_dsn(), Role.APPLY),
                application_name="cdc-migrator compare",
                side="target",
            ) as conn,
            RequestedAlignment(self._target_dsn(), stopping=self._stop) as aligner,
            ThreadPoolExecutor(1, "compare") as pool,
        ):
            while not self._stop.is_set():
                with speaking("target", "reading what is to be compared"):
                    asked = locks.taken(conn, locks.Role.RECONCILE_COMMAND)
                    tables = load.read_tables(conn)
                if asked:
                    self.state = "gives way to a command that compares"
                    self._stop.wait(_TURN_SECONDS)
                    continue
                if tables:
                    self.state = "compares"
                    report = self._round(conn, pool.submit(self._compare, aligner))
                    if report is None:
                        continue
                    self._tell(report)
                self.state = "waits for its next round"
                self._stop.wait(self._options.pause)
                return

    def _compare(self, aligner: RequestedAlignment) -> Report:
        options = ReconcileOptions(
            self._migration,
            self._source_dsn(),
            self._target_dsn(),
            mode=CONTINUOUS,
            repair=self._options.repair,
            proof_age=self._options.proof_age,
            most=_CHUNKS_A_ROUND,
            work=PassOptions(workers=1, share=self._options.share, sizes=self._options.sizes),
        )
        return reconcile.run(options, aligner, begun=self._begun)

    def _begun(self, work: Pass) -> None:
        self._pass = work
        if self._stop.is_set():
            work.stop()

    def _round(self, conn: psycopg.Connection, running: Future[Report]) -> Report | None:
        """Wait for a round; None where it was broken off. Raises what failed."""
        given_up = False
        try:
            while not running.done():
                self._stop.wait(_TURN_SECONDS)
                if self._stop.is_set() or locks.taken(conn, locks.Role.RECONCILE_COMMAND):
                    given_up = True
                    if self._pass is not None:
                        self._pass.stop(at_once=True)
                if self._stop.is_set():
                    break
        except psycopg.Error:
            if self._pass is not None:
                self._pass.stop(at_once=True)
            raise
        finally:
            error = running.exception()
            self._pass = None
        if given_up:
            return None
        if error is not None:
            raise error
        return running.result()

    def _tell(self, report: Report) -> None:
        opened = sum(known.state == "open" for one in report.tables for known in one.standing)
        if opened != self._open:
            tables = sorted({str(one.table) for one in report.tables if not one.equal})
            _log.warning("rows-differ", open=opened, tables=tables[:10])
            self._open = opened
