"""The statements that make a part, or drop parts and make them again. Decides only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from enum import IntEnum

from cdc_migrator.backfill.diff.grants import given
from cdc_migrator.backfill.diff.scope import dependents, needed_by, places
from cdc_migrator.model.parts import Catalog, Key, Part, Statement


class Stage(IntEnum):
    """When a statement runs among those of a whole comparison."""

    DROP_FIRST = 0  # what stands in the way of changes
    DEFINE = 1
    DROP_LAST = 2  # what something else may still use until it is changed
    AFTER = 3


# They live off tables, types and functions, hold no rows, and block changes of those.
REBUILT = frozenset(
    {"view", "materialized view", "function", "procedure", "aggregate", "trigger", "rule"}
    | {"policy", "constraint", "index", "statistics"}
)
# PostgreSQL rebuilds keys and indexes itself where a column's type changes.
REBUILT_FOR_TYPE = REBUILT - {"constraint", "index", "statistics"}
_HOLDING = ("table", "column", "sequence", "enumeration", "domain", "composite type")
_DROPPED_LAST = (*_HOLDING, "range type", "attribute", "function", "schema", "extension")


class Maker:
    """Statements about the parts of two catalogs, each with its place among all."""

    def __init__(self, source: Catalog, target: Catalog) -> None:
        self.source = source
        self.target = target
        self._made = places(source)
        self._there = places(target)
        self._needed = needed_by(target)
        self.owned = by_owner(source)
        self.owned_there = by_owner(target)

    def define(self, part: Part, *statements: str) -> list[Statement]:
        """Statements that define something at the source's part."""
        return [Statement((Stage.DEFINE, 2 * self._made[part.key]), sql) for sql in statements]

    def say(self, part: Part) -> Statement:
        """The statement that sets the part's comment, after all that may make it anew."""
        return Statement((Stage.DEFINE, 2 * self._made[part.key] + 1), comment(part))

    def grant(self, part: Part, there: Part | None = None) -> list[Statement]:
        """The statements that set who may do what with the part, after it is made anew."""
        place = (Stage.DEFINE, 2 * self._made[part.key] + 1)
        return [Statement(place, sql) for sql in given(part, there)]

    def after(self, part: Part, *statements: str) -> list[Statement]:
        """Statements that run when everything else is there."""
        return [Statement((Stage.AFTER, self._made[part.key]), sql) for sql in statements]

    def make(self, part: Part) -> list[Statement]:
        """The whole part with its comment and all that belongs to it."""
        statements = self.define(part, *self._create(part))
        if part.kind == "sequence" and "owned by" in part.attributes:
            statements += self.after(part, owned_by(part))
        if part.kind == "table":
            statements += self.define(part, *row_security(part))
        if "comment" in part.attributes:
            statements.append(self.say(part))
        statements += self.grant(part)
        if part.owner is None:
            for one in self.owned.get(part.name, ()):
                if one.kind not in ("column", "attribute", "view column"):
                    statements += self.make(one)
                    continue
                if "comment" in one.attributes:
                    statements.append(self.say(one))
                statements += self.grant(one)
        return sorted(statements, key=lambda statement: statement.place)

    def drop(self, part: Part, *, destructive: bool) -> Statement:
        """The statement that drops a part of the target."""
        stage = Stage.DROP_LAST if part.kind in _DROPPED_LAST else Stage.DROP_FIRST
        return Statement((stage, -self._there[part.key]), part.drop, destructive)

    def rebuild(
        self,
        roots: Collection[Key],
        kinds: frozenset[str] = REBUILT,
        *,
        itself: bool = True,
        destructive: bool = False,
    ) -> list[Statement]:
        """Drop of the target whatever lives off these parts, and make it as the source has it.

        Args:
            roots: parts of the target.
            kinds: of what is dropped; what belongs to a dropped relation goes with it.
            itself: drop and make the roots, too.
            destructive: the roots are dropped for good, or with rows in them.
        """
        fallen = dependents(self.target, self._needed, roots, _falling(kinds))
        if any(key[0] == "column" for key in fallen):
            # Where a generated column falls, keys and indexes fall with it.
            fallen = dependents(self.target, self._needed, roots, _falling(kinds | REBUILT))
        fallen |= set(roots if itself else ())
        statements = []
        names = {key[1] for key in (*fallen, *roots)}
        for key in fallen:
            there = self.target.parts[key]
            if there.owner not in names:
                # Early, whatever it is: something that needs its name comes right after.
                statements.append(
                    Statement(
                        (Stage.DROP_FIRST, -self._there[key]),
                        there.drop,
                        destructive and key in roots,
                    )
                )
        for key in fallen:
            part = self.source.parts.get(key)
            if part is not None and part.owner not in names:
                statements += self.add(part) if part.kind == "column" else self.make(part)
        statements += self._defaults(fallen)
        return unique(sorted(statements, key=lambda statement: statement.place))

    def _defaults(self, fallen: Collection[Key]) -> list[Statement]:
        """Take the defaults that call a falling function away, and set the source's afterwards."""
        functions = {key for key in fallen if key[0] == "function"}
        statements = []
        for key in {key for function in functions for key in self._needed[function]}:
            there, part = self.target.parts[key], self.source.parts.get(key)
            if there.kind == "column" and key not in fallen:
                place = (Stage.DROP_FIRST, -self._there[key])
                statements.append(Statement(place, alter_column(there, "default", None)))
                if part is not None and "default" in part.attributes:
                    default = part.attributes["default"]
                    statements += self.define(part, alter_column(part, "default", default))
        return statements

    def add(self, column: Part) -> list[Statement]:
        """A column that its table lacks."""
        statements = self.define(
            column, f"ALTER TABLE {column.owner} ADD COLUMN {column.facts['definition']}"
        )
        if "comment" in column.attributes:
            statements.append(self.say(column))
        return statements

    def _create(self, part: Part) -> Iterable[str]:
        if part.kind == "table":
            return self._table(part)
        return part.create

    def _table(self, table: Part) -> list[str]:
        columns = [one for one in self.owned.get(table.name, ()) if one.kind == "column"]
        columns.sort(key=lambda one: int(one.facts["place"]))
        said = table.attributes
        unlogged = "UNLOGGED " if said["persistence"] == "unlogged" else ""
        more = f" PARTITION BY {said['partition key']}" if "partition key" in said else ""
        more += f" WITH ({said['options']})" if "options" in said else ""
        if table.facts["partition"]:
            made = f"PARTITION OF {said['parent']} {said['partition bound']}"
            return [
                f"CREATE {unlogged}TABLE {table.name} {made}{more}",
                *(sql for one in columns for sql in self._own_of_partition(one, said["parent"])),
            ]
        local = [one for one in columns if one.facts["local"]]
        inherits = f" INHERITS ({said['parent']})" if "parent" in said else ""
        lines = ",\n    ".join(one.facts["definition"] for one in local)
        return [f"CREATE {unlogged}TABLE {table.name} (\n    {lines}\n){inherits}{more}"]

    def _own_of_partition(self, column: Part, parent: str) -> Iterable[str]:
        above = self.source.parts.get(("column", f"{parent}.{column.facts['column']}"))
        if above is None or "generated" in column.attributes:
            return
        for attribute in ("default", "not null"):
            said = column.attributes.get(attribute)
            if said != above.attributes.get(attribute):
                yield alter_column(column, attribute, said)


def _falling(kinds: Collection[str]) -> Callable[[Part], bool]:
    return lambda part: part.kind in kinds or "generated" in part.attributes


def by_owner(catalog: Catalog) -> dict[str, list[Part]]:
    """The parts that belong to each relation, domain or composite type."""
    owned: dict[str, list[Part]] = {}
    for part in catalog.parts.values():
        if part.owner is not None:
            owned.setdefault(part.owner, []).append(part)
    return owned


def unique(statements: Iterable[Statement]) -> list[Statement]:
    return list({statement.sql: statement for statement in reversed(list(statements))}.values())[
        ::-1
    ]


def literal(text: str) -> str:
    """A string for SQL, under ``standard_conforming_strings``."""
    return "'" + text.replace("'", "''") + "'"


def comment(part: Part) -> str:
    """The statement that sets the part's comment, or takes it away."""
    text = part.attributes.get("comment")
    return f"COMMENT ON {part.address} IS {'NULL' if text is None else literal(text)}"


def owned_by(sequence: Part) -> str:
    """The statement that says which column a sequence belongs to."""
    return f"ALTER SEQUENCE {sequence.name} OWNED BY {sequence.attributes.get('owned by', 'NONE')}"


def row_security(table: Part) -> list[str]:
    """The statements that switch a new table's row security on."""
    words = []
    if "row security" in table.attributes:
        words.append("ENABLE")
    if "row security for owner" in table.attributes:
        words.append("FORCE")
    return [f"ALTER TABLE {table.name} {word} ROW LEVEL SECURITY" for word in words]


def alter_column(column: Part, attribute: str, value: str | None) -> str:
    """The statement that sets a column's default or its NOT NULL."""
    if attribute == "not null":
        change = f"{'SET' if value == 'yes' else 'DROP'} NOT NULL"
    else:
        change = "DROP DEFAULT" if value is None else f"SET DEFAULT {value}"
    return f"ALTER TABLE {column.owner} ALTER COLUMN {column.facts['column']} {change}"
