"""Numbers of the user: a Prometheus query, an SQL statement, a program. Each within a time limit.

What they say when they fail may hold anything, so only its kind is told.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from typing import IO, Any
from urllib.parse import urlsplit

import httpx
import orjson
import psycopg

from cdc_migrator.config import watch as configured
from cdc_migrator.errors import MigratorError
from cdc_migrator.model.logins import Role
from cdc_migrator.monitor.measured import Measured, unknown
from cdc_migrator.monitor.session import Session, unless_slow

_LARGEST = 1 << 20  # bytes of an answer
_SLICE_SECONDS = 0.05
_NUMBER = re.compile(rb"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")
_SECRET = re.compile(r"CDC_MIGRATOR_\w*PASSWORD", re.IGNORECASE)


class PrometheusNumber:
    """What a server of Prometheus' HTTP API answers to an instant query."""

    def __init__(self, rule: configured.Prometheus) -> None:
        self._rule = rule
        self._host = urlsplit(rule.url).netloc

    def take(self) -> Measured:
        """See `measured.Number`."""
        loop = asyncio.new_event_loop()
        try:
            status, body = loop.run_until_complete(self._ask())
        except MigratorError as error:
            return unknown(error.cause)
        except (TimeoutError, httpx.TimeoutException):
            limit = self._rule.timeout.total_seconds()
            return unknown(f"{self._host} did not answer within {limit:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            return unknown(f"{self._host} cannot be asked ({type(error).__name__})")
        finally:
            # A name that is still being resolved is not waited for.
            loop.close()
        if status != httpx.codes.OK:
            return unknown(f"{self._host} answered {status}")
        return _of_prometheus(body)

    async def _ask(self) -> tuple[int, bytes]:
        """Status and body. The time limit is for all of it: httpx's own are for each step."""
        rule = self._rule
        async with (
            asyncio.timeout(rule.timeout.total_seconds()),
            httpx.AsyncClient(timeout=None, trust_env=not _loopback(rule.url)) as client,
            client.stream(
                "POST",
                f"{rule.url.rstrip('/')}/api/v1/query",
                headers=rule.reveal_headers(),
                data={"query": rule.query},
            ) as answer,
        ):
            body = b""
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > _LARGEST:
                    break
            return answer.status_code, body

    def close(self) -> None:
        """Nothing."""


def _of_prometheus(body: bytes) -> Measured:
    """The number in an answer: a scalar, or a vector of one series."""
    try:
        data = orjson.loads(body)["data"]
        kind, result = data["resultType"], data["result"]
        if kind == "vector":
            if len(result) != 1:
                return unknown(f"the query gives {len(result) or 'no'} series, not one")
            return _finite(float(result[0]["value"][1]))
        if kind == "scalar":
            return _finite(float(result[1]))
    except (ValueError, KeyError, TypeError, IndexError):
        return unknown("the answer is not one of Prometheus")
    return unknown(f"the query gives a {str(kind)[:20]}, not a number")


class SqlNumber:
    """What a statement returns on either side, in a transaction that can only read."""

    def __init__(self, rule: configured.Sql, dsn: Callable[[], str]) -> None:
        self._rule = rule
        self._session = Session(rule.side, dsn, Role.VERIFY)

    def take(self) -> Measured:
        """See `measured.Number`."""
        limit = self._rule.timeout.total_seconds()
        try:
            found = self._session.ask(lambda conn: unless_slow(conn, lambda: self._ask(conn)))
        except MigratorError as error:
            return unknown(error.cause)
        if found is None:
            return unknown(f"the {self._rule.side} did not answer within {limit:g} s")
        rows, columns = found
        if len(rows) != 1 or columns != 1:
            return unknown("the statement does not return one row of one number")
        value = rows[0][0]
        if value is None:
            return unknown("the statement returns NULL")
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
            return unknown("the statement does not return a number")
        return _finite(float(value))

    def _ask(self, conn: psycopg.Connection) -> tuple[list[Any], int]:
        limit = f"{self._rule.timeout.total_seconds() * 1000:.0f}"
        conn.execute("SELECT set_config('statement_timeout', %s, true)", (limit,))
        # In this form it is one statement: a second could end the transaction that only reads.
        cursor = conn.execute(self._rule.statement.encode(), binary=True)
        if cursor.description is None:
            return [], 0
        return cursor.fetchmany(2), len(cursor.description)

    def close(self) -> None:
        """End the session."""
        self._session.close()


class CommandNumber:
    """What a program prints, run without a shell in a process group of its own."""

    def __init__(self, rule: configured.Command) -> None:
        self._rule = rule
        self._closed = threading.Event()

    def take(self) -> Measured:
        """See `measured.Number`."""
        name, limit = self._rule.argv[0], self._rule.timeout.total_seconds()
        with tempfile.TemporaryFile() as said:
            try:
                process = subprocess.Popen(
                    self._rule.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=subprocess.DEVNULL,
                    env={k: v for k, v in os.environ.items() if not _SECRET.fullmatch(k)},
                    start_new_session=True,
                )
            except OSError as error:
                return unknown(f"{name} cannot be run ({error.strerror})")
            try:
                code = self._wait(process, limit)
            finally:
                if process.returncode is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            if code is None:
                return unknown(f"{name} was killed after {limit:g} s")
            if code:
                return unknown(f"{name} ended with exit code {code}")
            return _printed(name, said)

    def _wait(self, process: subprocess.Popen[bytes], limit: float) -> int | None:
        """The exit code; None where its time is up, or nobody wants to know any more."""
        until = time.monotonic() + limit
        while time.monotonic() < until and not self._closed.is_set():
            with suppress(subprocess.TimeoutExpired):
                return process.wait(_SLICE_SECONDS)
        return None

    def close(self) -> None:
        """Have the program killed, if it runs."""
        self._closed.set()


def _printed(name: str, said: IO[bytes]) -> Measured:
    said.seek(0)
    found = _NUMBER.fullmatch(said.read(_LARGEST))
    if found is None:
        return unknown(f"{name} does not print one number")
    return _finite(float(found[1]))


def _finite(number: float) -> Measured:
    return Measured(number) if math.isfinite(number) else unknown("the number is not finite")


def _loopback(url: str) -> bool:
    """A proxy of this machine has no business with loopback."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
