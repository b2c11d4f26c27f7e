"""What makes the load fast, on the real stack: rows taken in C, frozen rows, early indexes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from cdc_migrator.backfill import copied
from cdc_migrator.backfill.build_settings import machine
from cdc_migrator.backfill.diff.run import differences
from cdc_migrator.backfill.early import Early, early_indexes
from cdc_migrator.backfill.listing import read_listing
from cdc_migrator.backfill.load import LoadOptions
from cdc_migrator.backfill.schema import make_indexes
from cdc_migrator.backfill.schema_options import SchemaOptions
from cdc_migrator.backfill.statistics import analyze
from cdc_migrator.backfill.tools import reaching
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Refused
from cdc_migrator.model.tables import TableName
from cdc_migrator.stack.local import StackInfo
from tests.integration.capture_rig import TABLES, Rig, eventually
from tests.support.bouncer import bouncer

pytestmark = pytest.mark.stack


@pytest.fixture
def rig(stack: StackInfo, source_db: str, target_db: str, tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(stack, source_db, target_db, tmp_path / "state")
    rig.fill(20_000)
    with psycopg.connect(target_db, autocommit=True) as conn:
        for table in TABLES:
            conn.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)".encode())
    yield rig
    rig.abort()


def built_beside(rig: Rig, options: SchemaOptions | None = None) -> Early:
    """Load every table, the large ones in parts, and build their indexes; what came of it."""
    rig.start()
    rig.load(LoadOptions(workers=2, chunk_bytes=256 * 1024, freeze_bytes=0))
    tables = [TableName(*name.split(".")) for name in TABLES]
    with early_indexes(
        rig.source, rig.target, rig.names, tables, options or SchemaOptions(), patience=0
    ) as early:
        # Once begun it is ended, too, before the block is left.
        eventually(lambda: early.made or early.analyzed or early.failed)
    return early


def test_whole_tables_are_frozen_as_they_are_written(rig: Rig) -> None:
    """All their pages say so, without any VACUUM; chunks of a table cannot have that."""
    frozen = (
        "SELECT every(all_frozen) FROM pg_visibility_map('shop.item') JOIN "
        "(SELECT DISTINCT (ctid::text::point)[0]::bigint AS blkno FROM shop.item) b USING (blkno)"
    )
    with psycopg.connect(rig.target, autocommit=True) as conn:
        conn.execute("CREATE EXTENSION pg_visibility")
    rig.start()
    rig.load()
    assert rig.one(rig.target, frozen) is True
    assert rig.one(rig.target, "SELECT count(*) FROM pg_check_frozen('shop.item')") == 0
    assert rig.account() == rig.content(rig.source)

    with psycopg.connect(rig.target, autocommit=True) as conn:
        conn.execute("UPDATE cdc_migrator.table_progress SET load_state = 'waiting'")
    rig.load(LoadOptions(chunk_bytes=1 << 20, freeze_bytes=0))
    assert rig.one(rig.target, frozen) is False


@pytest.mark.parametrize(
    ("fence", "waits_for"), [(False, "AccessExclusiveLock"), (True, "ShareRowExclusiveLock")]
)
def test_rows_of_others_do_not_go_with_the_truncate(rig: Rig, fence: bool, waits_for: str) -> None:
    """A row that somebody is about to commit is waited for and seen, with the fence and without."""
    rig.start()
    with ThreadPoolExecutor(1) as pool, psycopg.connect(rig.target) as other:
        other.execute("INSERT INTO shop.plain VALUES (7, 'stray')")
        loading = pool.submit(rig.load, LoadOptions(fence=fence))
        eventually(
            lambda: rig.one(
                rig.target,
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = %s "
                "AND relation = 'shop.plain'::regclass",
                waits_for,
            )
        )
        other.commit()
        with pytest.raises(Refused, match=r"CDCM-TARGET-NOT-EMPTY.*shop\.plain"):
            loading.result(60)
    assert rig.one(rig.target, "SELECT id, note FROM shop.plain") == (7, "stray")


@pytest.mark.parametrize("by_python", [False, True])
def test_names_that_need_quotes_and_values_that_travel_as_text(
    rig: Rig, by_python: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under writers; with a table that cannot be truncated because a foreign key looks at it, and
    with the rows taken by the library in C and by Python."""
    if by_python:
        monkeypatch.setattr(copied, "library", lambda: None)
    assert (copied._libpq() is None) is by_python
    odd = """CREATE TABLE shop."o'd :d\\ ""t" ("a :b" int PRIMARY KEY, "c\\" TYPE, v text)"""
    with psycopg.connect(rig.source, autocommit=True) as conn:
        conn.execute(odd.replace("TYPE", "timestamptz").encode())
        conn.execute(
            b"""INSERT INTO shop."o'd :d\\ ""t" SELECT n, timestamptz '2024-01-01 12:00+00', """
            b"E'two\\nlines :a' FROM generate_series(1, 500) n"
        )
        conn.execute(b"""ALTER TABLE shop."o'd :d\\ ""t" REPLICA IDENTITY FULL""")
    with psycopg.connect(rig.target, autocommit=True) as conn:
        conn.execute(odd.replace("TYPE", "text").encode())
        conn.execute("CREATE TABLE shop.refers (item bigint REFERENCES shop.item (id))")
    with rig.writing():
        rig.start()
        loaded = rig.load()
    assert len(loaded.tables) == 4
    assert rig.account() == rig.content(rig.source)
    assert rig.one(
        rig.target,
        """SELECT count(*), min("c\\"), min(v) FROM shop."o'd :d\\ ""t" """,
    ) == (500, "2024-01-01 12:00:00+00", "two\nlines :a")


def test_indexes_are_built_while_other_tables_are_loaded(rig: Rig) -> None:
    """A table that is whole gets its indexes; one that came in parts is vacuumed before."""
    with psycopg.connect(rig.source, autocommit=True) as conn:
        conn.execute("CREATE INDEX log_kind ON shop.log (kind)")
        conn.execute("CREATE INDEX item_amount ON shop.item (amount)")
        conn.execute("ALTER TABLE shop.item ADD CONSTRAINT one_note UNIQUE (id, note)")
        conn.execute("ALTER TABLE shop.plain ADD FOREIGN KEY (id) REFERENCES shop.item (id)")
    rig.start()
    ends = (rig.source, rig.target)
    tables = [TableName(*name.split(".")) for name in TABLES]
    parts = LoadOptions(workers=2, chunk_bytes=256 * 1024, freeze_bytes=0)

    def there(index: str) -> bool:
        return bool(rig.one(rig.target, "SELECT to_regclass(%s) IS NOT NULL", f"shop.{index}"))

    with (
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(rig.target) as held,
        early_indexes(*ends, rig.names, tables, SchemaOptions(memory=1 << 23), patience=0) as early,
    ):
        rig.fence()
        held.execute("LOCK TABLE shop.log IN SHARE MODE")
        loading = pool.submit(rig.load, parts)
        eventually(lambda: there("item_amount") and there("one_note"))
        assert not there("log_kind")
        listing = read_listing(*ends, rig.names, tables, SchemaOptions(), "post-data")
        held.rollback()
        loading.result(60)

    assert (early.made, early.failed) == (3, None)
    assert there("log_kind")
    assert rig.one(
        rig.target, "SELECT relallvisible > 0 FROM pg_class WHERE oid = 'shop.item'::regclass"
    )
    keys = "SELECT count(*) FROM pg_constraint WHERE conname = 'plain_id_fkey'"
    seen = []
    left = make_indexes(
        *ends,
        rig.names,
        tables,
        before_foreign_keys=lambda: seen.append(rig.one(rig.target, keys)),
        listing=listing,  # of a moment at which some were not built yet
    )
    assert left.made == ("FK CONSTRAINT shop plain plain_id_fkey",)
    assert (seen, rig.one(rig.target, keys)) == ([0], 1)


def test_programs_are_told_what_was_given_and_no_password(stack: StackInfo) -> None:
    """An older program would not take what a newer libpq adds; the password is not an argument."""
    with connect(stack.source_dsn, application_name="test") as conn:
        address, environment = reaching(conn, "tool", {"maintenance_work_mem": "9MB"})
    given = conninfo_to_dict(stack.source_dsn)
    told = conninfo_to_dict(address)
    added = {"connect_timeout", "hostaddr", "options", "tcp_user_timeout"}
    extra = {key for key in told.keys() - given.keys() - added if not key.startswith("keepalives")}
    assert extra == set()
    assert given.keys() - told.keys() == {"password"}
    assert told["options"] == "-c maintenance_work_mem=9MB"
    assert environment["PGPASSWORD"] == given["password"]
    assert environment["PGAPPNAME"] == "tool"


def test_error_beside_the_load_does_not_end_it(rig: Rig, tmp_path: Path) -> None:
    """What cannot be built meanwhile is left to the step after the load, which tells why."""
    rig.start()
    nothing = SchemaOptions(postgres_bin=tmp_path)
    with early_indexes(rig.source, rig.target, rig.names, [], nothing, patience=0) as early:
        rig.load()
        eventually(lambda: early.failed)
    assert (early.made, early.failed) == (0, "CDCM-TOOLS-MISSING")
    assert rig.account() == rig.content(rig.source)


def test_keys_are_made_of_indexes_and_are_what_they_were(rig: Rig) -> None:
    """Also where whoever built the index was killed before it became a key."""
    column = "ALTER TABLE shop.log ADD COLUMN n int NOT NULL GENERATED ALWAYS AS IDENTITY"
    with psycopg.connect(rig.target, autocommit=True) as conn:
        conn.execute(column.encode())
    with psycopg.connect(rig.source, autocommit=True) as conn:
        for key in (
            "ALTER TABLE shop.item ADD CONSTRAINT twice UNIQUE NULLS NOT DISTINCT (id, note) "
            "INCLUDE (amount) WITH (fillfactor = 70) DEFERRABLE INITIALLY DEFERRED",
            column,
            'ALTER TABLE shop.log ADD CONSTRAINT "Log key" PRIMARY KEY (n)',
            "COMMENT ON CONSTRAINT twice ON shop.item IS 'two'",
        ):
            conn.execute(key.encode())
        killed = conn.execute("SELECT pg_get_indexdef('shop.\"Log key\"'::regclass)").fetchone()
    rig.start()
    tables = [TableName(*name.split(".")) for name in TABLES]
    rig.load(LoadOptions(workers=2, chunk_bytes=256 * 1024, freeze_bytes=0))
    assert killed is not None
    with psycopg.connect(rig.target, autocommit=True) as conn:
        conn.execute(killed[0].encode())
    with early_indexes(
        rig.source, rig.target, rig.names, tables, SchemaOptions(), patience=0
    ) as early:
        eventually(lambda: early.made or early.failed)
    assert early.failed is None
    make_indexes(rig.source, rig.target, rig.names, tables)
    found = differences(rig.source, rig.target, rig.names, tables, loaded=True)
    assert [one for one in found if one.attribute != "options"] == []


@pytest.mark.parametrize(
    ("made", "seen"),
    [
        (
            "CREATE INDEX more ON shop.item ((amount * 2))",
            "SELECT count(*) FROM pg_stats WHERE tablename = 'more'",
        ),
        (
            "CREATE STATISTICS shop.more ON amount, note FROM shop.item",
            "SELECT count(*) FROM pg_stats_ext WHERE statistics_name = 'more' "
            "AND n_distinct IS NOT NULL",
        ),
    ],
)
def test_statistics_are_of_all_that_the_planner_asks_for(rig: Rig, made: str, seen: str) -> None:
    """They are gathered before the indexes are built, but for tables of which they would miss
    an index's expression, or what CREATE STATISTICS asks for."""
    with psycopg.connect(rig.source, autocommit=True) as conn:
        conn.execute(made.encode())
        conn.execute("CREATE INDEX item_amount ON shop.item (amount)")
        conn.execute("CREATE INDEX log_kind ON shop.log (kind)")
    early = built_beside(rig)
    tables = [TableName(*name.split(".")) for name in TABLES]
    assert (early.failed, early.analyzed) == (None, {TableName("shop", "log")})

    def gather() -> None:
        analyze(rig.target, rig.names, tables, done=early.analyzed)

    make_indexes(rig.source, rig.target, rig.names, tables, before_foreign_keys=gather)
    assert rig.one(rig.target, seen) == 1
    assert rig.one(rig.target, "SELECT count(*) FROM pg_stats WHERE tablename = 'log'") == 2


_SEEN = """
CREATE TABLE public.seen (index text, memory text, reads_ahead text);
CREATE FUNCTION public.look() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO public.seen SELECT objid::regclass, current_setting('maintenance_work_mem'),
        current_setting('effective_io_concurrency')
    FROM pg_event_trigger_ddl_commands() WHERE schema_name = 'shop'; END $$;
CREATE EVENT TRIGGER look ON ddl_command_end WHEN TAG IN ('CREATE INDEX')
    EXECUTE FUNCTION public.look();
"""


@pytest.mark.parametrize(
    ("options", "sorted_with", "otherwise"),
    [
        (SchemaOptions(memory=96 << 20, parallel=0), "16MB", "96MB"),
        (SchemaOptions(memory=12 << 20, parallel=0), "12MB", "12MB"),
        (SchemaOptions(parallel=0), "16MB", "64MB"),
        (SchemaOptions(memory=96 << 20), "96MB", "96MB"),
    ],
)
def test_a_sort_gets_as_much_memory_as_it_is_worth(
    rig: Rig, options: SchemaOptions, sorted_with: str, otherwise: str
) -> None:
    """What is not built by sorting gets all; so do builds whose helpers are counted by it."""
    with psycopg.connect(rig.source, autocommit=True) as conn:
        conn.execute("CREATE INDEX item_amount ON shop.item (amount)")
        conn.execute("CREATE UNIQUE INDEX item_both ON shop.item (id, amount)")
        conn.execute("CREATE INDEX item_words ON shop.item USING gin (to_tsvector('simple', note))")
        conn.execute("ALTER TABLE shop.log ADD COLUMN n int GENERATED ALWAYS AS IDENTITY")
        conn.execute("ALTER TABLE shop.log ADD CONSTRAINT log_n UNIQUE (n)")
    with psycopg.connect(rig.target, autocommit=True) as conn:
        conn.execute("ALTER TABLE shop.log ADD COLUMN n int GENERATED ALWAYS AS IDENTITY")
        conn.execute(_SEEN)
    early = built_beside(rig, options)
    assert (early.made, early.failed) == (4, None)
    with psycopg.connect(rig.target) as conn:
        seen = dict(conn.execute("SELECT index, memory FROM public.seen").fetchall())
    assert seen == {
        "shop.item_amount": sorted_with,
        "shop.item_both": sorted_with,
        "shop.log_n": sorted_with,
        "shop.item_words": otherwise,
    }


@pytest.mark.parametrize(
    ("cached", "reads_ahead"), [("1GB", {"0"}), ("1MB", {"7"})], ids=["in memory", "not in memory"]
)
def test_builds_read_by_themselves_what_lies_in_memory(
    rig: Rig, cached: str, reads_ahead: set[str]
) -> None:
    """A table as large as the server takes its cache to be may come from a disk: there it is read
    as the server is set to."""
    name = conninfo_to_dict(rig.target)["dbname"]
    with psycopg.connect(rig.target, autocommit=True) as conn:
        conn.execute(_SEEN)
        for setting in (f"effective_cache_size = '{cached}'", "effective_io_concurrency = 7"):
            conn.execute(f'ALTER DATABASE "{name}" SET {setting}'.encode())
    with psycopg.connect(rig.source, autocommit=True) as conn:
        conn.execute("CREATE INDEX item_amount ON shop.item (amount)")
        conn.execute("CREATE INDEX item_words ON shop.item USING gin (to_tsvector('simple', note))")
    early = built_beside(rig)
    assert (early.made, early.failed) == (2, None)
    with psycopg.connect(rig.target) as conn:
        seen = conn.execute("SELECT index, reads_ahead FROM public.seen").fetchall()
    assert {index for index, _ in seen} == {"shop.item_amount", "shop.item_words"}
    assert {how for _, how in seen} == reads_ahead


def test_a_pooler_that_takes_no_settings_is_given_none(rig: Rig) -> None:
    """PgBouncer refuses programs that ask for them."""
    with (
        bouncer(rig.target, "session") as pooled,
        connect(pooled.application, application_name="test") as through,
        connect(rig.target, application_name="test") as straight,
    ):
        assert machine(through, "test") == replace(machine(straight, "test"), cached=0)
        assert machine(straight, "test").cached > 0
