"""An address that leads to one server and later to another, as after a failover."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from urllib.parse import urlsplit


class Address:
    """Passes bytes on to wherever it leads; a context manager.

    Args:
        dsn: a URI with host and port.
    """

    def __init__(self, dsn: str) -> None:
        self._parts = urlsplit(dsn)
        self._place = (self._parts.hostname, self._parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def dsn(self) -> str:
        """The same, by this address."""
        user = self._parts.netloc.rpartition("@")[0]
        port = self._listener.getsockname()[1]
        return self._parts._replace(netloc=f"{user}@127.0.0.1:{port}").geturl()

    def lead_to(self, dsn: str) -> None:
        """Lead there from now on, and drop whoever is connected."""
        parts = urlsplit(dsn)
        self._place = (parts.hostname, parts.port)
        self._drop()

    def __enter__(self) -> Address:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._drop()

    def _drop(self) -> None:
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._place, 5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            self._open |= {client, server}
            for here, there in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(here, there), daemon=True).start()

    def _pass(self, here: socket.socket, there: socket.socket) -> None:
        with suppress(OSError):
            while data := here.recv(1 << 16):
                there.sendall(data)
        for one in (here, there):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._open -= {here, there}
        for one in (here, there):
            one.close()
