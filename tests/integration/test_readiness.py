"""Every gate fails by its real condition, names the remedy, and passes once that is carried out.

One migration streams all the time. Gates are asked as `readiness` asks them; what they rest on is
inspected and sampled anew each time.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql

from cdc_migrator.capture.connect_rest import ConnectClient
from cdc_migrator.cli.measuring import inspect_options, limits, places
from cdc_migrator.config.hooks import Command
from cdc_migrator.config.loader import load
from cdc_migrator.control import backups, cutover
from cdc_migrator.cutover.hooks.base import digest
from cdc_migrator.faultpoints import VARIABLE
from cdc_migrator.model.gates import Gate, Verdict
from cdc_migrator.model.outside import Workers
from cdc_migrator.monitor.gates import gates
from cdc_migrator.monitor.limits import Limits
from cdc_migrator.monitor.sampler import Sampler
from cdc_migrator.service import reconcile
from cdc_migrator.service.alignment import RequestedAlignment
from cdc_migrator.service.readiness import look
from cdc_migrator.service.reconcile import ReconcileOptions
from tests.support.fenced import let_in
from tests.support.live import LISTENS, LiveMigration, one, wait_for
from tests.support.stack import fresh_database

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(180)]

SCHEMA = """
CREATE SCHEMA s;
CREATE TABLE s.parent (id bigserial PRIMARY KEY, name text);
CREATE TABLE s.child (id int PRIMARY KEY, parent bigint REFERENCES s.parent, word text);
CREATE INDEX child_word ON s.child (word);
CREATE TABLE s.truncated (id int PRIMARY KEY);
CREATE TABLE s.left_out (id int);
CREATE SEQUENCE s.free;
INSERT INTO s.parent (name) SELECT 'p' FROM generate_series(1, 20);
INSERT INTO s.child SELECT n, n, 'c' FROM generate_series(1, 20) n;
INSERT INTO s.truncated SELECT generate_series(1, 5);
"""

INSPECTED = {
    *("target", "schema", "constraints", "sequences", "transactions", "maintenance"),
    *("source-fence", "backup", "hooks"),
}
SELDOM_MEASURED = {"verified", "equal", "applied", "target-fence"}


@dataclass
class Site:
    """A migration, and what asks its gates."""

    live: LiveMigration
    sampler: Sampler

    def look(self, name: str, **changed: Any) -> Sequence[Gate]:
        """Every gate, by the settings' limits but for `changed`; `name` is to be up to date."""
        settings = load(self.live.config)
        measured = replace(limits(settings), **changed)
        if name in INSPECTED:
            return look(inspect_options(settings), self.sampler, measured).gates
        if name not in SELDOM_MEASURED:
            return gates(self.sampler.sample(), measured)
        with Sampler(places(settings)) as sampler:
            return gates(sampler.sample(), measured)

    def gate(self, name: str, **changed: Any) -> Gate:
        (found,) = (gate for gate in self.look(name, **changed) if gate.name == name)
        return found

    def fails(self, name: str, reason: str, remedy: str, **changed: Any) -> Gate:
        """Wait until this gate fails for this reason; it names this remedy."""

        def failing() -> Gate | None:
            seen.append(self.gate(name, **changed))
            return seen[-1] if seen[-1].verdict is Verdict.FAIL else None

        seen: list[Gate] = []
        gate: Gate = wait_for(f"{name} fails", failing, 30)
        assert reason in gate.reason, gate
        assert remedy in (gate.remedy or ""), gate
        assert json.loads(json.dumps(gate.as_dict())) == gate.as_dict()
        return gate

    def passes(self, name: str, **changed: Any) -> None:
        def passing() -> bool:
            seen.append(self.gate(name, **changed))
            return seen[-1].passed

        seen: list[Gate] = []
        try:
            wait_for(f"{name} passes", passing, 30)
        except AssertionError as error:
            raise AssertionError(f"{error}: {seen[-1]}") from None

    def reconcile(self, **how: Any) -> bool:
        """Compare everything, and tell whether it was equal."""
        live = self.live
        options = ReconcileOptions(live.name, live.source, live.target, **how)
        with RequestedAlignment(live.target) as aligner:
            return reconcile.run(options, aligner).equal

    def source(self, *statements: str) -> None:
        _run(self.live.source, statements)

    def target(self, *statements: str) -> None:
        with let_in(self.live.target) as conn:
            for statement in statements:
                conn.execute(statement.encode())

    def start(self, **env: str) -> None:
        self.live.start("run", env=env)
        wait_for("the service listens", lambda: one(self.live.target, LISTENS))

    def stop(self) -> None:
        assert self.live.stop(self.live.processes[-1]) == 0


def _run(dsn: str, statements: tuple[str, ...]) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement.encode())


@pytest.fixture(scope="module")
def site(stack: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with fresh_database(stack.source_dsn) as source, fresh_database(stack.target_dsn) as target:
        _run(source, (SCHEMA,))
        settings = {"tables": {"exclude": ["s.left_out"]}, "ready": {"inspect_every": "2s"}}
        live = LiveMigration(
            tmp_path_factory.mktemp("ready"), "ready", source, target, stack, settings
        )
        try:
            live.prepare()
            with Sampler(places(load(live.config))) as sampler:
                made = Site(live, sampler)
                made.start()
                yield made
        finally:
            live.close()


@contextmanager
def held(dsn: str, *statements: str) -> Iterator[psycopg.Connection]:
    """A transaction that has run these statements and stays open."""
    with psycopg.connect(dsn) as conn:
        for statement in statements:
            conn.execute(statement.encode())
        yield conn
        conn.rollback()


def test_both_sides_have_to_be_compared(site: Site) -> None:
    """Never, then not since the last change; what was found to differ stands until repaired."""
    site.fails("verified", "never compared", "cdc-migrator reconcile")
    assert site.reconcile()
    site.passes("verified")
    site.source("UPDATE s.parent SET name = 'q' WHERE id = 3")
    at_once = timedelta(0)
    site.fails("verified", "was not compared", "--mode incremental", max_compared_age=at_once)
    site.passes("verified")
    assert site.reconcile(mode="incremental")
    site.passes("verified", max_compared_age=at_once)
    site.target("UPDATE s.child SET word = 'planted' WHERE id = 7")
    assert not site.reconcile()
    site.fails("equal", "1 rows differ", "reconcile --repair")
    site.reconcile(repair=True)
    site.passes("equal")


def test_what_was_prepared_beforehand(site: Site) -> None:
    """A backup that may be relied on, hooks that were rehearsed as they are, a way back."""
    site.fails("backup", "no backup", "cdc-migrator backup")
    with psycopg.connect(site.live.target, autocommit=True) as conn:
        taken = conn.execute("SELECT now()").fetchone()
        assert taken is not None
        backups.note(conn, backups.Kind.REFERENCE, "elsewhere", taken[0], None, {})
    site.passes("backup")
    site.fails("backup", "old, above 0 s", "backup create", max_backup_age=timedelta(0))
    hooks = digest([Command(kind="command", argv=("true",))])
    site.passes("hooks")
    site.fails("hooks", "never rehearsed", "cutover --rehearse", hooks=hooks)
    with psycopg.connect(site.live.target, autocommit=True) as conn:
        tried = cutover.begin(conn, "preparing", "m1", rehearsal=True, options={"hooks": hooks})
        cutover.enter(conn, tried.attempt, "preparing", "rehearsed", ended=True)
    site.passes("hooks", hooks=hooks)
    changed = digest([Command(kind="command", argv=("false",))])
    site.fails("hooks", "changed since", "cutover --rehearse", hooks=changed)
    site.fails("way-back", "no way back", "cutover.without_way_back")
    site.passes("way-back", without_way_back="it is a test")


def test_the_schemas_are_alike(site: Site) -> None:
    """Columns, indexes that are there and valid, keys that were looked at, sequences."""
    site.passes("schema")
    site.target("ALTER TABLE s.parent ADD extra int")
    site.fails("schema", "column s.parent.extra", "schema diff")
    site.passes("schema", schema_differs="the new application needs it")
    site.target("ALTER TABLE s.parent DROP extra")
    site.passes("schema")

    site.target("DROP INDEX s.child_word")
    site.fails("constraints", "s.child_word", "schema diff")
    site.target("CREATE INDEX child_word ON s.child (word)")
    site.passes("constraints")
    site.target(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 's.child_word'::regclass"
    )
    site.fails("constraints", "s.child_word (valid)", "schema diff")
    site.target("REINDEX INDEX s.child_word")
    site.passes("constraints")
    site.target(
        "ALTER TABLE s.child DROP CONSTRAINT child_parent_fkey",
        "ALTER TABLE s.child ADD CONSTRAINT child_parent_fkey FOREIGN KEY (parent) "
        "REFERENCES s.parent NOT VALID",
    )
    site.fails("constraints", "child_parent_fkey", "schema diff")
    mending = site.live.cli("schema", "diff", "--sql", check=1).stdout
    site.target(*(line for line in mending.splitlines() if line.startswith("ALTER TABLE")))
    site.passes("constraints")

    site.target("DROP SEQUENCE s.free")
    site.fails("sequences", "s.free", "schema")
    site.target("CREATE SEQUENCE s.free")
    site.passes("sequences")


def test_who_is_in_the_fences_way(site: Site) -> None:
    """Prepared and long transactions, an index build that waits, a subscription."""
    update = "UPDATE s.child SET word = word WHERE id = 1"
    site.passes("transactions")
    site.source("BEGIN", update, "PREPARE TRANSACTION 'left over'")
    gate = site.fails("transactions", "'left over'", "ROLLBACK PREPARED 'left over'")
    assert gate.evidence["prepared"] == ["left over"]
    site.source("ROLLBACK PREPARED 'left over'")
    site.passes("transactions")
    with held(site.live.source, update) as writer:
        site.passes("transactions")
        gate = site.fails(
            "transactions",
            "has been open on the source",
            f"pg_terminate_backend({writer.info.backend_pid})",
            max_transaction_age=timedelta(milliseconds=50),
        )
        with building(site.live.source) as pid:
            site.fails("maintenance", "maintenance of postgres on s.child", f"backend({pid})")
            site.source(f"SELECT pg_cancel_backend({pid})")
    site.passes("maintenance")
    site.source("DROP INDEX s.built")
    site.passes("transactions", max_transaction_age=timedelta(milliseconds=50))
    with subscription(site):
        site.fails("source-fence", "subscriptions of the source write: feed", "feed DISABLE")
        site.source("ALTER SUBSCRIPTION feed DISABLE")
        site.passes("source-fence")


@contextmanager
def building(dsn: str) -> Iterator[int]:
    """An index build that waits for a writer: its session's process id."""

    def build() -> None:
        with psycopg.connect(dsn, autocommit=True, application_name="builder") as conn:
            try:
                conn.execute("CREATE INDEX CONCURRENTLY built ON s.child (word, id)")
            except psycopg.errors.QueryCanceled:
                return

    thread = threading.Thread(target=build)
    thread.start()
    waits = (
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'builder' "
        "AND wait_event_type = 'Lock' AND datname = current_database()"
    )
    try:
        yield wait_for("the build waits", lambda: one(dsn, waits))
    finally:
        thread.join(30)


@contextmanager
def subscription(site: Site) -> Iterator[None]:
    """The source takes one of its tables from somewhere else."""
    with ExitStack() as stack:
        feeder = stack.enter_context(fresh_database(site.live.stack.target_dsn))
        _run(feeder, ("CREATE SCHEMA s", "CREATE TABLE s.truncated (id int PRIMARY KEY)"))
        _run(feeder, ("CREATE PUBLICATION feed FOR ALL TABLES",))
        with psycopg.connect(site.live.source, autocommit=True) as conn:
            conn.execute(
                sql.SQL(
                    "CREATE SUBSCRIPTION feed CONNECTION {} PUBLICATION feed "
                    "WITH (copy_data = false)"
                ).format(feeder)
            )
            try:
                yield
            finally:
                conn.execute("ALTER SUBSCRIPTION feed DISABLE")
                conn.execute("ALTER SUBSCRIPTION feed SET (slot_name = NONE)")
                conn.execute("DROP SUBSCRIPTION feed")


def test_the_target_takes_writes_and_keeps_up(site: Site) -> None:
    """Read-only sessions are told even though nothing can be kept there; a lag that grows, too."""
    name = site.live.target.rpartition("/")[2]
    site.target(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    site.fails("target", "default_transaction_read_only", "RESET default_transaction_read_only")
    site.target(
        "SET default_transaction_read_only = off",
        f"ALTER DATABASE {name} RESET default_transaction_read_only",
    )
    site.passes("target")
    with held(site.live.target, "LOCK TABLE s.parent IN ACCESS EXCLUSIVE MODE"):
        site.source("UPDATE s.parent SET name = 'late' WHERE id = 1")
        site.fails("lag", "is above 1 s", "status --watch", max_lag=timedelta(seconds=1))
    site.passes("lag", max_lag=timedelta(seconds=1))
    settings = load(site.live.config)
    with Sampler(replace(places(settings), workers=Workers.at("http://127.0.0.1:1"))) as sampler:
        silent = {gate.name: gate for gate in gates(sampler.sample(), Limits())}
    assert silent["measurement"].verdict is silent["connector"].verdict is Verdict.UNKNOWN
    assert "connect could not be measured" in silent["measurement"].reason
    assert silent["measurement"].remedy
    site.passes("measurement")


def test_the_source_keeps_its_log_long_enough(site: Site) -> None:
    """By the rate at which it writes."""
    age = timedelta(days=36500)
    site.passes("runway", min_runway=age)
    try:
        site.source("ALTER SYSTEM SET max_slot_wal_keep_size = '100GB'", "SELECT pg_reload_conf()")
        site.fails("runway", "is reached in", "max_slot_wal_keep_size", min_runway=age)
        site.passes("runway", min_runway=timedelta(seconds=1))
    finally:
        site.source("ALTER SYSTEM RESET max_slot_wal_keep_size", "SELECT pg_reload_conf()")
    site.passes("runway", min_runway=age)


def test_capture_runs(site: Site) -> None:
    """Connector and slot are two questions."""
    name = "cdcm-ready-1"
    with ConnectClient(Workers.at(site.live.stack.connect_url)) as connect:
        connect.stop(name)
        site.fails("connector", "STOPPED", "capture start")
        site.fails("slot", "nobody reads", "capture start")
        connect.resume(name)
    site.passes("connector")
    site.passes("slot")


def test_a_table_that_came_since(site: Site) -> None:
    """It is missing, then on its way, then part of the migration."""
    site.source("CREATE TABLE s.late (id int PRIMARY KEY)")
    site.fails("tables", "s.late", "cdc-migrator migrate --no-run")
    adding = site.live.start(
        "migrate", "--no-run", log="migrate.log", env={VARIABLE: "join.registered:1:STOP"}
    )
    site.fails("load", "being added, and not done yet: s.late", "migrate --no-run")
    adding.send_signal(signal.SIGCONT)
    assert adding.wait(60) == 0
    site.live.processes.remove(adding)
    site.passes("tables")
    site.passes("load")


def test_what_was_halted_or_skipped(site: Site) -> None:
    """No service; a fence that was taken off; an error that stands; a truncate that was ignored."""
    site.stop()
    site.fails("service", "does not run", "cdc-migrator run")
    site.target("DROP TRIGGER cdc_migrator_fence ON s.child")
    site.fails("target-fence", "s.child", "`cdc-migrator run`, started again")
    site.start(CDC_MIGRATOR_APPLY__TRUNCATES="halt")
    site.passes("service")
    site.passes("target-fence")
    site.source("TRUNCATE s.truncated")
    assert site.live.processes[-1].wait(30) == 3
    gate = site.fails("error", "CDCM-APPLY-TRUNCATE", "Nothing past this position")
    assert gate.evidence == {"code": "CDCM-APPLY-TRUNCATE"}
    site.start(CDC_MIGRATOR_APPLY__TRUNCATES="ignore")
    site.passes("error")
    site.fails("applied", "truncated s.truncated", "repair --rebuild")
    site.live.cli("repair", "--rebuild", "s.truncated")
    site.fails("applied", "truncated s.truncated", "cdc-migrator reconcile")
    assert site.reconcile()
    site.passes("applied")


def test_the_verdict_is_one(site: Site) -> None:
    """The verb, `status` and /metrics say the same; exit 3 with remedies, 0 when all pass."""
    site.passes("verified")
    shown = site.live.cli("readiness", check=3).stdout
    assert shown.startswith("safe to cut over: no, because 1 of 25 gates are not passed")
    assert "there is no way back to the source" in shown
    assert "→ `cdc-migrator way-back prepare` makes it and proves it." in " ".join(shown.split())
    known = json.loads(site.live.cli("status", "-o", "json").stdout)["ready"]
    assert known["reasons"] == ["there is no way back to the source once the target is open"]
    assert {gate["verdict"] for gate in known["gates"]} == {"pass", "fail"}

    def measured() -> dict[str, float] | None:
        text = httpx.get(f"{address(site)}/metrics").text
        prefix = "cdc_migrator_readiness_gate{"
        lines = [line for line in text.splitlines() if line.startswith(prefix)]
        values = {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in lines}
        return values if sum(values.values()) >= len(values) - 1 else None

    values: dict[str, float] = wait_for("all is measured", measured, 30)
    assert values == {gate["name"]: float(gate["verdict"] == "pass") for gate in known["gates"]}
    given = ("--set", "cutover.without_way_back=it is a test")
    done = site.live.cli("readiness", "-o", "json", "--wait", "20s", *given)
    told = json.loads(done.stdout)
    assert (told["verdict"], told["reasons"], told["schema_version"]) == (True, [], 1)


def address(site: Site) -> str:
    """Of the service that was started last."""
    *_, line = (line for line in site.live.log().splitlines() if "http-served" in line)
    return f"http://127.0.0.1:{json.loads(line)['port']}"
