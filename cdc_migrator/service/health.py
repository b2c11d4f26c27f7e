"""What the running service says of its parts when it is asked whether it is ready."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

import structlog

from cdc_migrator.errors import ConfigurationError
from cdc_migrator.monitor.http import Answers, Check, HealthServer
from cdc_migrator.monitor.sample import ServiceState
from cdc_migrator.service.keeper import Keeper
from cdc_migrator.stream.consumer import StreamConsumer

# Why it does not go on, in states that say so themselves.
WAITS: Final[Mapping[ServiceState, str]] = {
    ServiceState.REREADING: "a table is read again from the source, whose changes were not all "
    "delivered",
    ServiceState.WAITING_FOR_TABLE: "a table is being added; if nobody does: cdc-migrator migrate "
    "--no-run",
    ServiceState.WAITING_FOR_SCHEMA: "the source has changed its schema; the last error names the "
    "statement",
}
_SILENT_SECONDS = 10

_log = structlog.get_logger("cdc_migrator.service")


def serve(stack: ExitStack, host: str, port: int | None, answers: Answers) -> None:
    """Answer over HTTP until the stack is left; does nothing without a port."""
    if port is None:
        return
    try:
        server = HealthServer(host, port, answers)
    except ConfigurationError as error:
        # A standby beside the owner finds the port taken; applying matters more.
        _log.warning("http-not-served", code=error.code, reason=error.cause)
        return
    stack.enter_context(server)
    _log.info("http-served", host=host, port=server.port)


def stream(state: ServiceState) -> Check:
    """Whether changes are being applied."""
    return Check(state is ServiceState.STREAMING, str(state))


def kafka(consumer: StreamConsumer | None) -> Check:
    """Whether the broker answers."""
    if consumer is None:
        return Check(False, "not connected")
    return Check(consumer.waiting is None, consumer.waiting or "")


def target(keeper: Keeper | None) -> Check:
    """Whether the target has answered lately."""
    if keeper is None:
        return Check(False, "no stream is claimed")
    silent = time.monotonic() - keeper.seen_at
    return Check(silent < _SILENT_SECONDS, f"answered {silent:.0f} s ago")


def part(keeper: Keeper | None, name: str) -> Check:
    """Whether the last measurement of this part succeeded."""
    sample = keeper.sample if keeper else None
    if sample is None:
        return Check(False, "not measured yet")
    note = next((note for note in sample.notes if note.part == name), None)
    return Check(note is None, note.code if note else "")
