"""Applications behind a real PgBouncer move from one server to another, and back, unharmed."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from cdc_migrator.cutover.hooks.base import Moment, opened, run_all
from cdc_migrator.errors import Failed, MigratorError, Refused
from tests.support.bouncer import Bouncer, bouncer
from tests.support.hooks import Cutover

pytestmark = pytest.mark.stack

LINE = "host={host} port={port} dbname={dbname} user={user} password={password} pool_size=4"


@pytest.fixture
def databases(source_db: str, target_db: str) -> tuple[str, str]:
    for dsn in (source_db, target_db):
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("CREATE TABLE written (writer int, number int)")
    return source_db, target_db


@pytest.fixture
def pooled(databases: tuple[str, str]) -> Iterator[Bouncer]:
    with bouncer(databases[0]) as found:
        yield found


@pytest.fixture
def cutover(databases: tuple[str, str], pooled: Bouncer) -> Cutover:
    return between(databases, pooled)


def between(databases: tuple[str, str], pooled: Bouncer, **settings: object) -> Cutover:
    hook = {
        "kind": "pgbouncer",
        "console": {"dsn": pooled.console},
        "database": "shop",
        "config": str(pooled.config),
        "target_line": LINE.format(**conninfo_to_dict(databases[1])),
        **settings,
    }
    return Cutover(*databases, [hook])


class Writers:
    """Clients that write one row a transaction, on a connection that they never open anew."""

    def __init__(self, dsn: str, count: int = 3) -> None:
        self.acknowledged: list[list[int]] = [[] for _ in range(count)]
        self.stalls = [0.0] * count
        self.errors: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(dsn, n)) for n in range(count)]

    def _write(self, dsn: str, writer: int) -> None:
        try:
            with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as conn:
                last = time.monotonic()
                while not self._stop.is_set():
                    number = len(self.acknowledged[writer])
                    conn.execute("INSERT INTO written VALUES (%s, %s)", (writer, number))
                    self.acknowledged[writer].append(number)
                    now = time.monotonic()
                    self.stalls[writer] = max(self.stalls[writer], now - last)
                    last = now
        except psycopg.Error as error:
            self.errors.append(str(error))

    @contextmanager
    def writing(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join(30)

    def go_on(self) -> None:
        """Wait until each has written some more."""
        wanted = [len(numbers) + 20 for numbers in self.acknowledged]
        deadline = time.monotonic() + 30
        while any(len(a) < w for a, w in zip(self.acknowledged, wanted, strict=True)):
            assert time.monotonic() < deadline, self.errors
            time.sleep(0.01)


def where(pooled: Bouncer) -> object:
    """The database that a client is in."""
    with psycopg.connect(pooled.application, autocommit=True, connect_timeout=10) as conn:
        row = conn.execute("SELECT current_database()").fetchone()
    assert row is not None
    return row[0]


def name(dsn: str) -> object:
    return conninfo_to_dict(dsn)["dbname"]


def test_writers_see_a_stall_and_no_error(
    databases: tuple[str, str], pooled: Bouncer, cutover: Cutover
) -> None:
    """There and back again: each acknowledged row is on one side, in one piece of the order."""
    writers = Writers(pooled.application)
    before = pooled.config.read_bytes()
    with opened(cutover.made()) as hooks, writers.writing():
        writers.go_on()
        cutover.run(Moment.CHECK, hooks)
        for moments in ((Moment.HOLD, Moment.SWITCH), (Moment.UNDO,)):
            for moment in moments:
                cutover.run(moment, hooks)
            writers.go_on()
        # While PgBouncer is still opening its sessions: breaking one off costs nobody 15 seconds.
        for _ in range(4):
            for moment in (Moment.SWITCH, Moment.HOLD, Moment.UNDO):
                cutover.run(moment, hooks)
        writers.go_on()
    assert writers.errors == []
    assert max(writers.stalls) < 2.0
    kept: list[set[tuple[int, int]]] = []
    for dsn in databases:
        with psycopg.connect(dsn) as conn:
            rows = conn.execute("SELECT writer, number FROM written").fetchall()
        assert len(set(rows)) == len(rows) > 50
        kept.append({(writer, number) for writer, number in rows})
    assert not kept[0] & kept[1]
    written = {(w, n) for w, numbers in enumerate(writers.acknowledged) for n in numbers}
    assert kept[0] | kept[1] == written
    assert pooled.config.read_bytes() == before
    assert [path.name for path in pooled.config.parent.glob("*.before-*")] == []


@pytest.mark.long
def test_a_line_may_lead_to_another_schema_of_the_same_database(source_db: str) -> None:
    """Host, port and database stay; whoever is let go on finds the tables of the other schema."""
    with psycopg.connect(source_db, autocommit=True) as conn:
        conn.execute("CREATE TABLE written (writer int, number int); CREATE SCHEMA next")
        conn.execute("CREATE TABLE next.written (LIKE written)")
    with bouncer(source_db) as pooled:
        line = LINE.format(**conninfo_to_dict(source_db))
        target_line = f"{line} connect_query='SET search_path TO next'"
        cutover = between((source_db, source_db), pooled, target_line=target_line)
        writers = Writers(pooled.application)
        with opened(cutover.made()) as hooks, writers.writing():
            for moment in (Moment.CHECK, Moment.HOLD):
                cutover.run(moment, hooks)
            with psycopg.connect(source_db, autocommit=True) as conn:
                before = conn.execute("TABLE written").fetchall()
                cutover.run(Moment.SWITCH, hooks)
                writers.go_on()
                assert conn.execute("TABLE written").fetchall() == before
                cutover.run(Moment.HOLD, hooks)
                after = conn.execute("TABLE next.written").fetchall()
                cutover.run(Moment.UNDO, hooks)
                writers.go_on()
                assert conn.execute("TABLE next.written").fetchall() == after
        assert not writers.errors


def test_each_moment_can_be_repeated(
    databases: tuple[str, str], pooled: Bouncer, cutover: Cutover
) -> None:
    """Twice is once, and undoing is right after any of them, also after none."""
    with_mode = pooled.config.stat()
    for moments in ([], [Moment.HOLD], [Moment.SWITCH], [Moment.HOLD, Moment.SWITCH]):
        for moment in moments:
            cutover.run(moment)
            cutover.run(moment)
        if Moment.SWITCH in moments:
            assert where(pooled) == name(databases[1])
        cutover.run(Moment.UNDO)
        cutover.run(Moment.UNDO)
        assert where(pooled) == name(databases[0])
    now = pooled.config.stat()
    assert (now.st_mode, now.st_uid) == (with_mode.st_mode, with_mode.st_uid)


def test_a_killed_one_is_finished_or_undone(
    databases: tuple[str, str], pooled: Bouncer, cutover: Cutover
) -> None:
    """By another process, whichever of both is asked for, and however often."""
    for moment, place in (
        (Moment.SWITCH, "copied"),
        (Moment.SWITCH, "rewritten"),
        (Moment.SWITCH, "reloaded"),
        (Moment.UNDO, "restored"),
        (Moment.UNDO, "resumed"),
    ):
        cutover.run(Moment.HOLD)
        if moment is Moment.UNDO:
            cutover.run(Moment.SWITCH)
        killed = cutover.begin(moment, f"hook.pgbouncer.{place}:1:KILL")
        assert killed.wait(60) == -signal.SIGKILL
        if place != "copied":  # that one goes straight back
            cutover.run(moment)
            assert where(pooled) == name(databases[1 if moment is Moment.SWITCH else 0])
        cutover.run(Moment.UNDO)
        assert where(pooled) == name(databases[0])
        assert cutover.run(Moment.CHECK)[0].detail == "pool mode transaction"


def test_a_pause_that_takes_too_long_is_taken_back(
    databases: tuple[str, str], pooled: Bouncer
) -> None:
    """A transaction stays open: within the time limit others go on, and the hook has failed."""
    cutover = between(databases, pooled, timeout=0.5, retries=0)
    with psycopg.connect(pooled.application) as busy:
        busy.execute("INSERT INTO written VALUES (0, 0)")
        began = time.monotonic()
        with pytest.raises(Failed, match="PAUSE took longer than") as caught:
            cutover.run(Moment.HOLD)
        assert time.monotonic() - began < 2
        assert caught.value.code == "CDCM-HOOK-FAILED"
        assert where(pooled) == name(databases[0])
        busy.commit()


def test_who_is_killed_while_pausing_leaves_nobody_waiting(
    databases: tuple[str, str], pooled: Bouncer, cutover: Cutover
) -> None:
    """PgBouncer stays paused without its console; the next one undoes it."""
    with psycopg.connect(pooled.application) as busy:
        busy.execute("INSERT INTO written VALUES (0, 0)")
        killed = cutover.begin(Moment.HOLD)
        with psycopg.connect(
            f"{pooled.watcher} dbname=pgbouncer", autocommit=True, prepare_threshold=None
        ) as watcher:
            deadline = time.monotonic() + 30
            while not next(row for row in watcher.execute("SHOW DATABASES") if "shop" in row)[-2]:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        killed.kill()
        killed.wait()
        cutover.run(Moment.UNDO)
        assert where(pooled) == name(databases[0])


def refused(cutover: Cutover) -> MigratorError:
    with pytest.raises((Refused, Failed)) as caught:
        cutover.run(Moment.CHECK)
    assert caught.value.remedy
    return caught.value


def test_the_check_finds_what_would_go_wrong(databases: tuple[str, str], pooled: Bouncer) -> None:
    """Each with its own words, before anybody waits."""
    elsewhere = pooled.config.with_name("other.ini")
    elsewhere.write_text(pooled.config.read_text().replace("dbname=", "dbname=un"))
    password = LINE.format(**{**conninfo_to_dict(databases[1]), "password": "wrong"})
    for settings, words in (
        ({"console": {"dsn": pooled.watcher}}, "admin access needed"),
        ({"console": {"dsn": "host=127.0.0.1 port=1 user=admin"}}, "does not let us in"),
        ({"database": "nix"}, "has no database 'nix'"),
        ({"config": str(pooled.config.with_name("users"))}, "has no lines of the database"),
        ({"config": str(pooled.config.with_name("gone"))}, "cannot be replaced"),
        ({"config": str(elsewhere)}, "does not have the database"),
        ({"target_line": password}, "password authentication failed"),
        ({"target_line": LINE.format(**conninfo_to_dict(databases[0]))}, "already that of"),
    ):
        found = refused(between(databases, pooled, retries=0, **settings))
        assert words in found.cause
        assert "wrong" not in found.cause + found.remedy
    cutover = between(databases, pooled)
    before = replace(cutover.context(), target={"host": "a,b", "dbname": "x"})
    loose = Cutover(*databases, [{**cutover.hooks[0], "target_line": None}])
    with opened(loose.made()) as hooks, pytest.raises(Refused, match="give `target_line`"):
        run_all(hooks, Moment.CHECK, before)


def test_a_session_pool_is_warned_of(databases: tuple[str, str]) -> None:
    """PAUSE would wait until every client has gone."""
    with bouncer(databases[0], pool_mode="session") as pooled:
        (ran,) = between(databases, pooled).run(Moment.CHECK)
    assert ran.detail.startswith("warning: pool mode session")
