"""A TCP proxy before a PostgreSQL server that cuts its client off at a chosen moment."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from types import TracebackType

from psycopg.conninfo import conninfo_to_dict, make_conninfo

# ReadyForQuery, with which each answer ends, says whether a transaction is open.
_IDLE = b"Z\x00\x00\x00\x05I"


@dataclass
class _Session:
    client: socket.socket
    server: socket.socket
    aimed_at: bool
    inside: bool = False
    threads: list[threading.Thread] = field(default_factory=list)


class CuttingProxy:
    """Passes bytes on; `cut_before`, `cut_after` and `cut_at` act once and then let go.

    Args:
        dsn: of a server on a unix socket or at a TCP address.
        only: cuts only sessions whose startup message contains this, such as an application
            name; others are passed through.

    Attributes:
        cuts: how many there were.
        inside: whether the session cut last was in a transaction then.
    """

    def __init__(self, dsn: str, only: bytes = b"") -> None:
        parts = conninfo_to_dict(dsn)
        self._host, self._port = str(parts["host"]), int(parts.get("port") or 5432)
        self._only = only
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.dsn = make_conninfo(
            dsn,
            host="127.0.0.1",
            port=self._listener.getsockname()[1],
            # What is asked in a cipher cannot be read.
            sslmode="disable",
            gssencmode="disable",
        )
        self._before: bytes | None = None
        self._after: bytes | None = None
        self._countdown = -1
        self._unheard = False
        self._behind = b""
        self.cuts = 0
        self.inside = False
        self._guard = threading.Lock()
        self._sessions: list[_Session] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def cut_before(self, text: bytes, unheard: bool = False, behind: bytes = b"") -> None:
        """Cut when the client sends `text`; the server never gets it.

        `unheard`: as in a network that fails, the server does not hear of the cut.
        `behind`: not before the client has sent this.
        """
        self._unheard, self._behind, self._before = unheard, behind, text

    def cut_after(self, text: bytes, unheard: bool = False, behind: bytes = b"") -> None:
        """Cut when the server has answered `text`; the client never hears of it."""
        self._unheard, self._behind, self._after = unheard, behind, text

    def cut_at(self, message: int, unheard: bool = False) -> None:
        """Cut at the client's next message of this number, before it is passed on."""
        self._unheard, self._behind, self._countdown = unheard, b"", message

    def refuse(self) -> None:
        """Take no more connections and drop those that there are."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        with self._guard:
            for session in self._sessions:
                _shut(session.client)
                _shut(session.server)

    def __enter__(self) -> CuttingProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.refuse()
        self._accepting.join(5)
        for session in list(self._sessions):
            for thread in session.threads:
                thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = self._dial()
            except OSError:
                client.close()  # the server is away: so are we
                continue
            session = _Session(client, server, aimed_at=not self._only)
            session.threads = [
                threading.Thread(target=part, args=(session,), daemon=True)
                for part in (self._serve, self._pass_back)
            ]
            with self._guard:
                self._sessions.append(session)
            for thread in session.threads:
                thread.start()

    def _dial(self) -> socket.socket:
        if self._host.startswith("/"):
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{self._host}/.s.PGSQL.{self._port}")
            return server
        server = socket.create_connection((self._host, self._port), 10)
        server.settimeout(None)
        return server

    def _serve(self, session: _Session) -> None:
        client, server = session.client, session.server
        answers = session.threads[1]
        first = True
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                if first and self._only in data:
                    session.aimed_at = True
                first = False
                aimed = session.aimed_at and self._come(data)
                if aimed and self._due(data):
                    self._cut(session, session.inside)
                    break
                if aimed and self._after is not None and self._after in data:
                    self._after, inside = None, session.inside
                    # The client is gone before the server can answer.
                    _shut(client)
                    server.sendall(data)
                    server.settimeout(5)
                    answers.join(5)
                    self._cut(session, inside)
                    break
                server.sendall(data)
            else:
                _shut(server)
        _shut(client)
        answers.join()
        with contextlib.suppress(OSError):
            server.settimeout(None)
            while server.recv(1 << 16):
                pass  # one that does not hear of the cut keeps its session until it ends it
        with self._guard:
            self._sessions.remove(session)
        client.close()
        server.close()

    def _cut(self, session: _Session, inside: bool) -> None:
        self.inside = inside
        if not self._unheard:
            _shut(session.server)
        self.cuts += 1

    def _come(self, data: bytes) -> bool:
        if self._behind and self._behind in data:
            self._behind = b""
        return not self._behind

    def _due(self, data: bytes) -> bool:
        if self._before is not None and self._before in data:
            self._before = None
            return True
        if self._countdown >= 0:
            self._countdown -= 1
            return self._countdown < 0
        return False

    @staticmethod
    def _pass_back(session: _Session) -> None:
        with contextlib.suppress(OSError):
            while data := session.server.recv(1 << 16):
                if data[-6:-1] == _IDLE[:-1]:
                    session.inside = data[-1:] != _IDLE[-1:]
                try:
                    session.client.sendall(data)
                except OSError:
                    return  # answered: that is all a cut off client's proxy needs to know
        _shut(session.client)


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
