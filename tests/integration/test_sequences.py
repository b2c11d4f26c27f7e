"""Sequences of two real servers: all kinds come over, are set past everything, and proven."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from psycopg import sql
from psycopg.conninfo import make_conninfo

from cdc_migrator.backfill.schema import make_tables
from cdc_migrator.backfill.sequence_sync import Synced, plan, sync
from cdc_migrator.backfill.sequences import Decision
from cdc_migrator.control import journal
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.databases.postgres.sequences import move, read_sequences
from cdc_migrator.model.naming import Names
from cdc_migrator.model.sequences import Position
from tests.integration.sequences_rig import CALLS, IN_SCOPE, World, insert, numbers, world
from tests.support.private_postgres import private_database
from tests.support.typed import plain_environment, typed


@pytest.fixture
def shop() -> Iterator[World]:
    """The shop with its schema carried over by the product, and two hundred rows a table."""
    with world() as made:
        insert(made.source, 200)
        make_tables(made.source_dsn, made.target_dsn, Names("seq"), made.tables())
        made.copy()
        made.source.execute(CALLS)
        yield made


def codes(one: Decision | Synced) -> list[str]:
    decision = one.decision if isinstance(one, Synced) else one
    return [finding.code for finding in decision.findings]


def test_all_kinds_come_over_with_their_parameters(shop: World) -> None:
    """None is missing, none differs; not in it: an extension's, ours, an excluded table's."""
    found = shop.plan()
    assert set(found) == IN_SCOPE
    assert {name: d.differs for name, d in found.items() if d.differs or not d.target} == {}
    assert [str(f) for f in found["shop.shared"].source.feeds] == ["shop.one.id", "shop.two.id"]
    assert [str(f) for f in found["shop.parts_id_seq"].source.feeds] == ["shop.parts.id"]
    assert found["counters.set_but_never_called"].move_to
    assert {name: codes(d) for name, d in found.items() if d.findings} == {
        "counters.at_the_end": ["CDCM-SEQUENCE-EXHAUSTED"],
        "counters.numbers": ["CDCM-SEQUENCE-COLUMN-COMPUTED"],
    }


def test_columns_are_read_in_the_sequences_own_direction(shop: World) -> None:
    """max, or min for one that descends; of a numeric, a domain, and over partitions too."""
    found = {name: d.furthest for name, d in shop.plan().items()}
    assert found["shop.serials_small_seq"] == 200
    assert found["shop.always_id_seq"] == 7 + 199 * 3
    assert found["shop.downward"] == -100 - 199 * 2
    assert found["counters.elsewhere"] == 1199
    assert found["shop.shared"] == 400
    assert found['Odd Schema.it\'s 100% "odd".é'] == 200
    assert found["shop.parts_id_seq"] == 200
    assert found["counters.free"] is None


def test_planning_changes_nothing_and_consumes_nothing(shop: World) -> None:
    """On either side."""
    before = read_sequences(shop.source), read_sequences(shop.target)
    shop.plan()
    assert (read_sequences(shop.source), read_sequences(shop.target)) == before


def test_after_sync_no_insert_on_the_target_collides(shop: World) -> None:
    """Neither with what is there, nor with what the source goes on to write."""
    before = read_sequences(shop.source)
    done = shop.sync()
    assert read_sequences(shop.source) == before, "it reads the source only"
    assert {name for name, one in done.items() if not one.proven} == set()
    insert(shop.target, 60)
    insert(shop.source, 60)
    ours, theirs = numbers(shop.source), numbers(shop.target)
    for column, values in theirs.items():
        assert len(set(values)) == len(values) == 260, column
        there = set(ours[column][:200])
        assert set(values) & set(ours[column]) == there, column
    assert {v % 3 for v in theirs["shop.always.id"]} == {1}, "the step stays in its class"


def test_odd_places_are_followed(shop: World) -> None:
    """Around the ring, at the end, and set to a value that is still to come."""
    shop.sync(margin=10)
    one = shop.target.execute("SELECT nextval('counters.around')").fetchone()
    assert one == (216,)
    one = shop.target.execute("SELECT nextval('counters.set_but_never_called')").fetchone()
    assert one == (787,)
    with pytest.raises(psycopg.errors.SequenceGeneratorLimitExceeded):
        shop.target.execute("SELECT nextval('counters.at_the_end')")


def test_a_second_sync_changes_nothing(shop: World) -> None:
    """And writes nothing into the journal."""
    shop.sync()
    before = read_sequences(shop.target)
    again = shop.sync()
    assert all(one.proven and not one.moved and not one.altered for one in again.values())
    assert read_sequences(shop.target) == before
    rows = shop.target.execute(
        "SELECT details FROM cdc_migrator.journal WHERE action = 'sequences-sync'"
    ).fetchall()
    assert len(rows) == 1
    noted = {s["sequence"]: s["last_value"] for s in rows[0][0]["sequences"]}
    assert noted["shop.serials_id_seq"] == 1200
    assert journal.verify(shop.target).fault is None


def test_planted_differences_are_found_and_put_right(shop: World) -> None:
    """Parameters, positions out of the range, and a direction that was turned round."""
    for statement in (
        "ALTER SEQUENCE shop.serials_id_seq AS bigint MAXVALUE 5000000000 CACHE 7",
        "ALTER TABLE shop.always ALTER id SET INCREMENT 1 SET CYCLE",
        "ALTER SEQUENCE shop.downward INCREMENT 1 MINVALUE 1 MAXVALUE 9 START 5 RESTART 5",
        "ALTER SEQUENCE counters.elsewhere MINVALUE 1 START 1 RESTART 1",
        "ALTER SEQUENCE counters.around NO CYCLE",
        "SELECT setval('shop.shared', 5000000)",
    ):
        shop.target.execute(statement)
    found = shop.plan()
    assert found["shop.serials_id_seq"].differs == ("type", "maximum", "cache")
    assert found["shop.always_id_seq"].differs == ("increment", "cycle")
    assert found["counters.elsewhere"].differs == ("start", "minimum")
    assert found["counters.around"].differs == ("cycle",)
    # It stands where the source's sequence has long been, but outside of its range.
    assert found["shop.downward"].restart
    assert found["shop.shared"].move_to is None
    done = shop.sync()
    assert {name for name, one in done.items() if not one.proven} == set()
    assert {name: d.differs for name, d in shop.plan().items() if d.differs} == {}
    assert shop.target.execute("SELECT last_value FROM shop.shared").fetchone() == (5000000,)
    assert shop.target.execute("SELECT nextval('shop.downward')").fetchone() == (-2500,)


def test_what_stands_against_it_is_told_and_the_rest_is_done(shop: World) -> None:
    """Missing, past the source's end, and a column that holds the last value there is."""
    shop.target.execute("DROP SEQUENCE counters.free")
    shop.target.execute("ALTER SEQUENCE counters.elsewhere AS bigint MAXVALUE 9000000000")
    shop.target.execute("SELECT setval('counters.elsewhere', 8000000000)")
    shop.target.execute("INSERT INTO shop.serials (small) VALUES (32767)")
    done = shop.sync()
    assert {name: codes(one) for name, one in done.items() if not one.proven} == {
        "counters.free": ["CDCM-SEQUENCE-MISSING"],
        "counters.elsewhere": ["CDCM-SEQUENCE-AHEAD"],
        "shop.serials_small_seq": ["CDCM-SEQUENCE-COLUMN-FULL"],
    }
    after = shop.target.execute("SELECT last_value FROM counters.elsewhere").fetchone()
    assert after == (8000000000,), "never back"
    assert done["shop.serials_small_seq"].moved


def test_a_default_on_an_excluded_tables_sequence_is_told(shop: World) -> None:
    """The schema step leaves that sequence behind, and the column would have no default."""
    shop.source.execute(
        "CREATE TABLE shop.borrows (id int DEFAULT nextval('shop.left_behind_id_seq'))"
    )
    found = shop.plan()["shop.left_behind_id_seq"]
    assert codes(found) == ["CDCM-SEQUENCE-MISSING"]
    assert "not migrated" in found.findings[0].remedy


def test_a_hand_made_identity_is_found_by_its_column(shop: World) -> None:
    """Its sequence has another name."""
    shop.target.execute("ALTER SEQUENCE shop.serials_id_seq RENAME TO called_differently")
    done = shop.sync()["shop.serials_id_seq"]
    assert done.proven
    assert done.target
    assert str(done.target.name) == "shop.called_differently"
    assert shop.target.execute("SELECT nextval('shop.called_differently')").fetchone() == (1201,)


def test_an_identity_that_only_the_target_has_is_set_past_its_column(shop: World) -> None:
    """The application will take numbers from it after the switch."""
    shop.source.execute("CREATE TABLE shop.plain (id int PRIMARY KEY)")
    shop.target.execute("CREATE TABLE shop.plain (id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY)")
    shop.target.execute(
        "INSERT INTO shop.plain OVERRIDING SYSTEM VALUE SELECT generate_series(1, 50)"
    )
    done = shop.sync()["shop.plain_id_seq"]
    assert codes(done) == ["CDCM-SEQUENCE-TARGET-ONLY"]
    assert done.proven
    assert not shop.sync()["shop.plain_id_seq"].moved
    row = shop.target.execute("INSERT INTO shop.plain DEFAULT VALUES RETURNING id").fetchone()
    assert row == (51,)


@contextmanager
def role(conn: psycopg.Connection, name: str) -> Iterator[str]:
    """A role that may log in and nothing else."""
    quoted = sql.Identifier(name)
    conn.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(quoted))
    try:
        yield name
    finally:
        conn.execute(sql.SQL("DROP OWNED BY {}").format(quoted))
        conn.execute(sql.SQL("DROP ROLE {}").format(quoted))


def test_what_a_role_may_not_read_is_told_apart_from_what_was_never_called(shop: World) -> None:
    """Both have no last value in the catalog."""
    source = shop.source
    with role(source, f"reader_{os.getpid()}") as name:
        grant = sql.SQL(
            "GRANT USAGE ON SCHEMA shop, counters TO {0}; "
            "GRANT SELECT ON SEQUENCE counters.free TO {0}; "
            "GRANT USAGE ON SEQUENCE shop.shared TO {0}; "
            "GRANT USAGE ON SEQUENCE counters.set_but_never_called TO {0}"
        ).format(sql.Identifier(name))
        source.execute(grant)
        dsn = make_conninfo(shop.source_dsn, user=name, password="x")
        with connect(dsn, application_name="test") as poor:
            found = {str(d.name): d for d in plan(poor, shop.target, shop.tables())}
    read = {name for name, d in found.items() if d.source.position is not None}
    assert read == {"counters.free", "shop.shared"}
    assert codes(found["shop.downward"]) == ["CDCM-SEQUENCE-UNREADABLE"]
    assert "source" in found["shop.downward"].findings[0].cause
    # Where it was set to cannot be known by USAGE alone.
    assert codes(found["counters.set_but_never_called"]) == ["CDCM-SEQUENCE-UNREADABLE"]


def test_a_role_that_may_not_set_is_told(shop: World) -> None:
    """Or may not alter, or may not read a column; the rest is done."""
    target = shop.target
    target.execute("ALTER SEQUENCE shop.downward CACHE 9")
    with role(target, f"writer_{os.getpid()}") as name:
        target.execute(
            sql.SQL(
                'GRANT USAGE ON SCHEMA shop, counters, cdc_migrator, "Odd Schema" TO {0}; '
                "GRANT ALL ON ALL TABLES IN SCHEMA cdc_migrator TO {0}; "
                'GRANT SELECT ON ALL TABLES IN SCHEMA shop, "Odd Schema" TO {0}; '
                "REVOKE SELECT ON shop.always FROM {0}; "
                'GRANT ALL ON ALL SEQUENCES IN SCHEMA shop, counters, "Odd Schema" TO {0}; '
                "REVOKE UPDATE ON SEQUENCE counters.free FROM {0}"
            ).format(sql.Identifier(name))
        )
        dsn = make_conninfo(shop.target_dsn, user=name, password="x")
        with connect(dsn, application_name="test") as poor:
            done = sync(shop.source, poor, shop.tables())
    assert {str(one.decision.name): codes(one) for one in done if not one.proven} == {
        "counters.free": ["CDCM-SEQUENCE-NOT-SET"],
        "shop.downward": ["CDCM-SEQUENCE-NOT-SET"],
        "shop.always_id_seq": ["CDCM-SEQUENCE-UNREADABLE"],
    }


def test_a_source_that_goes_on_does_not_overtake(shop: World) -> None:
    """Sessions of their own call nextval, cached and not, while it is synced again and again."""
    stop = threading.Event()
    given: list[tuple[int, int]] = []

    def write() -> None:
        while not stop.is_set():
            with psycopg.connect(shop.source_dsn, autocommit=True) as conn:
                row = conn.execute(
                    "SELECT nextval('shop.by_default_id_seq'), nextval('shop.shared')"
                ).fetchone()
                assert row
                given.append(row)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            seen = len(given)
            done = shop.sync()
            assert all(one.proven for one in done.values())
            while len(given) < seen + 5 and writer.is_alive():
                stop.wait(0.01)
    finally:
        stop.set()
        writer.join()
    insert(shop.target, 50)
    cached, shared = ({row[i] for row in given} for i in (0, 1))
    theirs = numbers(shop.target)
    assert len(given) > 20
    assert not cached & set(theirs["shop.by_default.id"])
    assert not shared & set(theirs["shop.one.id"] + theirs["shop.two.id"])


def test_the_ends_of_bigint_and_values_that_are_no_numbers() -> None:
    """Limits as far out as they go; NaN, infinity and what lies outside of the range."""
    with world(
        "SET search_path = public;"
        "CREATE SEQUENCE deep INCREMENT -5 MINVALUE -9223372036854775808 MAXVALUE 0 START 0;"
        "CREATE SEQUENCE high MINVALUE 9223372036854774000 CYCLE;"
        "CREATE SEQUENCE odd MAXVALUE 1000000;"
        "CREATE TABLE t (a bigint DEFAULT nextval('deep'), b numeric DEFAULT nextval('odd'))"
    ) as made:
        make_tables(made.source_dsn, made.target_dsn, Names("seq"), made.tables())
        made.target.execute("SET search_path = public")
        made.source.execute("SELECT setval('deep', -9223372036854770000)")
        made.source.execute("SELECT setval('high', 9223372036854775806)")
        made.target.execute("ALTER SEQUENCE deep MINVALUE -10 CACHE 3")
        made.target.execute(
            "INSERT INTO t VALUES (-9223372036854770005, 'NaN'), (5, '-Infinity'), "
            "(6, 'Infinity'), (7, 1000001), (7, 70.5), (8, -3)"
        )
        found = made.plan()
        assert found["public.deep"].furthest == -9223372036854770005
        assert found["public.odd"].furthest == 70
        done = made.sync(margin=100)
        assert all(one.proven for one in done.values())
        for name, value in (
            ("deep", -9223372036854770010 - 500),
            ("odd", 171),
            ("high", 9223372036854774099),
        ):
            row = made.target.execute("SELECT nextval(%s)", (name,)).fetchone()
            assert row == (value,), name


def test_one_that_ran_ahead_between_look_and_set_is_not_moved_back() -> None:
    """The statement that sets looks once more itself; one that cycles has no back."""
    with private_database() as dsn, connect(dsn, application_name="test") as conn:
        conn.execute("SET search_path = public")
        conn.execute("CREATE SEQUENCE up; CREATE SEQUENCE down INCREMENT -1; CREATE SEQUENCE ring")
        conn.execute("SELECT setval('up', 50), setval('down', -50), setval('ring', 50)")
        oids = {one.name.name: one.oid for one in read_sequences(conn)}
        wanted = [("up", 49, 1), ("down", -49, -1), ("ring", 49, 0)]
        at = [(oids[name], Position(last, True), way) for name, last, way in wanted]
        assert move(conn, at) == [oids["ring"]]
        further = [("up", 60, 1), ("down", -60, -1)]
        at = [(oids[name], Position(last, True), way) for name, last, way in further]
        assert move(conn, at) == [oids["up"], oids["down"]]
        assert move(conn, [(oids["up"], Position(60, False), 1)]) == []


class Counted:
    """A connection that counts its statements."""

    def __init__(self, conn: psycopg.Connection) -> None:
        self._conn = conn
        self.statements = 0

    def execute(self, *arguments: Any) -> Any:
        self.statements += 1
        return self._conn.execute(*arguments)


def test_a_thousand_sequences_are_read_in_seven_statements() -> None:
    """One for all, one for their columns, five for those that were never called."""
    with private_database() as dsn, connect(dsn, application_name="test") as conn:
        conn.execute(
            "DO $$ BEGIN FOR i IN 1..1000 LOOP "
            "EXECUTE format('CREATE SEQUENCE public.s%s START %s', i, i); END LOOP; END $$"
        )
        counted: Any = Counted(conn)
        found = read_sequences(counted)
        assert counted.statements == 7
    assert {one.position.last for one in found if one.position} == set(range(1, 1001))


Verb = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def verb(tmp_path: Path) -> Verb:
    """Runs a verb in the test's directory."""
    return partial(typed, directory=tmp_path, env=plain_environment())


def test_the_verb_needs_two_databases_and_no_stack(shop: World, verb: Verb, tmp_path: Path) -> None:
    """plan, sync, sync again, and something that cannot be done: 0, 0, 0, 1."""
    document = {
        "name": "seq",
        "source": {"dsn": shop.source_dsn},
        "target": {"dsn": shop.target_dsn},
        "tables": {"include": ["*"], "exclude": ["shop.left_behind"]},
    }
    (tmp_path / "migration.yaml").write_text(yaml.safe_dump(document))
    planned = verb("sequences", "plan", "-o", "json")
    assert planned.returncode == 0, planned.stderr
    rows = {row["sequence"]: row for row in json.loads(planned.stdout)["sequences"]}
    assert set(rows) == IN_SCOPE
    serial = rows["shop.serials_id_seq"]
    assert (serial["source"]["last_value"], serial["column_value"]) == (200, 200)
    assert serial["set_to"] == {"last_value": 1200, "is_called": True, "next_value": 1201}
    shown = verb("sequences", "plan")
    assert "would be set to 1200" in shown.stdout
    assert "next: cdc-migrator sequences sync" in shown.stderr
    assert "column shop.one.id read in" not in shown.stderr
    assert "column shop.one.id read in" in verb("-v", "sequences", "plan").stderr
    first = verb("sequences", "sync", "--margin", "10")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "15 sequences, 15 changed, 15 proven" in first.stdout
    again = verb("sequences", "sync", "--margin", "10")
    assert again.returncode == 0
    assert "far enough; proven" in again.stdout
    assert "15 sequences, none changed, 15 proven" in again.stdout
    shop.target.execute("DROP SEQUENCE counters.free")
    failed = verb("sequences", "sync", "-o", "json")
    assert failed.returncode == 1
    told = json.loads(failed.stdout)
    assert not told["proven"]
    missing = {r["sequence"]: r for r in told["sequences"]}["counters.free"]
    assert missing["findings"][0]["code"] == "CDCM-SEQUENCE-MISSING"


def test_the_verb_refuses_where_nothing_was_started(verb: Verb, tmp_path: Path) -> None:
    """sync writes a journal; plan only looks."""
    with private_database() as source, private_database() as target:
        document = {"name": "seq", "source": {"dsn": source}, "target": {"dsn": target}}
        (tmp_path / "migration.yaml").write_text(yaml.safe_dump(document))
        planned = verb("sequences", "plan")
        assert planned.returncode == 0, planned.stderr
        assert "no sequence goes to the target" in planned.stdout
        refused = verb("sequences", "sync")
        assert refused.returncode == 3
        assert "CDCM-MIGRATION-MISSING" in refused.stderr
