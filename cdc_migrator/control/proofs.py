"""What is proven of each chunk of a table, and which chunks were written to since.

A mark is written in the transaction that writes the rows. A proof is made at an alignment point,
and removes the marks that the target's snapshot of that point shows: they belong to changes that it
shows as well. What is applied after the point marks anew (`apply.marks` forgets at each point what
it has marked), so its marks stay, however long the proof takes to be written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import kwargs_row
from psycopg.types.json import Jsonb

from cdc_migrator.model.tables import TableName


@dataclass(frozen=True, slots=True)
class Map:
    """One row of ``reconcile_map``.

    Attributes:
        table: by the source's name.
        place: SQL of the number of a row's chunk; None: there is but one.
        marked: who applies marks what it changes.
    """

    id: int
    table: TableName
    ordered_by: str | None
    bounds: tuple[str, ...]
    chunks: int
    place: str | None
    signature: str
    marked: bool


@dataclass(frozen=True, slots=True)
class Due:
    """A chunk that is to be read.

    Attributes:
        needed: it was never proven, was written to since, or differed; False: its proof is old.
        proven_at: when it was last proven; None: never.
    """

    chunk: int
    needed: bool
    proven_at: datetime | None


@dataclass(frozen=True, slots=True)
class Proven:
    """One chunk at one point: the source's rows and the two sums of their hashes, and whether the
    target's are the same."""

    chunk: int
    rows: int
    either: int
    total: int
    equal: bool


@dataclass(frozen=True, slots=True)
class Proof:
    """What one part of a table's comparison proves, at one point.

    Attributes:
        map: whose chunks they are.
        marks: ids of the marks that the target's snapshot shows on these chunks.
        chunks: what is proven of each.
    """

    map: int
    marks: tuple[int, ...]
    chunks: tuple[Proven, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a table stands on its proofs.

    Attributes:
        chunks: of its map. proven: how many have a proof. earlier: how many of these are of
            other runs than the one asked for.
        dirty: how many were written to since, or differed, or have no proof.
        unequal_before: chunks that differed in another run, and were not read in this one.
        since: the oldest proof; None while a chunk has none. earlier_since: of `earlier`.
    """

    table: TableName
    ordered_by: str | None
    place: str | None
    chunks: int
    proven: int
    earlier: int
    dirty: int
    unequal_before: int
    since: datetime | None
    earlier_since: datetime | None


def _named(**row: Any) -> dict[str, Any]:
    return {"table": TableName(row.pop("source_schema"), row.pop("source_table")), **row}


def _map(**row: Any) -> Map:
    return Map(bounds=tuple(row.pop("bounds")), **_named(**row))


def _standing(**row: Any) -> Standing:
    return Standing(**_named(**row))


_MAP = (
    "SELECT id, source_schema, source_table, ordered_by, bounds, chunks, place, signature, marked "
    "FROM cdc_migrator.reconcile_map"
)


def maps(conn: psycopg.Connection) -> list[Map]:
    """Every table's chunks."""
    with conn.cursor(row_factory=kwargs_row(_map)) as cursor:
        return cursor.execute(_MAP).fetchall()


def of_table(conn: psycopg.Connection, table: TableName) -> Map | None:
    """One table's chunks, by the source's name; None where it has none."""
    with conn.cursor(row_factory=kwargs_row(_map)) as cursor:
        return cursor.execute(
            f"{_MAP} WHERE (source_schema, source_table) = (%s, %s)", (table.schema, table.name)
        ).fetchone()


def lay_out(
    conn: psycopg.Connection,
    table: TableName,
    ordered_by: str | None,
    bounds: Sequence[str],
    place: str | None,
    signature: str,
) -> int:
    """New chunks in place of the table's former ones, whose proofs are gone; the map's id."""
    with conn.transaction():
        forget(conn, table)
        row = conn.execute(
            "INSERT INTO cdc_migrator.reconcile_map (source_schema, source_table, ordered_by, "
            "bounds, chunks, place, signature) VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING id",
            (
                table.schema,
                table.name,
                ordered_by,
                Jsonb(list(bounds)),
                len(bounds) + 1,
                place,
                signature,
            ),
        ).fetchone()
    assert row is not None
    return int(row[0])


def extend(conn: psycopg.Connection, found: Map, more: Sequence[str], place: str) -> None:
    """Cut the last chunk at `more`; the others keep number and proof.

    Until who applies has read the new bounds (`unmarked`), nothing is proven of any of them.
    """
    bounds = [*found.bounds, *more]
    with conn.transaction():
        conn.execute(
            "UPDATE cdc_migrator.reconcile_map SET bounds = %s, chunks = %s, place = %s, "
            "marked = false WHERE id = %s",
            (Jsonb(bounds), len(bounds) + 1, place, found.id),
        )
        conn.execute(
            "DELETE FROM cdc_migrator.reconcile_proof WHERE map = %s AND chunk >= %s",
            (found.id, found.chunks - 1),
        )


def forget(conn: psycopg.Connection, table: TableName | None = None) -> None:
    """A table (None: every one) is filled in another way than by the stream: nothing stands."""
    conn.execute(
        "DELETE FROM cdc_migrator.reconcile_map "
        "WHERE %s::text IS NULL OR (source_schema, source_table) = (%s, %s)",
        (table and table.name, table and table.schema, table and table.name),
    )


def begin_anew(conn: psycopg.Connection) -> None:
    """Nothing of what was proven stands any more; the chunks do."""
    conn.execute("DELETE FROM cdc_migrator.reconcile_proof")
    conn.execute("DELETE FROM cdc_migrator.reconcile_mark")


def withdraw(conn: psycopg.Connection, table: TableName) -> None:
    """Something differs where nobody looked for it: every chunk is to be read again."""
    conn.execute(
        "INSERT INTO cdc_migrator.reconcile_mark (map, chunk) "
        "SELECT id, generate_series(0, chunks - 1) FROM cdc_migrator.reconcile_map "
        "WHERE (source_schema, source_table) = (%s, %s)",
        (table.schema, table.name),
    )


def unmarked(conn: psycopg.Connection) -> bool:
    """Whether there are chunks that who applies has not read yet."""
    row = conn.execute(
        "SELECT EXISTS (SELECT FROM cdc_migrator.reconcile_map WHERE NOT marked)"
    ).fetchone()
    return bool(row and row[0])


def take_up(conn: psycopg.Connection) -> list[Map]:
    """All chunks, which the caller marks from now on; inside its transaction."""
    conn.execute("UPDATE cdc_migrator.reconcile_map SET marked = true WHERE NOT marked")
    return maps(conn)


def mark(conn: psycopg.Connection, written: Sequence[tuple[int, int]]) -> None:
    """These chunks (map, number) are written to, in the caller's transaction."""
    conn.execute(
        "INSERT INTO cdc_migrator.reconcile_mark (map, chunk) "
        "SELECT * FROM unnest(%s::bigint[], %s::int[])",
        ([one for one, _ in written], [number for _, number in written]),
        prepare=True,
    )


def tidy(conn: psycopg.Connection) -> None:
    """Of several marks on one chunk the last is enough; those of a map that is gone may go."""
    conn.execute(
        "DELETE FROM cdc_migrator.reconcile_mark AS old WHERE EXISTS "
        "(SELECT FROM cdc_migrator.reconcile_mark AS new WHERE (new.map, new.chunk) = "
        "(old.map, old.chunk) AND new.id > old.id) "
        "OR NOT EXISTS (SELECT FROM cdc_migrator.reconcile_map AS m WHERE m.id = old.map)"
    )


def seen(of: int, chunks: Sequence[int]) -> sql.Composed:
    """SQL that tells, under a snapshot of the target, whether the map is marked, and its marks."""
    return sql.SQL(
        "SELECT m.marked, ARRAY(SELECT k.id FROM cdc_migrator.reconcile_mark AS k "
        "WHERE k.map = m.id AND k.chunk = ANY({})) FROM cdc_migrator.reconcile_map AS m "
        "WHERE m.id = {}"
    ).format(sql.Literal(list(chunks)), sql.Literal(of))


def write(conn: psycopg.Connection, run: int, proof: Proof, at: datetime, sees: str) -> None:
    """Write a proof down, inside the caller's transaction; nothing where the map is gone."""
    conn.execute(
        "INSERT INTO cdc_migrator.reconcile_proof AS p (map, chunk, run, proven_at, sees, rows, "
        "hashes_either, hashes_total, equal) "
        "SELECT m.id, c.chunk, %s, %s, %s, c.rows, c.either, c.total, c.equal "
        "FROM cdc_migrator.reconcile_map m, unnest(%s::int[], %s::bigint[], %s::bigint[], "
        "%s::numeric[], %s::bool[]) AS c (chunk, rows, either, total, equal) "
        "WHERE m.id = %s ON CONFLICT (map, chunk) DO UPDATE SET "
        "run = excluded.run, proven_at = excluded.proven_at, sees = excluded.sees, "
        "rows = excluded.rows, hashes_either = excluded.hashes_either, "
        "hashes_total = excluded.hashes_total, equal = excluded.equal",
        (
            run,
            at,
            sees,
            [one.chunk for one in proof.chunks],
            [one.rows for one in proof.chunks],
            [one.either for one in proof.chunks],
            [one.total for one in proof.chunks],
            [one.equal for one in proof.chunks],
            proof.map,
        ),
    )
    conn.execute("DELETE FROM cdc_migrator.reconcile_mark WHERE id = ANY(%s)", (list(proof.marks),))


_DUE = """
SELECT m.source_schema, m.source_table, n.chunk, n.needed, n.proven_at
FROM cdc_migrator.reconcile_map m CROSS JOIN LATERAL (
    SELECT c AS chunk, p.proven_at, p.chunk IS NULL OR NOT p.equal OR EXISTS (
        SELECT FROM cdc_migrator.reconcile_mark k WHERE (k.map, k.chunk) = (m.id, c)) AS needed
    FROM generate_series(0, m.chunks - 1) AS c
    LEFT JOIN cdc_migrator.reconcile_proof p ON (p.map, p.chunk) = (m.id, c)) AS n
WHERE (m.source_schema, m.source_table) IN
    (SELECT * FROM unnest(%(schemas)s::text[], %(names)s::text[]))
    AND (n.needed OR n.proven_at < %(before)s OR %(most)s::int IS NOT NULL)
ORDER BY NOT (n.needed OR n.proven_at < %(before)s), n.proven_at NULLS FIRST, m.id, n.chunk
LIMIT %(most)s
"""


def due(
    conn: psycopg.Connection, tables: Sequence[TableName], before: datetime, most: int | None
) -> dict[TableName, list[Due]]:
    """Which chunks of these tables are to be read: those that need it, those with older proofs.

    Args:
        most: no more than so many, and as many by taking the oldest proofs in addition.
    """
    found: dict[TableName, list[Due]] = {}
    for schema, name, chunk, needed, at in conn.execute(
        _DUE,
        {
            "schemas": [one.schema for one in tables],
            "names": [one.name for one in tables],
            "before": before,
            "most": most,
        },
    ):
        found.setdefault(TableName(schema, name), []).append(Due(chunk, needed, at))
    return found


_STANDING = """
SELECT m.source_schema, m.source_table, m.ordered_by, m.place, m.chunks, p.proven, p.earlier,
    m.chunks - p.clean AS dirty, p.unequal_before,
    CASE WHEN p.proven = m.chunks THEN p.since END AS since, p.earlier_since
FROM cdc_migrator.reconcile_map m CROSS JOIN LATERAL (
    SELECT count(*) AS proven, count(*) FILTER (WHERE run <> %(run)s) AS earlier,
        count(*) FILTER (WHERE equal AND NOT EXISTS (SELECT FROM cdc_migrator.reconcile_mark k
            WHERE (k.map, k.chunk) = (p.map, p.chunk))) AS clean,
        count(*) FILTER (WHERE run <> %(run)s AND NOT equal) AS unequal_before,
        min(proven_at) AS since, min(proven_at) FILTER (WHERE run <> %(run)s) AS earlier_since
    FROM cdc_migrator.reconcile_proof p WHERE p.map = m.id) AS p
ORDER BY 1, 2
"""


def standing(conn: psycopg.Connection, run: int = 0) -> list[Standing]:
    """How every table with chunks stands; `run`: the one that is told apart from earlier ones."""
    with conn.cursor(row_factory=kwargs_row(_standing)) as cursor:
        return cursor.execute(_STANDING, {"run": run}).fetchall()


@dataclass(frozen=True, slots=True)
class TableProof:
    """What is proven of one table, over all of its chunks.

    Attributes:
        rows: on the source when each chunk was proven. equal: of every chunk that has a proof.
        chunks, proven, dirty: as of `Standing`.
        digest: of all rows: the exclusive or of one hash, then the sum of another, each 16 digits
            in hexadecimal; None where a chunk has no proof, or only one of an earlier release.
        since, until: the oldest proof and the latest; None where there is none.
    """

    table: TableName
    rows: int
    equal: bool
    chunks: int
    proven: int
    dirty: int
    digest: str | None
    since: datetime | None
    until: datetime | None


_ALL = (1 << 64) - 1
_TABLES = """
SELECT m.source_schema, m.source_table, p.rows, p.equal, m.chunks, p.proven,
    m.chunks - p.clean AS dirty, p.hashed = m.chunks AS whole, p.either, p.total, p.since, p.until
FROM cdc_migrator.reconcile_map m CROSS JOIN LATERAL (
    SELECT coalesce(sum(rows), 0)::int8 AS rows, coalesce(bool_and(equal), false) AS equal,
        count(*) AS proven, count(hashes_either) AS hashed, bit_xor(hashes_either) AS either,
        sum(hashes_total) AS total, min(proven_at) AS since, max(proven_at) AS until,
        count(*) FILTER (WHERE equal AND NOT EXISTS (SELECT FROM cdc_migrator.reconcile_mark k
            WHERE (k.map, k.chunk) = (p.map, p.chunk))) AS clean
    FROM cdc_migrator.reconcile_proof p WHERE p.map = m.id) AS p
ORDER BY 1, 2
"""


def _table(**row: Any) -> TableProof:
    whole, either, total = (row.pop(key) for key in ("whole", "either", "total"))
    digest = f"{either & _ALL:016x}{int(total) & _ALL:016x}" if whole else None
    return TableProof(digest=digest, **_named(**row))


def tables(conn: psycopg.Connection) -> list[TableProof]:
    """What is proven of every table that has chunks."""
    with conn.cursor(row_factory=kwargs_row(_table)) as cursor:
        return cursor.execute(_TABLES).fetchall()
