"""Records that the target did not accept, and the keys that are kept back because of them.

Whatever is written here is written in the transaction that moves the stream's position, so a
record is applied, or it is here, and never both. Records are kept as the event's own bytes: they
hold values of rows, which no message and no journal entry does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import psycopg

from cdc_migrator.control import journal, schema
from cdc_migrator.errors import Failed
from cdc_migrator.faultpoints import reach
from cdc_migrator.model.changes import Change, Op, Transaction, copied
from cdc_migrator.model.tables import TableName


class KeyState(StrEnum):
    """PARKED: its records can be applied. SKIPPED: they were given up, only a repair helps."""

    PARKED = "parked"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Key:
    """A key that is kept back; `key` as the stream has it, `texts` as comparisons have it."""

    table: TableName
    key: bytes
    chain: int
    state: KeyState
    texts: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a record was not accepted: names only, no values of rows."""

    code: str
    told: str
    sqlstate: str | None = None
    constraint: str | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """One record of a key that is kept back; `place`: which one of its transaction, from 0."""

    table: TableName
    key: bytes
    transaction: Transaction
    change: Change
    place: int
    fault: Fault


@dataclass(frozen=True, slots=True)
class Standing:
    """How much is kept back: keys and their records; keys given up, and what came for those since.

    `oldest`: when the first of them was found.
    """

    keys: int
    letters: int
    skipped: int
    left_out: int
    oldest: datetime | None

    @property
    def exact(self) -> bool:
        """Whether the target lacks nothing that came."""
        return not self.keys and not self.skipped


def keys(conn: psycopg.Connection) -> list[Key]:
    """All that are kept back."""
    return [
        Key(
            TableName(schema, table),
            bytes(key),
            chain,
            KeyState(state),
            None if texts is None else tuple(texts),
        )
        for schema, table, key, chain, state, texts in conn.execute(
            "SELECT source_schema, source_table, key, chain, state, texts "
            "FROM cdc_migrator.parked_key ORDER BY id"
        )
    ]


def new_chains(conn: psycopg.Connection, count: int) -> list[int]:
    """So many numbers of chains that nobody has."""
    rows = conn.execute(
        "SELECT nextval(pg_get_serial_sequence('cdc_migrator.parked_key', 'id')) "
        "FROM generate_series(1, %s)",
        (count,),
    )
    return [row[0] for row in rows]


def park(conn: psycopg.Connection, parked: Sequence[Key]) -> None:
    """Write down that these keys are kept back, or which chain they belong to by now.

    A chain of which a key was given up is given up: what could be applied of the others is built
    on records that are not there.
    """
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO cdc_migrator.parked_key AS k (source_schema, source_table, key, texts, "
            "chain) VALUES (%s, %s, %s, %s, %s) ON CONFLICT (source_schema, source_table, hash) "
            "DO UPDATE SET chain = excluded.chain",
            [
                (
                    one.table.schema,
                    one.table.name,
                    one.key,
                    None if one.texts is None else list(one.texts),
                    one.chain,
                )
                for one in parked
            ],
        )
    conn.execute(
        "UPDATE cdc_migrator.parked_key k SET state = 'skipped', reason = s.reason, "
        "changed_by = s.changed_by, changed_at = clock_timestamp() "
        "FROM cdc_migrator.parked_key s "
        "WHERE k.state = 'parked' AND s.chain = k.chain AND s.state = 'skipped' "
        "AND k.chain = ANY(%s)",
        (sorted({one.chain for one in parked}),),
    )


def keep(conn: psycopg.Connection, letters: Sequence[Letter]) -> None:
    """Keep records, in this order; their keys are written down already."""
    reach("dead_letters.keep.before")
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO cdc_migrator.dead_letter (parked_key, record_schema, record_table, op, "
            "record_key, before_image, after_image, moves_on, moved_here, lsn, xid, "
            "commit_position, place, first_offset, next_offset, source_committed_at, code, "
            "sqlstate, constraint_name, fault) SELECT id, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, "
            "%s, %s, %s, %s, %s, %s, %s, %s, %s FROM cdc_migrator.parked_key "
            "WHERE (source_schema, source_table) = (%s, %s) AND hash = encode(sha256(%s), 'hex')",
            [_row(one) for one in letters],
        )
    reach("dead_letters.keep.after")


def _row(one: Letter) -> tuple[object, ...]:
    change, transaction, fault = one.change, one.transaction, one.fault
    committed = transaction.committed_at_us
    return (
        change.table.schema,
        change.table.name,
        change.op.value,
        change.key,
        copied(change.before),
        copied(change.after),
        change.key_moves_on,
        change.key_moved_here,
        change.lsn,
        transaction.xid,
        transaction.commit_lsn,
        one.place,
        transaction.first_offset,
        transaction.next_offset,
        None if committed is None else datetime.fromtimestamp(committed / 1e6, UTC),
        fault.code,
        fault.sqlstate,
        fault.constraint,
        fault.told,
        one.table.schema,
        one.table.name,
        one.key,
    )


def leave_out(conn: psycopg.Connection, table: TableName, key: bytes, count: int) -> None:
    """Count records of a key that was given up."""
    conn.execute(
        "UPDATE cdc_migrator.parked_key SET left_out = left_out + %s "
        "WHERE (source_schema, source_table) = (%s, %s) AND hash = encode(sha256(%s), 'hex')",
        (count, table.schema, table.name, key),
    )


@dataclass(frozen=True, slots=True)
class Kept:
    """A record read back, with its key and the chain of that."""

    chain: int
    table: TableName
    key: bytes
    transaction: Transaction
    change: Change


def portions(conn: psycopg.Connection, chains: Collection[int], most: int) -> list[list[int]]:
    """Those of these chains that have records, so that each portion's have `most` bytes at most.

    Older ones come first; a chain that has more is one by itself.
    """
    found: list[list[int]] = []
    room = 0
    for chain, size in conn.execute(
        "SELECT k.chain, sum(coalesce(octet_length(l.before_image), 0) "
        "+ coalesce(octet_length(l.after_image), 0) + octet_length(l.record_key) + 500)::bigint "
        "FROM cdc_migrator.dead_letter l JOIN cdc_migrator.parked_key k ON k.id = l.parked_key "
        "WHERE k.chain = ANY(%s) AND k.state = 'parked' GROUP BY 1 ORDER BY min(l.id)",
        (list(chains),),
    ):
        if not found or size > room:
            found.append([])
            room = most
        found[-1].append(chain)
        room -= size
    return found


def read(conn: psycopg.Connection, chains: Collection[int]) -> list[Kept]:
    """The records of these chains in the order of the stream, without those given up."""
    rows = conn.execute(
        "SELECT k.chain, k.source_schema, k.source_table, k.key, l.record_schema, l.record_table, "
        "l.op, l.record_key, l.before_image, l.after_image, l.lsn, l.moves_on, l.moved_here, "
        "l.xid, l.commit_position, "
        "(extract(epoch FROM l.source_committed_at) * 1000000)::bigint "
        "FROM cdc_migrator.dead_letter l JOIN cdc_migrator.parked_key k ON k.id = l.parked_key "
        "WHERE k.chain = ANY(%s) AND k.state = 'parked' ORDER BY l.id",
        (list(chains),),
    )
    return [
        Kept(
            row[0],
            TableName(row[1], row[2]),
            row[3],
            Transaction(row[13], 0, row[14], row[15]),
            Change(TableName(row[4], row[5]), Op(row[6]), *row[7:13]),
        )
        for row in rows
    ]


def apply(conn: psycopg.Connection, chains: Sequence[int], who: str) -> None:
    """These chains' records are written: nothing of them is kept back any more."""
    found = _drop(conn, chains)
    journal.write(conn, "dead-letters-applied", by=who, **found)


def resolve(conn: psycopg.Connection, chains: Sequence[int], how: str) -> None:
    """What these chains' records were about was written anew from the source."""
    found = _drop(conn, chains)
    journal.write(conn, "dead-letters-resolved", how=how, **found)


def _drop(conn: psycopg.Connection, chains: Sequence[int]) -> dict[str, object]:
    # By itself: in the applier's session no foreign key does it.
    letters = conn.execute(
        "DELETE FROM cdc_migrator.dead_letter l USING cdc_migrator.parked_key k "
        "WHERE k.id = l.parked_key AND k.chain = ANY(%s)",
        (list(chains),),
    ).rowcount
    rows = conn.execute(
        "DELETE FROM cdc_migrator.parked_key WHERE chain = ANY(%s) "
        "RETURNING source_schema || '.' || source_table, hash",
        (list(chains),),
    ).fetchall()
    return _named(rows, letters)


def refused(conn: psycopg.Connection, chain: int, fault: Fault) -> None:
    """A chain was tried and is still not accepted."""
    conn.execute(
        "UPDATE cdc_migrator.parked_key SET tries = tries + 1, tried_at = clock_timestamp(), "
        "error = %s WHERE chain = %s",
        (fault.told, chain),
    )


def skip(conn: psycopg.Connection, chains: Sequence[int], reason: str, who: str) -> None:
    """Give these chains up: journalled, their records stay to be looked at."""
    letters = conn.execute(
        "SELECT count(*) FROM cdc_migrator.dead_letter l JOIN cdc_migrator.parked_key k "
        "ON k.id = l.parked_key WHERE k.chain = ANY(%s) AND k.state = 'parked'",
        (list(chains),),
    ).fetchone()
    rows = conn.execute(
        "UPDATE cdc_migrator.parked_key SET state = 'skipped', reason = %s, changed_by = %s, "
        "changed_at = clock_timestamp() WHERE chain = ANY(%s) AND state = 'parked' "
        "RETURNING source_schema || '.' || source_table, hash",
        (reason, who, list(chains)),
    ).fetchall()
    found = _named(rows, letters[0] if letters else 0)
    journal.write(conn, "dead-letters-skipped", by=who, reason=reason, **found)


def note_parked(conn: psycopg.Connection, parked: Sequence[Key], letters: Sequence[Letter]) -> None:
    """Journal what a batch has kept back, where a key was not before."""
    if not parked:
        return
    faults = sorted({one.fault.told for one in letters if one.fault.sqlstate is not None})
    journal.write(
        conn,
        "records-parked",
        tables=sorted({str(one.table) for one in parked}),
        keys=len(parked),
        letters=len(letters),
        faults=faults[:_NAMED],
    )


# Of many keys only so many are named one by one in an entry.
_NAMED = 20


def _named(rows: Iterable[Sequence[str]], letters: int) -> dict[str, object]:
    found = sorted(tuple(row) for row in rows)
    return {
        "keys": len(found),
        "letters": letters,
        "named": [f"{table} {hashed[:12]}" for table, hashed in found[:_NAMED]],
    }


def forget(conn: psycopg.Connection, table: TableName) -> None:
    """The table is read again, inside the caller's transaction: the new rows hold what came."""
    chains = chains_of(conn, [table])
    if chains:
        resolve(conn, chains, "read again")


def chains_of(
    conn: psycopg.Connection,
    tables: Collection[TableName] | None = None,
    hashes: Collection[str] | None = None,
    state: KeyState | None = None,
) -> list[int]:
    """The chains of these tables, and of keys whose hash begins so; None: of all."""
    rows = conn.execute(
        "SELECT DISTINCT chain FROM cdc_migrator.parked_key WHERE "
        "(%(tables)s::text[] IS NULL OR source_schema || '.' || source_table = ANY(%(tables)s)) "
        "AND (%(hashes)s::text[] IS NULL OR EXISTS "
        "(SELECT FROM unnest(%(hashes)s::text[]) AS h WHERE starts_with(hash, h))) "
        "AND (%(state)s::text IS NULL OR state = %(state)s) ORDER BY 1",
        {
            "tables": None if tables is None else [str(one) for one in tables],
            "hashes": None if hashes is None else list(hashes),
            "state": state,
        },
    )
    return [row[0] for row in rows]


def standing(conn: psycopg.Connection) -> Standing:
    """How much is kept back."""
    row = conn.execute(
        "SELECT count(*) FILTER (WHERE k.state = 'parked'), "
        "coalesce(sum(l.letters) FILTER (WHERE k.state = 'parked'), 0)::bigint, "
        "count(*) FILTER (WHERE k.state = 'skipped'), "
        "coalesce(sum(k.left_out), 0)::bigint, min(k.parked_at) FROM cdc_migrator.parked_key k "
        "LEFT JOIN (SELECT parked_key, count(*) AS letters FROM cdc_migrator.dead_letter "
        "GROUP BY 1) AS l ON l.parked_key = k.id"
    ).fetchone()
    assert row is not None
    return Standing(*row)


def require_none(conn: psycopg.Connection) -> None:
    """See that all that came was applied, before this side is opened.

    Raises Failed: CDCM-CUTOVER-PARKED.
    """
    if not schema.has(conn, "parked_key"):  # what an earlier release has begun
        return
    there = standing(conn)
    if not there.exact:
        raise Failed(
            "CDCM-CUTOVER-PARKED",
            f"records of {there.keys + there.skipped} keys were not applied",
            "`cdc-migrator dead-letters list` says why. Settle them, then run the same command "
            "again.",
        )
