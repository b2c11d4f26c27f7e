"""Which columns a table gets on the target, by what its entry says. Pure: asks no server."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cdc_migrator.model.tables import Column, Table
from cdc_migrator.transform.entries import Entry, Place, near
from cdc_migrator.transform.faults import Fault


@dataclass(frozen=True, slots=True)
class Draft:
    """A column of the target before any server was asked.

    Attributes:
        expression: of the source's row, as it was written.
        of: the column that it plainly is; None: an expression of the user's.
        cast: the type that it is brought to, as it was written.
        field: where in its entry it stands.
    """

    name: str
    expression: str
    of: Column | None
    cast: str | None
    field: str


def quoted(name: str) -> str:
    """A column's name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def drafts(entry: Entry, place: Place) -> tuple[list[Draft], list[Fault]]:
    """The columns in the source's order, then those of `set` in the file's; and what is wrong."""
    table, wanted = entry.table, entry.wanted
    faults: list[Fault] = []

    def fault(field: str, message: str, remedy: str) -> None:
        faults.append(Fault("CDCM-MAPPING-COLUMN", place(entry.number, field), message, remedy))

    known = {one.name: one for one in table.columns}
    for field, named in (("keep", wanted.keep), ("drop", wanted.drop), ("rename", wanted.rename)):
        for name in named:
            if name not in known:
                fault(
                    f"{field}.{name}" if field == "rename" else field,
                    f"{table.name} has no column {name}{near(name, known)}",
                    "Name columns of the source's table.",
                )
    for name in wanted.keep:
        if name in known and known[name].generated:
            fault(
                "keep",
                f"{table.name}.{name} is generated: its values do not travel",
                "Give its expression under `set`, or let the target generate it.",
            )
    columns = [one for one in _kept(table, entry) if not one.generated]
    for name in wanted.rename:
        if name in known and all(one.name != name for one in columns):
            fault(
                f"rename.{name}",
                f"{table.name}.{name} is renamed, but does not go along",
                "Keep it, or take it out of `rename`.",
            )
    found: dict[str, Draft] = {}
    for one in columns:
        name = wanted.rename.get(one.name, one.name)
        if name in found:
            fault(
                f"rename.{one.name}" if one.name in wanted.rename else "rename",
                f"two columns of {table.name} would be called {name}",
                "Rename or drop one of them.",
            )
        field = f"rename.{one.name}" if one.name in wanted.rename else "table"
        found[name] = Draft(name, quoted(one.name), one, None, field)
    for name, expression in wanted.set.items():
        found[name] = Draft(name, expression, None, None, f"set.{name}")
    for name, type_text in wanted.cast.items():
        if name in found:
            field = f"cast.{name}"
            found[name] = replace(
                found[name],
                cast=type_text,
                field=field if found[name].of is not None else found[name].field,
            )
        else:
            fault(
                f"cast.{name}",
                f"no column {name} goes to {entry.target}{near(name, found)}",
                "Casts name columns as the target calls them.",
            )
    if not found:
        fault("table", f"no column of {table.name} is left", "Keep some, or add some by `set`.")
    return list(found.values()), faults


def _kept(table: Table, entry: Entry) -> list[Column]:
    if entry.wanted.keep:
        return [one for one in table.columns if one.name in entry.wanted.keep]
    return [one for one in table.columns if one.name not in entry.wanted.drop]
