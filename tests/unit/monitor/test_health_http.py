"""The health server answers its four paths, quickly, and nothing else."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from cdc_migrator.errors import ConfigurationError
from cdc_migrator.monitor import http
from cdc_migrator.monitor.http import Answers, Check, HealthServer


@contextmanager
def served(**changes: Any) -> Iterator[str]:
    """The address of a server with these answers."""
    answers = {
        "metrics": lambda: b"# page\n",
        "idle_seconds": lambda: 0.1,
        "checks": {"kafka": lambda: Check(True), "source": lambda: Check(True, "slot active")},
    }
    with HealthServer("127.0.0.1", 0, Answers(**{**answers, **changes})) as server:
        yield f"http://127.0.0.1:{server.port}"


def get(url: str) -> tuple[int, str]:
    answer = httpx.get(url, trust_env=False)
    return answer.status_code, answer.text


def test_metrics_are_served_with_their_type() -> None:
    """As Prometheus wants them."""
    with served() as url:
        answer = httpx.get(f"{url}/metrics", trust_env=False)
    assert answer.text == "# page\n"
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")


def test_alive_means_that_the_loop_turns() -> None:
    """Whatever the dependencies say."""
    failing = {"kafka": lambda: Check(False)}
    with served(checks=failing) as url:
        assert get(f"{url}/livez") == get(f"{url}/healthz") == (200, "ok\n")
    with served(idle_seconds=lambda: 61.0) as url:
        assert get(f"{url}/livez")[0] == get(f"{url}/healthz")[0] == 503


def test_ready_means_that_every_part_is_well() -> None:
    """Verbose names each part; a failing one is named always."""
    with served() as url:
        assert get(f"{url}/readyz") == (200, "ok\n")
        assert get(f"{url}/readyz?verbose") == (
            200,
            "[+]kafka ok\n[+]source ok: slot active\nok\n",
        )
    checks = {"kafka": lambda: Check(True), "target": lambda: Check(False, "no answer")}
    with served(checks=checks) as url:
        assert get(f"{url}/readyz") == (
            503,
            "[+]kafka ok\n[-]target failed: no answer\nnot ok\n",
        )


def test_a_check_that_fails_to_answer_is_not_ready_and_tells_no_secret() -> None:
    """Only the error's type."""

    def broken() -> Check:
        raise RuntimeError("hunter2")

    with served(checks={"kafka": broken}) as url:
        assert get(f"{url}/readyz") == (503, "[-]kafka failed: RuntimeError\nnot ok\n")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/../etc/passwd", "/readyz/x", "//livez/"])
def test_no_other_path(path: str) -> None:
    """Nothing to find."""
    with served() as url:
        assert get(url + path)[0] == 404


def test_no_other_method() -> None:
    """Nothing to change; HEAD answers without a body."""
    with served() as url:
        assert httpx.post(f"{url}/metrics", content=b"x", trust_env=False).status_code == 501
        assert httpx.head(f"{url}/livez", trust_env=False).status_code == 200


def raw(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def test_an_endless_request_line_is_refused() -> None:
    """Its size is bounded."""
    with served() as url, raw(url) as client:
        client.sendall(b"GET /" + b"x" * 70_000)
        client.shutdown(socket.SHUT_WR)
        assert b" 414 " in client.recv(4096)


def test_slow_clients_neither_block_the_others_nor_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that sends a byte now and then is cut off; meanwhile the probes are answered."""
    monkeypatch.setattr(http, "REQUEST_SECONDS", 0.5)
    with served() as url:
        slow = [raw(url) for _ in range(http.MAX_AT_ONCE - 1)]
        try:
            started = time.monotonic()
            assert get(f"{url}/livez")[0] == 200
            while not _ended(slow[0]):
                assert time.monotonic() - started < 5, "a slow client was never cut off"
        finally:
            for client in slow:
                client.close()
        _until(lambda: get(f"{url}/livez")[0] == 200)


def _ended(client: socket.socket) -> bool:
    client.settimeout(0.1)
    try:
        client.sendall(b"G")
        return client.recv(4096) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_more_clients_than_allowed_are_turned_away() -> None:
    """And served again once there is room."""
    with served() as url:
        waiting = [raw(url) for _ in range(http.MAX_AT_ONCE)]
        try:
            _until(lambda: _refused(url))
        finally:
            for client in waiting:
                client.close()
        _until(lambda: not _refused(url))


def _refused(url: str) -> bool:
    try:
        return get(f"{url}/livez")[0] != 200
    except httpx.TransportError:
        return True


def _until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_taken_port_is_a_coded_error() -> None:
    """With the setting to change."""
    with served() as url, pytest.raises(ConfigurationError) as caught:
        HealthServer("127.0.0.1", int(url.rpartition(":")[2]), None)  # type: ignore[arg-type]
    assert caught.value.code == "CDCM-HTTP-PORT"
    assert "service.http_port" in caught.value.remedy
