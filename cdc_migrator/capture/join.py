"""Take tables into a capture that runs, so that the stream joins their rows exactly.

PostgreSQL decodes a transaction by the catalog as it was at that transaction's first change, and
a session that decodes remembers what it found there about a table. So a transaction that was
open while a table was published may come without its changes of that table, and, before
PostgreSQL 15.13, 16.9 and 17.5, make the session lose those of later transactions as well. Hence
the order:

1. the tables are written down on the target: the applier waits at their changes from now on;
2. side tables and triggers, then the publication;
3. every transaction that was open at the publication's commit has ended (`outlast`);
4. the publication is written once more, which throws away what was remembered meanwhile; on a
   server that remembers wrongly, the transactions that were open then must have ended, too: one
   of them may have been decoded before 4;
5. the tables may be read. A snapshot that is taken now sees all transactions of 3; every one
   that it does not see began its changes behind 2, and is decoded by a right memory.

Waiting once before anything is made keeps a forgotten transaction from holding up the stream.
Each step is found done, or is done again: whoever is killed here types the same command.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import psycopg

from cdc_migrator.capture import publishing, sides
from cdc_migrator.capture import slot as slots
from cdc_migrator.capture.checks import tables as checks
from cdc_migrator.capture.outlast import outlast
from cdc_migrator.control import access, journal, load, locks, relations
from cdc_migrator.control.load import NO_ROUTES, Joining, Routes
from cdc_migrator.databases.postgres import catalog, side
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.databases.postgres.grants import named
from cdc_migrator.databases.postgres.side import Side
from cdc_migrator.errors import Refused
from cdc_migrator.faultpoints import reach
from cdc_migrator.model.naming import Names
from cdc_migrator.model.tables import Table


def join_capture(
    source_dsn: str,
    target_dsn: str,
    names: Names,
    tables: Sequence[Table],
    patience: float,
    make_tables: Callable[[], object] = lambda: None,
    notify: Callable[[str], None] = lambda _: None,
    routes: Callable[[], Routes] = lambda: NO_ROUTES,
) -> None:
    """Capture those of `tables` that are not captured yet; afterwards they may be loaded.

    Args:
        tables: all of the migration, present and to come.
        patience: seconds for which open transactions of the source are waited for, each time.
        make_tables: makes what the target lacks of them; called when they fit and before they
            are written down, as nothing can take them back from there.
        notify: called with each step as it is begun, for people to read.
        routes: asked for those of the tables that are new, when the target has theirs.

    Raises:
        Refused: CDCM-CAPTURE-RUNNING, CDCM-CAPTURE-TABLES, CDCM-TABLE-NO-IDENTITY,
            CDCM-JOIN-NAME, CDCM-SLOT-LOST, CDCM-PUBLICATION-LOST.
        Failed: CDCM-JOIN-TIMEOUT, CDCM-SIDE-LOCKED.
    """
    called = f"cdcm-{names.migration}-capture"
    with ExitStack() as stack:
        source = stack.enter_context(connect(source_dsn, application_name=called, side="source"))
        target = stack.enter_context(connect(target_dsn, application_name=called, side="target"))
        with speaking("target", "taking the lock of the capture"):
            if not locks.try_lock(target, locks.Role.CAPTURE):
                raise Refused(
                    "CDCM-CAPTURE-RUNNING",
                    "another process is working on the capture of this migration",
                    "Wait for it, or end it and run the same command again.",
                )
        publishing.check(source, target, names, tables)
        with speaking("target", "reading the tables of the migration"):
            known = relations.joining(load.read_tables(target))
        new = [table for table in tables if table.name not in known]
        joining = [
            table for table in tables if known.get(table.name, Joining.PUBLISHING) == "publishing"
        ]
        if not joining:
            return
        _require_fit(source, names, tables, joining)
        with speaking("source", "looking at the publication"):
            there = slots.published(source, names.publication) or set()
        wanted = publishing.wanted(tables, names)
        missing = {name: columns for name, columns in wanted.items() if name not in there}
        if missing:
            with speaking("source", "waiting for open transactions"):
                outlast(source, patience, notify)
        if new:
            make_tables()
            reach("join.schema")
            _register(source, target, new, routes())
        reach("join.registered")
        added = {one.name for one in joining}
        found = side.sides(tables, names.migration)
        _beside(source, target, names, [found[name] for name in found if name in added], notify)
        with speaking("source", "letting its roles into the side tables"):
            access.give(source, named(source_dsn))
        reach("join.beside")
        if missing:
            notify(f"publication {names.publication}: {len(joining)} tables more")
            with speaking("target", "writing the journal"):
                journal.write(target, "publication-add", tables=[str(name) for name in missing])
            with speaking("source", "adding to the publication"):
                slots.publish_more(source, names.publication, missing)
        reach("join.published")
        with speaking("source", "waiting for open transactions"):
            outlast(source, patience, notify)
        with speaking("target", "writing the journal"):
            journal.write(target, "publication-anew", publication=names.publication)
        with speaking("source", "writing the publication anew"):
            slots.publish_anew(source, names.publication)
        if _remembers_wrongly(source.info.server_version):
            with speaking("source", "waiting for open transactions"):
                outlast(source, patience, notify)
        reach("join.settled")
        with speaking("target", "writing down the tables"):
            names_of = [one.source for one in load.read_tables(target) if one.relation in added]
            load.move(target, names_of, Joining.PUBLISHING, Joining.LOADING)
        reach("join.captured")


# The first minor release of each major one that tells open transactions of a new publication.
_MENDED = {15: 13, 16: 9, 17: 5}


def _remembers_wrongly(version: int) -> bool:
    return version % 10000 < _MENDED.get(version // 10000, 0)


def _require_fit(
    source: psycopg.Connection, names: Names, tables: Sequence[Table], joining: Sequence[Table]
) -> None:
    """Publishing a table that does not fit would hurt the application, or the stream."""
    with speaking("source", "looking at the new tables"):
        against = checks.identities(catalog.identity_problems(source, joining))
    if against:
        raise Refused(against[0].code, against[0].cause, against[0].remedy)
    added = {one.name for one in joining}
    before = side.sides([one for one in tables if one.name not in added], names.migration)
    after = side.sides(tables, names.migration)
    for name, one in after.items():
        if name not in added and before.get(name) != one:
            raise Refused(
                "CDCM-JOIN-NAME",
                f"with the new tables the connector could not tell {name} from another one, whose "
                "name is the same with its dots",
                "Exclude the new table of that name (`tables.exclude`), or start over with "
                "`cdc-migrator abort`.",
            )


def _register(
    source: psycopg.Connection, target: psycopg.Connection, new: Sequence[Table], routes: Routes
) -> None:
    with speaking("source", "looking at the new tables"):
        files = slots.filenodes(source)
    with speaking("target", "writing down the tables"):
        there = [(table, files[table.name]) for table in new if table.name in files]
        load.add(target, there, routes)


def _beside(
    source: psycopg.Connection,
    target: psycopg.Connection,
    names: Names,
    beside: Sequence[Side],
    notify: Callable[[str], None],
) -> None:
    if not beside:
        return
    notify(f"side tables and triggers for {len(beside)} tables")
    with speaking("target", "writing the journal"):
        journal.write(target, "side-create", tables=[str(one.of.name) for one in beside])
    with speaking("source", "making side tables and their triggers"):
        sides.add(source, names.migration, beside)
