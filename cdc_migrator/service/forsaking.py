"""Go back to the source without the target, which is lost: what had not come over is given up.

Nothing can be fenced over there, so a person says that nobody will write there again. What Kafka
still holds of the way back is applied first. Then one commit opens the source, as a rollback does.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from cdc_migrator.backfill import sequence_sync
from cdc_migrator.capture.topics import Topics
from cdc_migrator.control import cutover as rows
from cdc_migrator.control import fence as fences
from cdc_migrator.control import load, locks, markers, migration, progress
from cdc_migrator.control.cutover import Attempt
from cdc_migrator.control.migration import Phase
from cdc_migrator.cutover.hooks.base import Moment
from cdc_migrator.cutover.machine import State
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Failed, MigratorError, Refused
from cdc_migrator.faultpoints import reach
from cdc_migrator.model.outside import Brokers
from cdc_migrator.service.cutover_options import CutoverOptions

_ANSWER_SECONDS = 5
_LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Loss:
    """What the source has, and what it may lack.

    Attributes:
        until: everything that was committed on the target up to then, by its clock, is on the
            source; None: nothing had come over yet.
        position: the same as a position in the target's log.
        pending: records of the topic that were not applied.
    """

    until: datetime | None
    position: int
    pending: int

    def as_dict(self) -> dict[str, Any]:
        return {"until": self.until, "position": self.position, "pending": self.pending}


@dataclass(frozen=True, slots=True)
class Forsaken:
    """The source is open; `hook_error`: the hooks did not lead the applications there."""

    attempt: int
    loss: Loss
    hook_error: dict[str, Any] | None


def forsake(
    options: CutoverOptions,
    brokers: Brokers,
    patience: float,
    tell: Callable[[str], None] = lambda _: None,
) -> Forsaken:
    """Open the source without the target. Can be killed and repeated.

    Args:
        options: of a rollback.
        patience: seconds for what Kafka still holds to be applied.

    Raises:
        Refused: CDCM-ROLLBACK-REACHABLE: the target answers. CDCM-ROLLBACK-NOT-OPEN,
            CDCM-WAY-BACK-NONE. Failed: CDCM-ROLLBACK-PENDING: there is more to apply.
    """
    _require_lost(options)
    with connect(options.target_dsn, application_name=options.called, side="source") as source:
        with speaking("source", "reading the way back"):
            if migration.find(source, options.name) is None:
                raise Refused(
                    "CDCM-WAY-BACK-NONE",
                    "there is no way back: what was written on the target was never captured",
                    "Bring the target back, or restore the backup.",
                )
            if not locks.try_lock(source, locks.Role.CUTOVER):
                raise Refused(
                    "CDCM-CUTOVER-RUNNING",
                    "another process is carrying a rollback out",
                    "Leave it to its work, or end it.",
                )
            attempt = rows.unfinished(source)
        if attempt is None or attempt.opened_at is None:
            loss = _drain(source, brokers, patience, tell)
            attempt = _open(source, options, attempt, loss, tell)
        tell("the source is open")
        error = _switch(source, options, attempt, tell)
        known = attempt.details["loss"]
        until = known["until"]
        return Forsaken(
            attempt.attempt,
            Loss(
                datetime.fromisoformat(until) if until else None,
                known["position"],
                known["pending"],
            ),
            error,
        )


def _require_lost(options: CutoverOptions) -> None:
    dsn = psycopg.conninfo.make_conninfo(options.source_dsn, connect_timeout=_ANSWER_SECONDS)
    try:
        connect(dsn, application_name=options.called, side="target").close()
    except MigratorError:
        return
    raise Refused(
        "CDCM-ROLLBACK-REACHABLE",
        "the target answers, so nothing has to be given up",
        "Type `cdc-migrator rollback` without --accept-loss.",
    )


def _drain(
    source: psycopg.Connection,
    brokers: Brokers,
    patience: float,
    tell: Callable[[str], None],
) -> Loss:
    """Wait until all that Kafka holds is applied; what is on the source then."""
    tell("what Kafka still holds of the way back")
    until = time.monotonic() + patience
    topics = Topics(brokers)
    while True:
        with speaking("source", "reading how far the way back is applied"):
            stored = progress.read(source)
        assert stored is not None
        if not stored.active:
            raise Refused(
                "CDCM-ROLLBACK-NOT-OPEN",
                "applications write to the source: the target was not opened, or was left again",
                "`cdc-migrator cutover status` tells how things are.",
            )
        # The records that end a Kafka transaction count as one each.
        pending = max(topics.end_offset(stored.topic) - stored.next_offset, 0)
        if pending <= 1:
            return Loss(stored.source_committed_at, stored.commit_position, 0)
        if time.monotonic() > until:
            raise Failed(
                "CDCM-ROLLBACK-PENDING",
                f"up to {pending} records that came from the target are not applied yet",
                "Is `cdc-migrator run` alive? It applies them. Then run the same command again, or "
                "give it more time with --patience.",
            )
        time.sleep(_LOOK_SECONDS)


def _open(
    source: psycopg.Connection,
    options: CutoverOptions,
    attempt: Attempt | None,
    loss: Loss,
    tell: Callable[[str], None],
) -> Attempt:
    tell("sequences")
    tables = [one.target for one in load.read_tables(source)]
    with connect(options.target_dsn, application_name=options.called, side="source") as twice:
        # The target's sequences are lost: its own are set past the rows that came from there.
        sequence_sync.sync(twice, source, tables, options.margin)
    with speaking("source", "opening it"):
        if attempt is None:
            attempt = rows.begin(
                source, State.CHECKING, secrets.token_hex(16), False, {"accept_loss": True}
            )
        reach("forsake.opening")
        with source.transaction():
            leg = progress.retire(source)
            fences.open_all(source, options.name)
            markers.write(source, options.opposite, "start", attempt.start_marker, leg)
            told = {**loss.as_dict(), "until": loss.until.isoformat() if loss.until else None}
            rows.enter(
                source,
                attempt.attempt,
                attempt.state,
                State.SWITCHING,
                details={"loss": told},
                opened=True,
            )
            migration.set_phase(source, Phase.SWITCHED, attempt=attempt.attempt, leg=leg)
        found = rows.read(source, attempt.attempt)
    assert found is not None
    return found


def _switch(
    source: psycopg.Connection,
    options: CutoverOptions,
    attempt: Attempt,
    tell: Callable[[str], None],
) -> dict[str, Any] | None:
    """Lead the applications to the source; the error where that did not work."""
    if options.hooks is not None:
        try:
            for did in options.hooks.run(Moment.SWITCH, attempt.attempt):
                tell(f"hook {did}")
        except MigratorError as error:
            return error.as_dict()
    with speaking("source", "writing down that it is done"):
        rows.enter(source, attempt.attempt, attempt.state, State.DONE, ended=True)
    return None
