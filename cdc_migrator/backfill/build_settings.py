"""How the sessions that build a loaded table's indexes are set."""

from __future__ import annotations

from dataclasses import dataclass, replace

import psycopg

from cdc_migrator.backfill.schema_options import SchemaOptions
from cdc_migrator.backfill.sorting import sort_memory
from cdc_migrator.backfill.tools import reaching, session_name

# The server has reads done by processes of its own, which wins where a disk makes them wait.
_READ_ITSELF = {"effective_io_concurrency": "0", "maintenance_io_concurrency": "0"}


@dataclass(frozen=True, slots=True)
class Machine:
    """What the target's server goes by, in bytes: ``maintenance_work_mem``, and how much of its
    files it takes to be in memory (``effective_cache_size``); 0 where programs cannot give it
    settings, as a pooler is in between."""

    memory: int
    cached: int


def machine(target: psycopg.Connection, called: str) -> Machine:
    """As it is for the session's role and database.

    Args:
        called: application name of who asks.

    Raises:
        psycopg.Error: of this session.
    """
    row = target.execute(
        "SELECT pg_size_bytes(current_setting('maintenance_work_mem')), "
        "pg_size_bytes(current_setting('effective_cache_size'))"
    ).fetchone()
    assert row is not None
    memory, cached = row
    address, environment = reaching(target, session_name(called), _READ_ITSELF)
    try:
        psycopg.connect(
            address,
            password=environment.get("PGPASSWORD"),
            application_name=environment["PGAPPNAME"],
        ).close()
    except psycopg.OperationalError:
        cached = 0
    return Machine(memory, cached)


def build_settings(
    options: SchemaOptions, server: Machine, size: int, sorts: bool
) -> dict[str, str]:
    """The run-time settings of a session that builds an index of a table just loaded.

    A table that fits into memory is there still. To read it is to copy it, which a session does
    in less time than it takes to have that done: a whole load, whose builds have a processor
    each, took 3 % less (https://www.postgresql.org/docs/18/runtime-config-resource.html, on
    ``effective_io_concurrency``: 0 disables asynchronous requests).

    Args:
        size: bytes of the table.
        sorts: the index is a b-tree.
    """
    # By its memory the server also decides how many workers help a sort; each needs 32 MB.
    if sorts and options.parallel == 0:
        options = replace(options, memory=min(options.memory or server.memory, sort_memory(size)))
    return {**options.settings, **(_READ_ITSELF if size <= server.cached else {})}
