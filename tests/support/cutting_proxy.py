"""A TCP proxy before a PostgreSQL server that cuts its client off at a chosen moment."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType

from psycopg.conninfo import conninfo_to_dict, make_conninfo


class CuttingProxy:
    """Passes bytes on; `cut_before`, `cut_after` and `cut_at` act once and then let go.

    Args:
        dsn: of a server on a unix socket.
    """

    def __init__(self, dsn: str) -> None:
        parts = conninfo_to_dict(dsn)
        self._server = f"{parts['host']}/.s.PGSQL.{parts.get('port') or 5432}"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.dsn = make_conninfo(dsn, host="127.0.0.1", port=self._listener.getsockname()[1])
        self._before: bytes | None = None
        self._after: bytes | None = None
        self._countdown = -1
        self.cuts = 0
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def cut_before(self, text: bytes) -> None:
        """Cut when the client sends `text`; the server never gets it."""
        self._before = text

    def cut_after(self, text: bytes) -> None:
        """Cut when the server has answered `text`; the client never hears of it."""
        self._after = text

    def cut_at(self, message: int) -> None:
        """Cut at the client's next message of this number, before it is passed on."""
        self._countdown = message

    def refuse(self) -> None:
        """Take no more connections and drop those that there are."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        for end in self._open:
            _shut(end)

    def __enter__(self) -> CuttingProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.refuse()
        for thread in self._threads:
            thread.join(5)
        for end in self._open:
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server)
            self._open += [client, server]
            thread = threading.Thread(target=self._serve, args=(client, server), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        answers = threading.Thread(target=self._pass_back, args=(server, client), daemon=True)
        answers.start()
        self._threads.append(answers)
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                if self._due(data):
                    self.cuts += 1
                    break
                if self._after is not None and self._after in data:
                    self._after = None
                    self.cuts += 1
                    # The client is gone before the server can answer.
                    _shut(client)
                    server.sendall(data)
                    server.settimeout(5)
                    answers.join(5)
                    break
                server.sendall(data)
        _shut(client)
        _shut(server)

    def _due(self, data: bytes) -> bool:
        if self._before is not None and self._before in data:
            self._before = None
            return True
        if self._countdown >= 0:
            self._countdown -= 1
            return self._countdown < 0
        return False

    @staticmethod
    def _pass_back(server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                try:
                    client.sendall(data)
                except OSError:
                    return  # answered: that is all a cut off client's proxy needs to know


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
