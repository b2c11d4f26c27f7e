"""What brings the target in line with the source, for each kind and attribute. Decides only."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cdc_migrator.backfill.diff.make import (
    REBUILT,
    REBUILT_FOR_TYPE,
    Maker,
    alter_column,
    literal,
    owned_by,
    unique,
)
from cdc_migrator.backfill.diff.severity import same_family
from cdc_migrator.model.parts import Catalog, Part, Statement

_OLD = "cdc_migrator_old"
_OPTION = re.compile(r"START WITH|INCREMENT BY|MINVALUE|MAXVALUE|CACHE|NO CYCLE|CYCLE")

Statements = tuple[Statement, ...]


class Mender:
    """The statements for one difference at a time; places hold among all of them."""

    def __init__(self, source: Catalog, target: Catalog) -> None:
        self._maker = Maker(source, target)
        self._target = target
        self.owned = self._maker.owned
        self.owned_there = self._maker.owned_there

    def make(self, part: Part) -> Statements:
        """The target lacks `part` of the source."""
        if part.kind == "column":
            return tuple(self._maker.add(part))
        return tuple(self._maker.make(part))

    def remove(self, part: Part) -> Statements:
        """The target has `part`, and the source does not."""
        kinds = REBUILT_FOR_TYPE if part.kind == "column" else REBUILT
        around = self._maker.rebuild([part.key], kinds, itself=False)
        drop = self._maker.drop(part, destructive=True)
        return tuple(sorted([*around, drop], key=lambda statement: statement.place))

    def rename(self, part: Part, there: Part) -> Statements:
        """A constraint or index has another name on the target."""
        local = part.facts["local name"]
        if part.kind == "index":
            sql = f"ALTER INDEX {there.name} RENAME TO {local}"
        else:
            old = there.facts["local name"]
            sql = f"ALTER {part.facts['altering']} RENAME CONSTRAINT {old} TO {local}"
        return tuple(self._maker.define(part, sql))

    def change(self, part: Part, there: Part, attribute: str) -> Statements:
        """Both have it, with another value of `attribute`."""
        if attribute == "comment":
            return (self._maker.say(part),)
        if attribute == "grants":
            return tuple(self._maker.grant(part, there))
        said = part.attributes.get(attribute)
        match part.kind:
            case "column":
                return tuple(self._column(part, there, attribute))
            case "table":
                return tuple(self._table(part, there, attribute))
            case "attribute":
                sql = f"ALTER TYPE {part.owner} ALTER ATTRIBUTE {part.facts['column']} TYPE "
                return tuple(self._maker.define(part, f"{sql}{_typed(part)} CASCADE"))
            case "enumeration" | "domain" | "range type":
                return tuple(self._type(part, there, attribute))
            case "sequence" if attribute == "owned by":
                return tuple(self._maker.after(part, owned_by(part)))
            case "sequence":
                altered = part.create[0].replace("CREATE", "ALTER", 1)
                return tuple(self._maker.define(part, altered))
            case "extension":
                sql = f"ALTER {part.address} UPDATE TO {literal(said or '')}"
                return tuple(self._maker.define(part, sql))
            case "trigger" | "rule" if attribute == "fires":
                return tuple(self._maker.define(part, part.facts["fire"]))
            case "function" | "procedure" if attribute == "definition":
                return tuple(self._maker.define(part, *part.create))
            case "view" | "materialized view" if attribute == "options":
                return tuple(self._maker.define(part, *_options(part, there)))
            case "materialized view" if attribute == "populated":
                how = "" if said == "yes" else " WITH NO DATA"
                sql = f"REFRESH MATERIALIZED VIEW {part.name}{how}"
                return tuple(self._maker.after(part, sql))
        return tuple(self._again(part, there))

    def _again(self, part: Part, there: Part) -> list[Statement]:
        """Drop it and make it, under its own name whatever the target calls it."""
        if part.key == there.key:
            return self._maker.rebuild([there.key])
        return [self._maker.drop(there, destructive=False), *self._maker.make(part)]

    def _column(self, part: Part, there: Part, attribute: str) -> Iterable[Statement]:
        said, found = part.attributes.get(attribute), there.attributes.get(attribute)
        alter = f"ALTER TABLE {part.owner} ALTER COLUMN {part.facts['column']}"
        match attribute:
            case "type" | "collation":
                return self._retype(part, there)
            case "not null":
                return self._maker.define(part, alter_column(part, attribute, said))
            case "default":
                # Neither beside the other: a column has an identity or a default.
                first = (
                    [f"{alter} DROP IDENTITY IF EXISTS"] if "identity" in there.attributes else []
                )
                return self._maker.define(part, *first, alter_column(part, attribute, said))
            case "identity" if said is None:
                return self._maker.define(part, f"{alter} DROP IDENTITY IF EXISTS")
            case "identity" if found is None:
                options = part.attributes["identity options"]
                return self._maker.define(
                    part,
                    f"{alter} DROP DEFAULT",
                    f"{alter} SET NOT NULL",
                    f"{alter} ADD GENERATED {(said or '').upper()} AS IDENTITY ({options})",
                )
            case "identity":
                return self._maker.define(part, f"{alter} SET GENERATED {(said or '').upper()}")
            case "identity options":
                options = _OPTION.sub(lambda found: f"SET {found[0]}", said or "")
                return self._maker.define(part, f"{alter} {options}")
            case _ if said is None and there.attributes.get("generated kind") == "stored":
                return self._maker.define(part, f"{alter} DROP EXPRESSION IF EXISTS")
        return self._maker.rebuild([there.key], destructive="generated" not in there.attributes)

    def _retype(self, part: Part, there: Part) -> list[Statement]:
        """Change a column's type, without what the type's change stumbles over."""
        if "generated" in part.attributes:
            return self._maker.rebuild([there.key])
        around = self._maker.rebuild([there.key], REBUILT_FOR_TYPE, itself=False)
        return sorted([*around, *self._alter_type(part, there)], key=lambda one: one.place)

    def _alter_type(self, part: Part, there: Part) -> list[Statement]:
        column, type_ = part.facts["column"], part.attributes["type"]
        alter = f"ALTER TABLE {part.owner} ALTER COLUMN {column}"
        # Without USING a value that does not fit is refused; with it, a cast might cut it.
        using = f" USING {column}::text::{type_}"
        if same_family(type_, there.attributes["type"]):
            using = ""
        statements = [f"{alter} TYPE {_typed(part)}{using}"]
        if "default" in there.attributes:
            statements.insert(0, f"{alter} DROP DEFAULT")
            if "default" in part.attributes:
                statements.append(f"{alter} SET DEFAULT {part.attributes['default']}")
        return self._maker.define(part, *statements)

    def _type(self, part: Part, there: Part, attribute: str) -> Iterable[Statement]:
        said = part.attributes.get(attribute)
        if part.kind == "domain" and attribute == "default":
            change = "DROP DEFAULT" if said is None else f"SET DEFAULT {said}"
            return self._maker.define(part, f"ALTER DOMAIN {part.name} {change}")
        if part.kind == "domain" and attribute == "not null":
            change = "SET" if said == "yes" else "DROP"
            return self._maker.define(part, f"ALTER DOMAIN {part.name} {change} NOT NULL")
        if part.kind == "enumeration":
            ours, theirs = part.facts["labels"], there.facts["labels"]
            if [label for label in ours if label in theirs] == theirs:
                return self._maker.define(part, *_more_labels(part.name, ours, theirs))
        return self._type_anew(part, there)

    def _type_anew(self, part: Part, there: Part) -> list[Statement]:
        """Put another type in the place of one that cannot be altered so far."""
        used = (part.name, f"{part.name}[]")
        columns = [
            (ours, column)
            for column in self._target.parts.values()
            if column.kind == "column"
            and column.attributes["type"] in used
            and (ours := self._maker.source.parts.get(column.key)) is not None
            and not column.facts["inherited"]
        ]
        roots = [there.key, *(column.key for _, column in columns)]
        made = [one.sql for one in self._maker.make(part)]
        moved = [one.sql for pair in columns for one in self._alter_type(*pair)]
        if part.kind == "range type":
            # Its constructors would stand in the way of the new one's: no two at a time.
            kinds = REBUILT
            first = [
                f"ALTER TABLE {column.owner} ALTER COLUMN {column.facts['column']} TYPE text "
                f"USING {column.facts['column']}::text"
                for _, column in columns
            ]
            statements = [*first, f"DROP TYPE {part.name}", *made, *moved]
        else:
            kinds = REBUILT_FOR_TYPE
            first = [f"ALTER TYPE {part.name} RENAME TO {_OLD}"]
            old = f"{_qualifier(part.name)}{_OLD}"
            statements = [*first, *made, *moved, f"DROP TYPE {old}"]
        around = self._maker.rebuild(roots, kinds, itself=False)
        whole = [*self._maker.define(part, *statements), *around]
        return unique(sorted(whole, key=lambda one: one.place))

    def _table(self, part: Part, there: Part, attribute: str) -> Iterable[Statement]:
        said = part.attributes.get(attribute)
        alter = f"ALTER TABLE {part.name}"
        match attribute:
            case "persistence":
                return self._maker.define(part, f"{alter} SET {(said or '').upper()}")
            case "row security":
                word = "ENABLE" if said else "DISABLE"
                return self._maker.define(part, f"{alter} {word} ROW LEVEL SECURITY")
            case "row security for owner":
                word = "FORCE" if said else "NO FORCE"
                return self._maker.define(part, f"{alter} {word} ROW LEVEL SECURITY")
            case "options":
                return self._maker.define(part, *_options(part, there))
            case "parent" | "partition bound":
                return self._maker.define(part, *_reparent(part, there))
        kinds = REBUILT | {"table"}
        return self._maker.rebuild([there.key], kinds, destructive=True)


def _reparent(part: Part, there: Part) -> Iterable[str]:
    ours, theirs = part.attributes.get("parent"), there.attributes.get("parent")
    if there.facts["partition"]:
        yield f"ALTER TABLE {theirs} DETACH PARTITION {part.name}"
    elif theirs and not part.facts["partition"]:
        yield f"ALTER TABLE {part.name} NO INHERIT {theirs}"
    if part.facts["partition"]:
        bound = part.attributes["partition bound"]
        yield f"ALTER TABLE {ours} ATTACH PARTITION {part.name} {bound}"
    elif ours:
        yield f"ALTER TABLE {part.name} INHERIT {ours}"


def _more_labels(name: str, ours: list[str], theirs: list[str]) -> Iterable[str]:
    """Add the labels that the target lacks, each at its place."""
    before = ""
    for label in ours:
        if label not in theirs:
            first = f" BEFORE {literal(theirs[0])}" if theirs else ""
            place = f" AFTER {literal(before)}" if before else first
            yield f"ALTER TYPE {name} ADD VALUE IF NOT EXISTS {literal(label)}{place}"
        before = label


def _options(part: Part, there: Part) -> Iterable[str]:
    """Take the target's options away, set the source's."""
    alter = f"ALTER {part.kind.upper()} {part.name}"
    if "options" in there.attributes:
        names = [one.partition("=")[0] for one in there.attributes["options"].split(", ")]
        yield f"{alter} RESET ({', '.join(names)})"
    if "options" in part.attributes:
        yield f"{alter} SET ({part.attributes['options']})"


def _typed(part: Part) -> str:
    said = part.attributes
    return said["type"] + (f" COLLATE {said['collation']}" if "collation" in said else "")


def _qualifier(name: str) -> str:
    """The schema of a quoted name, with its dot."""
    found = re.match(r'("(?:[^"]|"")*"|[^".]+)\.', name)
    return found[0] if found else ""
