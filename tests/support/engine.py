"""A Docker engine's side of the conversation, by its documented HTTP interface on a unix socket.

It runs nothing: it answers as an engine does and keeps what it was asked, so that what the client
library sends can be looked at where no engine is.
"""

from __future__ import annotations

import json
import re
import socketserver
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

LINUX = {"OSType": "linux", "OperatingSystem": "Debian", "SecurityOptions": ["name=seccomp"]}
IMAGE = {"Id": f"sha256:{'a' * 64}", "RepoTags": [], "Config": {}}


@dataclass(frozen=True, slots=True)
class Asked:
    method: str
    path: str
    query: dict[str, str]
    body: bytes


@dataclass
class Engine:
    """Serves on ``socket`` while it is a context; ``asked`` is all that it was, in order."""

    socket: Path
    info: dict[str, Any] = field(default_factory=lambda: LINUX)
    ping: int = 200
    asked: list[Asked] = field(default_factory=list)

    @property
    def host(self) -> str:
        """As DOCKER_HOST has it."""
        return f"unix://{self.socket}"

    def __enter__(self) -> Engine:
        self._server = _Server(str(self.socket), _Handler)
        self._server.engine = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def created(self) -> list[dict[str, Any]]:
        """The containers that were wanted, each as its description."""
        return [json.loads(one.body) for one in self.asked if one.path == "/containers/create"]

    def answer(self, asked: Asked) -> tuple[int, Any]:
        self.asked.append(asked)
        container = (*asked.path.split("/"), "")[2]
        replies: tuple[tuple[str, int, Any], ...] = (
            ("GET /_ping", self.ping, None),
            ("GET /version", 200, {"ApiVersion": "1.44", "MinAPIVersion": "1.24"}),
            ("GET /info", 200, self.info),
            ("GET /images/.+/json", 200, IMAGE),
            ("POST /build", 200, {"stream": f"Successfully built {'a' * 12}\n"}),
            ("POST /containers/create", 201, {"Id": f"{len(self.created()):064}", "Warnings": []}),
            ("GET /containers/[^/]+/json", 200, {"Id": container, "Config": {}}),
            ("PUT /containers/[^/]+/archive", 200, None),
            ("POST /containers/[^/]+/start", 204, None),
            ("DELETE /containers/[^/]+", 204, None),
        )
        for pattern, status, told in replies:
            if re.fullmatch(pattern, f"{asked.method} {asked.path}"):
                return status, told
        return 404, {"message": f"not known here: {asked.method} {asked.path}"}


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    engine: Engine


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _reply(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        address = urlsplit(self.path)
        asked = Asked(
            self.command,
            re.sub(r"^/v[\d.]+(?=/)", "", address.path),
            {key: values[-1] for key, values in parse_qs(address.query).items()},
            self.rfile.read(length),
        )
        status, told = self.server.engine.answer(asked)
        body = b"" if told is None else json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = _reply

    def log_message(self, *_: object) -> None:
        """Nothing to say."""
