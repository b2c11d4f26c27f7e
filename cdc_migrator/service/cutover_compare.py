"""Compare what was written to since its last proof: before the fence, behind it, or afterwards."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta
from typing import Any

from cdc_migrator.errors import Failed
from cdc_migrator.reconcile.options import PassOptions
from cdc_migrator.reconcile.snapshot import Sides
from cdc_migrator.service import reconcile
from cdc_migrator.service.quiet import QuietAlignment
from cdc_migrator.service.reconcile import Ready, ReconcileOptions
from cdc_migrator.service.reconcile_report import Report

# What the stream has not written to is left to its proof; gates look at the proofs' age.
_ANY_AGE = timedelta(days=3650)
# Nobody has to be spared here: the applier has nothing to do, or hardly anything.
_NO_LAG = 3600.0


class Comparison:
    """The comparisons of one cutover, on sessions that are there before anybody waits.

    Attributes:
        through: all that was written to was found equal, at the point that was kept.
    """

    def __init__(self, name: str, source_dsn: str, target_dsn: str) -> None:
        self._name = name
        self._dsns = (source_dsn, target_dsn)
        self._stack = ExitStack()
        self._ready: Ready | None = None
        self._quiet: QuietAlignment | None = None
        self._kept = False
        self.through = False

    @property
    def kept(self) -> bool:
        """Whether the point at which both sides are quiet was kept, to be read from later."""
        return self._kept

    def close(self) -> None:
        """Give the point up, and let others compare again."""
        self._stack.close()

    def before(self) -> None:
        """Compare while everybody works, so that little is left; nobody else does from now on.

        Raises as `at_point`.
        """
        asked = self._asked(None)
        with reconcile.aligning(asked) as aligner:
            _judge(reconcile.run(asked, aligner, ready=self._ours(asked)))
        self._points()

    def keep_point(self) -> None:
        """Keep the point: a snapshot on either side. Both must be quiet."""
        self._points().take()
        self._kept = True

    def at_point(self, seconds: float | None) -> dict[str, Any]:
        """Compare at the point that is kept, for so long at most; what it came to.

        Raises:
            Failed: CDCM-CUTOVER-DIFFERS. MigratorError: as `service.reconcile.run`.
        """
        asked = self._asked(seconds)
        report = reconcile.run(asked, self._points(), ready=self._ours(asked))
        _judge(report)
        self.through = report.finished
        return {"seconds": round(report.seconds, 3), "finished": report.finished}

    def _points(self) -> QuietAlignment:
        if self._quiet is None:
            called = f"cdcm-{self._name}-cutover"
            self._quiet = self._stack.enter_context(QuietAlignment(*self._dsns, called))
        return self._quiet

    def _ours(self, asked: ReconcileOptions) -> Ready:
        if self._ready is None:
            sessions = self._stack.enter_context(reconcile.both(asked))
            sides = [
                self._stack.enter_context(Sides(*self._dsns, asked.called))
                for _ in range(asked.work.workers)
            ]
            self._ready = Ready(sessions, sides)
        return self._ready

    def _asked(self, seconds: float | None) -> ReconcileOptions:
        return ReconcileOptions(
            self._name,
            *self._dsns,
            mode="incremental",
            proof_age=_ANY_AGE,
            work=PassOptions(seconds=seconds, max_lag=_NO_LAG),
        )


def _judge(report: Report) -> None:
    standing = [one for table in report.tables for one in table.standing]
    if (report.finished and not report.equal) or any(one.state == "open" for one in standing):
        raise Failed(
            "CDCM-CUTOVER-DIFFERS",
            "rows differ between both sides, or a table could not be compared",
            "`cdc-migrator reconcile history` names them, `cdc-migrator reconcile --repair` "
            "writes them anew; then run the same command again.",
        )
