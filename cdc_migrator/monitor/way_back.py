"""How the way back stands, as the source's own control tables have it."""

from __future__ import annotations

import psycopg

from cdc_migrator.control import load, mapping, migration, progress, schema, within
from cdc_migrator.control.migration import Phase
from cdc_migrator.model.naming import way_back_of
from cdc_migrator.monitor.sample import WayBackSample


def read(source: psycopg.Connection, name: str) -> WayBackSample:
    """The way back of the migration `name`; one that is not prepared where there is none."""
    there = migration.read(source) if schema.exists(source, "target") else None
    stored = progress.read(source) if there is not None else None
    if there is None or stored is None or there.name != way_back_of(name):
        return WayBackSample(prepared=False, within=within.both_sides(source))
    tables = load.read_tables(source)
    return WayBackSample(
        prepared=there.phase.reached(Phase.STREAM),
        active=stored.active,
        leg=stored.leg,
        lag_seconds=progress.lag(source),
        tables=tuple(sorted({str(one.relation) for one in tables})),
        ways=frozenset((str(one.target), str(one.relation)) for one in tables),
        without=tuple((str(here), str(there)) for here, there in mapping.left(source)),
        error=str(there.last_error["code"]) if there.last_error else None,
    )
