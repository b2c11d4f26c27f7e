"""How an application follows the routing row: refused on one side, it asks and goes to the other.

It asks on the connection that it has; where that is gone, the source first and then the target.
Nothing else is asked of an application that `cdc_migrator.route` leads to the other side.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress

import psycopg

from cdc_migrator.demo.tally import SIDES, Side

_AGAIN_SECONDS = 0.003
_CONNECT_SECONDS = 2
_ROUTE = "SELECT side FROM cdc_migrator.route"


class Follower:
    """One writer's connection, to the source at first; a context manager.

    Args:
        dsns: both sides; without the target a refusal is an error like any other.
        name: of the session.
        stop: ends the waiting.
    """

    def __init__(self, dsns: Mapping[Side, str], name: str, stop: threading.Event) -> None:
        self._dsns = dsns
        self._name = name
        self._stop = stop
        self.side: Side = "source"
        self.conn = self._connect()

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self.conn.close()

    def sends_elsewhere(self, error: psycopg.Error) -> bool:
        """Whether this error means: ask where to go. Others are faults of the application."""
        if "target" not in self._dsns:
            return False
        return self.conn.closed or isinstance(error, psycopg.errors.ReadOnlySqlTransaction)

    def follow(self) -> None:
        """Ask where to go, and be there; where nobody says or it cannot be reached, as before."""
        self._stop.wait(_AGAIN_SECONDS)
        # It was refused, or its connection is gone.
        with suppress(psycopg.Error):
            self.conn.rollback()
        side = self._ask() or self.side
        if side == self.side and not self.conn.closed:
            return
        # Whoever cannot be reached yet is asked for again, soon.
        with suppress(psycopg.OperationalError):
            fresh = self._connect(side)
            self.conn.close()
            self.conn, self.side = fresh, side

    def _ask(self) -> Side | None:
        if not self.conn.closed:
            with suppress(psycopg.Error):
                return self._read(self.conn)
        for side in SIDES:
            with suppress(psycopg.Error), self._connect(side) as conn:
                return self._read(conn)
        return None

    def _read(self, conn: psycopg.Connection) -> Side | None:
        row: tuple[Side] | None = conn.execute(_ROUTE).fetchone()
        conn.rollback()
        return row[0] if row else None

    def _connect(self, side: Side = "source") -> psycopg.Connection:
        return psycopg.connect(
            self._dsns[side], application_name=self._name, connect_timeout=_CONNECT_SECONDS
        )
