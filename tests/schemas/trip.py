"""One schema's way from a source to a target, and what is found there."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from cdc_migrator.backfill.schema import Planned, make_indexes, make_tables, plan
from cdc_migrator.backfill.views import populate
from cdc_migrator.control import migration
from cdc_migrator.control import schema as control
from cdc_migrator.control.migration import Phase
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.model.naming import Names
from cdc_migrator.model.tables import TableName
from cdc_migrator.service.compare import Sides, diff_schemas
from tests.schemas import oracle, rows
from tests.schemas.sources import RealSchema
from tests.support.stack import fresh_database

NAMES = Names("real")
T = TypeVar("T")


@dataclass
class Trip:
    """The two databases, and a third one that `pg_dump | psql` has made of the source.

    Attributes:
        refused: how many of the schema's statements the source's server refused.
        filled: how many tables have rows.
    """

    schema: RealSchema
    source: str
    target: str
    reference: str
    refused: int
    filled: int
    tables: list[TableName]
    seconds: dict[str, float] = field(default_factory=dict)

    def timed(self, what: str, step: Callable[[], T]) -> T:
        began = time.monotonic()
        try:
            return step()
        finally:
            self.seconds[what] = round(time.monotonic() - began, 2)

    def go(self) -> Planned:
        """Tables, rows, indexes, views; returns what was planned beforehand."""
        planned = self.timed("plan", lambda: plan(self.source, self.target, NAMES, self.tables))
        self.timed("tables", lambda: make_tables(self.source, self.target, NAMES, self.tables))
        self.timed("rows", lambda: rows.copy(self.source, self.target, self.tables))
        self.timed("indexes", lambda: make_indexes(self.source, self.target, NAMES, self.tables))
        self.timed("views", lambda: populate(self.source, self.target, NAMES))
        with connect(self.target, application_name="test") as conn:
            migration.set_phase(conn, Phase.STREAM)
        return planned

    def objects(self) -> Counter[str]:
        """How many objects of each kind the source's dump has, by the dump's own words."""
        kinds = re.findall(r"(?m)^-- Name: .*; Type: (.*?); Schema: ", oracle.dumped(self.source))
        return Counter(kinds)

    def differences(self) -> list[str]:
        """What `schema diff` finds."""
        sides = Sides(NAMES.migration, self.source, self.target, ["*"], [])
        found = self.timed("diff", lambda: diff_schemas(sides))
        return [f"{one.kind} {one.object}: {one.attribute}" for one in found]

    def dumps_unlike(self) -> list[str]:
        """The statements that only one of the target's and the reference's dumps has."""
        one, other = oracle.statements(self.reference), oracle.statements(self.target)
        return sorted(set(one) ^ set(other))

    def rows_unlike(self) -> list[str]:
        """The tables whose rows are not the source's."""
        one, other = (oracle.contents(dsn, self.tables) for dsn in (self.source, self.target))
        return [table for table in one if one[table] != other[table]]


@contextmanager
def trip(schema: RealSchema, source_server: str, target_server: str) -> Iterator[Trip]:
    """The source with schema and rows, and an empty target with our control schema."""
    with (
        fresh_database(source_server) as source,
        fresh_database(target_server) as target,
        fresh_database(target_server) as reference,
    ):
        refused = sum(oracle.psql(source, script) for script in schema.scripts)
        with connect(source, application_name="test") as conn:
            tables = [table.name for table in read_tables(conn)]
        filled = rows.fill(source, tables)
        oracle.psql(reference, oracle.dumped(source))
        with connect(target, application_name="test") as conn:
            control.ensure(conn, "target")
            migration.create(conn, NAMES.migration)
        yield Trip(schema, source, target, reference, refused, filled, tables)
