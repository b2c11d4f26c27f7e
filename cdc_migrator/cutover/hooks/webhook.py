"""A request to a service of the user: POST, and any 2xx is yes. Nothing of the answer is read.

The request is repeated where no answer came, so it carries a key that is the same for the same
attempt, moment and side. The URL may hold a secret in its path: only its host is ever told.
"""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx
import orjson

from cdc_migrator.config.hooks import Webhook
from cdc_migrator.cutover.hooks.base import Context, HookFailed, Moment


class WebhookHook:
    """See the module."""

    def __init__(self, configured: Webhook) -> None:
        self.name = configured.name or configured.kind
        self.retries = configured.retries
        self._timeout = configured.timeout.total_seconds()
        self._url = configured.url.get_secret_value()
        self._host = urlsplit(self._url).netloc
        self._configured = configured
        self._trust: ssl.SSLContext | None = None

    def open(self) -> None:
        """Read the certificate authorities, which takes longer than all the rest."""
        if self._trust is None and self._url.startswith("https"):
            self._trust = httpx.create_ssl_context()

    def close(self) -> None:
        """Nothing."""

    def run(self, moment: Moment, context: Context) -> str | None:
        """See `base.Hook`. Where it is not to be sent at `CHECK`, the host is asked for anything:
        whatever it answers, it is there."""
        if moment in self._configured.moments:
            status = self._send("POST", _body(moment, context), _key(moment, context))
            if not 200 <= status < 300:
                raise HookFailed(f"{self._host} answered {status}")
            return f"{self._host} answered {status}"
        if moment is not Moment.CHECK:
            return None
        return f"{self._host} is there, and answered {self._send('OPTIONS', b'', '')}"

    def _send(self, method: str, body: bytes, key: str) -> int:
        headers = self._configured.reveal_headers()
        if body:
            headers |= {"Content-Type": "application/json", "Idempotency-Key": key}
        self.open()
        loop = asyncio.new_event_loop()
        try:
            return loop.run_until_complete(self._answer(method, headers, body))
        except (TimeoutError, httpx.TimeoutException):
            raise HookFailed(f"{self._host} did not answer within {self._timeout:g} s") from None
        except httpx.ConnectError as error:
            raise HookFailed(f"{self._host} cannot be reached ({error})") from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            # What these say may quote a header.
            raise HookFailed(f"{type(error).__name__} with {self._host}") from None
        finally:
            # A name that is still being resolved is not waited for.
            loop.close()

    async def _answer(self, method: str, headers: dict[str, str], body: bytes) -> int:
        """The status. The time limit is for all of it: httpx's own are for each step."""
        async with (
            asyncio.timeout(self._timeout),
            httpx.AsyncClient(verify=self._trust or False, timeout=None) as client,
            client.stream(method, self._url, headers=headers, content=body) as answer,
        ):
            return answer.status_code


def _body(moment: Moment, context: Context) -> bytes:
    return orjson.dumps(
        {
            "migration": context.migration,
            "moment": moment,
            "side": context.side,
            "attempt": context.attempt,
            "at": datetime.now(UTC),
        }
    )


def _key(moment: Moment, context: Context) -> str:
    return f"{context.migration}-{context.attempt}-{moment}-{context.side}"
