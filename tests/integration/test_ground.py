"""Ground that is lost under an application that writes on: found, named, and ended exact."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from cdc_migrator.faultpoints import VARIABLE
from tests.integration import ground_rig as rig
from tests.integration.ground_rig import Application
from tests.support.address import Address
from tests.support.live import LiveMigration, one, wait_for
from tests.support.private_postgres import odd_server, standby_of
from tests.support.stack import fresh_database

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(400)]
ANEW = ("migrate", "--new-capture", "--no-run")


@pytest.fixture
def live(
    stack: Any, source_db: str, target_db: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveMigration]:
    rig.create(source_db)
    home = tmp_path_factory.mktemp("ground")
    live = LiveMigration(home, f"g{home.name[-1]}{id(home) % 997}", source_db, target_db, stack)
    try:
        live.prepare()
        yield live
    finally:
        live.close()


def struck(live: LiveMigration, place: str) -> None:
    """`migrate --new-capture` killed at a place on its way."""
    process = live.start(*ANEW, log="anew.log", env={VARIABLE: f"{place}:1:KILL"})
    assert process.wait(120) == -signal.SIGKILL, live.log("anew.log")[-3000:]


def refused(live: LiveMigration, code: str, *arguments: str) -> None:
    done = live.cli(*arguments, "-o", "json", check=3)
    assert json.loads(done.stderr.splitlines()[-1])["error"]["code"] == code


def rows_seen(live: LiveMigration) -> dict[str, int]:
    """The target's rows by the transaction that wrote them."""
    with psycopg.connect(live.target) as conn:
        return dict(
            conn.execute("SELECT xmin::text, count(*) FROM shop.item GROUP BY 1").fetchall()
        )


def test_what_is_lost_is_named_and_a_new_capture_ends_exact(live: LiveMigration) -> None:
    """Slot dropped, retention overtaken, topic made again: one after the other."""
    with Application(live.source) as application:
        with rig.running(live) as service:
            rig.follows(live, application)
            refused(live, "CDCM-GROUND-HOLDS", *ANEW)
            assert rig.lost(live) == []

            rig.drop_slot(live)
            rig.until_lost(live, "CDCM-SLOT-LOST")
            wait_for("run has told it", lambda: rig.told(live, "CDCM-SLOT-LOST"), 10)
            application.more()
            before = rows_seen(live)
            # Whatever it was doing, typed again it goes on; meanwhile nobody applies anything.
            for place in ("anew.captured", "keep.written"):
                struck(live, place)
            assert service.wait(30) == 1
        refused(live, "CDCM-RUN-TOO-EARLY", "run")
        live.cli(*ANEW)
        assert rig.generation(live) == 2
        kept = sum(count for xid, count in rows_seen(live).items() if xid in before)
        assert kept > 0.6 * sum(before.values())
        with rig.running(live):
            rig.follows(live, application)

        application.more()
        wait_for("Kafka has more", lambda: rig.end_offset(live) > live.progress()["next_offset"])
        rig.delete_records(live)
        rig.until_lost(live, "CDCM-STREAM-GAP")
        refused(live, "CDCM-STREAM-GAP", "run")
        live.cli(*ANEW)
        with rig.running(live):
            rig.follows(live, application)

        rig.remake_topic(live, live.progress()["next_offset"] + 50)
        rig.until_lost(live, "CDCM-STREAM-TOPIC-ANEW")
        refused(live, "CDCM-STREAM-TOPIC-ANEW", "run")
        live.cli(*ANEW)
        with rig.running(live):
            rig.follows(live, application)
    assert rig.generation(live) == 4
    assert live.cli("journal", "verify").returncode == 0
    assert (
        one(
            live.source,
            "SELECT count(*) FROM pg_replication_slots WHERE slot_name ~ %s",
            f"^cdcm_{live.name}_",
        )
        == 1
    )


@pytest.mark.long
def test_the_source_itself_is_lost(stack: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Its slot made anew, publication dropped, slot given up by either side, and a failover."""
    with ExitStack() as opened:
        server = opened.enter_context(odd_server())
        address = opened.enter_context(Address(server))
        source = opened.enter_context(fresh_database(address.dsn))
        target = opened.enter_context(fresh_database(stack.target_dsn))
        rig.create(source)
        home = tmp_path_factory.mktemp("ground")
        live = LiveMigration(home, "groundsource", source, target, stack)
        opened.callback(live.close)
        live.prepare()
        application = opened.enter_context(Application(source))

        with rig.running(live):
            rig.follows(live, application)
            # As somebody might mend it.
            rig.drop_slot(live)
            with psycopg.connect(source, autocommit=True) as conn:
                conn.execute(
                    "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')",
                    (rig.names(live)[0],),
                )
            rig.until_lost(live, "CDCM-SLOT-LOST", 90)
            for place in (
                "anew.begun",
                "anew.captured",
                "keep.written",
                "keep.range",
                "keep.table",
            ):
                struck(live, place)
            struck(live, "anew.kept")
            live.cli(*ANEW)
        with rig.running(live):
            rig.follows(live, application)
            with psycopg.connect(source, autocommit=True) as conn:
                conn.execute(f"DROP PUBLICATION cdcm_{live.name}")
            rig.until_lost(live, "CDCM-PUBLICATION-LOST")
            live.cli(*ANEW)
        with rig.running(live):
            rig.follows(live, application)

            live.cli("capture", "stop")
            invalidate(server, application)
            rig.until_lost(live, "CDCM-SLOT-LOST")
            assert live.status()["ground"]["slot_invalidated"] == "wal_removed"
            live.cli(*ANEW)

        slot, _, _ = rig.names(live)
        live.settings = {
            "capture": {
                "retained_wal_warn": "1MiB",
                "retained_wal_limit": "4MiB",
                "retained_wal_action": "drop-slot",
                "drop_slot_confirmed": slot,
            }
        }
        live.__post_init__()
        with rig.running(live):
            rig.follows(live, application)
            live.cli("capture", "stop")
            with psycopg.connect(source, autocommit=True) as conn:
                conn.execute("SELECT pg_logical_emit_message(false, 'x', repeat('x', 8 << 20))")
            rig.until_lost(live, "CDCM-SLOT-LOST")
            assert (
                one(
                    target,
                    "SELECT count(*) FROM cdc_migrator.journal WHERE action = "
                    "'slot-given-up' AND details ->> 'slot' = %s",
                    slot,
                )
                == 1
            )
            live.cli(*ANEW)

        live.settings = {}
        live.__post_init__()
        standby = opened.enter_context(standby_of(server))
        opened.callback(lambda: address.lead_to(server))
        with rig.running(live) as service:
            rig.follows(live, application)
            # What the standby has not got any more is on the target, and must not stay there.
            with psycopg.connect(standby, autocommit=True) as conn:
                conn.execute("ALTER SYSTEM SET primary_conninfo = ''")
                conn.execute("SELECT pg_reload_conf()")
                wait_for(
                    "nothing more arrives",
                    lambda: (
                        conn.execute("SELECT count(*) FROM pg_stat_wal_receiver").fetchone() == (0,)
                    ),
                )
            application.more()
            with application.paused():
                assert live.drain()
            with psycopg.connect(standby, autocommit=True) as conn:
                assert conn.execute("SELECT pg_promote()").fetchone() == (True,)
            address.lead_to(standby)
            rig.until_lost(live, "CDCM-SOURCE-CHANGED")
            assert service.wait(20) == 3
        assert (live.halted() or {})["code"] == "CDCM-SOURCE-CHANGED"
        application.more()
        live.cli(*ANEW)
        with rig.running(live):
            rig.follows(live, application)


def invalidate(server: str, application: Application) -> None:
    """More log than the source may keep for a slot, and a checkpoint that removes it."""
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'")
        conn.execute("SELECT pg_reload_conf()")

        def gone() -> bool:
            conn.execute("SELECT pg_logical_emit_message(false, 'x', repeat('x', 8 << 20))")
            conn.execute("SELECT pg_switch_wal()")
            conn.execute("CHECKPOINT")
            row = conn.execute(
                "SELECT count(*) FROM pg_replication_slots WHERE wal_status = 'lost'"
            ).fetchone()
            return row == (1,)

        wait_for("the slot is invalidated", gone, 60)
        conn.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
        conn.execute("SELECT pg_reload_conf()")
