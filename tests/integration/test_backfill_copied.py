"""Rows of a COPY taken out of libpq, by the library in C and by Python: the same bytes."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import psycopg
import pytest
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc_migrator.backfill import copied

pytestmark = pytest.mark.stack

# Of no bytes, of few, and some that are larger than a block.
_ROWS = """
SELECT n, repeat(md5(n::text), (CASE WHEN n % 500 = 0 THEN 30000 ELSE n % 40 END)::int)
FROM generate_series(1, 3000) n
"""


@pytest.fixture(params=["c", "python"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "python":
        monkeypatch.setattr(copied, "library", lambda: None)
    assert (copied._libpq() is None) is (request.param == "python")


def copying(conn: psycopg.Connection, query: str, form: str = "binary") -> pq.abc.PGconn:
    result = conn.pgconn.exec_(f"COPY ({query}) TO STDOUT (FORMAT {form})".encode())
    assert result.status == pq.ExecStatus.COPY_OUT
    return conn.pgconn


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("form", ["binary", "text"])
def test_rows_come_as_the_driver_reads_them(source_db: str, form: str) -> None:
    """Byte for byte, whatever their size; the session is good for more afterwards."""
    with psycopg.connect(source_db, autocommit=True) as conn:
        with conn.cursor().copy(f"COPY ({_ROWS}) TO STDOUT (FORMAT {form})".encode()) as copy:
            wanted = b"".join(bytes(piece) for piece in copy)
        found = list(copied.blocks(copying(conn, _ROWS, form)))
        last = conn.pgconn.get_result()
        assert last is not None
        assert (last.status, last.command_tuples) == (pq.ExecStatus.COMMAND_OK, 3000)
        assert conn.pgconn.get_result() is None
        assert b"".join(block for _, block in found) == wanted
        # The end of the binary form is a message, too.
        assert sum(rows for rows, _ in found) == 3000 + (form == "binary")
        assert max(len(block) for _, block in found) > 30_000 * 32
        assert conn.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.usefixtures("way")
def test_an_error_in_the_middle_is_the_servers_own(source_db: str) -> None:
    """The rows before it come, and the next result tells it."""
    query = "SELECT 1 / (20000 - n), repeat('x', 100) FROM generate_series(1, 30000) n"
    with psycopg.connect(source_db, autocommit=True) as conn:
        rows = sum(rows for rows, _ in copied.blocks(copying(conn, query)))
        result = conn.pgconn.get_result()
        assert result is not None
        assert result.error_field(pq.DiagnosticField.SQLSTATE) == b"22012"
        assert rows == 19_999
        assert conn.pgconn.get_result() is None
        assert conn.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.usefixtures("way")
def test_who_is_kept_waiting_hears_of_it(source_db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of no rows come while the server has none: whoever copies can stop."""
    monkeypatch.setattr(copied, "_PATIENCE_MS", 100)
    query = (
        "SELECT repeat('x', 100), CASE WHEN n = 900 THEN pg_sleep(0.5)::text END "
        "FROM generate_series(1, 1000) n"
    )
    with psycopg.connect(source_db, autocommit=True) as conn:
        found = [rows for rows, _ in copied.blocks(copying(conn, query, "text"))]
        while conn.pgconn.get_result() is not None:
            pass
    assert sum(found) == 1000
    assert 0 in found


@pytest.mark.usefixtures("way")
def test_a_session_that_is_cut_is_an_error(source_db: str) -> None:
    """In the middle of the rows, without a word from the server."""
    with Cut(source_db, 1_000_000) as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        rows = copied.blocks(copying(conn, _ROWS))
        with pytest.raises(psycopg.OperationalError):
            list(rows)


class Cut:
    """A way to the server that ends, silently, behind so many bytes from there."""

    def __init__(self, dsn: str, most: int) -> None:
        parts = conninfo_to_dict(dsn)
        self._server = (str(parts["host"]), int(parts["port"] or 0))
        self._most = most
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._dsn = make_conninfo(
            dsn,
            host="127.0.0.1",
            port=self._listener.getsockname()[1],
            sslmode="disable",
            gssencmode="disable",
        )

    def __enter__(self) -> str:
        self._serving = threading.Thread(target=self._serve)
        self._serving.start()
        return self._dsn

    def __exit__(self, *_: object) -> None:
        self._serving.join(10)
        self._listener.close()

    def _serve(self) -> None:
        here, _ = self._listener.accept()
        with here, socket.create_connection(self._server) as there:
            asking = threading.Thread(target=_pass_on, args=(here, there, 1 << 60))
            asking.start()
            _pass_on(there, here, self._most)
            asking.join()


def _pass_on(one: socket.socket, other: socket.socket, most: int) -> None:
    with suppress(OSError):
        while most > 0 and (data := one.recv(min(most, 65536))):
            other.sendall(data)
            most -= len(data)
    for end in (one, other):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
