"""The REST client's patience, against a server that answers as a worker does at bad moments."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from cdc_migrator.capture.connect_rest import ConnectClient, summary
from cdc_migrator.errors import Failed, Refused
from cdc_migrator.model.outside import Workers

REBALANCING = (
    409,
    {"error_code": 409, "message": "Cannot complete request because of a rebalance"},
)


@contextmanager
def answering(*answers: tuple[int, object]) -> Iterator[tuple[str, list[str]]]:
    """A server giving these answers in turn (the last one for ever); its URL and the requests."""
    left = list(answers)
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            requests.append(f"{self.command} {self.path}")
            code, body = left.pop(0) if len(left) > 1 else left[0]
            data = json.dumps(body).encode() if body is not None else b""
            self.send_response(code)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_DELETE = answer

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_rebalance_is_waited_for() -> None:
    """409 during a rebalance is asked again; the answer after it counts."""
    with (
        answering(REBALANCING, REBALANCING, (200, {"a": "b"})) as (url, requests),
        ConnectClient(Workers.at(url)) as client,
    ):
        assert client.config("x") == {"a": "b"}
    assert len(requests) == 3


def test_a_rebalance_without_end_is_an_error() -> None:
    """Patience has an end."""
    with (
        answering(REBALANCING) as (url, _),
        ConnectClient(Workers.at(url), patience=0.5) as client,
        pytest.raises(Refused, match="CDCM-CONNECT-REJECTED"),
    ):
        client.config("x")


def test_a_conflict_that_is_no_rebalance_is_said_at_once() -> None:
    """A connector that exists already is not waited for."""
    conflict = (409, {"error_code": 409, "message": "Connector x already exists"})
    with (
        answering(conflict) as (url, requests),
        ConnectClient(Workers.at(url)) as client,
        pytest.raises(Refused, match="already exists"),
    ):
        client.create_stopped("x", {})
    assert requests == ["POST /connectors"]


def test_a_status_that_is_not_there_yet_is_none() -> None:
    """404 right after a connector was made is no error."""
    with (
        answering((404, {"message": "No status found"})) as (url, _),
        ConnectClient(Workers.at(url)) as client,
    ):
        assert client.status("x") is None
        assert client.stop("x") is False
        assert client.delete("x") is False


def test_a_running_connector_with_a_failed_task_has_failed() -> None:
    """The connector's own state hides its task's; the trace is told without record contents."""
    body = {
        "name": "x",
        "connector": {"state": "RUNNING", "worker_id": "w"},
        "tasks": [{"id": 0, "state": "FAILED", "worker_id": "w", "trace": TRACE}],
    }
    with answering((200, body)) as (url, _), ConnectClient(Workers.at(url)) as client:
        status = client.status("x")

    assert status is not None
    assert status.failed
    assert not status.running
    assert "WAL segment has been removed" in status.trace
    assert "alice" not in status.trace
    assert "at io.debezium" not in status.trace


TRACE = """org.apache.kafka.connect.errors.ConnectException: An exception occurred
\tat io.debezium.pipeline.ErrorHandler.setProducerThrowable(ErrorHandler.java:66)
\t... 5 more
Caused by: org.postgresql.util.PSQLException: ERROR: WAL segment has been removed
  Detail: Key (email)=(alice@example.org) is there
Caused by: io.debezium.DebeziumException: record SourceRecord{value=Struct{name=alice}}
"""


def test_nobody_there_is_named_without_the_urls_password() -> None:
    """A URL may hold a password; the error shows the host only."""
    with (
        ConnectClient(Workers.at("http://user:s3cret@127.0.0.1:1")) as client,
        pytest.raises(Failed, match="CDCM-CONNECT-UNREACHABLE") as caught,
    ):
        client.version()
    assert "s3cret" not in str(caught.value)
    assert "127.0.0.1:1" in caught.value.cause


def test_offsets_are_reset_only_where_there_are_some() -> None:
    """A worker fails on a second reset of a connector that never ran: it is not asked."""
    with (
        answering((200, {"offsets": []})) as (url, requests),
        ConnectClient(Workers.at(url)) as client,
    ):
        client.reset_offsets("x")
    assert requests == ["GET /connectors/x/offsets"]


def test_summary_is_a_chain_of_reasons() -> None:
    """One line, no stack frames, nothing twice."""
    assert summary("") == ""
    assert summary("A: b\n\tat c.d(E.java:1)\nA: b\nCaused by: F: g") == "A: b; Caused by: F: g"
