"""The status document as people see it."""

from __future__ import annotations

from rich.console import Console

from cdc_migrator.cli.status_view import number, one_line, seconds, size, view


def document(**changes: object) -> dict[str, object]:
    whole: dict[str, object] = {
        "accepted": [],
        "migration": "shop",
        "phase": "stream",
        "lag_seconds": 0.0431,
        "lag_events": 12,
        "lag_events_exact": False,
        "tables": [
            {
                "source": "shop.orders",
                "target": "new.orders",
                "rows_loaded": 300000,
                "load_state": "loaded",
                "inserts": 7,
                "updates": 0,
                "deletes": 0,
                "truncates": 0,
                "joining": None,
            }
        ],
        "not_added": {"tables": [], "remedy": None},
        "target_fence": "up",
        "target_fence_lacking": [],
        "parked": {"exact": True, "keys": 0, "records": 0, "keys_skipped": 0},
        "without_way_back": ["crm.log"],
        "ready": {"verdict": False, "reasons": ["the lag is unknown"]},
        "load": {
            "done_fraction": 1.0,
            "elapsed_seconds": 9.0,
            "seconds_left": 0.0,
            "tables_loaded": 1,
            "tables": 1,
        },
        "rates": {"transactions_per_second": 310.2, "events_per_second": 1204.9},
        "transactions": {"applied": 12345, "redelivered": 2, "suspect": 1},
        "service": {
            "running": True,
            "state": "streaming",
            "waiting": None,
            "owner": "me@here:1",
            "seen_seconds_ago": 0.4,
            "rss_bytes": 120 << 20,
        },
        "slot": {
            "name": "cdcm_shop_1",
            "exists": True,
            "active": True,
            "retained_bytes": 5 << 20,
            "safe_bytes": None,
            "wal_bytes_per_second": 2048.0,
            "seconds_to_limit": None,
        },
        "connector": {
            "name": "cdcm-shop-1",
            "exists": True,
            "state": "RUNNING",
            "tasks": ["RUNNING"],
            "trace": None,
            "restarts": 0,
        },
        "ground": {
            "lost": [],
            "retained_wal": {"level": "fine", "told": None},
        },
        "stages": {"capture_seconds": 0.021, "delivery_seconds": 0.022},
        "catch_up": {
            "seconds": 0.0,
            "records_applied_per_second": 12300.0,
            "records_arriving_per_second": 4000.0,
        },
        "retention": {
            "unlimited": True,
            "seconds": None,
            "bytes": None,
            "compacted": False,
            "seconds_left": None,
        },
        "servers": {
            "source": {
                "connections": 7,
                "max_connections": 100,
                "database_bytes": 3 << 30,
                "lock_waiters": None,
                "lock_wait_seconds": None,
            },
            "target": None,
        },
        "clocks": {"target_ahead_seconds": 0.02, "source_ahead_seconds": 0.0},
        "verified_as_of": "2026-01-01T02:03:04.5+00:00",
        "reconcile": {"open": 3, "accepted": 0, "chunks": 20, "chunks_dirty": 7}
        | {"tables_unproven": 0, "continuous": "compares"},
        "last_error": None,
        "notes": [],
        "sampled_at": "2026-01-02T03:04:05+00:00",
    }
    return whole | changes


def drawn(whole: dict[str, object]) -> str:
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(view(whole))
    return capture.get()


def test_a_working_stream() -> None:
    """Phase, lag, rates, counts, slot, connector, each table, and the verdict with its reasons."""
    text = drawn(document())
    for part in (
        "created → schema → capture → load → indexes → [stream]",
        "43 ms, at most 12 events pending; into Kafka 21 ms, out 22 ms",
        "310 transactions/s, 1 205 events/s; 12 345 transactions so far, 2 came again",
        "1 not proven whole",
        "crm.log: `back: none`",
        "streaming, me@here:1, 120.0 MiB resident",
        "cdcm_shop_1 active, keeps 5.0 MiB of log",
        "cdcm-shop-1 RUNNING, tasks: RUNNING",
        "verified as of 2026-01-01 02:03:04, 3 rows differ, 7 of 20 chunks changed since; "
        "`run`: compares",
        "shop.orders → new.orders",
        "300 000",
        "safe to switch over: no, because",
        "the lag is unknown",
    ):
        assert part in text


def test_how_long_until_it_has_caught_up() -> None:
    """With the rates that it rests on; not where it has, and a stream that falls behind is told."""
    assert "records/s" not in drawn(document())
    rates = document()["catch_up"]
    assert isinstance(rates, dict)
    text = drawn(document(catch_up=rates | {"seconds": 95.0}))
    assert "catch-up   in 1 min 35 s at 12 300 records/s applied, 4 000 arriving" in text
    assert "does not catch up at 12 300" in drawn(document(catch_up=rates | {"seconds": None}))


def test_what_threatens_is_told() -> None:
    """The slot's limit, a topic that deletes, waits for locks, clocks, why a task has failed."""
    whole = document()
    text = drawn(
        document(
            slot=whole["slot"] | {"safe_bytes": 7372800, "seconds_to_limit": 3600.0},  # type: ignore[operator]
            connector=whole["connector"]  # type: ignore[operator]
            | {"tasks": ["FAILED"], "trace": "ConnectException: no route", "restarts": 2},
            ground={
                "lost": [{"code": "CDCM-SLOT-LOST", "cause": "it is gone", "remedy": "go on"}],
                "retained_wal": {"level": "warn", "told": "the source keeps much"},
            },
            retention=whole["retention"]  # type: ignore[operator]
            | {"unlimited": False, "seconds": 7200.0, "bytes": 1024, "seconds_left": 60.0},
            servers={
                "source": None,
                "target": whole["servers"]["source"]  # type: ignore[index]
                | {"lock_waiters": 2, "lock_wait_seconds": 4.2},
            },
            clocks={"target_ahead_seconds": -2.5, "source_ahead_seconds": 0.0},
        )
    )
    for part in (
        "7.0 MiB to the limit (1 h 0 min at 2.0 KiB/s)",
        "tasks: FAILED, started again 2 times: ConnectException: no route",
        "lost CDCM-SLOT-LOST: it is gone remedy: go on",
        "the source keeps much",
        "DELETES what is older than 2 h 0 min, what is beyond 1.0 KiB; the next record is kept "
        "for 1 min 0 s at least",
        "7 of 100 connections, database 3.0 GiB, waits for locks: 2, the longest 4.2 s",
        "the target's is 2.5 s behind the source's",
    ):
        assert part in " ".join(text.split())


def test_what_is_unknown_is_a_dash_and_told() -> None:
    """Never a zero, and the reason stands beside it."""
    text = drawn(
        document(
            slot=None,
            lag_seconds=None,
            lag_events=None,
            notes=[{"part": "source", "code": "X", "cause": "no answer"}],
        )
    )
    assert "– events pending" in text
    assert "source: no answer" in text


def test_a_stopped_service_says_how_to_start_it() -> None:
    """With the time since it was seen."""
    service = {"running": False, "state": None, "waiting": None, "owner": None}
    text = drawn(document(service=service | {"seen_seconds_ago": 95.0, "rss_bytes": None}))
    assert "does not run, last seen 1 min 35 s ago (start it with `cdc-migrator run`)" in text


def test_the_last_error_comes_with_its_remedy() -> None:
    """As it was kept in the migration row."""
    text = drawn(document(last_error={"code": "CDCM-X", "cause": "it broke", "remedy": "mend"}))
    assert "last error CDCM-X: it broke" in text
    assert "remedy: mend" in text


def test_tables_that_are_not_part_or_being_added_are_told_with_the_remedy() -> None:
    """By name, below the tables that are."""
    whole = document(not_added={"tables": ["shop.late"], "remedy": "cdc-migrator migrate --no-run"})
    whole["tables"][0]["joining"] = "publishing"  # type: ignore[index]
    shown = drawn(whole)
    assert "not part of the migration: shop.late" in shown
    assert "remedy: `cdc-migrator migrate --no-run` adds them" in shown
    assert "being added: publishing" in shown


def test_whether_others_can_write_to_the_target() -> None:
    """And where, if the fence is not complete."""
    assert "up: others cannot write to the target" in drawn(document())
    assert "off: others can write to the target" in drawn(document(target_fence="off"))
    partial = document(target_fence="partial", target_fence_lacking=["shop.a", "shop.b"])
    assert "not on shop.a, shop.b" in drawn(partial)


def test_what_is_kept_back_is_told_where_there_is_something() -> None:
    """And that the target is not exact."""
    assert "kept back" not in drawn(document())
    parked = {"exact": False, "keys": 2, "records": 7, "keys_skipped": 1}
    told = drawn(document(parked=parked))
    assert "7 records of 2 keys, 1 keys given up: the target is not exact" in told


def test_a_line_for_a_log() -> None:
    """The same numbers, one line."""
    assert one_line(document()) == (
        "03:04:05 shop: stream, loaded 100.0 %, lag 43 ms, at most 12 events pending, "
        "1 205 events/s, slot keeps 5.0 MiB, streaming, me@here:1, 120.0 MiB resident"
    )


def test_units() -> None:
    """People's units, at each border."""
    assert [seconds(v) for v in (None, 0.9994, 1.0, 59.9, 60, 3599, 3600)] == [
        "–",
        "999 ms",
        "1.0 s",
        "59.9 s",
        "1 min 0 s",
        "59 min 59 s",
        "1 h 0 min",
    ]
    assert [size(v) for v in (None, 0, 1023, 1024, 1 << 40)] == [
        "–",
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.0 TiB",
    ]
    assert [number(v) for v in (None, 0, 1234567)] == ["–", "0", "1 234 567"]
