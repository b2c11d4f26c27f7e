"""Tables that change their shape on the way: their routes, and that what is said of them stays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

import psycopg

from cdc_migrator.capture import findings
from cdc_migrator.capture.findings import Finding
from cdc_migrator.capture.preflight import Preflight
from cdc_migrator.control import (
    load,
    mapping,
    migration,
    relations,
    shapes,
    unclaimed,
    within,
)
from cdc_migrator.control.load import NO_ROUTES, Routes
from cdc_migrator.databases.postgres import same
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import ConfigurationError, Failed, MigratorError, Refused
from cdc_migrator.model.changes import BadRecords
from cdc_migrator.model.destinations import destinations, entries
from cdc_migrator.model.mapping import Wanted
from cdc_migrator.model.tables import Table, TableName
from cdc_migrator.model.wording import few
from cdc_migrator.service.migrate_options import MigrateOptions
from cdc_migrator.service.returning import no_way_back, reasons
from cdc_migrator.transform import making
from cdc_migrator.transform.compile import compile_routes
from cdc_migrator.transform.entries import Place, plain_place


def require_same(target: psycopg.Connection, wanted: Sequence[Wanted]) -> None:
    """See that of each table that the migration has the same is said as when it was begun.

    What may be said otherwise, of rows that nobody claims, is kept from now on.

    Raises:
        Refused: CDCM-MAPPING-CHANGED.
    """
    before, tables = mapping.said(target), load.read_tables(target)
    roots = {name: one.table.root for name, one in shapes.read(target).items()}
    changed = [
        table
        for table in relations.of_source(tables)
        if entries(before, table, roots.get(table)) != entries(wanted, table, roots.get(table))
    ]
    if changed:
        raise _changed(
            f"`mapping` in migration.yaml says otherwise of {few(changed)} than when the migration "
            "was begun"
        )
    now = _with_others(before, before, wanted)
    if [one.others for one in now] != [one.others for one in before]:
        unclaimed.say(target, tables, now)


def _with_others(
    what: Sequence[Wanted], before: Sequence[Wanted], said: Sequence[Wanted]
) -> list[Wanted]:
    """Entries with what is said by now of rows that nobody claims.

    Of an entry that says nothing there are none; but of one that was there before anything could
    be said of it, that is left open.
    """
    known = {(one.table, one.to): one.others for one in before}
    asked = {(one.table, one.to): one.others for one in said}

    def settled(way: tuple[str, str | None]) -> bool | None:
        if asked.get(way) is not None:
            return asked[way]
        return None if known.get(way, False) is None else False

    return [replace(one, others=settled((one.table, one.to))) for one in what]


def require_unchanged(options: MigrateOptions) -> None:
    """`require_same`, where the target can be asked now. Raises as that."""
    with (
        suppress(Failed),
        connect(
            options.target_dsn, application_name=f"cdcm-{options.name}-run", side="target"
        ) as c,
    ):
        if migration.find(c, options.name) is not None:
            require_same(c, options.wanted)


def require_halting(wanted: Sequence[Wanted], bad_records: BadRecords) -> None:
    """A row that is kept back is known by its key, which must be the same on both sides.

    Raises:
        ConfigurationError: CDCM-MAPPING-PARK.
    """
    if wanted and bad_records is BadRecords.PARK:
        raise ConfigurationError(
            "CDCM-MAPPING-PARK",
            "with a mapping no record can be kept back: a row's key on the source is not its key "
            "on the target",
            "Set apply.bad_records to halt.",
        )


def looked_at(found: Preflight, options: MigrateOptions) -> Preflight:
    """With what the mapping brings, where the databases could be looked at.

    A migration that is under way has its routes already.
    """
    if not options.wanted:
        return found
    told: list[Finding] = []
    mapped = destinations(options.wanted, found.tables)
    try:
        with _both(options.source_dsn, options.target_dsn, options.name, "check") as both:
            one = same.one_database(*both)
            if one:
                told += _in_one_database(mapped, [table.name for table in found.tables])
            there = migration.find(both[1], options.name)
            known = load.read_tables(both[1]) if there is not None else []
            if known:
                ways = relations.routes(known)
            else:
                ways = compile_routes(
                    *both, options.wanted, found.tables, options.place, foreseen=True
                )
            if options.way_back and one:
                error = within.no_way_back()
                told.append(findings.warn(error.code, "mapping", error.cause, error.remedy))
            elif options.way_back:
                told += _back(both, ways, options.wanted)
    except MigratorError as error:
        told.append(findings.from_error(error, "mapping"))
    return replace(found, findings=(*found.findings, *told))


def make(
    source_dsn: str,
    target_dsn: str,
    name: str,
    wanted: Sequence[Wanted],
    tables: Sequence[Table],
    place: Place = plain_place,
) -> Sequence[str]:
    """Make what the target lacks of the tables that rows of another shape go to; what was made,
    each with what it does not have of the source's table.

    Raises as `transform.compile.compile_routes`.
    """
    if not wanted:
        return ()
    with _both(source_dsn, target_dsn, name, "schema") as (source, target):
        return making.make(source, target, wanted, tables, place)


def missing(
    source_dsn: str,
    target_dsn: str,
    name: str,
    wanted: Sequence[Wanted],
    tables: Sequence[Table],
) -> Sequence[str]:
    """What `make` would make. Raises as that."""
    if not wanted:
        return ()
    with _both(source_dsn, target_dsn, name, "schema") as (source, target):
        return [str(one) for one in making.missing_tables(source, target, wanted, tables)]


def routes(
    source_dsn: str,
    target_dsn: str,
    name: str,
    wanted: Sequence[Wanted],
    tables: Sequence[Table],
    place: Place = plain_place,
) -> Routes:
    """The routes of all tables of which something is said; kept is what they are made of.

    Raises:
        Refused: CDCM-MAPPING-CHANGED: a table comes to one that another's rows are in, which were
            never told apart. And as `transform.compile.compile_routes`.
    """
    if not wanted:
        return NO_ROUTES
    with _both(source_dsn, target_dsn, name, "mapping") as (source, target):
        made = compile_routes(source, target, wanted, tables, place)
        belongs = {
            (one.source, one.target): one.belongs for several in made.values() for one in several
        }
        for known in load.read_tables(target):
            way = (known.relation, known.target)
            if known.route is None or belongs.get(way) == known.belongs:
                continue
            if known.route.bound is None:
                raise _changed(f"rows of another table shall come to {known.target}")
            # One that is no partition any more keeps the rows that it had.
            if way in belongs:
                raise _changed(
                    f"{known.relation} has other bounds than when it joined, as a default "
                    "partition gets with each one that is added beside it"
                )
        mapping.say(target, _with_others(wanted, mapping.said(target), wanted))
        return made


def _back(
    both: tuple[psycopg.Connection, psycopg.Connection], routes: Routes, wanted: Sequence[Wanted]
) -> list[Finding]:
    """What of the mapping has no way back."""
    against, stays = reasons(*both, routes, wanted)
    told = []
    if against:
        error = no_way_back(against)
        told.append(findings.warn(error.code, "mapping", error.cause, error.remedy))
    if stays:
        without = few([one.route.target for one in stays])
        told.append(
            findings.warn(
                "CDCM-MAPPING-NOT-BACK",
                "mapping",
                f"rows of {without} do not come back to the source after a cutover, as "
                "`back: none` says",
                "Where that is meant there is nothing to do. After a rollback, `cdc-migrator "
                "reconcile --repair` makes them the source's again before the next cutover.",
            )
        )
    return told


def _in_one_database(
    mapped: Mapping[TableName, Sequence[TableName]], tables: Sequence[TableName]
) -> list[Finding]:
    """There no table may go to itself, nor to one that moves as well."""
    going = {one for several in mapped.values() for one in several}
    against = sorted({*(set(tables) - mapped.keys()), *(going & set(tables))})
    if not against:
        return []
    return [
        findings.refuse(
            "CDCM-CONFIG-SAME-DATABASE",
            "mapping",
            f"source and target are the same database, where {few(against)} would be both at once",
            "Lead every table that moves to another name with `mapping`, and choose none of those "
            "names in `tables`; or give the target a database of its own.",
        )
    ]


@contextmanager
def _both(
    source_dsn: str, target_dsn: str, name: str, what: str
) -> Iterator[tuple[psycopg.Connection, psycopg.Connection]]:
    called = f"cdcm-{name}-{what}"
    with (
        connect(source_dsn, application_name=called, side="source") as source,
        connect(target_dsn, application_name=called, side="target") as target,
    ):
        yield source, target


def _changed(cause: str) -> Refused:
    return Refused(
        "CDCM-MAPPING-CHANGED",
        f"{cause}: what is on the target already has the former shape",
        "Put `mapping` back as it was. For another shape begin anew: `cdc-migrator abort`, "
        "empty or drop the target's tables, then `cdc-migrator migrate`.",
    )
