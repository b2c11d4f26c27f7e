"""What a server says of logical decoding beside `catalog.ServerFacts`. Reads only."""

from __future__ import annotations

import re
from dataclasses import dataclass

import psycopg


@dataclass(frozen=True, slots=True)
class DecodingFacts:
    """Settings that not every release knows.

    Attributes:
        plugins: the output plug-ins that may be used; None where all may, or the role may not
            see it.
        idle_slot_timeout: after which an idle slot is given up, as the server writes it; None
            where it never is.
    """

    plugins: tuple[str, ...] | None
    idle_slot_timeout: str | None


_FACTS = """
SELECT (SELECT setting FROM pg_settings WHERE name = 'output_plugin_libraries'),
       (SELECT current_setting(name) FROM pg_settings
        WHERE name = 'idle_replication_slot_timeout' AND setting <> '0')
"""


def decoding_facts(conn: psycopg.Connection) -> DecodingFacts:
    """Ask the server behind `conn`."""
    row = conn.execute(_FACTS).fetchone()
    assert row is not None
    libraries, timeout = row
    plugins = None
    if libraries is not None:
        plugins = tuple(word.strip(' "') for word in re.split(",", libraries) if word.strip())
    return DecodingFacts(plugins, timeout)
