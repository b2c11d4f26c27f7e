"""How a comparison looks: its document, its table for people, its line of progress."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cdc_migrator.cli.output import Printer
    from cdc_migrator.control.differences import Known
    from cdc_migrator.model.alignment import Repair
    from cdc_migrator.model.differences import RowDifference
    from cdc_migrator.model.tables import TableName
    from cdc_migrator.reconcile.options import Progress
    from cdc_migrator.service.reconcile_report import Report, TableReport

_SHOWN = 20


def document(report: Report) -> dict[str, Any]:
    """The whole of a comparison, for programs."""
    values = {(one.table, tuple(one.key.items())): one for one in report.values}
    return {
        "equal": report.equal,
        "finished": report.finished,
        "run": report.run.id,
        "mode": report.run.mode,
        "verified_as_of": report.verified_as_of,
        "seconds": round(report.seconds, 3),
        "repaired": report.repaired,
        "tables": [_table(one, values, report.parked) for one in report.tables],
    }


def _table(
    one: TableReport,
    values: dict[tuple[Any, tuple[tuple[str, str], ...]], RowDifference],
    parked: Container[tuple[TableName, tuple[str, ...] | None]],
) -> dict[str, Any]:
    rows = []
    for known in one.standing:
        row = difference(known)
        row["kept_back"] = (known.table, tuple(known.key.values())) in parked
        found = values.get((known.table, tuple(known.key.items())))
        if found is not None:
            row["values"] = {
                column: {"source": ours, "target": theirs}
                for column, (ours, theirs) in found.values.items()
            }
        rows.append(row)
    return {
        "table": str(one.table),
        "of_no_table": one.of_nobody,
        "method": "aligned" if one.since else None,
        "equal": one.equal,
        "rows": one.rows,
        "chunked_by": one.chunked_by,
        "chunks": one.chunks,
        "chunks_digested": one.digested,
        "chunks_standing": one.standing_chunks,
        "verified_as_of": one.since,
        "unproven": one.unproven,
        "not_compared": list(one.left_out),
        "more": one.more,
        "differences": rows,
    }


def difference(known: Known) -> dict[str, Any]:
    """One difference, for programs."""
    return {
        "id": known.id,
        "kind": known.kind,
        "key": dict(known.key),
        "columns": list(known.columns),
        "source_count": known.source_count,
        "target_count": known.target_count,
        "state": known.state,
        "reason": known.reason,
        "first_seen": known.first_seen,
        "last_seen": known.last_seen,
        "run": known.run,
        "changed_by": known.changed_by,
        "changed_at": known.changed_at,
    }


def plan(repairs: Sequence[Repair], run: int) -> dict[str, Any]:
    """What a dry run writes into its file."""
    return {
        "schema_version": 1,
        "run": run,
        "repairs": [
            {"table": str(one.table), "keys": [list(key) for key in one.keys]} for one in repairs
        ],
    }


def view(report: dict[str, Any]) -> RenderableType:
    """The document for people."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    numbers = ("rows", "digested", "standing", "differences")
    for title in ("table", *numbers, "verified as of", ""):
        table.add_column(title, overflow="fold", justify="right" if title in numbers else "left")
    for row in report["tables"]:
        opened = sum(one["state"] == "open" for one in row["differences"])
        told = row["unproven"] or ("equal" if row["equal"] else "differs")
        accepted = len(row["differences"]) - opened
        if accepted:
            told += f", {accepted} accepted"
        table.add_row(
            Text(row["table"]),
            str(row["rows"]),
            str(row["chunks_digested"] or ""),
            str(row["chunks_standing"] or ""),
            f"{opened}{'+' if row['more'] else ''}",
            f"{row['verified_as_of']:%Y-%m-%d %H:%M:%S}" if row["verified_as_of"] else "",
            Text(told, "" if row["equal"] else "red"),
        )
    lines = [Text(line) for row in report["tables"] for line in _lines(row)]
    return Group(table, *lines, _sum(report))


def _lines(row: dict[str, Any]) -> list[str]:
    shown = [
        f"{row['table']} {_key(one['key'])}: {one['kind']}"
        + (f" in {', '.join(one['columns'])}" if one["columns"] else _counts(one))
        + (" (kept back: see `dead-letters list`)" if one.get("kept_back") else "")
        + "".join(
            f"\n    {column}: source {both['source']!r}, target {both['target']!r}"
            for column, both in one.get("values", {}).items()
        )
        for one in row["differences"]
        if one["state"] == "open"
    ]
    rest = len(shown) - _SHOWN
    return shown[:_SHOWN] + ([f"{row['table']}: {rest} more, see -o json"] if rest > 0 else [])


def _key(key: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in key.items())


def _counts(one: dict[str, Any]) -> str:
    if max(one["source_count"], one["target_count"]) < 2:
        return ""
    return f" ({one['source_count']} on the source, {one['target_count']} on the target)"


def _sum(report: dict[str, Any]) -> RenderableType:
    from rich.text import Text

    rows = sum(row["rows"] for row in report["tables"])
    seconds = report["seconds"]
    if report["equal"]:
        text = Text(f"equal: {rows} rows in {seconds:.1f} s", "green")
    elif not report["finished"]:
        text = Text(f"not finished after {seconds:.1f} s: `reconcile --resume` goes on", "red")
    else:
        text = Text(f"not equal ({rows} rows in {seconds:.1f} s)", "red")
    if report["repaired"]:
        text.append(f"; {report['repaired']} repaired and seen equal")
    if report["verified_as_of"]:
        text.append(f"; verified as of {report['verified_as_of']:%Y-%m-%d %H:%M:%S} UTC")
    return text


class ProgressLine:
    """Tells on stderr how far a command is: one line that changes, or now and then a new one."""

    def __init__(self, out: Printer) -> None:
        self._out = out
        self._terminal = sys.stderr.isatty()
        self._lock = threading.Lock()
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        share = 100 * progress.rows_done // max(progress.rows, 1)
        self.tell(
            f"{progress.tables_done} of {progress.tables} tables, "
            f"about {min(share, 100)} % of {progress.rows} rows, "
            f"{progress.differences} differences"
        )

    def tell(self, text: str) -> None:
        """Show this, unless something was shown just now."""
        with self._lock:
            if time.monotonic() < self._next:
                return
            self._next = time.monotonic() + (0.2 if self._terminal else 10.0)
            if self._terminal:
                sys.stderr.write(f"\r\x1b[K{text}")
                sys.stderr.flush()
            else:
                self._out.say(text)

    def close(self) -> None:
        """Leave the line clean."""
        if self._terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
