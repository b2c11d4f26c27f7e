"""One source and three followers: the product, the naive applier, PostgreSQL's own replication.

Each workload runs on the source and then has to be there, row for row, on all of them.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from cdc_migrator.control import fence
from cdc_migrator.errors import MigratorError
from tests.oracle.contents import Contents, contents, differences
from tests.oracle.naive import Disagrees, NaiveApplier
from tests.oracle.product import Product, Topic, Ways
from tests.oracle.schema import NAIVE, SOURCE, STORED
from tests.oracle.source import Application, Ran
from tests.oracle.workload import Workload, generate
from tests.support.live import LiveMigration, wait_for
from tests.support.stack import fresh_database, run

PUBLICATION = "oracle"
FOLLOWERS = ("product", "naive", "replica")


@dataclass
class Outcome:
    """One workload: what it was, how it was delivered, and which rows differ where."""

    seed: int
    ran: Ran
    ways: Ways
    faults: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        return not self.faults

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class World:
    """All four databases with what keeps them equal; made by `world`."""

    def __init__(
        self,
        beside: Executor,
        application: Application,
        topic: Topic,
        product: Product,
        naive: NaiveApplier,
        databases: dict[str, psycopg.Connection],
    ) -> None:
        self._application = application
        self._topic = topic
        self._product = product
        self._naive = naive
        self._beside = beside
        self.databases = databases
        self.seconds = dict.fromkeys(("source", "topic", "product", "naive", "replica"), 0.0)

    def round(self, seed: int) -> Outcome:
        """The workload of a seed; see `carry`."""
        return self.carry(generate(seed))

    def carry(self, workload: Workload) -> Outcome:
        """Run a workload on the source, carry it over in all ways, and compare."""
        seed = workload.seed
        choices = Random(f"ways of {seed}")
        with self._timed("source"):
            ran = self._application.run(workload)
        outcome = Outcome(seed, ran, Ways())
        naive = self._beside.submit(self._naive.catch_up)
        with self._timed("topic"):
            transactions = self._topic.until(ran.marker)
        try:
            with self._timed("product"):
                outcome.ways = self._product.apply(choices, transactions)
        except (MigratorError, AssertionError) as fault:
            outcome.faults.append(f"product: {fault}")
        try:
            with self._timed("naive"):
                naive.result()
        except (Disagrees, psycopg.Error) as fault:
            outcome.faults.append(f"naive: {fault}")
        with self._timed("replica"):
            self._await_replica(seed, outcome)
        outcome.faults += self.compare()
        return outcome

    def compare(self, *sides: str) -> list[str]:
        """Which rows of these followers (all, where none is named) are not the source's."""
        wanted = self.held("source")
        return [
            line
            for side in sides or FOLLOWERS
            for line in differences(wanted, self.held(side), side)
        ]

    def held(self, side: str) -> Contents:
        return contents(self.databases[side], (*STORED, "done"))

    def _await_replica(self, seed: int, outcome: Outcome) -> None:
        try:
            wait_for("the subscription has the workload", lambda: self._replicated(seed), 60, 0.002)
        except AssertionError as fault:
            outcome.faults.append(f"replica: {fault}")

    def _replicated(self, seed: int) -> bool:
        row = self.databases["replica"].execute("SELECT workload FROM shop.done").fetchone()
        return row == (seed,)

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[what] += time.monotonic() - began


@contextmanager
def world(stack: Any, directory: Path) -> Iterator[World]:
    """Everything made, and nothing of it left: databases, slots, connector, topics."""
    name = f"oracle_{secrets.token_hex(3)}"
    with ExitStack() as live:
        source = live.enter_context(fresh_database(stack.source_dsn))
        dsns = {"source": source} | {
            side: live.enter_context(fresh_database(stack.target_dsn)) for side in FOLLOWERS
        }
        for side, ddl in (("source", SOURCE), ("naive", NAIVE), ("replica", SOURCE)):
            with psycopg.connect(dsns[side], autocommit=True) as conn:
                conn.execute(ddl)
        for dsn in dsns.values():
            # No server dies here, and waiting for the disk is most of a small commit.
            run(dsn, sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(_name(dsn)))
        databases = {}
        for side, dsn in dsns.items():
            databases[side] = psycopg.connect(dsn, autocommit=True)
            live.callback(databases[side].close)
        followed = psycopg.connect(source, autocommit=True)
        live.callback(followed.close)
        followed.execute(f"CREATE PUBLICATION {PUBLICATION} FOR TABLES IN SCHEMA shop")
        migration = LiveMigration(
            directory / name, name, source, dsns["product"], stack,
            {"tables": {"include": ["shop.*"]}},
        )  # fmt: skip
        live.callback(migration.close)
        migration.prepare()
        fence.present(databases["product"])  # tests spoil it
        slot = f"{name}_naive"
        followed.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
        live.enter_context(_subscription(databases["replica"], source, name))
        application = Application(source)
        live.callback(application.close)
        product = Product(source, dsns["product"])
        live.callback(product.close)
        topic = Topic(stack.bootstrap_servers, migration.topic, product.stored().next_offset)
        live.callback(topic.close)
        naive = psycopg.connect(dsns["naive"], autocommit=True)
        live.callback(naive.close)
        follower = NaiveApplier(followed, naive, slot, PUBLICATION)
        beside = live.enter_context(ThreadPoolExecutor(1, thread_name_prefix="naive"))
        yield World(beside, application, topic, product, follower, databases)


def _name(dsn: str) -> sql.Identifier:
    return sql.Identifier(str(conninfo_to_dict(dsn)["dbname"]))


@contextmanager
def _subscription(replica: psycopg.Connection, source: str, name: str) -> Iterator[None]:
    """PostgreSQL's own logical replication of the same tables; its slot goes with it."""
    replica.execute(
        sql.SQL(
            "CREATE SUBSCRIPTION {} CONNECTION {} PUBLICATION {} WITH (copy_data = false, "
            "slot_name = {}, disable_on_error = true)"
        ).format(
            sql.Identifier(name),
            sql.Literal(source),
            sql.Identifier(PUBLICATION),
            sql.Literal(f"{name}_replica"),
        )
    )
    try:
        yield
    finally:
        replica.execute(sql.SQL("DROP SUBSCRIPTION {}").format(sql.Identifier(name)))
