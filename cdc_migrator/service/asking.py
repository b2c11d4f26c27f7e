"""Wait for what the running service answers to a request."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg

from cdc_migrator.control import requests
from cdc_migrator.errors import Failed, MigratorError

_LOOK_SECONDS = 0.5


def answer(
    conn: psycopg.Connection,
    number: int,
    patience: float,
    silent: MigratorError,
    still_wanted: Callable[[], None],
) -> dict[str, Any]:
    """The answer to a request of this session, which listens to `requests.ANSWERED`.

    Args:
        patience: seconds after which `silent` is raised.
        still_wanted: raises where there is nothing to wait for any longer.

    Raises Failed: what the service said; what is given; psycopg.Error.
    """
    deadline = time.monotonic() + patience
    while True:
        request = requests.read(conn, number)
        if request is not None and request.state == "answered":
            return request.answer or {}
        if request is None or request.state == "failed":
            said = (request.answer if request else None) or {}
            raise Failed(
                said.get("code", "CDCM-ALIGN-STOPPED"),
                said.get("cause", "the request is gone"),
                said.get("remedy", "Run the same command again."),
            )
        if time.monotonic() > deadline:
            raise silent
        still_wanted()
        for _ in conn.notifies(timeout=_LOOK_SECONDS, stop_after=1):
            pass
