"""From one description of a table to the next: what changed, what the target needs for it. Pure.

Columns are followed by their numbers, so a new name is told from another column. What the stream
cannot do without is *needed*: rows would be refused, or lost, or written to the wrong place. All
else is left for `schema diff` to tell. What is *safe* takes no row away and gives every row the
value that it has on the source, or is followed by reading the table again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cdc_migrator.model import described
from cdc_migrator.model.described import Described, DescribedColumn
from cdc_migrator.model.tables import TableName
from cdc_migrator.service import alter_partitions
from cdc_migrator.service.alter_words import constant, literal, quoted, sequences, widens
from cdc_migrator.service.alter_words import name as _name
from cdc_migrator.service.alteration import Change, Kind, Rewrite


def dropped(before: Described) -> Change:
    """The table is gone."""
    name = quoted(before.name)
    statement = f"DROP TABLE {name}"
    if before.ancestors:
        statement = f"ALTER TABLE {quoted(before.ancestors[0].name)} DETACH PARTITION {name}"
    return Change(Kind.TABLE_DROPPED, str(before.name), str(before.name), None, (statement,))


def changes(
    before: Described, after: Described, rewrites: Sequence[Rewrite], whole_schema: bool = False
) -> list[Change]:
    """All differences, in the order in which the target can follow them.

    Args:
        whole_schema: where the table is in another schema now, the schema has another name.
    """
    name = quoted(after.name)
    # A partition has the columns of its parent, and may not change them by itself.
    columns = quoted(after.table.root) if after.table.root else name
    found: list[Change] = []
    if before.name != after.name:
        found.append(_renamed(before, after, whole_schema))
    found += alter_partitions.moved(before, after)
    if whole_schema and before.name.schema != after.name.schema:
        # All that names the schema does so otherwise now.
        before = described.in_schema(before, after.name.schema)
    found += _labels(before, after)
    # What refuses rows goes first, what refers to columns comes behind them.
    found += _constraints_dropped(before, after, name)
    there = {one.number: one for one in before.columns}
    kept = [(there[one.number], one) for one in after.columns if one.number in there]
    now = {one.number for one in after.columns}
    found += [_dropped_column(one, columns) for one in before.columns if one.number not in now]
    found += _column_renames(kept, columns)
    for old, new in kept:
        found += _column(old, new, columns, rewrites)
    found += [_added(one, columns) for one in after.columns if one.number not in there]
    found += _constraints_added(before, after, name)
    if before.table.key != after.table.key:
        said, is_now = (", ".join(one.table.key) or "none" for one in (before, after))
        found.append(Change(Kind.KEY_CHANGED, str(after.name), said, is_now, needed=False))
    if before.table.replica_identity is not after.table.replica_identity:
        said, is_now = (one.table.replica_identity.name.lower() for one in (before, after))
        found.append(Change(Kind.REPLICA_IDENTITY, str(after.name), said, is_now, needed=False))
    return found


def met(change: Change, there: Described | None) -> bool:
    """Whether the target's table, as it is now, does not lack this change."""
    if change.kind is Kind.TABLE_DROPPED or there is None:
        return (there is None) is (change.kind is Kind.TABLE_DROPPED)
    if change.kind in alter_partitions.KINDS:
        return alter_partitions.met(change, there)
    columns = {one.name: one for one in there.columns}
    column = columns.get(change.what)
    match change.kind:
        case Kind.COLUMN_ADDED:
            return column is not None
        case Kind.COLUMN_DROPPED:
            return column is None
        case Kind.COLUMN_RENAMED:
            return column is not None and change.before not in columns
        case Kind.TYPE_CHANGED:
            return column is not None and _type(column) == change.after
        case Kind.NULL_ALLOWED:
            return column is not None and not column.column.not_null
        case Kind.NULL_REFUSED:
            return column is not None and column.column.not_null
        case Kind.NO_LONGER_GENERATED:
            return column is not None and not column.column.generated
        case Kind.DEFAULT_CHANGED | Kind.GENERATED_OTHERWISE:
            return column is not None and column.expression == change.after
        case Kind.IDENTITY_CHANGED:
            return column is not None and (column.column.identity or None) == change.after
        case Kind.VALUE_ADDED | Kind.VALUE_RENAMED:
            labels = {
                label
                for one in there.columns
                if one.enumeration == change.what
                for _, label in one.labels
            }
            return change.after in labels
        case Kind.CONSTRAINT_DROPPED:
            return change.what not in {**there.constraints, **there.indexes}
        case Kind.CONSTRAINT_ADDED:
            return change.what in {**there.constraints, **there.indexes}
    return True


def _renamed(before: Described, after: Described, whole_schema: bool) -> Change:
    statements = []
    old, new = before.name, after.name
    if old.schema != new.schema and whole_schema:
        statements.append(f"ALTER SCHEMA {_name(old.schema)} RENAME TO {_name(new.schema)}")
    elif old.schema != new.schema:
        statements.append(f"ALTER TABLE {quoted(old)} SET SCHEMA {_name(new.schema)}")
    if old.name != new.name:
        moved = quoted(TableName(new.schema, old.name))
        statements.append(f"ALTER TABLE {moved} RENAME TO {_name(new.name)}")
    return Change(
        Kind.TABLE_RENAMED, str(new), str(old), str(new), tuple(statements), needed=True, safe=True
    )


def _labels(before: Described, after: Described) -> Iterator[Change]:
    """Values of enumerations, each type told once; the oid of a value stays under a new name."""
    old = {one.enumeration: dict(one.labels) for one in before.columns if one.enumeration}
    told = set()
    for column in after.columns:
        kind = column.enumeration
        if kind is None or kind in told or kind not in old:
            continue
        told.add(kind)
        previous: str | None = None
        labels = [label for _, label in column.labels]
        for place, (oid, label) in enumerate(column.labels):
            former = old[kind].get(oid)
            if former is None:
                where = f" AFTER {literal(previous)}" if previous is not None else ""
                if previous is None and len(labels) > place + 1:
                    where = f" BEFORE {literal(labels[place + 1])}"
                statement = f"ALTER TYPE {kind} ADD VALUE IF NOT EXISTS {literal(label)}{where}"
                yield Change(Kind.VALUE_ADDED, kind, None, label, (statement,), safe=True)
            elif former != label:
                statement = f"ALTER TYPE {kind} RENAME VALUE {literal(former)} TO {literal(label)}"
                yield Change(Kind.VALUE_RENAMED, kind, former, label, (statement,), safe=True)
            previous = label


def _constraints_dropped(before: Described, after: Described, name: str) -> Iterator[Change]:
    """Constraints and unique indexes that are gone or say something else now."""
    for one, definition in before.constraints.items():
        if not _still(one, definition, before, after, after.constraints):
            statement = f"ALTER TABLE {name} DROP CONSTRAINT IF EXISTS {_name(one)}"
            yield Change(Kind.CONSTRAINT_DROPPED, one, definition, None, (statement,), safe=True)
    schema = _name(after.name.schema)
    for one, definition in before.indexes.items():
        if one not in after.indexes and one not in after.constraints:
            statement = f"DROP INDEX IF EXISTS {schema}.{_name(one)}"
            yield Change(Kind.CONSTRAINT_DROPPED, one, definition, None, (statement,), safe=True)


def _still(
    one: str, definition: str, before: Described, after: Described, there: Iterable[str]
) -> bool:
    """Whether the constraint is there: perhaps in other words, where columns have other names."""
    if one not in there:
        return definition in after.constraints.values()
    same_names = [c.name for c in before.columns] == [c.name for c in after.columns]
    return not same_names or after.constraints[one] == definition


def _constraints_added(before: Described, after: Described, name: str) -> Iterator[Change]:
    for one, definition in after.constraints.items():
        if before.constraints.get(one) is None and definition not in before.constraints.values():
            statement = f"ALTER TABLE {name} ADD CONSTRAINT {_name(one)} {definition}"
            yield Change(Kind.CONSTRAINT_ADDED, one, None, definition, (statement,), needed=False)
    for one, definition in after.indexes.items():
        if one not in before.indexes:
            yield Change(Kind.CONSTRAINT_ADDED, one, None, definition, (definition,), needed=False)


def _dropped_column(one: DescribedColumn, name: str) -> Change:
    statement = f"ALTER TABLE {name} DROP COLUMN {_name(one.name)}"
    return Change(Kind.COLUMN_DROPPED, one.name, _type(one), None, (statement,))


def _column_renames(
    kept: Sequence[tuple[DescribedColumn, DescribedColumn]], name: str
) -> Iterator[Change]:
    """Renames; where columns pass their names on to each other they go by names in between."""
    moved = [(old.name, new.name) for old, new in kept if old.name != new.name]
    taken = {old for old, _ in moved}
    alter = f"ALTER TABLE {name} RENAME COLUMN"
    if not any(new in taken for _, new in moved):
        for old_name, new_name in moved:
            statement = f"{alter} {_name(old_name)} TO {_name(new_name)}"
            yield Change(Kind.COLUMN_RENAMED, new_name, old_name, new_name, (statement,), safe=True)
        return
    first = [f"{alter} {_name(old)} TO {_name(f'cdcm_{n}')}" for n, (old, _) in enumerate(moved)]
    last = [f"{alter} {_name(f'cdcm_{n}')} TO {_name(new)}" for n, (_, new) in enumerate(moved)]
    # Whether that has been done cannot be seen from the names: by hand it cannot be waited for.
    told = ", ".join(f"{old} to {new}" for old, new in moved)
    yield Change(
        Kind.COLUMN_RENAMED, moved[0][1], None, told, (*first, *last), safe=True, reload=True
    )


def _column(
    old: DescribedColumn, new: DescribedColumn, name: str, rewrites: Sequence[Rewrite]
) -> Iterator[Change]:
    alter = f"ALTER TABLE {name} ALTER COLUMN {_name(new.name)}"
    was, now = old.column, new.column
    if _type(old) != _type(new):
        yield _retyped(old, new, alter, rewrites)
    if was.generated and not now.generated:
        yield Change(
            Kind.NO_LONGER_GENERATED, new.name, None, None, (f"{alter} DROP EXPRESSION",), safe=True
        )
    elif now.generated and old.expression != new.expression:
        statement = f"{alter} SET EXPRESSION AS ({new.expression})"
        yield Change(
            Kind.GENERATED_OTHERWISE, new.name, old.expression, new.expression, (statement,)
        )
    elif not now.generated and old.expression != new.expression and not was.generated:
        said = f"SET DEFAULT {new.expression}" if new.expression else "DROP DEFAULT"
        yield Change(
            Kind.DEFAULT_CHANGED,
            new.name,
            old.expression,
            new.expression,
            (f"{alter} {said}",),
            needed=False,
            safe=not new.expression or "nextval(" not in new.expression,
        )
    if was.not_null and not now.not_null:
        yield Change(
            Kind.NULL_ALLOWED, new.name, None, None, (f"{alter} DROP NOT NULL",), safe=True
        )
    if now.not_null and not was.not_null:
        yield Change(
            Kind.NULL_REFUSED, new.name, None, None, (f"{alter} SET NOT NULL",), needed=False
        )
    if was.identity != now.identity:
        yield Change(
            Kind.IDENTITY_CHANGED,
            new.name,
            was.identity or None,
            now.identity or None,
            (_identity(alter, was.identity, now.identity),),
            needed=False,
        )


def _identity(alter: str, was: str, now: str) -> str:
    word = "ALWAYS" if now == "a" else "BY DEFAULT"
    if not now:
        return f"{alter} DROP IDENTITY IF EXISTS"
    return f"{alter} SET GENERATED {word}" if was else f"{alter} ADD GENERATED {word} AS IDENTITY"


def _retyped(
    old: DescribedColumn, new: DescribedColumn, alter: str, rewrites: Sequence[Rewrite]
) -> Change:
    wider = widens(_type(old), _type(new))
    statement = f"{alter} TYPE {_type(new)}"
    if not wider:
        statement += f" USING {_name(new.name)}::{new.column.type_text}"
    written = [one for one in rewrites if one.of_types]
    return Change(
        Kind.TYPE_CHANGED,
        new.name,
        _type(old),
        _type(new),
        (statement,),
        safe=wider,
        # Without one the bytes on disk mean what they meant.
        reload=bool(written) and not (wider and all(one.plain for one in written)),
    )


def _added(one: DescribedColumn, name: str) -> Change:
    column = one.column
    words = [f"ALTER TABLE {name} ADD COLUMN {_name(one.name)} {_type(one)}"]
    before: tuple[str, ...] = ()
    if column.generated:
        words.append(f"GENERATED ALWAYS AS ({one.expression}) STORED")
    elif column.identity:
        kind = "ALWAYS" if column.identity == "a" else "BY DEFAULT"
        words.append(f"GENERATED {kind} AS IDENTITY")
    elif one.expression is not None:
        words.append(f"DEFAULT {one.expression}")
        before = tuple(f"CREATE SEQUENCE IF NOT EXISTS {s}" for s in sequences(one.expression))
    if column.not_null and not column.identity:
        words.append("NOT NULL")
    filled = not column.generated and (bool(column.identity) or one.expression is not None)
    return Change(
        Kind.COLUMN_ADDED,
        one.name,
        None,
        _type(one),
        (*before, " ".join(words)),
        safe=True,
        reload=filled and not constant(one.expression),
    )


def _type(one: DescribedColumn) -> str:
    collation = f" COLLATE {one.collation}" if one.collation else ""
    return f"{one.column.type_text}{collation}"
