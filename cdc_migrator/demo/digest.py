"""The independent proof: every table's rows counted and digested by plain SQL on each side.

Nothing here knows how rows travelled. Per row: md5 over the text of the whole row, columns in the
order of their names, under pinned session settings. Per table: both halves of these as 64-bit
numbers, summed (not xor-ed: a row that stands there twice must count twice). So the order of rows
does not matter, tables without a key work as multisets, and one changed byte changes the digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psycopg
from psycopg import sql

from cdc_migrator.errors import Failed

# Everything that decides how a value reads as text.
_PINNED = (
    "SET TimeZone = 'UTC'",
    "SET DateStyle = 'ISO, YMD'",
    "SET IntervalStyle = 'postgres'",
    "SET extra_float_digits = 1",
    "SET bytea_output = 'hex'",
    "SET lc_monetary = 'C'",
    "SET xmlbinary = 'base64'",
    "SET search_path = pg_catalog",
    "SET row_security = off",  # an error rather than rows left out in silence
)
_MODULUS = 2**64


@dataclass(frozen=True, slots=True)
class TableDigest:
    """Rows of one table, and 32 hexadecimal digits that stand for their content."""

    rows: int
    digest: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """One table on both sides; None where a side does not have the table."""

    table: str
    source: TableDigest | None
    target: TableDigest | None

    @property
    def equal(self) -> bool:
        """The same columns, the same rows, each as often."""
        return self.source is not None and self.source == self.target


def digest(dsn: str, *schemas: str) -> dict[str, TableDigest]:
    """Digest every table of these schemas, as of one moment, one statement for each table.

    Partitioned tables are read through their root, so rows count the same wherever they lie;
    generated columns take part. Keys are schema-qualified names.

    Raises:
        Failed: CDCM-DEMO-DIGEST: the server refused or cannot be reached.
    """
    try:
        with psycopg.connect(dsn, application_name="cdc-migrator digest") as conn:
            conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            conn.read_only = True
            for setting in _PINNED:
                conn.execute(setting)
            return {
                f"{schema}.{name}": _table(conn, schema, name, kind, columns)
                for schema in schemas
                for name, kind, columns in conn.execute(_TABLES, (schema,)).fetchall()
            }
    except psycopg.Error as error:
        raise Failed(
            "CDCM-DEMO-DIGEST",
            f"a digest of {', '.join(schemas)} failed: {type(error).__name__}, "
            f"SQLSTATE {error.sqlstate or 'unknown'}",
            "Look at the log of that database server and try again.",
        ) from error


def digest_both(
    source_dsn: str, target_dsn: str, *schemas: str
) -> tuple[dict[str, TableDigest], dict[str, TableDigest]]:
    """Digest schemas on both sides at the same time; see `digest`."""
    with ThreadPoolExecutor(2) as pool:
        source = pool.submit(digest, source_dsn, *schemas)
        target = pool.submit(digest, target_dsn, *schemas)
        return source.result(), target.result()


def compare(
    source: Mapping[str, TableDigest], target: Mapping[str, TableDigest]
) -> list[Comparison]:
    """One line for each table that either side has, in the order of their names."""
    return [
        Comparison(table, source.get(table), target.get(table))
        for table in sorted(source.keys() | target.keys())
    ]


_TABLES = """
SELECT c.relname, c.relkind::text,
       array_remove(array_agg(a.attname::text ORDER BY a.attname::text COLLATE "C"), NULL)
FROM pg_class AS c
LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s)
  AND c.relkind IN ('r', 'p') AND NOT c.relispartition
GROUP BY c.oid, c.relname, c.relkind
ORDER BY c.relname
"""


def _table(
    conn: psycopg.Connection, schema: str, name: str, kind: str, columns: list[str]
) -> TableDigest:
    statement = sql.SQL(
        "SELECT count(*), coalesce(sum(('x' || left(h, 16))::bit(64)::bigint), 0), "
        "coalesce(sum(('x' || right(h, 16))::bit(64)::bigint), 0) "
        "FROM (SELECT md5(convert_to(ROW({columns})::text, 'UTF8')) AS h "
        "FROM {only} {table} AS t OFFSET 0) AS hashed"
    ).format(
        columns=sql.SQL(", ").join(sql.Identifier("t", column) for column in columns),
        only=sql.SQL("ONLY" if kind == "r" else ""),
        table=sql.Identifier(schema, name),
    )
    ((rows, high, low),) = conn.execute(statement).fetchall()
    content = repr((columns, int(high) % _MODULUS, int(low) % _MODULUS))
    return TableDigest(rows, hashlib.md5(content.encode(), usedforsecurity=False).hexdigest())
