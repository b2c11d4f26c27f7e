"""/metrics, /livez, /readyz and /healthz: a small server, on loopback unless told otherwise.

`/livez` asks only whether the loop turns, never a dependency: a restart does not mend a broker.
`/readyz` asks each dependency. Answers name parts and states, no data. Reads nothing but the
request line and headers; size, time and number of requests at once are bounded.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cdc_migrator.errors import ConfigurationError
from cdc_migrator.monitor.metrics import CONTENT_TYPE

REQUEST_SECONDS = 5.0
MAX_AT_ONCE = 16
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Check:
    """What one part of the readiness says: whether it is well, and a word why."""

    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Answers:
    """Where the server's answers come from; each is called in a thread of the server and must
    answer at once, from what is already known.

    Attributes:
        metrics: the page `/metrics`.
        idle_seconds: since the service's loop turned last.
        stuck_after: idle seconds from which the service counts as stuck.
        checks: the parts of `/readyz` by name.
    """

    metrics: Callable[[], bytes]
    idle_seconds: Callable[[], float]
    checks: Mapping[str, Callable[[], Check]]
    stuck_after: float = 60.0


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    body: bytes
    content_type: str = TEXT


class HealthServer:
    """The server and its thread; use as a context manager.

    Raises:
        ConfigurationError: CDCM-HTTP-PORT: the address cannot be listened on.
    """

    def __init__(self, host: str, port: int, answers: Answers) -> None:
        try:
            self._server = _Server((host, port), answers)
        except OSError as error:
            raise ConfigurationError(
                "CDCM-HTTP-PORT",
                f"cannot listen on {host}:{port} ({error.strerror or type(error).__name__})",
                "Set service.http_port to another port, to 0 for any free one, or to null for "
                "none, or stop what listens there.",
            ) from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="http"
        )
        self._thread.daemon = True

    @property
    def port(self) -> int:
        """The port in fact, also where 0 was asked for."""
        return int(self._server.server_address[1])

    def __enter__(self) -> HealthServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingMixIn, HTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], answers: Answers) -> None:
        self.answers = answers
        self._room = threading.BoundedSemaphore(MAX_AT_ONCE)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer would ask the name service for this machine's name here.
        super(HTTPServer, self).server_bind()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is its own affair."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_SECONDS
    server_version = "cdc-migrator"
    sys_version = ""

    def handle(self) -> None:
        # The socket's own time limit starts anew with each byte; this one does not.
        end = threading.Timer(REQUEST_SECONDS * 2, self._cut)
        end.daemon = True
        end.start()
        try:
            self.handle_one_request()
        finally:
            end.cancel()

    def _cut(self) -> None:
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def do_GET(self) -> None:
        self._reply(with_body=True)

    def do_HEAD(self) -> None:
        self._reply(with_body=False)

    def _reply(self, *, with_body: bool) -> None:
        reply = _answer(self.path, self.server.answers)
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Connection", "close")
        self.end_headers()
        if with_body:
            self.wfile.write(reply.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Probes and scrapes are no events."""


def _answer(path: str, answers: Answers) -> _Reply:
    parts = urlsplit(path)
    verbose = "verbose" in parse_qs(parts.query, keep_blank_values=True)
    if parts.path == "/metrics":
        return _Reply(200, answers.metrics(), CONTENT_TYPE)
    if parts.path in ("/livez", "/healthz"):
        idle = answers.idle_seconds()
        alive = Check(idle <= answers.stuck_after, f"the loop turned {idle:.1f} s ago")
        return _told({"loop": alive}, verbose)
    if parts.path == "/readyz":
        return _told({name: _ask(check) for name, check in answers.checks.items()}, verbose)
    return _Reply(404, b"not found\n")


def _ask(check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:
        return Check(False, type(error).__name__)


def _told(checks: Mapping[str, Check], verbose: bool) -> _Reply:
    well = all(check.ok for check in checks.values())
    lines = []
    if verbose or not well:
        for name, check in checks.items():
            mark = "+" if check.ok else "-"
            detail = f": {check.detail}" if check.detail else ""
            lines.append(f"[{mark}]{name} {'ok' if check.ok else 'failed'}{detail}")
    lines.append("ok" if well else "not ok")
    return _Reply(200 if well else 503, ("\n".join(lines) + "\n").encode())
