"""What the target must look like, told by PostgreSQL's programs and queries alone.

A third database is made by `pg_dump | psql`, and the target must dump to the very same text: so
whatever the server words otherwise when it reads its own words is the same on both.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence

import psycopg
from psycopg import sql

from cdc_migrator.backfill.tools import find
from cdc_migrator.model.tables import TableName

BIN = find(180000, 180000).directory
_DUMPED = ["--schema-only", "--no-owner", "--no-publications", "--exclude-schema=cdc_migrator"]
_FENCE = "EXECUTE FUNCTION cdc_migrator.fence()"
_SPOKEN = re.compile(r"(?m)^(--.*|\\(un)?restrict .*)\n")


def psql(dsn: str, script: str) -> int:
    """Run a script to its end; how many of its statements were refused."""
    done = subprocess.run(
        [BIN / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=0", "-d", dsn],
        input=script,
        env={**os.environ, "PGOPTIONS": "-c synchronous_commit=off"},
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode in (0, 3), done.stderr[-2000:]
    return len(re.findall(r"(?m)^psql:.*ERROR:|^ERROR:", done.stderr))


def dumped(dsn: str, *, grants: bool = False) -> str:
    """The schema as a script; without our own part of it."""
    more = [] if grants else ["--no-privileges"]
    return subprocess.run(
        [BIN / "pg_dump", *_DUMPED, *more, "-d", dsn],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    ).stdout


def statements(dsn: str, *, grants: bool = False) -> list[str]:
    """The statements of the dump, sorted: two databases may have them in another order."""
    blocks = re.split(r"\n\n\n+", _SPOKEN.sub("", dumped(dsn, grants=grants)))
    # The fence's triggers are in the user's schemas, so the dump cannot be told to leave them out.
    return sorted(b.strip() for b in blocks if b.strip() and _FENCE not in b)


def contents(dsn: str, tables: Sequence[TableName]) -> dict[str, tuple[int, str | None]]:
    """For each table its own rows, counted and digested."""
    found = {}
    with psycopg.connect(dsn) as conn:
        conn.execute("SET extra_float_digits = 3; SET timezone = 'UTC'")
        for table in tables:
            row = conn.execute(
                sql.SQL(
                    "SELECT count(*), md5(string_agg(h, '' ORDER BY h)) "
                    "FROM (SELECT md5(t::text) AS h FROM ONLY {} t) digests"
                ).format(sql.Identifier(table.schema, table.name))
            ).fetchone()
            assert row is not None
            found[str(table)] = (row[0], row[1])
    return found
