"""Have a table's hook compute its columns of staged rows, inside the transaction that writes them.

What the hook reads is made by the target, of the texts of the few columns that it needs: so it is
what the source makes of them for a load. What it gives stands behind the columns of a staged row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec
import psycopg

from cdc_migrator.apply.mapped import MappedStatements
from cdc_migrator.apply.plan import TablePlan
from cdc_migrator.apply.stage import COMPLETE, DELETE, unchanged_places
from cdc_migrator.errors import StreamHalted
from cdc_migrator.hook.calling import Cells, HookRefused
from cdc_migrator.hook.copied import NULL, cell, ends


def staged(
    cursor: psycopg.RawCursor, statements: MappedStatements, payload: Iterable[bytes]
) -> Iterator[bytes]:
    """Whole rows of a staging table, with what the hook gives.

    That is nothing where a row leaves what the hook reads as it is, where the filter does not let
    it pass, and where it is only a key.

    Raises:
        StreamHalted: the hook fails, or gives what is of no use.
        psycopg.Error: the target fails to make what it reads.
    """
    for piece in payload:
        yield _piece(cursor, statements, piece.decode().removesuffix("\n").split("\n"))


def _piece(cursor: psycopg.RawCursor, statements: MappedStatements, lines: list[str]) -> bytes:
    plan = statements.plan
    first = 1 + len(plan.shape.key_places)
    places = statements.hook_sends
    rows = [line.split("\t") for line in lines]
    kinds = {kind: _is_whole(plan, kind, places) for kind in {row[0] for row in rows}}
    whole = [number for number, row in enumerate(rows) if kinds[row[0]]]
    columns = [[cell(rows[number][first + place]) for number in whole] for place in places]
    read = _read(cursor, statements, columns) if whole else []
    if plan.filtered:
        whole = [number for number, row in zip(whole, read, strict=True) if row[0] is not None]
        read = [row[1:] for row in read if row[0] is not None]
    end = ends(_given(plan, read))
    assert plan.route is not None
    if len(whole) < len(lines):
        found = ["\t".join([NULL] * len(plan.route.given))] * len(lines)
        for number, one in zip(whole, end, strict=True):
            found[number] = one
        end = found
    return "".join([f"{line}\t{one}\n" for line, one in zip(lines, end, strict=True)]).encode()


def _is_whole(plan: TablePlan, kind: str, places: Sequence[int]) -> bool:
    """Whether rows of a kind have all that the hook reads."""
    if kind in (COMPLETE, DELETE):
        return kind == COMPLETE or plan.shape.keys is None
    return not set(places).intersection(unchanged_places(kind))


_rows = msgspec.json.Decoder(list[tuple[str | None, ...]])


def _read(
    cursor: psycopg.RawCursor,
    statements: MappedStatements,
    columns: Sequence[Sequence[str | None]],
) -> list[Cells]:
    """What the target makes of columns' texts, row by row.

    Both ways it is one text: the driver's own arrays and rows take several times as long.
    """
    texts = list(map(_array, columns))
    row = cursor.execute(statements.hook_reads, texts, prepare=True).fetchone()
    return [] if row is None or row[0] is None else _rows.decode(row[0])


def _array(column: Sequence[str | None]) -> str:
    """An array's text."""
    cells = [one for one in column if one is not None]
    joined = '","'.join(cells)
    if "\\" in joined or joined.count('"') != 2 * max(len(cells) - 1, 0):
        cells = [one.replace("\\", "\\\\").replace('"', '\\"') for one in cells]
        joined = '","'.join(cells)
    if len(cells) == len(column):
        return f'{{"{joined}"}}' if cells else "{}"
    there = iter(cells)
    joined = ",".join(["NULL" if one is None else f'"{next(there)}"' for one in column])
    return f"{{{joined}}}"


def _given(plan: TablePlan, rows: Sequence[Cells]) -> list[Cells]:
    assert plan.caller is not None
    try:
        return plan.caller.run(rows)
    except HookRefused as refused:
        raise StreamHalted(
            refused.code,
            refused.cause,
            f"rows of {plan.shape.name}",
            "Nothing past this position was applied. Correct the rows on the source, then "
            f"`cdc-migrator backfill --again '{plan.shape.name}'` reads the table again as it is "
            "by then. For a function that bears such rows begin anew: `cdc-migrator abort`, then "
            "`cdc-migrator migrate`.",
        ) from None
