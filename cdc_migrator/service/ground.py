"""Beside the pipeline: watches what the stream stands on, and does what may be done by itself.

What is lost for good is told once, with its code; where what comes next may be of another history
the service ends. A connector that failed for a reason that may pass is started again a few times.
Log that the source keeps beyond its limit is told, and the slot is given up for it only where the
settings name that very slot.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import psycopg
import structlog

from cdc_migrator.capture import slot as slots
from cdc_migrator.capture.connect_rest import ConnectClient
from cdc_migrator.capture.restarting import Restarts
from cdc_migrator.control import anew, journal
from cdc_migrator.control.progress import Progress
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import MigratorError, Refused, name_of
from cdc_migrator.model.connector_failures import failure
from cdc_migrator.model.logins import Role, login
from cdc_migrator.monitor.ground import HALTING, WAY_OUT, Loss, losses, retained_beyond
from cdc_migrator.monitor.remote import KafkaAsker
from cdc_migrator.monitor.sample import Sample
from cdc_migrator.service.beside import Beside
from cdc_migrator.service.options import RunOptions

_TURN_SECONDS = 0.25
_PAUSE_SECONDS = 5.0
_LEVELS = ("fine", "warn", "limit")

_log = structlog.get_logger("cdc_migrator.service")


def require_topic(options: RunOptions, claimed: Progress, conn: psycopg.Connection) -> None:
    """See that the topic is the one that the stored position is of.

    Does nothing where Kafka does not answer: whoever reads from it tells that.

    Raises Refused: CDCM-STREAM-TOPIC-ANEW.
    """
    found = None
    with suppress(MigratorError):
        found = KafkaAsker(options.brokers).look(claimed.topic).topic_id
    if found is None:
        return
    if claimed.topic_id is None:
        with speaking("target", "writing down which topic it is"):
            anew.know_topic(conn, found)
    elif claimed.topic_id != found:
        raise Refused(
            "CDCM-STREAM-TOPIC-ANEW",
            f"the topic {claimed.topic} was deleted and made again under the same name: its "
            "offsets are not those that were stored",
            WAY_OUT,
        )


class Ground(Beside):
    """Watches until left. A context manager.

    Args:
        sample: the latest measurement; None before the first one.
        on_lost: told of what ends the service.
    """

    def __init__(
        self,
        options: RunOptions,
        sample: Callable[[], Sample | None],
        on_lost: Callable[[MigratorError], None],
    ) -> None:
        super().__init__("ground")
        self._options = options
        self._sample = sample
        self._on_lost = on_lost
        self._seen: set[str] = set()  # in the sample before
        self._told: set[str] = set()
        self._restarts = Restarts()
        self._failure: dict[str, str] | None = None
        self._level = 0
        self._dropped = False

    @property
    def restarts(self) -> int:
        """How often the failed connector was started again, since it was well for long."""
        return self._restarts.attempts

    def _run(self) -> None:
        seen: Sample | None = None
        pause = _TURN_SECONDS
        while not self._stop.wait(pause):
            pause = _TURN_SECONDS
            sample = self._sample()
            if sample is None or sample is seen:
                continue
            seen = sample
            try:
                self._look(sample)
            except (MigratorError, psycopg.Error) as error:
                told = name_of(error)
                _log.warning("ground-not-kept", reason=told)
                pause = _PAUSE_SECONDS

    def _look(self, sample: Sample) -> None:
        lost = losses(sample)
        codes = {loss.code for loss in lost}
        # One sample alone may err: where this process was stopped while it was taken, its parts
        # are of different times. What halts does not rest on such a comparison.
        certain = (self._seen | HALTING) & codes
        for loss in lost:
            if loss.code in certain - self._told:
                self._tell(sample, loss)
        self._told = (self._told | certain) & codes
        self._seen = codes
        for loss in lost:
            if loss.code in HALTING:
                self._on_lost(Refused(loss.code, loss.cause, loss.remedy))
        if not lost:
            self._tend(sample)
        self._weigh(sample)

    def _tell(self, sample: Sample, loss: Loss) -> None:
        _log.error("ground-lost", **loss.as_dict())
        with self._target() as conn, speaking("target", "writing the journal"):
            journal.write(
                conn, "ground-lost", code=loss.code, cause=loss.cause, generation=sample.generation
            )

    def _tend(self, sample: Sample) -> None:
        """Start the connector again where that may help."""
        there = sample.connector
        if there is None or not there.exists:
            return
        now = time.monotonic()
        if there.running:
            self._restarts.runs(now)
            self._failure = None
        elif "FAILED" in (there.state, *there.tasks):
            known = failure(there.trace)
            why = {"reason": there.trace or ""} if known is None else known.as_dict()
            if why != self._failure:
                _log.error("connector-failed", connector=there.name, **why)
            self._failure = why
            if not self._restarts.failed(now, there.trace or ""):
                return
            number = self._restarts.attempts
            _log.warning("connector-restarted", attempt=number, reason=there.trace)
            with self._target() as conn, speaking("target", "writing the journal"):
                journal.write(
                    conn,
                    "connector-restart",
                    connector=there.name,
                    attempt=number,
                    reason=there.trace,
                )
            with self._connect() as client:
                client.restart_failed(there.name)

    def _weigh(self, sample: Sample) -> None:
        """Tell where the source keeps too much log; give the slot up where that is confirmed."""
        level, told = retained_beyond(sample)
        slot = sample.slot
        if level != self._level:
            say = _log.error if level > 1 else _log.warning if level else _log.info
            say("retained-wal", level=_LEVELS[level], cause=told)
            with self._target() as conn, speaking("target", "writing the journal"):
                journal.write(conn, "retained-wal", level=_LEVELS[level], cause=told)
            self._level = level
        if level < 2 or slot is None or self._dropped:
            return
        if self._options.retained.may_drop(slot.name):
            self._give_up(sample, slot.name, told)
            self._dropped = True

    def _give_up(self, sample: Sample, slot: str, told: str | None) -> None:
        _log.error("slot-given-up", slot=slot, cause=told)
        with self._target() as conn, speaking("target", "writing the journal"):
            journal.write(conn, "slot-given-up", slot=slot, cause=told)
        if sample.connector is not None:
            # Otherwise it would take the slot again, or make one of the same name.
            with self._connect() as client:
                client.stop(sample.connector.name)
        called = f"cdcm-{self._options.migration}-ground"
        with (
            connect(
                login(self._options.source_dsn(), Role.CAPTURE),
                application_name=called,
                side="source",
            ) as source,
            speaking("source", "dropping the replication slot"),
        ):
            slots.drop(source, slot)

    def _connect(self) -> ConnectClient:
        return ConnectClient(self._options.workers, patience=5.0)

    def _target(self) -> psycopg.Connection:
        return connect(
            login(self._options.target_dsn(), Role.APPLY),
            application_name=f"cdcm-{self._options.migration}-ground",
            side="target",
        )
