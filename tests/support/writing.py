"""An application that writes to the source for as long as a test goes on."""

from __future__ import annotations

import itertools
import threading
from typing import Self

import psycopg


class Writing(threading.Thread):
    """Calls `write` again and again until the context is left, where what it met is raised.

    Args:
        pause: seconds between two turns.
    """

    def __init__(self, source: str, pause: float = 0.01) -> None:
        super().__init__(daemon=True)
        self.failed: BaseException | None = None
        self.ending = threading.Event()
        self._source = source
        self._pause = pause

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self.join(30)
        assert self.failed is None, repr(self.failed)

    def run(self) -> None:
        try:
            with psycopg.connect(self._source, autocommit=True) as conn:
                for turn in itertools.count(1):
                    if self.ending.wait(self._pause):
                        return
                    self.write(conn, turn)
        except BaseException as error:
            self.failed = error
            raise

    def write(self, conn: psycopg.Connection, turn: int) -> None:
        """One turn, counted from 1."""
        raise NotImplementedError
