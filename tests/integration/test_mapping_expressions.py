"""What loading makes of a corpus of expressions comparing takes for equal, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from psycopg import sql

from cdc_migrator.backfill.columns import passage
from cdc_migrator.control import load
from cdc_migrator.databases.postgres import names
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.model.tables import TableName
from cdc_migrator.transform.compile import compile_routes
from tests.integration.reconcile_rig import World, world
from tests.property.test_mapping_follows_source import (
    CORPUS,
    FILTERS,
    ITEM,
    SOURCE,
    TARGET,
    Shape,
    load_rows,
)

ONLY = TableName("crm", "only")
ROWS = """
INSERT INTO shop.item SELECT n, (ARRAY[NULL, '', 'c1', E'tab\\there', 'Ünïcode ß'])[n % 5 + 1],
    (ARRAY[NULL, -1, 0, 3, 7])[n % 4 + 1],
    (ARRAY[NULL, 0.05, 12.35, -7.25, 99999999.99])[n / 5 % 5 + 1],
    (ARRAY[NULL, '2024-02-29 23:30:00+00', '1999-12-31 00:00:00.123456+05']
    )[n % 3 + 1]::timestamptz, (ARRAY[NULL, true, false])[n / 3 % 3 + 1],
    (ARRAY[NULL, 'old', 'new'])[n / 9 % 3 + 1]::shop.kind,
    (ARRAY[NULL, '', 'short', 'long enough to be out of line'])[n / 7 % 4 + 1]
FROM generate_series(1, 400) n
"""


@pytest.fixture(scope="module")
def made() -> Iterator[World]:
    with world() as empty:
        empty.source.execute(SOURCE.encode())
        empty.source.execute(ROWS.encode())
        empty.target.execute(TARGET.encode())
        yield empty
        empty.aligner.release()


@pytest.mark.parametrize("where", [None, *FILTERS[4:6]])
def test_every_column_is_equal_until_it_is_changed(made: World, where: str | None) -> None:
    """Under each filter; a null in the place of a value is found in just that column."""
    shape = Shape(ITEM, ONLY, tuple(range(len(CORPUS))), where)
    made.target.execute("DROP TABLE IF EXISTS crm.only")
    made.target.execute(shape.made().encode())
    (item,) = (one for one in read_tables(made.source) if one.name == ITEM)
    routes = compile_routes(made.source, made.target, [shape.wanted], [item])
    (there,) = (one for one in read_tables(made.target) if one.name == ONLY)
    load_rows(made.source, made.target, passage(item, there, routes[ITEM][0]))
    load.register(made.target, [(item, 0)], routes)
    made.target.execute("UPDATE cdc_migrator.table_progress SET load_state = 'loaded'")
    assert made.run().equal
    wanted = {}
    for column in there.columns[1:]:
        if not column.generated:
            name = sql.Identifier(column.name)
            query = sql.SQL(
                "UPDATE {of} SET {name} = NULL WHERE number = (SELECT min(number) FROM {of} "
                "WHERE {name} IS NOT NULL AND number <> ALL (%s)) RETURNING number::text"
            ).format(of=names.table(ONLY), name=name)
            taken = [int(key) for _, (key,) in wanted]
            for (key,) in made.target.execute(query, (taken,)):
                wanted[str(ITEM), (key,)] = ("different", column.name)
    assert len(wanted) >= len(CORPUS) - 2
    assert made.found(made.run()) == wanted
    assert made.run(repair=True).equal
