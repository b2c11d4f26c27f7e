"""Which worker is asked, how one is let in, and whom one trusts: against real HTTPS servers."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cdc_migrator.clients.connect import WorkerSession
from cdc_migrator.errors import ConfigurationError, Failed, MigratorError, Refused
from cdc_migrator.model.naming import Names
from cdc_migrator.model.outside import Login, Workers
from tests.support.certificates import ELSEWHERE, Authority, Issued

NOWHERE = "https://127.0.0.1:1"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@contextmanager
def serving(
    issued: Issued, answer: Callable[[str], int] = lambda _: 200, clients: Path | None = None
) -> Iterator[tuple[str, list[str]]]:
    """An HTTPS server's URL and the requests that it got.

    Args:
        answer: the status for a request's Authorization.
        clients: the authority that clients' certificates must come from.
    """
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_response(answer(self.headers.get("Authorization", "")))
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *args: object) -> None:
            pass

    class Server(HTTPServer):
        def handle_error(self, *args: object) -> None:
            """Clients that go away in the handshake are what is tested."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    if clients is not None:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_next_worker_is_asked_and_stays_the_first(authority: Authority) -> None:
    """One that is away costs one attempt; that all are is told with all their addresses."""
    with serving(authority.issue("worker")) as (url, requests):
        workers = Workers((NOWHERE, url), ca_file=authority.file)
        with WorkerSession(workers) as session:
            assert session.request("GET", "/one").status_code == 200
            assert session._first == 1
            assert session.request("GET", "/two").status_code == 200
        assert requests == ["/one", "/two"]
    with WorkerSession(workers) as session, pytest.raises(Failed) as refused:
        session.request("GET", "/three")
    assert refused.value.code == "CDCM-CONNECT-UNREACHABLE"
    assert NOWHERE in refused.value.cause
    assert url in refused.value.cause


def test_a_password_that_was_changed_is_read_again(authority: Authority) -> None:
    """A 401 is asked once more with the present one; one that stays wrong is told, not shown."""
    now = ["old"]
    right = Login("mover", "new")

    def answer(given: str) -> int:
        import base64

        return 200 if given.endswith(base64.b64encode(b"mover:new").decode()) else 401

    with serving(authority.issue("worker"), answer) as (url, requests):
        workers = Workers((url,), lambda: Login("mover", now[0]), authority.file)
        with WorkerSession(workers) as session:
            with pytest.raises(Refused, match="does not accept") as refused:
                session.request("GET", "/first")
            assert refused.value.code == "CDCM-CONNECT-AUTH"
            now[0] = right.password
            assert session.request("GET", "/second").status_code == 200
        assert requests == ["/first", "/second", "/second"]
        assert "new" not in repr(right) + repr(workers)


def test_who_may_not_is_told_so(authority: Authority) -> None:
    """403 is an answer, and has the same code."""
    with (
        serving(authority.issue("worker"), lambda _: 403) as (url, _),
        WorkerSession(Workers((url,), ca_file=authority.file)) as session,
        pytest.raises(Refused, match="403") as refused,
    ):
        session.request("GET", "/")
    assert refused.value.code == "CDCM-CONNECT-AUTH"


@pytest.mark.parametrize("how", ["elsewhere", "expired", "stranger", "no certificate of ours"])
def test_a_worker_is_made_sure_of_and_makes_sure_of_us(
    authority: Authority, how: str, tmp_path: Path
) -> None:
    """Another host's certificate, an old one, one of another authority, or none of ours."""
    hosts = {"hosts": ELSEWHERE} if how == "elsewhere" else {}
    issued = authority.issue(how.partition(" ")[0], **hosts, days=0 if how == "expired" else 2)
    trusted = Authority(tmp_path).file if how == "stranger" else authority.file
    clients = authority.file if how.startswith("no ") else None
    with (
        serving(issued, clients=clients) as (url, requests),
        WorkerSession(Workers((url,), ca_file=trusted)) as session,
        pytest.raises(MigratorError) as refused,
    ):
        session.request("GET", "/")
    assert refused.value.code == "CDCM-CONNECT-TLS", refused.value.cause
    assert not requests


def test_our_certificate_is_shown(authority: Authority) -> None:
    """Certificate and key in files of their own, or in one."""
    ours = authority.issue("mover")
    with serving(authority.issue("worker"), clients=authority.file) as (url, requests):
        for certificate, key in ((ours.certificate, ours.key), (ours.both, None)):
            workers = Workers((url,), lambda: None, authority.file, certificate, key)
            with WorkerSession(workers) as session:
                assert session.request("GET", "/").status_code == 200
        assert len(requests) == 2


def test_files_that_cannot_be_used_are_a_fault_of_the_configuration(
    authority: Authority, tmp_path: Path
) -> None:
    """Nothing there, and no PEM."""
    broken = tmp_path / "broken.pem"
    broken.write_text("nothing of the kind\n")
    ours = authority.issue("mover")
    for ca, certificate in ((tmp_path / "no", None), (broken, None), (authority.file, broken)):
        workers = Workers((NOWHERE,), lambda: None, ca, certificate, ours.key)
        with pytest.raises(ConfigurationError) as refused:
            WorkerSession(workers)
        assert refused.value.code == "CDCM-CONNECT-FILES"


def test_a_reserved_name_is_the_connectors() -> None:
    """Of the migration that it is reserved for, and of no other."""
    workers = Workers((NOWHERE,), connectors={"shop": "team-a"})
    assert workers.connector(Names("shop")) == "team-a"
    assert workers.connector(Names("shop_back")) == "cdcm-shop_back-1"
