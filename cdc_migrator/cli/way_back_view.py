"""How `way-back status` looks."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text


def view(document: dict[str, Any]) -> RenderableType:
    """One line a fact."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    if not document["prepared"]:
        table.add_row("way back", "there is none: `cdc-migrator way-back prepare` makes one")
        return table
    counts = "what applications write on the target" if document["active"] else "nothing yet"
    table.add_row("way back", f"prepared, of {document['tables']} tables; leg {document['leg']}")
    if document["without"]:
        table.add_row("without", f"{', '.join(document['without'])}, as the mapping says")
    table.add_row("applies", counts)
    table.add_row("alive", "yes" if document["alive"] else "no: start `cdc-migrator run`")
    lag = document["lag_seconds"]
    table.add_row("behind", "unknown" if lag is None else f"{lag:.1f} s")
    table.add_row("passed over", f"{document['changes_ignored']:,} changes")
    if document["error"] is not None:
        table.add_row("error", Text(f"{document['error']['code']}: {document['error']['cause']}"))
        table.add_row("remedy", Text(document["error"]["remedy"]))
    return table
