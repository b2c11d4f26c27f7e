"""A failure's chain of reasons is told; what may be a row's value or a secret is not."""

from __future__ import annotations

import pytest

from cdc_migrator.model.traces import chain, noteworthy, summary

TRACE = """org.apache.kafka.connect.errors.ConnectException: An exception occurred in the event
\tat io.debezium.pipeline.ErrorHandler.setProducerThrowable(ErrorHandler.java:67)
\tat java.base/java.lang.Thread.run(Thread.java:1583)
Caused by: org.postgresql.util.PSQLException: FATAL: the database system is shutting down
\tat org.postgresql.core.v3.QueryExecutorImpl.receiveErrorResponse(QueryExecutorImpl.java:2733)
\t... 6 more
Caused by: org.postgresql.util.PSQLException: FATAL: the database system is shutting down
"""


def test_the_reasons_are_told_without_frames() -> None:
    """Each once, in their order."""
    assert summary(TRACE) == (
        "org.apache.kafka.connect.errors.ConnectException: An exception occurred in the event; "
        "Caused by: org.postgresql.util.PSQLException: FATAL: the database system is "
        "shutting down"
    )


@pytest.mark.parametrize(
    "line",
    [
        'ERROR: duplicate key value violates constraint "k" Detail: Key (a)=(SECRET)',
        "ConnectException: bad record ConnectRecord{key=Struct{id=SECRET}}",
        'ERROR: invalid input syntax for type integer: "SECRET"',
        'ERROR: value "SECRET" is out of range for type integer',
        'ERROR: malformed array literal: "SECRET"',
        "cannot connect with user=app password=SECRET",
        "cannot connect with user=app password: SECRET",
    ],
)
def test_what_may_be_a_value_or_a_secret_is_cut(line: str) -> None:
    """The reason in front of it stays."""
    told = summary(line)
    assert "SECRET" not in told
    assert told.startswith(line[:12])


def test_it_is_short() -> None:
    """However deep the chain and however long its lines."""
    deep = "\n".join(f"Caused by: number {n} " + "x" * 1000 for n in range(50))
    assert len(summary(deep)) < 2000
    assert summary("") == ""


def test_of_a_log_only_warnings_and_errors_are_told_and_nothing_that_they_quote() -> None:
    """A record with its trace is one line; what is before the first record is left out."""
    log = (
        "Detail: (secret)\n"
        "2026-11-22T17:00:00,123 INFO  o.a.k.Worker started {secret}\n"
        "2026-11-22T17:00:01,123 ERROR o.a.k.Task failed\n"
        'java.lang.Failure: invalid input syntax for type integer: "secret"\n'
        "\tat io.debezium.Reader.read(Reader.java:1)\n"
        "2026-11-22T17:00:02,123 WARN  o.a.k.Task password=secret\n"
    )
    told = noteworthy(log)
    assert "secret" not in told
    failed, warned = told.splitlines()
    assert failed.startswith("2026-11-22T17:00:01,123 ERROR o.a.k.Task failed; java.lang.Failure")
    assert "WARN" in warned


def test_a_chain_shows_where_errors_came_from_and_none_of_their_texts() -> None:
    """Causes first, as Python tells it; suppressed ones as well."""
    try:
        try:
            raise KeyError("secret")
        except KeyError:
            raise ValueError("secret, too") from None
    except ValueError as error:
        told = chain(error)
    assert "secret" not in told.replace('raise KeyError("secret")', "").replace(
        'raise ValueError("secret, too")', ""
    )
    assert told.index("builtins.KeyError") < told.index("builtins.ValueError")
    assert "test_traces.py" in told
