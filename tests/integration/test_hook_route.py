"""The row that applications read: told on both sides, the one they go to first."""

from __future__ import annotations

import secrets
import signal
import statistics
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from cdc_migrator.control import schema
from cdc_migrator.cutover.hooks.base import Moment, opened
from cdc_migrator.errors import Failed, Refused
from tests.support.hooks import Cutover
from tests.support.private_postgres import private_database


@pytest.fixture
def sides() -> Iterator[tuple[str, str]]:
    """Two databases with their control schemas."""
    with private_database() as source, private_database() as target:
        for dsn, side in ((source, "source"), (target, "target")):
            with psycopg.connect(dsn, autocommit=True) as conn:
                schema.ensure(conn, side)
        yield source, target


@pytest.fixture
def role(sides: tuple[str, str]) -> Iterator[str]:
    """A role that may do nothing yet."""
    name = f"App {secrets.token_hex(4)}"
    with psycopg.connect(sides[0], autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        yield name
    for dsn in sides:
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
    with psycopg.connect(sides[0], autocommit=True) as conn:
        conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def said(sides: tuple[str, str], role: str | None = None) -> list[str]:
    found = []
    for dsn in sides:
        with psycopg.connect(dsn) as conn:
            if role:
                conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
            row = conn.execute("SELECT side FROM cdc_migrator.route WHERE migration = 'm'")
            found += [side for (side,) in row]
    return found


def test_both_sides_tell_where_to_go(sides: tuple[str, str], role: str) -> None:
    """The check makes the row and lets the readers in; every moment can be repeated."""
    route = Cutover(*sides, [{"kind": "route", "readers": [role]}])
    expected = {
        Moment.CHECK: "source",
        Moment.HOLD: "source",
        Moment.SWITCH: "target",
        Moment.UNDO: "source",
    }
    with opened(route.made()) as hooks:
        for moment, side in expected.items():
            for _ in range(2):
                route.run(moment, hooks)
            assert said(sides, role) == [side, side]
    (ran,) = route.run(Moment.SWITCH)
    assert ran.detail == "target, told on both sides"
    assert route.run(Moment.CHECK)[0].detail == "both sides say target"


def test_who_is_to_read_must_be_there(sides: tuple[str, str]) -> None:
    """On both sides, like the table itself."""
    with pytest.raises(Refused, match="no role Nobody") as caught:
        Cutover(*sides, [{"kind": "route", "readers": ["Nobody"]}]).run(Moment.CHECK)
    assert caught.value.code == "CDCM-HOOK-ROUTE"
    with psycopg.connect(sides[1], autocommit=True) as conn:
        conn.execute("DROP TABLE cdc_migrator.route")
    with pytest.raises(Refused, match="the target has no table"):
        Cutover(*sides, [{"kind": "route"}]).run(Moment.CHECK)


def test_killed_between_both_sides_the_new_one_has_been_told(sides: tuple[str, str]) -> None:
    """Whoever is there stays; running it again tells the other. The check says that they differ."""
    route = Cutover(*sides, [{"kind": "route"}])
    route.run(Moment.CHECK)
    for moment, first, side in (
        (Moment.SWITCH, ["source", "target"], "target"),
        (Moment.UNDO, ["source", "target"], "source"),
    ):
        killed = route.begin(moment, "hook.route.told:1:KILL")
        assert killed.wait(60) == -signal.SIGKILL
        assert said(sides) == first
        assert route.run(Moment.CHECK)[0].detail.startswith("warning: the source says source")
        route.run(moment)
        assert said(sides) == [side, side]


def test_the_side_that_is_left_may_be_gone(sides: tuple[str, str]) -> None:
    """It is told where somebody lives, with a warning; the side to go to must answer."""
    gone = make_conninfo("host=127.0.0.1 port=1 dbname=x")
    Cutover(*sides, [{"kind": "route"}]).run(Moment.CHECK)
    hook = {"kind": "route", "retries": 0}
    (ran,) = Cutover(gone, sides[1], [hook]).run(Moment.SWITCH)
    assert ran.detail.startswith("target, told on the target only: CDCM-DB-UNREACHABLE")
    assert said(sides) == ["source", "target"]
    with pytest.raises(Failed, match=r"the source at 127\.0\.0\.1:1/x cannot be reached"):
        Cutover(gone, sides[1], [hook]).run(Moment.UNDO)
    (ran,) = Cutover(sides[0], gone, [hook]).run(Moment.UNDO)
    assert ran.detail.startswith("source, told on the source only")


def test_a_session_that_was_lost_is_opened_again(sides: tuple[str, str]) -> None:
    """At once: a firewall that forgot it costs no try."""
    route = Cutover(*sides, [{"kind": "route", "retries": 0}])
    route.run(Moment.CHECK)
    with opened(route.made()) as hooks:
        for dsn in sides:
            with psycopg.connect(dsn, autocommit=True) as conn:
                ended = conn.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND application_name = 'cdcm-m-hook'"
                ).fetchall()
                assert ended == [(True,)]
        assert route.run(Moment.SWITCH, hooks)[0].detail == "target, told on both sides"


def test_a_row_that_is_locked_is_not_waited_for_long(sides: tuple[str, str]) -> None:
    """The server gives up by itself, so nothing comes after; of the old side it is a warning."""
    route = Cutover(*sides, [{"kind": "route", "timeout": 0.6, "retries": 0}])
    route.run(Moment.CHECK)
    with psycopg.connect(sides[1]) as locking:
        locking.execute("UPDATE cdc_migrator.route SET side = side")
        with pytest.raises(Failed, match="CDCM-DB-"):
            route.run(Moment.SWITCH)
    assert said(sides) == ["source", "source"]
    with psycopg.connect(sides[0]) as locking:
        locking.execute("UPDATE cdc_migrator.route SET side = side")
        (ran,) = route.run(Moment.SWITCH)
    assert ran.seconds < 0.6
    assert ran.detail.startswith("target, told on the target only: CDCM-DB-")
    assert said(sides) == ["source", "target"]


def test_the_switch_takes_milliseconds_with_open_sessions(sides: tuple[str, str]) -> None:
    """Applications wait for it."""
    route = Cutover(*sides, [{"kind": "route"}])
    route.run(Moment.CHECK)
    seconds = []
    with opened(route.made()) as hooks:
        for _ in range(20):
            seconds += [
                route.run(moment, hooks)[0].seconds for moment in (Moment.SWITCH, Moment.UNDO)
            ]
    print(f"median {statistics.median(seconds) * 1000:.2f} ms, max {max(seconds) * 1000:.2f} ms")
    assert statistics.median(seconds) < 0.05
