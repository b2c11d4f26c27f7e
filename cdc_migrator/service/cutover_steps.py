"""What each state of a cutover stands for: the work itself, each part of which can be repeated.

The machine (`cutover.machine`) says in which order; `service.cutover` carries it out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

from cdc_migrator.backfill import sequence_sync
from cdc_migrator.capture import slot as slots
from cdc_migrator.control import (
    carrying,
    dead_letters,
    load,
    markers,
    migration,
    progress,
    relations,
    schema,
    standing,
)
from cdc_migrator.control import cutover as rows
from cdc_migrator.control import fence as target_fence
from cdc_migrator.control.cutover import Attempt, Copied
from cdc_migrator.control.load import TableLoad
from cdc_migrator.control.migration import Phase
from cdc_migrator.cutover import fence
from cdc_migrator.cutover.hooks.base import Moment
from cdc_migrator.cutover.machine import State
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.errors import Failed, MigratorError, Refused
from cdc_migrator.faultpoints import reach
from cdc_migrator.model.tables import TableName
from cdc_migrator.model.wording import few
from cdc_migrator.service.cutover_compare import Comparison
from cdc_migrator.service.cutover_options import CutoverOptions
from cdc_migrator.service.cutover_sessions import Sessions
from cdc_migrator.service.left_fence import LeftFence
from cdc_migrator.service.opening import Opening
from cdc_migrator.service.way_back import ping

_LAG_PATIENCE = 60.0
# The application waits for it to come back, too.
_SOURCE_PATIENCE = 60.0
_LOOK_SECONDS = 0.1
_PING_PATIENCE = 15.0
# Applications have gone over by then; without it everything is compared once more.
_START_PATIENCE = 30.0


class Steps:
    """The sessions, opened before anybody is made to wait, and the work of each state."""

    def __init__(
        self, options: CutoverOptions, sessions: Sessions, tell: Callable[[str], None]
    ) -> None:
        self._options = options
        self._sessions = sessions
        self._tell = tell
        self._sequences_set = False
        # Maps of chunks by those of the other way; empty: not by this process.
        self._laid: dict[int, int] = {}
        self._fence = LeftFence(options, sessions)
        self._opening = Opening(sessions, lambda: relations.plain(self._known()))
        self._comparison = Comparison(options.name, options.source_dsn, options.target_dsn)
        self.details: dict[str, Any] = dict(options.settings)
        # When the source's fence came up, by this process's clock; None: not by this process.
        self.fenced_at: float | None = None

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, *_: object) -> None:
        self._comparison.close()

    def tables(self) -> list[TableName]:
        """The tables of the side that is left."""
        with speaking(self._options.entering, "reading the migration's tables"):
            return standing.leaving(self._sessions.control)

    def _known(self) -> list[TableLoad]:
        with speaking(self._options.entering, "reading the migration's tables"):
            return load.read_tables(self._sessions.control)

    # Before anybody waits

    def check(self) -> None:
        """Raises Refused: CDCM-CUTOVER-NOT-READY."""
        unready = self._options.unready()
        if unready:
            self.details["unready"] = [reason for reason, _ in unready]
            remedies = dict.fromkeys(remedy for _, remedy in unready if remedy)
            raise Refused(
                "CDCM-CUTOVER-NOT-READY",
                f"it is not safe to switch over: {few((r for r, _ in unready), '; ')}",
                "; ".join(remedies) or "`cdc-migrator readiness` shows each gate.",
            )

    def prepare(self, attempt: Attempt) -> None:
        """Everything that may take long and keeps nobody waiting."""
        options = self._options
        with speaking(self._options.leaving, "preparing its control schema"):
            schema.ensure(self._sessions.source, "source")
        self._tell(f"the {options.entering}'s fence")
        self._fence_entering()
        if options.hooks is not None:
            for did in options.hooks.run(Moment.CHECK, attempt.attempt):
                self._tell(f"hook {did}")
        self._tell(f"the {options.leaving}'s fence, not raised yet")
        self.details["fenced_tables"] = self._fence.prepare(self.tables())
        self._ping()
        self.details |= self._opening.prepare(self._tell)
        self.details |= standing.behind(self._sessions.source, self._sessions.control, self._tell)
        self._tell("sequences")
        self._set_sequences()
        self._tell("rows that were written to since they were compared")
        self._comparison.before()
        if options.back or self._captured_back:
            with speaking(options.leaving, "laying out the chunks of the other way"):
                self._laid = carrying.lay_out(self._sessions.control, self._sessions.source)
        self._wait_for_lag()

    def hold(self, attempt: Attempt) -> None:
        """Let the hooks hold the applications."""
        if self._options.hooks is not None:
            for did in self._options.hooks.run(Moment.HOLD, attempt.attempt):
                self._tell(f"hook {did}")

    # While writers wait

    def raise_fence(self, attempt: Attempt) -> None:
        """Stop the source's writers."""
        raised = self._fence.up(self.tables(), attempt)
        self.fenced_at = time.monotonic() - raised.held_ms / 1000
        self.details |= {
            "fence_tries": raised.tries,
            "fence_held_ms": round(raised.held_ms, 3),
            "terminated": raised.terminated,
        }

    def drain(self, attempt: Attempt, left: float) -> None:
        """Wait until all that was written before the fence is applied."""
        with speaking(self._options.entering, "waiting for its applier"):
            if markers.wait(self._sessions.listener, attempt.marker, left):
                dead_letters.require_none(self._sessions.listener)
                return
        raise Failed(
            "CDCM-CUTOVER-BUDGET",
            "what was written before the fence was not applied within the budget",
            "See `cdc-migrator status`: is `run` alive, and how far behind? Then try again, or "
            "give it more time (cutover.budget).",
        )

    def verify(self, left: float) -> None:
        """Compare what was written to since its last proof, or at least keep the point."""
        self._comparison.keep_point()
        self._fence.require(self.tables())
        if self._options.inside:
            seconds = min(left, self._options.verify_seconds)
            # Both read what does not change any more, on sessions of their own.
            with ThreadPoolExecutor(1, thread_name_prefix="sequences") as beside:
                sequences = beside.submit(self._set_sequences)
                self.details["compared_inside"] = self._comparison.at_point(seconds)
            sequences.result()
            self._sequences_set = True

    def set_sequences(self) -> None:
        """Set the target's sequences past all that the source gave, unless that is done."""
        if not self._sequences_set:
            self._set_sequences()

    def open_target(self, attempt: Attempt) -> None:
        """The point of no return: retire the stream and open the target, in one transaction."""
        options, control = self._options, self._sessions.control
        self._fence.require(self.tables())
        with speaking(options.leaving, f"saying that the {options.entering} is about to be opened"):
            if not rows.about_to_open(self._sessions.source, options.name, attempt.attempt):
                raise Failed(
                    "CDCM-CUTOVER-LIFTED",
                    f"the {options.leaving}'s fence was lifted by another command meanwhile",
                    "Run the same command again.",
                )
        reach("cutover.opening")
        with speaking(options.entering, "opening it"), control.transaction():
            leg = progress.retire(control)
            if not markers.is_applied(control, attempt.marker):
                raise Failed(
                    "CDCM-CUTOVER-UNDRAINED",
                    "not all that was written before the fence is applied",
                    "Run the same command again.",
                )
            self._opening.make()
            target_fence.open_all(control, options.name)
            if self._captured_back:
                # In the very commit that opens: what the other way wrote here lies before it,
                # what applications write behind it.
                start = leg if options.back else attempt.leg
                markers.write(control, options.opposite, "start", attempt.start_marker, start)
            stall = None if self.fenced_at is None else time.monotonic() - self.fenced_at
            rows.enter(
                control,
                attempt.attempt,
                State.OPENING,
                State.SWITCHING,
                details={"stall_ms": None if stall is None else round(stall * 1000, 3)},
                opened=True,
            )
            migration.set_phase(control, Phase.SWITCHED, attempt=attempt.attempt, leg=leg)
            reach("cutover.opened.before")
        reach("cutover.opened.after")

    # After it

    def switch(self, attempt: Attempt) -> None:
        """Let the hooks lead the applications to the target; then compare what is left."""
        if self._options.hooks is not None:
            for did in self._options.hooks.run(Moment.SWITCH, attempt.attempt):
                self._tell(f"hook {did}")
        if self._options.back and self._options.keep_fence:
            with speaking(self._options.leaving, "fencing its tables"):
                target_fence.keep(self._sessions.source, self._options.opposite, wanted=True)
        if self.fenced_at is not None:
            self.details["switched_ms"] = round((time.monotonic() - self.fenced_at) * 1000, 3)
        self.details |= self._opening.prove(self._tell)
        if self._comparison.kept and not self._comparison.through:
            self._tell("rows that were not compared inside")
            try:
                self.details["compared_after"] = self._comparison.at_point(None)
            except MigratorError as error:
                # Nothing is undone for it any more; but nobody may overlook it.
                self.details["verify_error"] = error.as_dict()
        self.details["verified"] = self._comparison.through
        if self._comparison.through and self._laid:
            self._carry(attempt)

    def undo(self, attempt: Attempt, reached: State, told: bool) -> None:
        """Let everybody write on the source again.

        Args:
            reached: the state from which it is undone. told: the target's row says that it is
                being undone, so nobody opens it any more.

        Raises Failed: CDCM-CUTOVER-UNDECIDED.
        """
        name = self._options.name
        self._sessions.reconnect("source", _SOURCE_PATIENCE)
        with speaking(self._options.leaving, "giving the cutover up"):
            state = (
                rows.give_up(self._sessions.source, name, attempt.attempt, opening_too=told)
                if schema.has(self._sessions.source, "cutover_copy")
                else None
            )
        if state is Copied.OPENING:
            raise Failed(
                "CDCM-CUTOVER-UNDECIDED",
                f"the {self._options.entering} does not answer, and may be open already; so the "
                f"{self._options.leaving} stays fenced",
                f"Bring the {self._options.entering} back and run the same command again. If it is "
                f"gone for good: `cdc-migrator {self._options.command} abort "
                f"--{self._options.leaving}-only --{self._options.entering}-is-gone`.",
            )
        if state is not None:
            self._fence.down(attempt)
        if self._options.hooks is not None and reached is not State.PREPARING:
            for did in self._options.hooks.run(Moment.UNDO, attempt.attempt):
                self._tell(f"hook {did}")
        if told and not self._options.keep_fence and not self._options.back:
            with speaking(self._options.entering, "removing its fence"):
                target_fence.keep(self._sessions.control, name, wanted=False)

    def _carry(self, attempt: Attempt) -> None:
        """What is equal need not be compared again on the other way."""
        control, there = self._sessions.control, self._sessions.source
        with speaking(self._options.leaving, "writing down what is proven"):
            now = rows.read(control, attempt.attempt)
            assert now is not None
            assert now.fenced_at is not None
            self.details["proofs_carried"] = carrying.carry(
                control, there, self._laid, now.fenced_at, attempt.start_marker, _START_PATIENCE
            )

    def _fence_entering(self) -> None:
        """Nobody but the applier may write there, until it is opened."""
        options, control = self._options, self._sessions.control
        with speaking(options.entering, "fencing its tables"):
            markers.tidy(control)
            if not options.back:
                target_fence.keep(control, options.name, wanted=True)
            ours = standing.entering(control)
        if options.back and (holes := fence.holes(control, ours, options.entering)):
            raise Failed(
                "CDCM-CUTOVER-HOLE",
                f"the source's fence is not up on {few(holes)}, so the source may hold what the "
                "target does not",
                "Find out who took it off, `cdc-migrator reconcile`, then type this again.",
            )

    def _ping(self) -> None:
        """The other way is captured and applied at this very moment, if there is one."""
        if not self._options.back and self._captured_back:
            self._tell("a ping down the way back")
            self.details["way_back_ping_seconds"] = round(
                ping(
                    self._sessions.control,
                    self._sessions.source,
                    self._options.opposite,
                    _PING_PATIENCE,
                ),
                3,
            )

    @cached_property
    def _captured_back(self) -> bool:
        """Whether the other way captures what is written on the side that is opened."""
        control = self._sessions.control
        with speaking(self._options.entering, "reading what captures from it"):
            return (
                schema.has(control, "captured")
                and slots.owner(control, self._options.opposite) is not None
            )

    def _set_sequences(self) -> None:
        both, known = (self._sessions.source, self._sessions.control), self._known()
        done = sequence_sync.sync(
            *both, relations.plain(known), self._options.margin, relations.reshaped(known)
        )
        self.details["sequences"] = len(done)
        if bad := [one for one in done if not one.proven]:
            raise Failed(
                "CDCM-CUTOVER-SEQUENCES",
                f"not set past the {self._options.leaving}'s: "
                f"{few(one.decision.name for one in bad)}",
                "`cdc-migrator sequences plan` says why, with a remedy for each.",
            )

    def _wait_for_lag(self) -> None:
        until = time.monotonic() + _LAG_PATIENCE
        while True:
            with speaking(self._options.entering, "reading the lag"):
                lag = progress.lag(self._sessions.control)
            if lag is not None and lag <= self._options.max_lag:
                self.details["lag_before"] = round(lag, 3)
                return
            if time.monotonic() > until:
                behind = "an unknown time" if lag is None else f"{lag:.1f} s"
                raise Failed(
                    "CDCM-CUTOVER-LAG",
                    f"the {self._options.entering} is behind by {behind}, more than "
                    f"{self._options.max_lag:g} s",
                    "See `cdc-migrator status`; try again when it has caught up.",
                )
            time.sleep(_LOOK_SECONDS)
