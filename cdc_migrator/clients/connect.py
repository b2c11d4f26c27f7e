"""One HTTP session with a cluster of Connect workers, whichever of them answers.

Any worker takes any request and passes it on to the leader. So when one does not answer the next
is asked, and the one that answered is asked first from then on.
"""

from __future__ import annotations

import ipaddress
import ssl
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from cdc_migrator.errors import ConfigurationError, Failed, MigratorError, Refused
from cdc_migrator.model.outside import Login, Workers

_REFUSALS = {
    httpx.codes.UNAUTHORIZED: "does not accept this user or password",
    httpx.codes.FORBIDDEN: "does not let this user do that",
}


class WorkerSession:
    """A context manager. Not for several threads at once.

    Args:
        timeout: seconds for each answer of a worker, where a request names no other.

    Raises:
        ConfigurationError: CDCM-CONNECT-FILES, CDCM-CONFIG-PASSWORD-FILE.
    """

    def __init__(self, workers: Workers, timeout: float = 15.0) -> None:
        self._workers = workers
        self._timeout = timeout
        self._urls = [url.rstrip("/") for url in workers.urls]
        self._login = workers.login()
        self._http = [
            httpx.Client(
                base_url=url,
                timeout=timeout,
                verify=_trust(workers) if url.startswith("https:") else False,
                # A proxy of this machine has no business with loopback.
                trust_env=not _loopback(url),
            )
            for url in self._urls
        ]
        self._first = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for client in self._http:
            client.close()

    def request(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """The answer of the first worker that gives one, whatever its status.

        Raises:
            Refused: CDCM-CONNECT-AUTH: they do not let us in; CDCM-CONNECT-TLS.
            Failed: CDCM-CONNECT-UNREACHABLE: none of them answers.
        """
        errors: list[httpx.HTTPError] = []
        for turn in range(len(self._http)):
            number = (self._first + turn) % len(self._http)
            try:
                answer = self._ask(number, method, path, kwargs)
            except httpx.HTTPError as error:
                errors.append(error)
                if not _never_sent(error) and method == "POST":
                    break  # it may be at work; doing it twice is not the same as once
                continue
            self._first = number
            if answer.status_code in _REFUSALS:
                raise self._refused(number, answer.status_code)
            return answer
        raise self._away(errors)

    def _ask(self, number: int, method: str, path: str, kwargs: dict[str, Any]) -> httpx.Response:
        answer = self._send(number, method, path, kwargs)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            login = self._workers.login()
            if login != self._login:  # it was changed meanwhile
                self._login = login
                answer = self._send(number, method, path, kwargs)
        return answer

    def _send(self, number: int, method: str, path: str, kwargs: dict[str, Any]) -> httpx.Response:
        given: Login | None = self._login
        if given is not None:
            kwargs = {**kwargs, "auth": httpx.BasicAuth(given.username, given.password)}
        return self._http[number].request(method, path, **kwargs)

    def _refused(self, number: int, status: int) -> Refused:
        return Refused(
            "CDCM-CONNECT-AUTH",
            f"Kafka Connect at {shown(self._urls[number])} {_REFUSALS[httpx.codes(status)]} "
            f"({status})",
            "Check connect.username and connect.password_file, or what stands in front of the "
            "worker.",
        )

    def _away(self, errors: list[httpx.HTTPError]) -> MigratorError:
        where = " or ".join(shown(url) for url in self._urls)
        if said := next(filter(None, map(_tls_reason, errors)), None):
            return Refused(
                "CDCM-CONNECT-TLS",
                f"no TLS session with Kafka Connect at {where}: {said}",
                "Check connect.ca_file against who signed the worker's certificate, the host in "
                "connect.url against that certificate and its validity, and connect.client_cert "
                "where the worker wants one of ours.",
            )
        why = type(errors[-1]).__name__ if errors else "no address"
        return Failed(
            "CDCM-CONNECT-UNREACHABLE",
            f"Kafka Connect at {where} does not answer ({why})",
            "Check the URL and that the worker runs (`cdc-migrator stack status` for the "
            "local one), then run the same command again.",
        )


def shown(url: str) -> str:
    """An address without user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")


def _trust(workers: Workers) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=workers.ca_file)
        if workers.client_cert is not None:
            # An empty word: OpenSSL would ask the terminal for that of an encrypted key.
            context.load_cert_chain(workers.client_cert, workers.client_key, password="")
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or error.strerror or "it is no PEM file"
        raise ConfigurationError(
            "CDCM-CONNECT-FILES",
            f"a certificate or key of the section connect cannot be used ({reason})",
            "Check connect.ca_file, connect.client_cert and connect.client_key: PEM files, a key "
            "without a password that belongs to the certificate.",
        ) from None
    return context


def _tls_reason(error: httpx.HTTPError) -> str | None:
    """What went wrong with the TLS session; None where it was something else."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        if isinstance(cause, ssl.SSLError):
            return str(cause.reason or "the handshake failed").lower().replace("_", " ")
        cause = cause.__cause__ or cause.__context__
    return None


def _never_sent(error: httpx.HTTPError) -> bool:
    return isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))


def _loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
