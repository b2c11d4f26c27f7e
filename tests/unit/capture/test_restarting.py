"""A failed connector is started again where that may help, ever later, and not for ever."""

from __future__ import annotations

import pytest

from cdc_migrator.capture.restarting import WAITS, WELL_SECONDS, Restarts, passes

LOST = "org.postgresql.util.PSQLException: Connection to db1:5432 refused."


@pytest.mark.parametrize(
    ("trace", "may_pass"),
    [
        (LOST, True),
        ("FATAL: the database system is starting up", True),
        ("An I/O error occurred while sending to the backend", True),
        ("FATAL: terminating connection due to administrator command", True),
        ("PSQLException: This replication stream has been closed.", True),
        ("PSQLException: This connection has been closed.", True),
        ("PSQLException: PGStream is closed", True),
        ("org.apache.kafka.common.errors.TimeoutException: Timeout expired", True),
        ('FATAL: password authentication failed for user "x"', False),
        ('ERROR: replication slot "cdcm_shop_1" does not exist', False),
        ('ERROR: publication "cdcm_shop" does not exist', False),
        ("this is no longer available on the server", False),
        ("java.lang.OutOfMemoryError: Java heap space; Connection reset", False),
        (
            "RecordTooLargeException: The message is 99 bytes when serialized which is larger than "
            "9; the transaction is aborted",
            False,
        ),
        ("something else", False),
    ],
)
def test_only_what_may_pass_by_itself_is_tried_again(trace: str, may_pass: bool) -> None:
    """A password stays wrong, however often it is tried."""
    assert passes(trace) is may_pass


def test_attempts_come_ever_later_and_end() -> None:
    """After the last one a person has to look."""
    restarts, now, at = Restarts(), 0.0, []
    while now < 2 * sum(WAITS):
        if restarts.failed(now, LOST):
            at.append(now)
        now += 1.0
    assert len(at) == len(WAITS)
    gaps = [later - earlier for earlier, later in zip([0.0, *at], at, strict=False)]
    assert gaps == sorted(gaps)


def test_what_has_run_for_long_is_well_again() -> None:
    """A failure much later has all its attempts; one soon after has not."""
    restarts = Restarts(attempts=3)
    restarts.runs(0.0)
    restarts.runs(WELL_SECONDS - 1)
    assert restarts.attempts == 3
    restarts.runs(WELL_SECONDS)
    assert restarts.attempts == 0
