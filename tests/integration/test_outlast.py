"""Waiting for the transactions that are open now, and for no other."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from cdc_migrator.capture.outlast import open_transactions, outlast
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Failed
from tests.support.private_postgres import private_database


def test_those_that_were_open_are_waited_for_by_name_and_later_ones_are_not() -> None:
    """Readers, other databases and transactions that begin meanwhile hold nobody up."""
    with (
        private_database() as dsn,
        private_database() as elsewhere,
        connect(dsn, application_name="test") as conn,
        psycopg.connect(dsn) as reader,
        psycopg.connect(elsewhere) as other,
        psycopg.connect(dsn) as first,
        psycopg.connect(dsn) as later,
        ThreadPoolExecutor(1) as pool,
    ):
        conn.execute("CREATE TABLE public.t (n int)")
        reader.execute("SELECT FROM t")
        other.execute("CREATE TABLE t (n int)")
        outlast(conn, 0.0)
        first.execute("INSERT INTO t VALUES (1)")
        told: list[str] = []
        waits = threading.Event()

        def tell(text: str) -> None:
            told.append(text)
            waits.set()

        ended = pool.submit(outlast, conn, 30.0, tell)
        assert waits.wait(10)
        later.execute("INSERT INTO t VALUES (2)")
        assert not ended.done()
        first.commit()
        ended.result(10)
        assert f"session {first.info.backend_pid} " in told[0]
        assert f"session {later.info.backend_pid} " in str(open_transactions(conn))
        with pytest.raises(Failed) as late:
            outlast(conn, 0.0)
        assert late.value.code == "CDCM-JOIN-TIMEOUT"
        assert f"session {later.info.backend_pid} " in late.value.cause
