"""The tables of either side that a switch stands around: also those whose rows do not come back.

`mapping.left` has these on the way back: nobody applies them, but whoever writes to one side at a
time writes to all of its tables.
"""

from __future__ import annotations

import psycopg

from cdc_migrator.control import load, mapping, relations
from cdc_migrator.model.tables import TableName


def leaving(conn: psycopg.Connection) -> list[TableName]:
    """Those of the side that is left; `conn` is on the one that is entered."""
    left = (there for _, there in mapping.left(conn))
    return list(dict.fromkeys((*relations.of_source(load.read_tables(conn)), *left)))


def entering(conn: psycopg.Connection) -> list[TableName]:
    """Those of the side that is entered, which `conn` is on."""
    left = (here for here, _ in mapping.left(conn))
    return list(dict.fromkeys((*relations.of_target(load.read_tables(conn)), *left)))
