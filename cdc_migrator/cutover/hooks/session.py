"""A session that is opened beforehand, opened again when it was lost, and never waited for long."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

import psycopg
from psycopg import sql

from cdc_migrator.errors import MigratorError

Row = TypeVar("Row")


class Session(Generic[Row]):
    """One session; its statements can be repeated without harm.

    Args:
        connect: opens it, in about as many seconds as it is given.
    """

    def __init__(self, connect: Callable[[float], psycopg.Connection[Row]]) -> None:
        self._connect = connect
        self._conn: psycopg.Connection[Row] | None = None

    def open(self, seconds: float) -> None:
        """Open it if it can be had; else that is told when it is used."""
        with suppress(MigratorError, psycopg.Error):
            self._have(seconds)

    def close(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def run(
        self, statement: str | sql.Composed, parameters: Any = None, *, seconds: float
    ) -> list[Row]:
        """Run a statement; its rows. Once more in a new session where the old one was lost.

        Raises:
            TimeoutError: it took longer than that; the session is closed.
            psycopg.Error, MigratorError: as the driver and `connect` raise.
        """
        deadline = time.monotonic() + seconds
        kept = self._conn is not None and not self._conn.closed
        try:
            return self._once(statement, parameters, deadline)
        except psycopg.Error:
            if not kept or (self._conn is not None and not self._conn.closed):
                raise
        return self._once(statement, parameters, deadline)

    def _once(self, statement: Any, parameters: Any, deadline: float) -> list[Row]:
        conn = self._have(deadline - time.monotonic())
        with _limited(conn, deadline - time.monotonic()):
            # A console knows simple queries only: what is without parameters is sent as one.
            cursor = conn.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def _have(self, seconds: float) -> psycopg.Connection[Row]:
        if self._conn is None or self._conn.closed:
            self._conn = self._connect(seconds)
        return self._conn


@contextmanager
def _limited(conn: psycopg.Connection[Any], seconds: float) -> Iterator[None]:
    """Break the session off where the block takes longer: also from a server that is gone."""
    cut = threading.Event()
    line = socket.socket(fileno=os.dup(conn.fileno()))

    def hang_up() -> None:
        cut.set()
        with suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(seconds, 0.001), hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    except psycopg.Error as error:
        if cut.is_set():
            conn.close()
            raise TimeoutError from error
        raise
    finally:
        timer.cancel()
        timer.join()
        line.close()
