"""Two databases as they are while the target is open, and traffic on either."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import orjson
import psycopg

from cdc_migrator.config.watch import Watch
from cdc_migrator.control import cutover, load, migration, progress, schema, watch
from cdc_migrator.control.migration import Phase
from cdc_migrator.databases.postgres import fence
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.model.tables import TableName
from cdc_migrator.service.measuring import WatchOptions
from tests.support.private_postgres import private_database

NAME = "watched"
ORDERS = TableName("public", "orders")
PATIENCE = 20.0
_REFUSING = fence.define(fence.body(f"{NAME}_back", "", "Write to the target."))


def wait_for(what: Callable[[], bool]) -> None:
    """Until it is so."""
    until = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.05)


@dataclass
class Site:
    """Both sides; the way back is prepared, and the source is fenced."""

    source: str
    target: str
    on_source: psycopg.Connection
    on_target: psycopg.Connection
    _entries: int = 0

    def reset(self) -> None:
        """As it was at first; the journal's entries up to now are not this test's."""
        self.go_back()
        self.apply_back(0.0)
        for conn in (self.on_source, self.on_target):
            conn.execute("TRUNCATE cdc_migrator.difference, cdc_migrator.inspection")
            conn.execute("TRUNCATE cdc_migrator.watch_firing, cdc_migrator.baseline")
            conn.execute("UPDATE cdc_migrator.migration SET last_error = NULL")
            conn.execute("UPDATE level SET value = 0")
        self.on_source.execute(_REFUSING)
        self.on_source.execute(fence.enable(ORDERS))
        row = self.on_target.execute("SELECT max(id) FROM cdc_migrator.journal").fetchone()
        assert row is not None
        self._entries = row[0]

    def options(self, *rules: Mapping[str, Any], **settings: Any) -> WatchOptions:
        given = {"every": 0.1, "settle": 0, **settings}
        if rules:
            given["rules"] = rules
        return WatchOptions(
            NAME, lambda: self.source, lambda: self.target, Watch.model_validate(given)
        )

    def open(self) -> int:
        """Leave the source for the target."""
        attempt = cutover.begin(self.on_target, "checking", f"m{time.monotonic_ns()}", False, {})
        self.on_target.execute("UPDATE cdc_migrator.stream_progress SET active = false")
        cutover.enter(self.on_target, attempt.attempt, "checking", "done", opened=True, ended=True)
        return attempt.attempt

    def go_back(self) -> None:
        """What the way back leaves on the target."""
        self.on_target.execute("UPDATE cdc_migrator.stream_progress SET active = true")

    def apply_back(self, committed_ago: float) -> None:
        """The stream back has just applied what was committed so long ago."""
        self.on_source.execute(
            "UPDATE cdc_migrator.stream_progress SET applied_at = clock_timestamp(), "
            "source_committed_at = clock_timestamp() - make_interval(secs => %s)",
            (committed_ago,),
        )

    def find_difference(self) -> None:
        """A comparison has found a row."""
        self.on_source.execute(
            "INSERT INTO cdc_migrator.difference (source_schema, source_table, kind, key, columns, "
            "source_count, target_count, first_run, run, first_seen, last_seen) VALUES "
            "('public', 'orders', 'different', '{\"id\": 1}', '{v}', 1, 1, 1, 1, now(), now())"
        )

    def unfence(self) -> None:
        self.on_source.execute(fence.disable(ORDERS))

    def fired(self) -> dict[str, watch.Firing]:
        return {one.rule: one for one in watch.firings(self.on_target)}

    def shown(self) -> dict[str, dict[str, Any]]:
        """How the rules stand, by the service's word."""
        found = watch.shown(self.on_target)
        return {row["rule"]: row for row in found[0].found["rules"]} if found else {}

    def wait_for_turns(self, many: int) -> None:
        """Until the rules were looked at so often from now on."""
        for _ in range(many + 1):
            before = self._shown_at()
            wait_for(partial(self._shown_since, before))

    def _shown_at(self) -> datetime | None:
        found = watch.shown(self.on_target)
        return found[0].at if found else None

    def _shown_since(self, before: datetime | None) -> bool:
        at = self._shown_at()
        return at is not None and (before is None or at > before)

    def journal(self, action: str) -> list[dict[str, Any]]:
        rows = self.on_target.execute(
            "SELECT details FROM cdc_migrator.journal WHERE action = %s AND id > %s ORDER BY id",
            (action, self._entries),
        )
        return [row[0] for row in rows]


@contextmanager
def watched_site() -> Iterator[Site]:
    """A migration that streams, with a way back; the target is not open yet."""
    with ExitStack() as stack:
        source = stack.enter_context(private_database())
        target = stack.enter_context(private_database())
        on_source = stack.enter_context(psycopg.connect(source, autocommit=True))
        on_target = stack.enter_context(psycopg.connect(target, autocommit=True))
        for conn, name in ((on_source, f"{NAME}_back"), (on_target, NAME)):
            conn.execute("CREATE TABLE orders (id int PRIMARY KEY, v text)")
            conn.execute("CREATE TABLE level (value float8)")
            conn.execute("INSERT INTO level VALUES (0)")
            schema.ensure(conn, "target")
            migration.create(conn, name)
            load.register(conn, [(one, 1) for one in read_tables(conn) if one.name == ORDERS])
            progress.create(conn, f"cdcm.{name}.1.stream", 1)
            migration.set_phase(conn, Phase.STREAM)
        on_source.execute(_REFUSING)
        (table,) = fence.read(on_source, [ORDERS])
        with on_source.transaction():
            for statement in (*fence.ready(table), fence.enable(ORDERS)):
                on_source.execute(statement)
        site = Site(source, target, on_source, on_target)
        site.apply_back(0.0)
        yield site


@dataclass
class Traffic:
    """Transactions without a pause, until left: of each batch one is rolled back."""

    dsn: str
    batch: int = 100
    sleep: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Traffic:
        self._thread = threading.Thread(target=self._run, name="traffic")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join()

    def _run(self) -> None:
        with psycopg.connect(self.dsn, autocommit=True, application_name="shop") as conn:
            while not self._stop.is_set():
                for number in range(self.batch):
                    with conn.transaction(force_rollback=number == 0):
                        # Transactions that read no table are not counted until one does.
                        conn.execute("SELECT pg_sleep(%s) FROM pg_class LIMIT 1", (self.sleep,))
                # Else they are handed in about once a second.
                conn.execute("SELECT pg_stat_force_next_flush()")


class _Api(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert self.path == "/api/v1/query"
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        server = self.server
        assert isinstance(server, Prometheus)
        body = orjson.dumps(server.answer(parse_qs(asked)["query"][0]))
        self.send_response(server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Prometheus(ThreadingHTTPServer):
    """Speaks the query API: `values` gives the values of a query's series."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Api)
        self.values: dict[str, list[float]] = {}
        self.status = 200
        self.pause = 0.0
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, query: str) -> dict[str, Any]:
        time.sleep(self.pause)
        if query.startswith("scalar"):
            data: dict[str, Any] = {"resultType": "scalar", "result": [1.5, "2.25"]}
        else:
            data = {
                "resultType": "vector",
                "result": [
                    {"metric": {}, "value": [1.5, str(value)]} for value in self.values[query]
                ],
            }
        return {"status": "success", "data": data}

    def __enter__(self) -> Prometheus:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()
