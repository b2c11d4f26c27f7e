"""The settings of mappings: what becomes of a table's rows on the target, and where each stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cdc_migrator.config import document
from cdc_migrator.config.section import Section
from cdc_migrator.model.mapping import NO_BACK, Wanted, WantedHook

# ``schema.table``, or ``schema.*`` for all tables of a schema.
_TABLE = r"^[^.*]+\.(\*|[^*]+)$"
_Name = Annotated[str, Field(min_length=1)]
_Sql = Annotated[str, Field(min_length=1, pattern=r"\S")]


class HookMapping(Section):
    """A Python function that computes columns which SQL cannot say."""

    call: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="module:function; the module is beside migration.yaml, or on PYTHONPATH.",
    )
    reads: tuple[_Name, ...] = Field(
        min_length=1,
        description="What it is handed of each row: columns by the target's names, as `set`, "
        "`cast` and the rest make them; or columns of the source that do not go along, by their "
        "own names.",
    )
    gives: dict[_Name, _Sql] = Field(
        min_length=1, description="The columns of the target that it computes, and their types."
    )


class TableMapping(Section):
    """What becomes of a table's rows; a second one for the same table splits it."""

    table: str = Field(
        pattern=_TABLE,
        description="The table of the source, as schema.table; a partitioned one with all of its "
        "partitions. `shop.*` speaks of every table of a schema that no other entry names.",
    )
    to: str | None = Field(
        default=None,
        pattern=_TABLE,
        description="The table of the target; `crm.*` where `table` is a whole schema. Default: "
        "the same name.",
    )
    keep: tuple[_Name, ...] = Field(
        default=(), description="Only these columns of the source go along. Default: all."
    )
    drop: tuple[_Name, ...] = Field(default=(), description="All but these go along.")
    rename: dict[_Name, _Name] = Field(
        default_factory=dict, description="Columns of the source, and what the target calls them."
    )
    cast: dict[_Name, _Sql] = Field(
        default_factory=dict,
        description="Columns by the target's names, and the type that their values are brought to.",
    )
    set: dict[_Name, _Sql] = Field(
        default_factory=dict,
        description="Columns of the target, new ones or others' values, and an SQL expression over "
        "the source's row: its columns by their bare names, functions that are not PostgreSQL's "
        "own with their schema; immutable, so that both servers give the same.",
    )
    where: _Sql | None = Field(
        default=None,
        description="Only rows of which this SQL condition over the source's row is true. A row "
        "that an update moves out of it is deleted on the target, one that is moved in inserted.",
    )
    hook: HookMapping | None = Field(
        default=None, description="A Python function that computes columns which SQL cannot say."
    )

    back: Literal["none"] | dict[_Name, _Sql | None] = Field(
        default_factory=dict,
        description="On the way back, what columns of the source get of a row that comes from the "
        "target, where the mapping does not say it: SQL over the target's row; null: the column "
        "stays as it is. `none`: rows of this table do not come back, and that is accepted.",
    )
    leads: bool = Field(
        default=False,
        description="Of a table that is split: on the way back its rows come and go with those of "
        "this table of the target. Needed where several of them could.",
    )

    others: bool | None = Field(
        default=None,
        description="Of a table of the target that several tables come to: whether rows that none "
        "of them claims may be there. true: they are expected, and nothing looks at them. false, "
        "the default: a load refuses to begin beside them, `reconcile` finds them, and a repair "
        "deletes them.",
    )

    @model_validator(mode="after")
    def _speaks_of_something(self) -> TableMapping:
        if self.keep and self.drop:
            raise ValueError("keep and drop exclude each other: state one")
        whole = self.table.endswith(".*")
        if self.to is not None and self.to.endswith(".*") != whole:
            raise ValueError(
                "table and to must both be schema.table, or both a whole schema (shop.*, crm.*)"
            )
        if not self.model_fields_set - {"table", "back", "leads", "others"}:
            raise ValueError(
                "says nothing about the table: needs to, keep, drop, rename, cast, set, where or "
                "hook"
            )
        if self.leads and self.back == NO_BACK:
            raise ValueError("leads says of rows that come back what back: none says do not")
        if len(set(self.rename.values())) < len(self.rename):
            raise ValueError("rename gives two columns the same name")
        if self.hook is not None:
            if twice := sorted(self.hook.gives.keys() & {*self.set, *self.cast}):
                raise ValueError(f"{', '.join(twice)}: given by the hook, and by set or cast")
            if len(set(self.hook.reads)) < len(self.hook.reads):
                raise ValueError("the hook reads a column twice")
        return self

    def wanted(self) -> Wanted:
        """The same for the core."""
        return Wanted(
            self.table,
            self.to,
            self.keep,
            self.drop,
            self.rename,
            self.cast,
            self.set,
            self.where,
            WantedHook(self.hook.call, self.hook.reads, self.hook.gives) if self.hook else None,
            back=self.back,
            leads=self.leads,
            others=self.others,
        )


def told_apart(entries: Sequence[TableMapping]) -> None:
    """Raise ValueError where two entries take the same rows to the same table."""
    ways = Counter((one.table, one.to or one.table) for one in entries)
    for (table, to), count in ways.items():
        if count > 1:
            raise ValueError(
                f"{count} entries take {table} to {to}: a table that is split goes to "
                "a table of its own by each entry"
            )
    whole = Counter(one.table for one in entries if one.table.endswith(".*"))
    for table, count in whole.items():
        if count > 1:
            raise ValueError(f"{count} entries speak of {table}: name the tables that are split")


def places(path: Path | None) -> Callable[[int, str], str]:
    """Where a field of the entry with this number stands, for messages.

    Args:
        path: migration.yaml; None where there is none.
    """
    ours = document.read(path) if path is not None else None

    def place(number: int, field: str) -> str:
        # A column's name may have a dot in it.
        depth = 2 if field.startswith("hook.") else 1
        keys: document.KeyPath = ("mapping", number, *field.split(".", depth))
        key = f"mapping.{number}.{field}"
        return f"{ours.place(keys)}: {key}" if ours is not None else key

    return place
