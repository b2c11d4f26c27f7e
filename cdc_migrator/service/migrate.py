"""The steps from an empty target to a streaming one; each is skipped once its phase is past.

schema, capture, load, indexes: the phase is written down before the step begins, and a step that
was killed is begun again, which every one of them bears. Tables that the source has got since then
go through the same steps and join the stream (`join`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import psycopg
import structlog

from cdc_migrator.backfill.diff.run import require_alike
from cdc_migrator.backfill.early import early_indexes
from cdc_migrator.backfill.listing import Listing, read_listing
from cdc_migrator.backfill.load import Loaded, load
from cdc_migrator.backfill.schema import Restored, make_indexes, make_tables
from cdc_migrator.backfill.statistics import analyze
from cdc_migrator.backfill.views import populate
from cdc_migrator.capture import preflight
from cdc_migrator.capture.join import join_capture
from cdc_migrator.capture.start import CaptureStarted, start_capture
from cdc_migrator.control import (
    cutover,
    deferring,
    journal,
    migration,
    progress,
    relations,
    schema,
)
from cdc_migrator.control import load as loads
from cdc_migrator.control.load import NO_ROUTES, Joining, Routes
from cdc_migrator.control.migration import Migration, Phase
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.databases.postgres.grants import named
from cdc_migrator.errors import MigratorError
from cdc_migrator.faultpoints import reach
from cdc_migrator.model.destinations import destinations
from cdc_migrator.model.naming import Names
from cdc_migrator.model.parts import Severity
from cdc_migrator.model.positions import lsn_to_int
from cdc_migrator.model.tables import Table, TableName
from cdc_migrator.service import mapping
from cdc_migrator.service.capturing import Capturing
from cdc_migrator.service.compare import Sides, diff_schemas
from cdc_migrator.service.fencing import fence_target, tell_taken_off
from cdc_migrator.service.migrate_options import MigrateOptions, Observer
from cdc_migrator.service.reading_again import read_again

_log = structlog.get_logger("cdc_migrator.migrate")


class Migrate:
    """The steps, each of them repeatable, on one migration.

    Raises MigratorError from every method.
    """

    def __init__(self, options: MigrateOptions, observer: Observer) -> None:
        self._options = options
        self._ends = (options.source_dsn, options.target_dsn)
        self._observer = observer
        self._called = f"cdcm-{options.name}-migrate"
        self._analyzed: set[TableName] = set()
        self._listing: Listing | None = None

    def check(self, measure: float = 0.0) -> preflight.Preflight:
        """Look at everything that could stand against the migration.

        Args:
            measure: seconds for which the growth of the source's log is watched, at least.
        """
        options, capturing = self._options, self._capturing()
        found = preflight.check(
            *self._ends,
            capturing.workers,
            capturing.brokers,
            Names(options.name),
            options.include,
            options.exclude,
            options.accept,
            stated=replace(options.stated, measure=measure),
            replication_factor=capturing.options.replication_factor,
            connector=capturing.options.connector,
            way_back=options.way_back,
            wanted=options.wanted,
        )
        return mapping.looked_at(found, options)

    def until_streaming(self) -> None:
        """Every step that is not past yet; afterwards `run` can apply the stream."""
        there = self._there()
        if there is None or not there.phase.reached(Phase.CAPTURE):
            self._observer.step("checking both databases, Connect and Kafka")
            found = self.check()
            found.require()
            there = self._create()
            self._tell_accepted(found)
        took = []
        for phase, after, step in (
            (Phase.SCHEMA, Phase.CAPTURE, self.schema),
            (Phase.CAPTURE, Phase.LOAD, self.capture),
            (Phase.LOAD, Phase.INDEXES, self._load_and_index),
            (Phase.INDEXES, Phase.STREAM, self.indexes),
        ):
            if not there.phase.reached(after):
                began = time.monotonic()
                self._enter(phase)
                step()
                took.append(f"{phase} {time.monotonic() - began:.1f} s")
        if took:
            self._enter(Phase.STREAM)
            self._observer.step(f"ready to apply changes: {', '.join(took)}")
        self.join()
        off = fence_target(self._options.target_dsn, self._options.name, self._options.load.fence)
        tell_taken_off(off, self._observer.step)

    def _tell_accepted(self, found: preflight.Preflight) -> None:
        """Keep who answers for what `check` found, from before anything rests on it."""
        accepted = {one.code: one.accepted for one in found.findings if one.accepted}
        if accepted:
            with self._target() as conn:
                journal.write(conn, "findings-accepted", accepted=accepted)
            self._observer.step(f"accepted: {', '.join(sorted(accepted))}")

    def left_alone(self) -> bool:
        """Whether the stream is applied, and nobody is leaving the source."""
        with self._target() as conn:
            there = migration.find(conn, self._options.name)
            streams = there is not None and there.phase is Phase.STREAM
            return streams and cutover.unfinished(conn) is None

    def join(self) -> None:
        """Take in the tables that match the patterns and are not part of the stream yet.

        `run` may apply the stream all the while: it waits at the first change of such a table
        until that is loaded and has its indexes. Does nothing where there is none.

        Raises, beside what the steps do, what `capture.join.join_capture` raises.
        """
        tables = self._source_tables()
        with self._target() as conn:
            known = {one.source: one for one in loads.read_tables(conn)}
        new = [one.name for one in tables if one.name not in known]
        begun = [one.source for one in known.values() if one.joining]
        if not new and not begun:
            return
        told = ", ".join(str(name) for name in sorted([*new, *begun]))
        self._observer.step(f"adding {told}")
        if new or any(one.joining is Joining.PUBLISHING for one in known.values()):
            join_capture(
                *self._ends,
                self._names(),
                tables,
                self._capturing().options.slot_patience,
                self.schema,
                lambda text: self._observer.step(f"capture: {text}"),
                lambda: self._routes(tables),
            )
        self.load()
        reach("join.loaded")
        with self._target() as conn:
            joining = [t.source for t in loads.read_tables(conn) if t.joining is Joining.LOADING]
        self._complete(joining)
        reach("join.indexed")
        with self._target() as conn:
            loads.move(conn, joining, Joining.LOADING, None)
        self._observer.step(f"added {told}")

    def schema(self) -> Restored:
        """Tables, types, functions, views: what comes before the rows.

        With `existing_schema` nothing is made: what is there must be able to take every row.
        """
        there = self._create()
        options = self._options
        if there.existing_schema:
            if not options.existing_schema:
                self._observer.step("schema: --existing-schema, as this migration was started")
            found = diff_schemas(
                Sides(
                    options.name,
                    *self._ends,
                    options.include,
                    options.exclude,
                    wanted=options.wanted,
                )
            )
            require_alike(found)
            warned = sum(one.severity is Severity.WARN for one in found)
            self._observer.step(f"schema: taken as it is, {warned} differences to look at")
            return Restored((), ())
        tables = self._source_tables()
        mapped = destinations(options.wanted, tables)
        going = {table.name for table in tables} | set(self._plain())
        made = make_tables(
            *self._ends,
            self._names(),
            sorted(going - mapped.keys()),
            options.schema,
        )
        self._tell_restored("schema", made)
        for told in mapping.make(*self._ends, options.name, options.wanted, tables, options.place):
            self._observer.step(f"schema: {told}")
        return made

    def capture(self) -> CaptureStarted:
        """Publication, slot, snapshot holder and connector."""
        capturing = self._capturing()
        names, tables = self._names(), self._source_tables()
        there = self._there()
        begun = there is not None and there.consistent_point is not None
        return start_capture(
            *self._ends,
            capturing.workers,
            capturing.brokers,
            names,
            tables,
            capturing.options,
            lambda text: self._observer.step(f"capture: {text}"),
            NO_ROUTES if begun else self._routes(tables),
        )

    def _routes(self, tables: Sequence[Table]) -> Routes:
        """Those of the tables that change their shape."""
        options = self._options
        return mapping.routes(*self._ends, options.name, options.wanted, tables, options.place)

    def load(self, again: Sequence[str] = (), *, halted: bool = False) -> Loaded:
        """Copy what was there when capture began; of the tables `again`, what is there now.

        `halted`: whoever applies the stream waits for it.

        Raises, beside what `backfill.load` does, Refused: CDCM-LOAD-AGAIN-UNKNOWN or
        CDCM-LOAD-AGAIN-RUNNING (somebody applies the stream).
        """
        options = self._options
        if again:
            with self._target() as conn:
                read_again(conn, again, None if halted else options.takeover_after)
            self._observer.step(f"load: {len(set(again))} tables are read again")
        loaded = load(
            *self._ends,
            self._names(),
            options.load,
            self._observer.loading,
        )
        self._observer.step(
            f"load: {loaded.rows:,} rows, {loaded.bytes / 1e6:,.1f} MB in {loaded.seconds:.1f} s"
        )
        tell_taken_off(loaded.taken_off, self._observer.step)
        return loaded

    def read_again(self, tables: Sequence[str]) -> None:
        """Read these tables again, or end what was begun of that; whoever applies waits for it."""
        self.load(tables, halted=True)

    def _load_and_index(self) -> None:
        """Copy the rows; the indexes of tables that are whole are built meanwhile."""
        options = self._options
        with early_indexes(*self._ends, self._names(), self._plain(), options.schema) as early:
            self.load()
            # Beside the last builds; what it meets, the next step meets again, and tells.
            with suppress(MigratorError, psycopg.Error):
                self._listing = read_listing(
                    *self._ends, self._names(), self._plain(), options.schema, "post-data"
                )
        self._analyzed = early.analyzed
        if early.made:
            self._observer.step(f"load: {early.made} indexes and keys made beside it")
        if early.failed:
            # Whatever it was, the next step meets it again, or it has passed.
            _log.warning("early-indexes-ended", reason=early.failed)

    def indexes(self) -> Restored:
        """Indexes, keys, triggers, foreign keys: what comes after the rows."""
        listing, self._listing = self._listing, None
        return self._complete(self._registered(), listing)

    def _complete(self, loaded: Sequence[TableName], listing: Listing | None = None) -> Restored:
        """What comes after the rows of these tables."""
        options = self._options
        made = self._make_indexes(
            lambda: analyze(
                options.target_dsn, self._names(), loaded, options.schema.jobs, self._analyzed
            ),
            listing,
        )
        self._tell_restored("indexes", made)
        views = populate(options.source_dsn, options.target_dsn, self._names())
        if views.filled:
            self._observer.step(f"indexes: {len(views.filled)} materialized views filled")
        for view, state in views.failed:
            self._observer.step(f"indexes: {view} stays empty: SQLSTATE {state}")
        return made

    def foreign_keys(self, done: str | None) -> str | None:
        """Make those that wait for the stream, once it has passed what tables were read anew with.

        Tables that are being added must be part of it.

        Args:
            done: the log position, as text, up to which none is left; `foreign_keys` told it.
        """
        with self._target() as conn:
            until = loads.ahead_until(conn)
            if until == done or loads.joining(conn):
                return done
            stored = progress.read(conn)
        if until and (stored is None or stored.commit_position < lsn_to_int(until)):
            return done
        made = self._make_indexes()
        if made.made:
            _log.info("foreign-keys-made", count=len(made.made))
        return done if made.postponed else until

    def _make_indexes(
        self,
        before_foreign_keys: Callable[[], None] = lambda: None,
        listing: Listing | None = None,
    ) -> Restored:
        options = self._options
        return make_indexes(
            *self._ends,
            self._names(),
            self._plain(),
            options.schema,
            before_foreign_keys,
            listing,
        )

    def _tell_restored(self, step: str, made: Restored) -> None:
        for text in made.told():
            self._observer.step(f"{step}: {text}")

    def _source_tables(self) -> list[Table]:
        options = self._options
        with connect(options.source_dsn, application_name=self._called, side="source") as conn:
            return read_tables(conn, options.include, options.exclude)

    def _registered(self) -> list[TableName]:
        with self._target() as conn:
            return [one.source for one in loads.read_tables(conn)]

    def _plain(self) -> list[TableName]:
        """Those of them that the dump brings over."""
        with self._target() as conn:
            return relations.plain(loads.read_tables(conn))

    def _names(self) -> Names:
        with self._target() as conn:
            found = migration.require(conn, self._options.name)
            schema.ensure(conn, "target")  # an earlier release may have begun it
            mapping.require_same(conn, self._options.wanted)
            return found.names

    def _there(self) -> Migration | None:
        with self._target() as conn:
            there = migration.find(conn, self._options.name)
            if there is not None and there.phase.reached(Phase.SWITCHED):
                cutover.require_not_open(conn)
            if there is not None:
                mapping.require_same(conn, self._options.wanted)
            return there

    def _create(self) -> Migration:
        options = self._options
        with self._target() as conn:
            schema.ensure(conn, "target", named=named(options.target_dsn))
            there = migration.create(conn, options.name)
            if options.existing_schema and not there.existing_schema:
                migration.update(conn, "existing-schema", existing_schema=True)
                there = replace(there, existing_schema=True)
            if not there.phase.reached(Phase.SCHEMA) and not deferring.may_hold_off(
                options.target_dsn
            ):
                deferring.begin(conn)
            return there

    def _capturing(self) -> Capturing:
        assert self._options.capturing is not None, "this step needs Connect and Kafka"
        return self._options.capturing

    def _enter(self, phase: Phase) -> None:
        self._observer.step(f"phase {phase}")
        with self._target() as conn:
            there = migration.read(conn)
            if there is not None and there.phase is not phase:
                migration.set_phase(conn, phase)

    def _target(self) -> psycopg.Connection:
        return connect(self._options.target_dsn, application_name=self._called, side="target")
