"""Describe tables of a database as JSON documents; read only. The session comes from `connect`."""

from __future__ import annotations

from collections.abc import Collection
from importlib.resources import files

import psycopg

from cdc_migrator.model import described
from cdc_migrator.model.described import Described
from cdc_migrator.model.tables import TableName

_BY_NAME = """
SELECT k.oid FROM unnest(%(schemas)s::text[], %(names)s::text[]) AS w(schema, name)
JOIN pg_namespace w_n ON w_n.nspname = w.schema
JOIN pg_class k ON k.relnamespace = w_n.oid AND k.relname = w.name
"""
_BY_OID = "SELECT unnest(%(oids)s::oid[])"


def query(tables: str) -> str:
    """The statement that describes the tables whose oids the query `tables` gives."""
    return files(__package__).joinpath("describe.sql").read_text().format(tables=tables)


def by_name(conn: psycopg.Connection, tables: Collection[TableName]) -> dict[TableName, Described]:
    """Those of these tables that are there."""
    wanted = {"schemas": [one.schema for one in tables], "names": [one.name for one in tables]}
    rows = conn.execute(_escaped(_BY_NAME), wanted).fetchall()
    return {one.name: one for one in (described.read(document) for _, document in rows)}


def by_oid(conn: psycopg.Connection, oids: Collection[int]) -> dict[int, Described]:
    """The tables with these oids, whatever they are called now."""
    rows = conn.execute(_escaped(_BY_OID), {"oids": list(oids)}).fetchall()
    return {one.oid: one for one in (described.read(document) for _, document in rows)}


def _escaped(tables: str) -> bytes:
    return query("{tables}").replace("%", "%%").replace("{tables}", tables).encode()
