"""The hook of one entry: what it reads and gives, and that it gives the same for the same rows."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import sql

from cdc_migrator.databases.postgres import mapped, names
from cdc_migrator.databases.postgres.coded import coded, describe, speaking
from cdc_migrator.databases.postgres.sqlstate import Disposition, disposition
from cdc_migrator.errors import ConfigurationError, MigratorError
from cdc_migrator.hook.calling import Caller, Cells, HookRefused, digest
from cdc_migrator.model import mapping
from cdc_migrator.model.mapping import Hook, MappedColumn, Route
from cdc_migrator.transform.bench import has_type
from cdc_migrator.transform.columns import Columns
from cdc_migrator.transform.entries import Entry, Place, near
from cdc_migrator.transform.faults import Fault
from cdc_migrator.transform.keys import Way
from cdc_migrator.transform.probe import sample, size
from cdc_migrator.transform.shape import Draft, quoted


def without_given(entry: Entry, drafts: Sequence[Draft]) -> list[Draft]:
    """The columns that SQL makes: in the place of others the hook gives its own."""
    wanted = entry.wanted.hook
    return [one for one in drafts if wanted is None or one.name not in wanted.gives]


def worked_out(
    work: Columns, made: Sequence[MappedColumn]
) -> tuple[Hook | None, tuple[MappedColumn, ...]]:
    """The hook of an entry and the columns that it gives; what is wrong is with `work`.

    Args:
        made: the columns that SQL makes.
    """
    wanted = work.entry.wanted.hook
    if wanted is None:
        return None, ()
    try:
        now = digest(wanted.call)
    except ConfigurationError as error:
        work.fault(error.code, "hook.call", error.cause, error.remedy)
        return None, ()
    reads = [one for name in wanted.reads if (one := _read(work, name, made)) is not None]
    uses = tuple(dict.fromkeys(name for one in reads for name in one.uses))
    given = [
        one
        for place, (name, type_text) in enumerate(wanted.gives.items())
        if (one := work.given(name, type_text, mapping.given(place), uses)) is not None
    ]
    if not uses and not work.faults:
        work.fault(
            "CDCM-MAPPING-COLUMN",
            "hook.reads",
            f"{work.entry.table.name}: the hook reads nothing of the source's row",
            "Give a constant under `set`.",
        )
    if work.faults:
        return None, ()
    return Hook(wanted.call, tuple(reads), tuple(wanted.gives), now), tuple(given)


def _read(work: Columns, name: str, made: Sequence[MappedColumn]) -> MappedColumn | None:
    """What the hook reads under a name."""
    if (found := next((one for one in made if one.name == name), None)) is not None:
        return found
    table = work.entry.table
    have = {one.name: one for one in table.columns}
    at = next((one.name for one in made if one.of == name), None)
    if name not in have or at is not None:
        meant = f" (did you mean {at}?)" if at else near(name, [*have, *(m.name for m in made)])
        work.fault(
            "CDCM-MAPPING-COLUMN",
            "hook.reads",
            f"{table.name}: the hook reads {name}, which there is not{meant}",
            "Name columns as the target calls them, or those of the source that do not go along.",
        )
        return None
    if not work.usable("hook.reads", None, (name,)):
        return None
    own = have[name]
    return MappedColumn(name, quoted(name), (name,), name, own.type_text, own.base_type, cast=False)


def unfit(
    source: psycopg.Connection,
    target: psycopg.Connection,
    ways: Sequence[Way],
    place: Place,
    *,
    foreseen: bool,
) -> list[Fault]:
    """Hooks that fail on sample rows, give something else for the same ones, or what the target's
    columns do not take.

    Raises:
        MigratorError: a database failed.
    """
    return [
        Fault(error.code, place(way.entry.number, "hook"), error.cause, error.remedy)
        for way in ways
        if way.route.hook is not None
        and (error := _unfit(source, target, way, foreseen)) is not None
    ]


def _unfit(
    source: psycopg.Connection, target: psycopg.Connection, way: Way, foreseen: bool
) -> MigratorError | None:
    route, hook = way.route, way.route.hook
    assert hook is not None
    caller = Caller(route)
    rows = _sample(source, way)
    try:
        given = caller.run(rows)
        if not caller.same_again(rows):
            return ConfigurationError(
                "CDCM-MAPPING-HOOK-IMPURE",
                f"{route.source}: the hook {hook.call} does not give the same for the same rows, "
                "handed over once more or one by one",
                "Let what it gives for a row depend on nothing but that row: not on the others in "
                "the batch, on a counter, the clock, chance, or another system.",
            )
    except HookRefused as refused:
        return refused
    if foreseen and not all(has_type(target, one.type_text) for one in route.given):
        return None
    for column, cells in zip(route.given, zip(*given, strict=True), strict=False):
        if (told := _refused(target, column, cells)) is not None:
            return ConfigurationError(
                "CDCM-MAPPING-HOOK-RESULT",
                f"{route.source}: the hook {hook.call} gives a {column.name} that is no "
                f"{column.type_text}: the target says: {told}",
                f"`cdc-migrator transform check {route.source}` counts such rows. It gives texts "
                "as PostgreSQL reads them.",
            )
    return None


def _sample(source: psycopg.Connection, way: Way) -> list[Cells]:
    """What the hook reads of some rows from all over the table."""
    route, table = way.route, way.entry.table
    columns = [one for one in table.columns if one.name in route.reads]
    query = sql.SQL("SELECT {} FROM {} WHERE {}").format(
        reading(route), sample(table, columns, size(source, table)), mapped.passing(route)
    )
    with speaking("source", f"reading rows of {table.name}"):
        return [tuple(row) for row in source.execute(query)]


def reading(route: Route) -> sql.Composable:
    """What the hook reads of the source's row, as texts."""
    assert route.hook is not None
    return sql.SQL(", ").join(mapped.text_of(mapped.stored(one)) for one in route.hook.reads)


def _refused(
    target: psycopg.Connection, column: MappedColumn, cells: Sequence[str | None]
) -> str | None:
    """What the target says against some value of a column; None: nothing."""
    text = sql.Identifier(column.expression)
    query = sql.SQL("SELECT count({}::{}) FROM unnest({}::text[]) AS cdcm_given ({})").format(
        text, names.type_name(column.type_text), sql.Literal(list(cells)), text
    )
    try:
        target.execute(query)
    except psycopg.Error as exc:
        if disposition(exc) in (Disposition.RETRY, Disposition.CONFLICT):
            raise coded(exc, "target", "reading what a hook gives") from exc
        return describe(exc)
    return None
