"""Bring the schema over: what tables need before their rows, and what comes quicker after them.

pg_dump writes the source's schema, pg_restore makes it on the target; which entries, is decided
from the source's dependencies and from what the target already has. So any part can be killed
and run again: what is there is left alone. Tables and types come in one transaction; indexes and
keys several at a time; foreign keys last, when every table they look at is whole.

One process at a time: pg_restore outlives a caller that was killed, and two would get into each
other's way. So whoever begins ends the sessions of such tools first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from cdc_migrator.backfill import roles, toc
from cdc_migrator.backfill.keyindexes import adopt
from cdc_migrator.backfill.listing import Listing, Section, read_listing
from cdc_migrator.backfill.receiving import check_extensions, told_of_public
from cdc_migrator.backfill.schema_options import SchemaOptions
from cdc_migrator.backfill.toc import Entry, ObjectId
from cdc_migrator.backfill.tools import session_name
from cdc_migrator.control import deferring, journal, load, locks, progress
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Refused
from cdc_migrator.model.naming import Names
from cdc_migrator.model.positions import lsn_to_int
from cdc_migrator.model.tables import TableName

_FOREIGN_KEY = "FK CONSTRAINT"
_PATIENCE = 10.0  # seconds for another process to be done with the target's schema

# Where a view needs a key (it groups by it), the dump makes it of nothing but NULLs before the
# rows, and puts its query in its place when the keys are there. A view that reads from no
# relation at all still waits for that.
_WHOLE = """
WHERE rulename <> '_RETURN' OR EXISTS (
    SELECT FROM pg_depend d WHERE d.classid = 'pg_rewrite'::regclass AND d.objid = pg_rewrite.oid
    AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> ev_class)
"""


@dataclass(frozen=True, slots=True)
class Restored:
    """What one part made on the target, as "kind and name" in order; empty if all was there.

    Attributes:
        left_out: objects that depend on tables which are not migrated, or that are never made.
        postponed: foreign keys that wait until the stream has passed the tables read anew.
        deferred: what would act on what is applied, and is made when the target is opened.
    """

    made: tuple[str, ...]
    left_out: tuple[str, ...]
    postponed: tuple[str, ...] = ()
    deferred: tuple[str, ...] = ()

    def told(self) -> Iterator[str]:
        """What came of it, a line for each fact."""
        yield f"{len(self.made)} objects made"
        for label in self.left_out:
            yield f"left out {label}"
        for label in self.postponed:
            yield f"waits for the stream: {label}"
        for label in self.deferred:
            yield f"made when the target is opened: {label}"


@dataclass(frozen=True, slots=True)
class Planned:
    """What would be made before the rows and after them, and what stays behind."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Dump:
    listing: Listing
    file: Path
    entries: list[Entry]


def make_tables(
    source_dsn: str,
    target_dsn: str,
    names: Names,
    tables: Sequence[TableName],
    options: SchemaOptions | None = None,
) -> Restored:
    """Schemas, extensions, types, functions, tables, views: all that comes before the rows.

    One transaction: it is all there or none of it. The target's control schema must exist.

    Raises:
        Refused: CDCM-TARGET-EXTENSION, CDCM-TARGET-ROLES, CDCM-SCHEMA-DEPENDS, CDCM-SCHEMA-RUNNING,
            CDCM-TOOLS-MISSING, CDCM-TOOLS-VERSION.
        Failed: CDCM-TOOL-FAILED.
    """
    options = options or SchemaOptions()
    with _dump(source_dsn, target_dsn, names, tables, options, "pre-data") as (dump, target, there):
        left = toc.remaining(dump.entries, there, post=False)
        check_extensions(target, left)
        _restore(dump, target, left, ["--single-transaction"], "schema-tables")
        return Restored(tuple(e.label for e in left), dump.listing.left_out)


def make_indexes(
    source_dsn: str,
    target_dsn: str,
    names: Names,
    tables: Sequence[TableName],
    options: SchemaOptions | None = None,
    before_foreign_keys: Callable[[], None] = lambda: None,
    listing: Listing | None = None,
) -> Restored:
    """Indexes, keys, triggers, then foreign keys: all that comes after the rows.

    What is there under another name is kept, and not made a second time. Foreign keys that look
    at a table which was read anew wait until the stream has passed
    `reread_until`: before that, the tables are not of one moment. Call it again then.

    Args:
        before_foreign_keys: called when all else is there.
        listing: what comes after the rows, where that has just been read.

    Raises: as `make_tables`.
    """
    options = options or SchemaOptions()
    ends = (source_dsn, target_dsn)
    with _dump(*ends, names, tables, options, "post-data", listing=listing) as found:
        dump, target, there = found
        acting = toc.acting(dump.entries) if _defers(target) else []
        entries = toc.without(dump.entries, {e.object for e in acting if e.object is not None})
        left = toc.remaining(entries, there, post=True)
        keys = [entry for entry in left if entry.kind == _FOREIGN_KEY]
        rest = [entry for entry in left if entry.kind != _FOREIGN_KEY]
        _restore_beside(dump, target, rest, "schema-indexes", options)
        before_foreign_keys()
        postponed: tuple[str, ...] = ()
        if keys and _anew(target):
            postponed = tuple(entry.label for entry in keys)
            keys = []
        _restore_beside(dump, target, keys, "schema-foreign-keys", options)
        made = [e for e in rest if e.object is not None] + keys
        deferred = tuple(e.label for e in acting if e.object not in there)
        return Restored(tuple(e.label for e in made), dump.listing.left_out, postponed, deferred)


def plan(
    source_dsn: str,
    target_dsn: str,
    names: Names,
    tables: Sequence[TableName],
    options: SchemaOptions | None = None,
) -> Planned:
    """What `make_tables` and then `make_indexes` would make on the target as it is now.

    Changes nothing. Raises: as `make_tables`, but for CDCM-SCHEMA-RUNNING.
    """
    options = options or SchemaOptions()
    with _dump(source_dsn, target_dsn, names, tables, options, "pre-data", alone=False) as (
        dump,
        _,
        there,
    ):
        before = toc.remaining(dump.entries, there, post=False)
        left_out = dump.listing.left_out
    with _dump(source_dsn, target_dsn, names, tables, options, "post-data", alone=False) as (
        dump,
        _,
        there,
    ):
        # Entries without an object are repeated whether or not they are there.
        after = [e for e in toc.remaining(dump.entries, there, post=True) if e.object is not None]
    return Planned(tuple(e.label for e in before), tuple(e.label for e in after), left_out)


class PostData:
    """What comes after the rows and is not there yet, and the means to make any part of it."""

    def __init__(self, dump: _Dump, target_dsn: str, called: str, left: list[Entry]) -> None:
        self._dump = dump
        self._target_dsn = target_dsn
        self._called = called
        self.left = left

    def make(self, entries: Sequence[Entry], settings: Mapping[str, str]) -> None:
        """Make some of `left`, one after the other; several threads may each make others.

        Args:
            settings: run-time settings of the session that does it.
        """
        with connect(self._target_dsn, application_name=self._called, side="target") as target:
            _restore(self._dump, target, entries, [], "schema-indexes", settings)


@contextmanager
def post_data(
    source_dsn: str,
    target_dsn: str,
    names: Names,
    tables: Sequence[TableName],
    options: SchemaOptions | None = None,
) -> Iterator[PostData]:
    """To make indexes and keys while some tables are not loaded yet. Raises: as `make_tables`."""
    options = options or SchemaOptions()
    with _dump(source_dsn, target_dsn, names, tables, options, "post-data") as (dump, _, there):
        left = toc.remaining(dump.entries, there, post=True)
        yield PostData(dump, target_dsn, f"cdcm-{names.migration}-schema", left)


@contextmanager
def _dump(
    source_dsn: str,
    target_dsn: str,
    names: Names,
    tables: Sequence[TableName],
    options: SchemaOptions,
    section: Section,
    *,
    alone: bool = True,
    listing: Listing | None = None,
) -> Iterator[tuple[_Dump, psycopg.Connection, set[ObjectId]]]:
    """The part of the source's schema that goes over, and which of its objects are there."""
    called = f"cdcm-{names.migration}-schema"
    with (
        connect(target_dsn, application_name=called, side="target") as target,
        tempfile.TemporaryDirectory(prefix="cdcm-schema-") as directory,
    ):
        if alone:
            _alone(target, called)
        found = listing or read_listing(source_dsn, target_dsn, names, tables, options, section)
        file = Path(directory) / "schema.dump"
        file.write_bytes(found.dump)
        told_of = told_of_public(target)
        entries = [e for e in found.entries if not (e.of_public and e.kind in told_of)]
        with connect(source_dsn, application_name=called, side="source") as source:
            there = _there(source, target, found.going)
            if alone and section == "post-data":
                there |= adopt(source, target, [e for e in entries if e.object not in there])
            missing = [e for e in found.going if e.object not in there]
            roles.require(source, target, missing, options.grants)
        yield _Dump(found, file, entries), target, there


def _alone(target: psycopg.Connection, called: str) -> None:
    """Make this the only process that works on the target's schema while `target` is open."""
    with speaking("target", "taking the lock of its schema"):
        # `run` makes foreign keys now and then, mostly in a moment.
        if not locks.try_lock(target, locks.Role.SCHEMA, _PATIENCE):
            raise Refused(
                "CDCM-SCHEMA-RUNNING",
                "another process is working on the target's schema",
                "Leave it to its work, or end it and run the same command again.",
            )
        row = target.execute(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
            "WHERE application_name = %s AND datname = current_database()",
            (session_name(called),),
        ).fetchone()
        if row is not None and row[0]:
            journal.write(target, "schema-tools-ended", sessions=row[0])


def _there(
    source: psycopg.Connection, target: psycopg.Connection, entries: Collection[Entry]
) -> set[ObjectId]:
    """The objects of `entries`, by their ids on the source, that the target has already."""
    objects = sorted({entry.object for entry in entries if entry.object is not None})
    catalogs = sorted({catalog for catalog, _ in objects})
    with speaking("source", "naming the schema's objects"):
        named = source.execute(
            "SELECT o.catalog, o.oid, (pg_identify_object(o.catalog::oid, o.oid::oid, 0)).identity "
            "FROM unnest(%s::int8[], %s::int8[]) AS o(catalog, oid)",
            ([o[0] for o in objects], [o[1] for o in objects]),
        ).fetchall()
    present: set[tuple[int, str]] = set()
    with speaking("target", "naming the schema's objects"):
        for catalog in catalogs:
            # The catalogs' own object ids are the same on every server.
            row = target.execute("SELECT relname FROM pg_class WHERE oid = %s", (catalog,))
            (name,) = row.fetchone() or ("",)
            query = sql.SQL(
                "SELECT (pg_identify_object(%s::oid, oid, 0)).identity FROM pg_catalog.{}{}"
            ).format(sql.Identifier(name), sql.SQL(_WHOLE if name == "pg_rewrite" else ""))
            present |= {(catalog, row[0]) for row in target.execute(query, (catalog,))}
    return {(catalog, oid) for catalog, oid, identity in named if (catalog, identity) in present}


def _restore(
    dump: _Dump,
    target: psycopg.Connection,
    entries: Sequence[Entry],
    arguments: Sequence[str],
    action: str,
    settings: Mapping[str, str] | None = None,
) -> None:
    """Have pg_restore make exactly these entries.

    Without `--section`: pg_restore takes an entry that has no section of its own, a comment, for
    one of the section before it, and puts what is not chosen before what is.
    """
    if not entries:
        return
    with speaking("target", "writing the journal"):
        journal.write(target, action, entries=len(entries))
    chosen = dump.file.with_suffix(f".{entries[0].number}.list")
    chosen.write_text("".join(f"{entry.line}\n" for entry in entries))
    dump.listing.tools.run(
        "pg_restore",
        [
            "--exit-on-error",
            "--no-owner",
            f"--use-list={chosen}",
            *arguments,
            str(dump.file),
        ],
        target,
        settings,
    )


def _restore_beside(
    dump: _Dump,
    target: psycopg.Connection,
    entries: Sequence[Entry],
    action: str,
    options: SchemaOptions,
) -> None:
    """`_restore` by several sessions, which a single entry would only wait for."""
    jobs = [f"--jobs={options.jobs}"] if options.jobs > 1 and len(entries) > 1 else []
    _restore(dump, target, entries, jobs, action, options.settings)


def _defers(target: psycopg.Connection) -> bool:
    with speaking("target", "reading what waits until it is opened"):
        return deferring.waits(target)


def _anew(target: psycopg.Connection) -> bool:
    """Whether some table is not of one moment with the others: the stream has not yet passed what
    it was read with, or it is still being added."""
    with speaking("target", "reading the load's state"):
        tables = load.read_tables(target)
        stream = progress.read(target)
    applied = stream.commit_position if stream else 0
    return any(
        t.joining or (t.reread_until and lsn_to_int(t.reread_until) > applied) for t in tables
    )
