"""Routes: how the rows of a table of the source become rows of a table of the target.

A table without a route goes to the table of the same name, column by column. A route is worked out
once, when the migration begins (`transform`), and kept with its table: loading, applying and
comparing all read the same one.

Expressions are SQL over the source's row: its columns by their bare names, everything else
schema-qualified but for what is in pg_catalog. They are immutable, so that both servers give the
same for the same row. What SQL cannot say is said by a function of the user's, the hook: it reads
values that SQL has made, and what it gives stands behind the names of `given` in expressions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cdc_migrator.model.tables import TableName


@dataclass(frozen=True, slots=True)
class MappedColumn:
    """One column of the target and the expression that it gets.

    Attributes:
        expression: SQL over the source's row, as it was written; a column of the source quoted
            where that is needed.
        uses: the columns of the source that the expression reads.
        of: the column of the source that it is, as it is or in another type; None where it is
            computed.
        type_text, base_type: of the target's column, as in `model.tables.Column`.
        cast: the value is brought to the target's type before it is written: False where the
            expression is a column of just that type.
    """

    name: str
    expression: str
    uses: tuple[str, ...]
    of: str | None
    type_text: str
    base_type: str
    cast: bool = True

    @property
    def common(self) -> bool:
        """Whether both servers have the type; where not, the value travels as text."""
        return not self.cast or self.base_type.startswith("pg_catalog.")


@dataclass(frozen=True, slots=True)
class Kept:
    """A column that a route leaves as it is.

    Attributes:
        default: SQL of what a new row gets, if anything.
        by_key: another route writes it: it stays with its key, not with a row that moves.
    """

    name: str
    default: str | None
    by_key: bool = False


@dataclass(frozen=True, slots=True)
class Turned:
    """A column whose value came from another one and goes back to it: cast or computed both ways.

    As long as the row there is what the row here was turned into, the value here stays: going
    there and back may round it.

    Attributes:
        name: of the column that is written.
        uses: the columns that its expression reads of the row that comes back.
        turned: SQL over the row that it is written to: what that row makes of these, as one text.
        again: SQL over that row: what its own value would come back as.
    """

    name: str
    uses: tuple[str, ...]
    turned: str
    again: str


@dataclass(frozen=True, slots=True)
class Returning:
    """What a route of the way back knows beside its columns.

    Its rows are written to a table that has more than it carries, and that had them before.

    Attributes:
        part: another route's rows come and go with those of the table; this one's only have columns
            of them, which are empty where it has no row.
        apart: SQL over the key of the row that comes back, true of those that are this route's:
            others write to other tables. None: all are.
        kept: columns that it leaves as they are.
        turned: columns that went there by more than their own value.
        texts: columns that are read as text, because their type is not where they are written.
    """

    part: bool = False
    apart: str | None = None
    kept: tuple[Kept, ...] = ()
    turned: tuple[Turned, ...] = ()
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bound:
    """Which rows a partition has, where all partitions of a table go to one.

    Attributes:
        condition: SQL over the target's row, true of those that the partition has.
        columns: those of the target that it reads; all of them part of the key, if there is one.
        whole: the partitioned table that an entry speaks of.
    """

    condition: str
    columns: tuple[str, ...]
    whole: TableName


@dataclass(frozen=True, slots=True)
class Hook:
    """A function of the user's that computes columns of the target.

    Attributes:
        call: ``module:function``.
        reads: what it is handed of each row, under these names: what SQL makes of the source's row,
            as the target would hold it.
        gives: the columns that it computes, the last ones of its route.
        digest: of the module's file when the route was worked out: another one is another function.
    """

    call: str
    reads: tuple[MappedColumn, ...]
    gives: tuple[str, ...]
    digest: str


def given(place: int) -> str:
    """The name that expressions have for what the hook gives at this place, a text."""
    return f"cdcm_given_{place}"


@dataclass(frozen=True, slots=True)
class Route:
    """Where rows of a table go, and as what.

    Attributes:
        source: the table of the source. Where it is split, each of its routes has this one.
        columns: those of the target that are written, in the order in which rows travel.
        key: those that tell rows apart on the target, computed from nothing but the source's key;
            empty where the source's table has none.
        where: SQL over the source's row; only rows of which it is true are on the target.
        where_uses: the columns of the source that it reads.
        belongs: SQL over the target's row that is true of this route's rows, where others write to
            the same table; None: all of its rows are this one's.
        back: of a route of the way back over more than other names. `where` and `belongs` say then
            which rows are compared: what applies writes all that are `back.apart`.
        hook: what computes the last columns; None: all of them are SQL's.
        bound: of a partition whose table is mapped as a whole; `belongs` says it as well.
        divided: the target's table is partitioned.
    """

    source: TableName
    target: TableName
    columns: tuple[MappedColumn, ...]
    key: tuple[str, ...]
    where: str | None = None
    where_uses: tuple[str, ...] = ()
    belongs: str | None = None
    back: Returning | None = None
    hook: Hook | None = None
    bound: Bound | None = None
    divided: bool = False

    @property
    def made(self) -> tuple[MappedColumn, ...]:
        """The columns that SQL makes of the source's row alone."""
        return self.columns[: len(self.columns) - len(self.given)]

    @property
    def given(self) -> tuple[MappedColumn, ...]:
        """The columns that the hook gives."""
        return self.columns[-len(self.hook.gives) :] if self.hook is not None else ()

    @property
    def claims_rest(self) -> bool:
        """Whether it brings nothing: its rows of the target are those that no other route to the
        same table claims."""
        return not self.columns

    @property
    def reads(self) -> frozenset[str]:
        """The columns of the source that anything of it reads."""
        return frozenset(self.where_uses).union(*(column.uses for column in self.columns))

    def column(self, name: str) -> MappedColumn:
        """The column of the target with this name; raises KeyError if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    @property
    def telling(self) -> tuple[str, ...]:
        """The key without what all of its rows have in common."""
        return tuple(name for name in self.key if self.column(name).uses)

    @property
    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "source": [self.source.schema, self.source.name],
            "target": [self.target.schema, self.target.name],
            "columns": [_column_document(one) for one in self.columns],
            "key": list(self.key),
            "where": self.where,
            "where_uses": list(self.where_uses),
            "belongs": self.belongs,
            **({"bound": _bound_document(self.bound)} if self.bound is not None else {}),
            **({"divided": True} if self.divided else {}),
            **({"back": asdict(self.back)} if self.back is not None else {}),
            "hook": None
            if self.hook is None
            else {
                "call": self.hook.call,
                "reads": [_column_document(one) for one in self.hook.reads],
                "gives": list(self.hook.gives),
                "digest": self.hook.digest,
            },
        }


def _column_document(one: MappedColumn) -> dict[str, Any]:
    return {
        "name": one.name,
        "expression": one.expression,
        "uses": list(one.uses),
        "of": one.of,
        "type": one.type_text,
        "base_type": one.base_type,
        "cast": one.cast,
    }


def _read_column(document: Mapping[str, Any]) -> MappedColumn:
    return MappedColumn(
        name=document["name"],
        expression=document["expression"],
        uses=tuple(document["uses"]),
        of=document["of"],
        type_text=document["type"],
        base_type=document["base_type"],
        cast=document["cast"],
    )


def read(document: Mapping[str, Any]) -> Route:
    """A route from its JSON."""
    return Route(
        source=TableName(*document["source"]),
        target=TableName(*document["target"]),
        columns=tuple(map(_read_column, document["columns"])),
        key=tuple(document["key"]),
        where=document["where"],
        where_uses=tuple(document["where_uses"]),
        belongs=document["belongs"],
        back=_returning(document["back"]) if "back" in document else None,
        # Routes of earlier releases say nothing of one.
        hook=_read_hook(hook) if (hook := document.get("hook")) else None,
        bound=_bound(document["bound"]) if "bound" in document else None,
        divided=document.get("divided", False),
    )


def _bound_document(one: Bound) -> dict[str, Any]:
    return {**asdict(one), "whole": [one.whole.schema, one.whole.name]}


def _bound(document: Mapping[str, Any]) -> Bound:
    return Bound(document["condition"], tuple(document["columns"]), TableName(*document["whole"]))


def _returning(document: Mapping[str, Any]) -> Returning:
    return Returning(
        part=document["part"],
        apart=document["apart"],
        kept=tuple(Kept(**one) for one in document["kept"]),
        turned=tuple(Turned(**{**one, "uses": tuple(one["uses"])}) for one in document["turned"]),
        texts=tuple(document["texts"]),
    )


def _read_hook(document: Mapping[str, Any]) -> Hook:
    return Hook(
        document["call"],
        tuple(map(_read_column, document["reads"])),
        tuple(document["gives"]),
        document["digest"],
    )


def called(route: Route, first: bool) -> TableName:
    """The name under which the migration knows a route.

    That of its source's table; further routes of a table that is split are told apart by where
    they go.
    """
    if first:
        return route.source
    return TableName(route.source.schema, f"{route.source.name} -> {route.target}")


# `Wanted.back` of a table whose rows do not come back.
NO_BACK = "none"


@dataclass(frozen=True, slots=True)
class WantedHook:
    """A function of the user's that computes columns.

    Attributes:
        call: ``module:function``.
        reads: columns by the target's names; or by their own, of the source's that do not go along.
        gives: columns of the target, and their types.
    """

    call: str
    reads: tuple[str, ...]
    gives: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user says of one table, or of all tables of a schema.

    Attributes:
        table: ``schema.table`` of the source, perhaps a partitioned one, whose partitions it speaks
            of; ``schema.*`` for every table that nothing else names.
        to: ``schema.table`` of the target, or ``schema.*``; None: the same.
        keep: only these columns of the source; empty: all but those of `drop`.
        rename: columns of the source with their names on the target.
        cast: columns, by their names on the target, with the type that their values are brought to.
        set: columns of the target with an SQL expression over the source's row.
        where: only rows of which this SQL over the source's row is true.
        back: what columns of the source get of a row that comes back, as SQL over the target's row;
            None: they are left as they are. NO_BACK: the table's rows do not come back at all. It
            changes nothing of what the target holds, so two that differ in it say the same.
        leads: where several tables make one row of the source, the row comes and goes with this
            one's. False for all: with that of the only one that can.
        others: in the target's table, which several tables come to, there may be rows that none of
            them claims. False: such a row is a difference. None: nothing is said of it. It may be
            said otherwise later.
        hook: computes columns that SQL cannot say.
    """

    table: str
    to: str | None = None
    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    cast: Mapping[str, str] = field(default_factory=dict)
    set: Mapping[str, str] = field(default_factory=dict)
    where: str | None = None
    hook: WantedHook | None = None
    back: Mapping[str, str | None] | str = field(default_factory=dict, compare=False)
    leads: bool = field(default=False, compare=False)
    others: bool | None = field(default=None, compare=False)

    @property
    def given(self) -> Mapping[str, str | None]:
        """What is said of columns of rows that come back."""
        return {} if isinstance(self.back, str) else self.back
