"""The columns of one route: what both servers say of each expression, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TypeVar

import psycopg
from psycopg import sql

from cdc_migrator.databases.postgres import mapped, names
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.model.mapping import MappedColumn
from cdc_migrator.model.tables import Column, Table
from cdc_migrator.transform.bench import (
    MUTABLE,
    Bench,
    Known,
    Rejected,
    Typed,
    bench,
    has_type,
    type_named,
)
from cdc_migrator.transform.entries import Entry, Place, near
from cdc_migrator.transform.faults import Fault
from cdc_migrator.transform.shape import Draft

TEXTS = frozenset(f"pg_catalog.{name}" for name in ("text", "varchar", "bpchar"))
NAMED: Mapping[str, str] = {"source": "source", "target": "target"}
# A function, a type or a schema that the target gets later.
_TO_COME = frozenset({"42883", "42704", "3F000"})
_UNDEFINED_COLUMN = "42703"

_NAMES = (
    "An expression reads one row of the source: its columns by their bare names; functions that "
    "are not PostgreSQL's own have their schema and are on both servers."
)
_IMMUTABLE = (
    "An expression gives the same for the same row at any time: now() and random() do not, nor "
    "does what depends on a session's time zone or formats. Write (at AT TIME ZONE 'UTC')::date in "
    "place of at::date; declare a function of your own IMMUTABLE where it is; leave a type's own "
    "cast to `cast`."
)

Answer = TypeVar("Answer")


class Sides:
    """Both servers, each with a bench that is made when it is asked first.

    Attributes:
        foreseen: the target lacks what the schema step makes.
        called: what each is to the user: on the way back the rows come from the target.
    """

    def __init__(
        self,
        source: psycopg.Connection,
        target: psycopg.Connection,
        table: Table,
        stack: ExitStack,
        foreseen: bool,
        called: Mapping[str, str] = NAMED,
    ) -> None:
        self.called = called
        self._sessions = {"source": source, "target": target}
        self._table = table
        self._stack = stack
        self._benches: dict[str, Bench] = {}
        self.foreseen = foreseen

    def ask(self, side: str, question: Callable[[Bench], Answer]) -> Answer:
        """Ask one server. Raises Rejected as the question does, MigratorError where it failed."""
        with speaking(self.called[side], f"asking about the mapping of {self._table.name}"):
            if side not in self._benches:
                self._benches[side] = self._stack.enter_context(
                    bench(self._sessions[side], self._table, side == "source")
                )
            return question(self._benches[side])

    def type_named(self, side: str, text: str) -> Typed | None:
        with speaking(self.called[side], "reading its types"):
            return type_named(self._sessions[side], text)

    def lacks(self, column: Column) -> bool:
        """Whether the target does not have a column's type; it has PostgreSQL's own."""
        if "." not in column.type_text or self.foreseen:
            return False
        with speaking(self.called["target"], "reading its types"):
            return not has_type(self._sessions["target"], column.type_text)

    def later(self, rejected: Rejected) -> bool:
        """Whether the target says so only because it does not have everything yet."""
        if not self.foreseen:
            return False
        if rejected.sqlstate == _UNDEFINED_COLUMN:
            return bool(self._benches["target"].lacking)
        return rejected.sqlstate in _TO_COME


class Columns:
    """One entry's columns; faults are kept, not raised."""

    def __init__(self, entry: Entry, there: Table | None, sides: Sides, place: Place) -> None:
        self.entry = entry
        self._there = there
        self._sides = sides
        self._place = place
        self._expected = False
        self.faults: list[Fault] = []

    def column(self, draft: Draft) -> MappedColumn | None:
        """The column that a draft becomes; None where there is none, or something is wrong."""
        there: Column | None = None
        if self._there is not None:
            there = next((one for one in self._there.columns if one.name == draft.name), None)
            if there is None:
                self._absent(draft)
                return None
            if there.generated:
                if draft.of is None:
                    self.fault(
                        "CDCM-MAPPING-COLUMN",
                        draft.field,
                        f"{self.entry.target}.{draft.name} is generated there",
                        "Leave it out: the target computes it.",
                    )
                return None
        cast = self._cast(draft)
        if draft.of is not None:
            known = Known(
                Typed(draft.of.type_text, draft.of.base_type), (draft.of.name,), draft.of.name
            )
        else:
            asked = self._known(draft.field, draft.name, draft.expression, Bench.examine)
            if asked is None:
                return None
            known = asked
        uses = self._uses(known)
        if not self.usable(draft.field, draft.name, uses):
            return None
        kind, text = known.type, draft.expression
        to = Typed(there.type_text, there.base_type) if there is not None else cast or kind
        if cast is not None and cast.base != to.base:
            text, kind = f"({text}\n)::{cast.text}", cast
        same = known.of is not None and text == draft.expression and kind == to
        found = MappedColumn(draft.name, text, uses, known.of, to.text, to.base, not same)
        if same:
            return found
        if cast is None and not self._assigned(found, kind):
            self.fault(
                "CDCM-MAPPING-COLUMN",
                draft.field,
                f"{self.entry.target}.{draft.name} is {to.text}, which {kind.text} does not turn "
                "into by itself",
                f"Say so under `cast`, as {draft.name}: {to.text}; or write an expression.",
            )
            return None
        return found if self._stored(draft.field, found, kind) else None

    def given(
        self, name: str, type_text: str, expression: str, uses: tuple[str, ...]
    ) -> MappedColumn | None:
        """The column that a hook gives; None where something is wrong."""
        field, target = f"hook.gives.{name}", self.entry.target
        there = None
        if self._there is not None:
            there = next((one for one in self._there.columns if one.name == name), None)
            if there is None or there.generated:
                has = "has no column" if there is None else "computes its column"
                self.fault(
                    "CDCM-MAPPING-COLUMN",
                    field,
                    f"{target} {has} {name}",
                    "Let the hook give what the target takes.",
                )
                return None
        kind = self._cast(Draft(name, expression, None, type_text, field))
        if kind is None:
            return None
        if there is not None and kind.base != there.base_type:
            self.fault(
                "CDCM-MAPPING-COLUMN",
                field,
                f"{target}.{name} is {there.type_text}, and the hook gives {kind.text}",
                f"Write {name}: {there.type_text}.",
            )
            return None
        to = kind if there is None else Typed(there.type_text, there.base_type)
        return MappedColumn(name, expression, uses, None, to.text, to.base)

    def where(self) -> tuple[str, ...]:
        """The columns that the filter reads."""
        condition = self.entry.wanted.where
        if condition is None:
            return ()
        known = self._known("where", None, condition, Bench.condition)
        if known is None:
            return ()
        uses = self._uses(known)
        self.usable("where", None, uses)
        return uses

    def constants(self, columns: Sequence[MappedColumn]) -> dict[str, str]:
        """What columns get that read none of the source's, as text; without null."""
        found = {}
        for one in columns:
            if not one.uses and not self.faults:
                stored = mapped.stored(one)
                value = self._sides.ask("target", lambda b: b.constant(stored))  # noqa: B023
                if value is not None:
                    found[one.name] = value
        return found

    def fault(self, code: str, field: str, message: str, remedy: str) -> None:
        """Keep what is wrong with a field of the entry."""
        self.faults.append(Fault(code, self._place(self.entry.number, field), message, remedy))

    def _absent(self, draft: Draft) -> None:
        assert self._there is not None
        target = self.entry.target
        meant = near(draft.name, [one.name for one in self._there.columns])
        self.fault(
            "CDCM-MAPPING-COLUMN",
            draft.field,
            f"{target} has no column {draft.name}{meant}",
            "Drop it, rename it to one that is there, or add the column on the target.",
        )

    def _cast(self, draft: Draft) -> Typed | None:
        """The type of the user's, where one of the servers has it."""
        if draft.cast is None:
            return None
        for side in ("target", "source"):
            found = self._sides.type_named(side, draft.cast)
            if found is not None:
                return found
        self.fault(
            "CDCM-MAPPING-TYPE",
            f"cast.{draft.name}" if draft.name in self.entry.wanted.cast else draft.field,
            f"neither server has a type {draft.cast}",
            "Name a type with its schema, unless it is PostgreSQL's own.",
        )
        return None

    def _known(
        self, field: str, name: str | None, text: str, question: Callable[[Bench, str], Known]
    ) -> Known | None:
        """What both servers say of an expression, if they say the same."""
        try:
            here = self._sides.ask("source", lambda one: question(one, text))
        except Rejected as rejected:
            self._refused(field, name, "source", rejected)
            return None
        if not self.usable(field, name, here.uses or ()):
            return None
        try:
            there = self._sides.ask("target", lambda one: question(one, text))
        except Rejected as rejected:
            if self._sides.later(rejected):
                return here
            self._refused(field, name, "target", rejected)
            return None
        if here.type.base != there.type.base:
            self.fault(
                "CDCM-MAPPING-EXPRESSION",
                field,
                f"{self._called(name)} is {here.type.text} on the {self._sides.called['source']} "
                f"and {there.type.text} on the {self._sides.called['target']}",
                "The functions in it differ: give them the same definition, or cast to one type.",
            )
            return None
        return there

    def _refused(self, field: str, name: str | None, side: str, rejected: Rejected) -> None:
        self.fault(
            "CDCM-MAPPING-EXPRESSION",
            field,
            f"{self._called(name)}: the {self._sides.called[side]} says: {rejected.told}",
            _IMMUTABLE if rejected.sqlstate == MUTABLE else _NAMES,
        )

    def _called(self, name: str | None) -> str:
        what = f"column {name}" if name is not None else "the filter"
        return f"{self.entry.table.name}, {what}"

    def _uses(self, known: Known) -> tuple[str, ...]:
        """Where neither server could tell, any column may be among them."""
        if known.uses is not None:
            return known.uses
        return tuple(one.name for one in self.entry.table.carried)

    def usable(self, field: str, name: str | None, uses: Sequence[str]) -> bool:
        """Whether the columns that an expression reads are in the stream, and the target knows
        their types."""
        before = len(self.faults)
        for one in uses:
            column = self.entry.table.column(one)
            if column.generated:
                self.fault(
                    "CDCM-MAPPING-EXPRESSION",
                    field,
                    f"{self._called(name)} reads {one}, which is generated: its values do not "
                    "travel",
                    f"Write what {one} is made of in its place.",
                )
            elif self._sides.lacks(column):
                self.fault(
                    "CDCM-MAPPING-TYPE",
                    field,
                    f"{self._called(name)} reads {one}, whose type {column.type_text} the "
                    f"{self._sides.called['target']} lacks",
                    f"Make the type on the {self._sides.called['target']}: values of the stream "
                    "are read there as what they are where they come from.",
                )
        return len(self.faults) == before

    def _assigned(self, found: MappedColumn, kind: Typed) -> bool:
        """Whether the target takes a value of this kind without being told to."""
        if kind.base == found.base_type:
            return True
        # What both servers do not have travels as text: types that are another's twin read it.
        if not found.common and (kind.base in TEXTS or not kind.base.startswith("pg_catalog.")):
            return True
        there = self._there
        if there is not None and not self._expected:
            columns = [(one.name, one.type_text) for one in there.columns if not one.generated]
            self._sides.ask("target", lambda one: one.expect(columns))
            self._expected = True
        try:
            self._sides.ask("target", lambda one: one.assign(found.name, found.expression))
        except Rejected as rejected:
            return self._sides.later(rejected)
        return True

    def _stored(self, field: str, found: MappedColumn, kind: Typed) -> bool:
        """Whether both servers make the target's value of it, and the same under all settings."""
        value = mapped.stored(found)
        own = kind.base.startswith("pg_catalog.") or not found.common or found.base_type in TEXTS
        for side in ("source", "target"):
            try:
                self._sides.ask(side, lambda one: one.accepts(value))
                if side == "target" and not found.common:
                    read = sql.SQL("{}::{}").format(value, names.type_name(found.type_text))
                    self._sides.ask(side, lambda one: one.accepts(read))  # noqa: B023
                # PostgreSQL's own casts depend on nothing but settings that every session pins.
                pinned = own or self._sides.ask(side, lambda one: one.pinned(value))
            except Rejected as rejected:
                if side == "target" and self._sides.later(rejected):
                    continue
                self._refused(field, found.name, side, rejected)
                return False
            if not pinned:
                told = f"the cast from {kind.text} to {found.type_text} is not immutable"
                self._refused(field, found.name, side, Rejected(None, told))
                return False
        return True
