"""Write rows of the target as they stand on the source, at an alignment point.

The caller holds the point: the source's session reads under its snapshot, the target's transaction
holds exactly what that snapshot shows but for what is wrong. So a row is deleted and inserted from
the source's text; a row that the source does not have is deleted. Nothing newer can be overwritten,
and no lock is taken on the source. Where a row collides with another one's unique value, that one
is wrong as well, and joins the set.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import psycopg
from psycopg import errors, sql

from cdc_migrator.control import repairs
from cdc_migrator.control.repairs import Action, Repaired
from cdc_migrator.databases.postgres import mapped, names
from cdc_migrator.databases.postgres.coded import describe
from cdc_migrator.errors import Refused
from cdc_migrator.model.alignment import Repair
from cdc_migrator.model.tables import Column
from cdc_migrator.reconcile import expressions, hooked, returned
from cdc_migrator.reconcile.narrow import Key, named
from cdc_migrator.reconcile.pairs import Pair

_ROUNDS = 50
_Texts = tuple[str | None, ...]


def write(
    source: psycopg.Connection, target: psycopg.Connection, pair: Pair, repair: Repair
) -> list[Repaired]:
    """Make the target's rows of these keys what the source's snapshot shows; audited.

    Args:
        source: in a transaction under the point's snapshot.
        target: in an open transaction at the point, with session_replication_role = replica.
        repair: of this pair's table.

    Raises:
        Refused: CDCM-RECONCILE-REPAIR: the target does not accept the source's rows.
        psycopg.Error: either session failed; the caller's transaction must be rolled back.
    """
    if pair.key:
        done = _by_key(source, target, pair, repair.keys)
    else:
        done = _by_content(source, target, pair, [key[0] for key in repair.keys])
    repairs.record(target, repair.run, done)
    return done


def _by_key(
    source: psycopg.Connection, target: psycopg.Connection, pair: Pair, keys: Sequence[Key]
) -> list[Repaired]:
    wanted = dict.fromkeys(keys)
    delete = _DELETE_OWN if pair.shared else _DELETE
    if pair.divided:
        delete = _DELETE_WITHIN
    if pair.returns:
        delete = _LOOK
    for _ in range(_ROUNDS):
        rows = _rows(source, pair.unfiltered, list(wanted))
        new = [row for of_key in rows.values() for row in of_key]
        try:
            with target.transaction():
                before = _on_target(target, pair, list(wanted), delete)
                if pair.returns:
                    returned.write(target, pair, list(wanted), _new_rows(pair, new))
                else:
                    _insert(target, pair, new)
                after = _on_target(target, pair, list(wanted), _LOOK)
        except errors.UniqueViolation as exc:
            needed = _new_rows(pair, new)
            more = rivals(target, pair, exc, needed)
            if not set(more) - wanted.keys():
                raise refused(pair, exc) from exc
            wanted.update(dict.fromkeys(more))
        except (errors.IntegrityError, errors.DataError) as exc:
            raise refused(pair, exc) from exc
        else:
            return [_repaired(pair, key, before.get(key, ()), after.get(key, ())) for key in wanted]
    raise entangled(pair)


def refused(pair: Pair, exc: psycopg.Error) -> Refused:
    """What is raised where the target's table demands more than the source's."""
    remedy = (
        "Look at what the target's table demands beyond the source's "
        "(`cdc-migrator schema diff`), correct it, and repair again."
    )
    if pair.shared:
        remedy += (
            " A row of another table that is merged into it may hold the value: repair that one "
            "first."
        )
    return Refused(
        "CDCM-RECONCILE-REPAIR",
        f"the target does not accept the source's rows in {pair.target.name} ({describe(exc)})",
        remedy,
    )


def entangled(pair: Pair) -> Refused:
    """What is raised where each row that is repaired collides with a further one."""
    return Refused(
        "CDCM-RECONCILE-REPAIR",
        f"rows of {pair.target.name} collide with more and more others",
        "Stop `cdc-migrator run`, read the table again (`cdc-migrator backfill --again`), and "
        "start it.",
    )


def _repaired(pair: Pair, key: Key, before: Sequence[str], after: Sequence[str]) -> Repaired:
    action = Action.REPLACED
    if not before:
        action = Action.INSERTED if after else Action.NONE
    elif not after:
        action = Action.DELETED
    return Repaired(
        pair.source.name,
        named(pair, key),
        action,
        tuple(before),
        len(before),
        tuple(after),
        len(after),
    )


def carried(pair: Pair) -> list[tuple[Column, Column]]:
    """The columns that are written, on both sides."""
    return [(c.source, c.target) for c in pair.columns if not c.source.generated]


def _rows(source: psycopg.Connection, pair: Pair, keys: Sequence[Key]) -> dict[Key, list[_Texts]]:
    """The source's rows of these keys, every carried column as text."""
    if pair.of_nobody:
        return {}
    own = [column.source for column in pair.key]
    of_them = sql.SQL("JOIN {} ON {}").format(
        expressions.wanted_keys(own, keys), expressions.same_key(own, "t")
    )
    query = sql.SQL("SELECT {key}, {row} FROM {rows} {of_them}").format(
        key=expressions.texts(own, "t"),
        row=expressions.texts((column for column, _ in carried(pair)), "t"),
        rows=pair.rows(False, "t"),
        of_them=of_them,
    )
    found: dict[Key, list[_Texts]] = {}
    for row in hooked.read(source, pair, query, of_them):
        # Two wanted texts may be one key to the database; the source has one row of each.
        found[tuple(row[: len(own)])] = [row[len(own) :]]
    return found


_DELETE = sql.SQL(
    "DELETE FROM ONLY {table} AS t USING {wanted} WHERE {same} RETURNING {digest}, {key}"
)
# The same of a table that others write to as well.
_DELETE_OWN = sql.SQL(
    "DELETE FROM ONLY {table} AS t "
    "USING (SELECT t.ctid FROM {wanted} JOIN {rows} ON {same}) AS own "
    "WHERE t.ctid = own.ctid RETURNING {digest}, {key}"
)
# The same of a partitioned table.
_DELETE_WITHIN = sql.SQL(
    "DELETE FROM {table} AS t "
    "USING (SELECT t.ctid, t.{partition} AS part FROM {wanted} JOIN {rows} ON {same}) AS own "
    "WHERE t.ctid = own.ctid AND t.tableoid = own.part RETURNING {digest}, {key}"
)
_LOOK = sql.SQL("SELECT DISTINCT {digest}, {key} FROM {wanted} JOIN {rows} ON {same}")


def _on_target(
    target: psycopg.Connection, pair: Pair, keys: Sequence[Key], statement: sql.SQL
) -> dict[Key, list[str]]:
    """Run one of the statements above for these keys.

    Returns the digests of the rows that it met, by key.
    """
    own = [column.target for column in pair.key]
    found: dict[Key, list[str]] = defaultdict(list)
    for digest, *key in target.execute(
        statement.format(
            table=names.table(pair.target.name),
            partition=sql.Identifier(mapped.PARTITION),
            rows=pair.rows(True, "t"),
            wanted=expressions.wanted_keys(own, keys),
            same=expressions.same_key(own, "t"),
            digest=expressions.row_digest(pair, True, "t"),
            key=expressions.texts(own, "t"),
        )
    ):
        found[tuple(key)].append(digest)
    return found


def _new_rows(pair: Pair, rows: Sequence[_Texts]) -> sql.Composable:
    """The rows as a row source ``n`` with the target's columns, cast from their text.

    Without length or scale: the assignment checks those, where a cast would cut in silence.
    """
    columns = [column for _, column in carried(pair)]
    places = [f"c{place}" for place in range(len(columns))]
    return sql.SQL("(SELECT {values} FROM unnest({texts}) AS s ({places})) AS n").format(
        values=sql.SQL(", ").join(
            sql.SQL("{}::{} AS {}").format(
                sql.Identifier("s", place),
                expressions.bare_type(column),
                sql.Identifier(column.name),
            )
            for place, column in zip(places, columns, strict=True)
        ),
        texts=sql.SQL(", ").join(
            sql.SQL("{}::text[]").format(sql.Literal([row[place] for row in rows]))
            for place in range(len(columns))
        ),
        places=names.columns(places),
    )


def _insert(target: psycopg.Connection, pair: Pair, rows: Sequence[_Texts]) -> None:
    if not rows:
        return
    columns = names.columns(column.name for _, column in carried(pair))
    target.execute(
        sql.SQL(
            "INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {rows}"
        ).format(table=names.table(pair.target.name), columns=columns, rows=_new_rows(pair, rows))
    )


_INDEX = """
SELECT ARRAY(SELECT pg_get_indexdef(i.indexrelid, k, false)
             FROM generate_series(1, i.indnkeyatts) k ORDER BY k),
       coalesce(pg_get_expr(i.indpred, i.indrelid), 'true')
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
JOIN pg_namespace n ON n.oid = x.relnamespace WHERE n.nspname = %s AND x.relname = %s
"""


def rivals(
    target: psycopg.Connection, pair: Pair, exc: psycopg.Error, rows: sql.Composable
) -> list[Key]:
    """The keys of the pair's rows that hold a unique value which one of the rows needs.

    Args:
        exc: what the target said.
        rows: a row source ``n`` with the target's columns.
    """
    found = target.execute(_INDEX, (pair.target.name.schema, exc.diag.constraint_name)).fetchone()
    if found is None:
        return []
    # The catalog has quoted its own expressions, which name the columns without a table.
    parts = [sql.SQL(part) for part in found[0]]
    values = sql.SQL(", ").join(
        sql.SQL("({}) AS {}").format(part, sql.Identifier(f"e{place}"))
        for place, part in enumerate(parts)
    )
    same = sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(
            sql.Identifier("held", f"e{place}"), sql.Identifier("needed", f"e{place}")
        )
        for place in range(len(parts))
    )
    own = [column.target for column in pair.key]
    query = sql.SQL(
        "SELECT {key} FROM (SELECT {values}, {own} FROM {held} WHERE {predicate}) AS held "
        "JOIN (SELECT {values} FROM {rows} WHERE {predicate}) AS needed ON {same}"
    ).format(
        key=sql.SQL(", ").join(sql.Identifier("held", f"k{place}") for place in range(len(own))),
        values=values,
        own=sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(
                mapped.text_of(sql.Identifier(column.name)), sql.Identifier(f"k{place}")
            )
            for place, column in enumerate(own)
        ),
        held=pair.rows(True),
        predicate=sql.SQL(found[1]),
        rows=rows,
        same=same,
    )
    if pair.route is None:
        return [tuple(row) for row in target.execute(query)]
    try:
        with target.transaction():
            return [tuple(row) for row in target.execute(query)]
    except errors.UndefinedColumn:
        # The index has a column that the target fills by itself: nobody knows what rows need.
        return []


def _by_content(
    source: psycopg.Connection, target: psycopg.Connection, pair: Pair, digests: Sequence[str]
) -> list[Repaired]:
    """The target gets each row as often as the source has it."""
    here = _counted(source, pair, digests, False)
    there = _counted(target, pair, digests, True)
    try:
        for digest in digests:
            (ours, row), (theirs, _) = here.get(digest, _NO_ROW), there.get(digest, _NO_ROW)
            if theirs > ours:
                _delete_some(target, pair, digest, theirs - ours)
            else:
                _insert(target, pair, [row] * (ours - theirs))
    except (errors.IntegrityError, errors.DataError) as exc:
        raise refused(pair, exc) from exc
    return [
        _multiplied(pair, digest, there.get(digest, _NO_ROW)[0], here.get(digest, _NO_ROW)[0])
        for digest in digests
    ]


_NO_ROW: tuple[int, _Texts] = (0, ())


def _counted(
    conn: psycopg.Connection, pair: Pair, digests: Sequence[str], target: bool
) -> dict[str, tuple[int, _Texts]]:
    """How often each of these rows is there, and its texts."""
    if pair.of_nobody and not target:
        return {}
    columns = [side[target] for side in carried(pair)]
    query = sql.SQL(
        "SELECT d, count(*), min(r) FROM (SELECT {digest} AS d, ARRAY[{row}] AS r "
        "FROM {rows} WHERE {digest} = ANY({wanted}::text[])) q GROUP BY d"
    ).format(
        digest=expressions.row_digest(pair, target, "t"),
        row=expressions.texts(columns, "t"),
        rows=pair.rows(target, "t"),
        wanted=sql.Literal(list(digests)),
    )
    found: dict[str, tuple[int, _Texts]] = {}
    answers = conn.execute(query) if target else hooked.read(conn, pair, query, hooked.ALL)
    for digest, count, row in answers:
        found[digest] = (found.get(digest, _NO_ROW)[0] + count, tuple(row))
    return found


def _delete_some(target: psycopg.Connection, pair: Pair, digest: str, count: int) -> None:
    target.execute(
        sql.SQL(
            "DELETE FROM ONLY {table} WHERE ctid = ANY(ARRAY(SELECT t.ctid FROM {rows} "
            "WHERE {digest} = {wanted} LIMIT {count}))"
        ).format(
            table=names.table(pair.target.name),
            rows=pair.rows(True, "t"),
            digest=expressions.row_digest(pair, True, "t"),
            wanted=sql.Literal(digest),
            count=sql.Literal(count),
        )
    )


def _multiplied(pair: Pair, digest: str, before: int, after: int) -> Repaired:
    action = Action.NONE
    if before != after:
        action = Action.DELETED if after < before else Action.INSERTED
    return Repaired(
        pair.source.name,
        named(pair, (digest,)),
        action,
        (digest,) if before else (),
        before,
        (digest,) if after else (),
        after,
    )
