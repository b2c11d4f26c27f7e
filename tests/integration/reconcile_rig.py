"""Two quiet databases in a migration, and an aligner for them: plain snapshots of both sides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql

from cdc_migrator.apply.applier import Applier
from cdc_migrator.control import load, migration, proofs
from cdc_migrator.control import schema as control
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.model.alignment import Aligned, Rebuild, Repair
from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile.chunks import Sizes
from cdc_migrator.reconcile.options import PassOptions
from cdc_migrator.service import rebuild as rebuilding
from cdc_migrator.service import reconcile
from cdc_migrator.service.rebuild import RebuildOptions, Rebuilt
from cdc_migrator.service.reconcile import ReconcileOptions
from cdc_migrator.service.reconcile_report import Report
from cdc_migrator.service.repairing import Repairs, to_details
from tests.support.private_postgres import private_database

NAME = "recon"
# Chunks and units small enough that a test's table has many of each.
SMALL = Sizes(chunk_rows=100, unit_rows=1_000, range_chunks=4, piece_blocks=4, sample_chunks=2)


class QuietAligner:
    """Both sides as they are: right while nobody writes."""

    def __init__(self, source_dsn: str, target_dsn: str) -> None:
        self._ends = source_dsn, target_dsn
        self._open = ExitStack()
        self.points = 0

    def align(self, repairs: Sequence[Repair] = (), rebuild: Rebuild | None = None) -> Aligned:
        self.release()
        self.points += 1
        source, target = (
            self._open.enter_context(connect(dsn, application_name="aligner")) for dsn in self._ends
        )
        source.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        sees, here = one(source, "SELECT pg_current_snapshot()::text, pg_export_snapshot()")
        if repairs or rebuild:
            self._write(source, target, repairs, rebuild)
        self.turn(target)
        target.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        (there,) = one(target, "SELECT pg_export_snapshot()")
        return Aligned(here, there, sees, datetime.now(UTC))

    def turn(self, target: psycopg.Connection) -> None:
        """Nobody applies, so nobody has to learn which chunks are to be marked."""
        proofs.take_up(target)

    def release(self) -> None:
        self._open.close()

    def _write(
        self,
        source: psycopg.Connection,
        target: psycopg.Connection,
        repairs: Sequence[Repair],
        rebuild: Rebuild | None,
    ) -> None:
        make = Repairs(lambda: self._ends[0], lambda: self._ends[1])
        with make(to_details(repairs, rebuild)) as writing, target.transaction():
            assert writing is not None
            target.execute("SET LOCAL session_replication_role = replica")
            writing.read(source)
            writing.write(source, target)


class Turning(QuietAligner):
    """Does at each point what the service does there, for this applier; then the stream goes on.

    `behind`: what happens right behind the next points, one at each.
    """

    def __init__(self, source_dsn: str, target_dsn: str, applier: Applier) -> None:
        super().__init__(source_dsn, target_dsn)
        self._applier = applier
        self.behind: list[Callable[[], None]] = []

    def turn(self, target: psycopg.Connection) -> None:
        if proofs.unmarked(target):
            self._applier.learn_chunks()
        self._applier.forget_marked()

    def align(self, repairs: Sequence[Repair] = ()) -> Aligned:
        point = super().align(repairs)
        if self.behind:
            self.behind.pop(0)()
        return point


def one(conn: psycopg.Connection, query: str) -> tuple[Any, ...]:
    row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return row


@dataclass
class World:
    """A source and its copy."""

    source_dsn: str
    target_dsn: str
    source: psycopg.Connection
    target: psycopg.Connection
    aligner: QuietAligner
    options: dict[str, Any] = field(default_factory=dict)

    def register(self) -> None:
        """Every table of the source belongs to the migration, and is loaded."""
        load.register(self.target, [(table, 0) for table in read_tables(self.source)])
        self.target.execute("UPDATE cdc_migrator.table_progress SET load_state = 'loaded'")

    def both(self, *statements: str) -> None:
        for conn in (self.source, self.target):
            for statement in statements:
                conn.execute(statement.encode())

    def run(self, aligner: Any = None, **options: Any) -> Report:
        work = options.pop("work", {})
        return reconcile.run(
            ReconcileOptions(
                name=NAME,
                source_dsn=self.source_dsn,
                target_dsn=self.target_dsn,
                work=PassOptions(**{"sizes": SMALL, **work}),
                **options,
            ),
            aligner or self.aligner,
        )

    def rebuild(self, *tables: str, **how: Any) -> list[Rebuilt]:
        """Rebuild in ranges small enough that a test's table has many."""
        options = ReconcileOptions(NAME, self.source_dsn, self.target_dsn, tables)
        made = RebuildOptions(**{"range_rows": 100, **how})
        return rebuilding.run(options, made, self.aligner)

    def found(self, report: Report) -> dict[tuple[str, tuple[str, ...]], tuple[str, ...]]:
        """What is open: (table, key) with the kind and the columns."""
        return {
            (str(known.table), tuple(known.key.values())): (known.kind.value, *known.columns)
            for table in report.tables
            for known in table.standing
            if known.state == "open"
        }

    def content(self, table: TableName) -> tuple[Any, Any]:
        """Both sides' rows as text, sorted."""
        query = sql.SQL("SELECT t::text FROM {} t ORDER BY 1").format(
            sql.Identifier(table.schema, table.name)
        )
        return self.source.execute(query).fetchall(), self.target.execute(query).fetchall()


@contextmanager
def world(*statements: str) -> Iterator[World]:
    """Two databases, each with the outcome of the same statements."""
    with ExitStack() as stack:
        dsns = [stack.enter_context(private_database()) for _ in range(2)]
        source, target = (
            stack.enter_context(connect(dsn, application_name="test")) for dsn in dsns
        )
        control.ensure(target, "target")
        migration.create(target, NAME)
        aligner = QuietAligner(*dsns)
        stack.callback(aligner.release)
        made = World(*dsns, source, target, aligner)
        made.both(*statements)
        made.register()
        yield made
