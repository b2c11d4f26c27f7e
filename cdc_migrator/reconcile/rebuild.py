"""Write a range of a table anew at an alignment point: all of its rows, as the source has them.

The rows come out of the source by COPY before the point is reached and wait in a file, or in memory
where they are few; at the point the target's rows of the range are deleted, and these go in. No
value is looked at. Rows that the source does not have go with the rest. Where a row outside of the
range holds a unique value that one of these needs, that one is wrong, and is repaired first.
"""

from __future__ import annotations

import tempfile
from typing import IO

import psycopg
from psycopg import errors, sql

from cdc_migrator.control import rebuilds, repairs
from cdc_migrator.control.repairs import Action, Repaired
from cdc_migrator.databases.postgres import names
from cdc_migrator.errors import Failed
from cdc_migrator.faultpoints import reach
from cdc_migrator.model.alignment import Rebuild, Repair
from cdc_migrator.reconcile import hooked, ranges, repair
from cdc_migrator.reconcile.digest import NOTHING, Digest, add, grouped
from cdc_migrator.reconcile.expressions import Hashing
from cdc_migrator.reconcile.narrow import Look
from cdc_migrator.reconcile.pairs import Pair
from cdc_migrator.reconcile.snapshot import reading

_IN_MEMORY = 8 << 20
_BLOCK = 1 << 16
_ROUNDS = 20
_STAGE = sql.Identifier("pg_temp", "cdcm_rebuild")


class RangeWriter:
    """Reads a range, then writes it; a context manager that removes what it has kept.

    Args:
        pair: the table of the range; with a key unless the range is everything.
    """

    def __init__(self, pair: Pair, wanted: Rebuild) -> None:
        self._pair = pair
        self._wanted = wanted
        self._rows: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115

    def __enter__(self) -> RangeWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._rows.close()

    def read(self, source: psycopg.Connection) -> None:
        """Take the rows from the source's session as its snapshot shows them.

        Raises TableMoved, MigratorError.
        """
        pair = self._pair
        query = sql.SQL("COPY (SELECT {columns} FROM {rows} WHERE {within}) TO STDOUT").format(
            columns=names.columns(hooked.sent(pair)),
            rows=pair.plain(False),
            within=ranges.within(pair, self._wanted.low, self._wanted.high, False),
        )
        with reading(source, pair.relation(False)), source.cursor().copy(query) as copy:
            for block in hooked.copied(pair, map(bytes, copy)):
                self._rows.write(block)
        reach("rebuild.read")

    def write(self, source: psycopg.Connection, target: psycopg.Connection) -> None:
        """Put the rows in the place of the target's, write that down, and into the audit.

        Args:
            source: under the point's snapshot, for rows outside of the range.
            target: in an open transaction at the point, with session_replication_role = replica.

        Raises:
            Refused: CDCM-RECONCILE-REPAIR: the target does not accept the source's rows.
            Failed: CDCM-REBUILD-OVER. TableMoved, psycopg.Error: roll the transaction back.
        """
        pair, wanted = self._pair, self._wanted
        before = target.execute(
            sql.SQL("DELETE FROM {} WHERE {}").format(
                names.alone(pair.target.name, pair.divided),
                pair.belonging(ranges.within(pair, wanted.low, wanted.high, True)),
            )
        ).rowcount
        reach("rebuild.deleted")
        after = self._fill(source, target)
        if not rebuilds.write(target, wanted, before, after):
            raise Failed(
                "CDCM-REBUILD-OVER",
                f"the rebuild of {wanted.table} was ended or begun anew meanwhile",
                "Run the same command again.",
            )
        key = {"rebuild": wanted.id, "from": wanted.low, "to": wanted.high}
        done = Repaired(wanted.table, key, Action.REBUILT, (), before, (), after)
        repairs.record(target, None, [done])
        reach("rebuild.written")

    def _fill(self, source: psycopg.Connection, target: psycopg.Connection) -> int:
        pair = self._pair
        staged = False
        for _ in range(_ROUNDS):
            try:
                with target.transaction():
                    return self._copy(target, names.table(pair.target.name))
            except errors.UniqueViolation as exc:
                if not pair.key:
                    raise repair.refused(pair, exc) from exc
                if not staged:
                    self._stage(target)
                    staged = True
                needed = sql.SQL("{} AS n").format(_STAGE)
                keys = repair.rivals(target, pair, exc, needed)
                if not keys:
                    raise repair.refused(pair, exc) from exc
                with reading(source, pair.relation(False)):
                    repair.write(
                        source, target, pair, Repair(pair.source.name, tuple(dict.fromkeys(keys)))
                    )
            except (errors.IntegrityError, errors.DataError) as exc:
                raise repair.refused(pair, exc) from exc
        raise repair.entangled(pair)

    def _stage(self, target: psycopg.Connection) -> None:
        """The rows as a table of their own, to look for those that they collide with."""
        columns = names.columns(column.name for _, column in repair.carried(self._pair))
        target.execute(
            sql.SQL("CREATE TEMP TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
                _STAGE, columns, names.table(self._pair.target.name)
            )
        )
        self._copy(target, _STAGE)

    def _copy(self, target: psycopg.Connection, into: sql.Composable) -> int:
        columns = names.columns(column.name for _, column in repair.carried(self._pair))
        self._rows.seek(0)
        with target.cursor() as cursor:
            with cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN").format(into, columns)) as copy:
                while block := self._rows.read(_BLOCK):
                    copy.write(block)
            return cursor.rowcount


def equal(look: Look, wanted: Rebuild) -> bool:
    """Whether both sides hold the same rows in a range at the point that is looked at.

    Raises SnapshotLost, TableMoved, MigratorError.
    """

    def same(hashing: Hashing) -> bool:
        def of_side(target: bool) -> Digest:
            condition = ranges.within(look.pair, wanted.low, wanted.high, target)
            found: dict[int | None, Digest] = {}
            query = grouped(look.pair, hashing, target, sql.SQL("0"), condition)
            add(look.read(query, target, look.those(condition)), found)
            return found.get(0, NOTHING)

        here, there = look.sides.both(of_side)
        return here == there

    hashing = look.hashing
    while not same(hashing):
        # The servers may hash unlike each other what is the same.
        if (slower := hashing.slower()) == hashing:
            return False
        hashing = slower
    return True
