"""Capture anew from the source as it is now, under the rows that the target has.

The way out wherever ground is lost: another generation of slot, connector and topic. What the
former stream still proved is applied first, where somebody is at it; then the stream's owner is
ended and the generation entered, in one transaction. The new capture's slot comes with a snapshot;
every table is brought to it by its differences (`keeping`), and from there the new stream goes on.
Each step is found done or is done again: whoever is killed here types `migrate` again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import psycopg

from cdc_migrator.capture import preflight
from cdc_migrator.capture.leftover import ACCEPTABLE
from cdc_migrator.capture.start import start_capture
from cdc_migrator.control import anew, cutover, load, migration, schema
from cdc_migrator.control.migration import Migration, Phase
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import Failed, Refused
from cdc_migrator.faultpoints import reach
from cdc_migrator.model.naming import Names
from cdc_migrator.model.tables import Table
from cdc_migrator.monitor.ground import Loss, losses
from cdc_migrator.monitor.sample import Sample
from cdc_migrator.monitor.sampler import Places, Sampler
from cdc_migrator.service.keeping import Keeping
from cdc_migrator.service.migrate_options import MigrateOptions, Observer

# The tables and the schema are there, and hold rows.
_NO_MATTER = frozenset({*ACCEPTABLE, "CDCM-TARGET-NOT-EMPTY"})
_AGAIN_SECONDS = 1.0
_DRAIN_SECONDS = 60.0


class Recapture:
    """A capture that begins anew, on one migration. Raises MigratorError from every method.

    Args:
        places: where it is measured what is lost.
    """

    def __init__(self, options: MigrateOptions, places: Places, observer: Observer) -> None:
        self._options = options
        self._places = places
        self._observer = observer
        self._called = f"cdcm-{options.name}-anew"

    def begin(self, reason: str | None) -> None:
        """Enter a new generation, if ground is lost; nothing of the former one is applied after.

        One that is under way is gone on with, unless its own ground is lost as well.

        Args:
            reason: why it shall begin although nothing is lost.

        Raises:
            Refused: CDCM-GROUND-HOLDS: nothing is lost; CDCM-CAPTURE-ANEW-EARLY, CDCM-CUTOVER-OPEN,
                CDCM-ABORT-CUTOVER, CDCM-SOURCE-TABLE-GONE, and what preflight finds.
            Failed: CDCM-GROUND-UNKNOWN.
        """
        with Sampler(self._places) as sampler:
            there, begun = self._there()
            lost = self._lost(sampler)
            if not lost and begun:
                self._observer.step("capture begins anew already: going on with it")
                return
            if not lost and reason is None:
                raise Refused(
                    "CDCM-GROUND-HOLDS",
                    "slot, publication, topic and source are those that capture began with: "
                    "nothing is lost that would need another capture",
                    "`cdc-migrator capture start` restarts a connector, `cdc-migrator backfill "
                    "--again TABLE` reads one table anew. If it shall begin anew all the same, say "
                    "why: --force REASON.",
                )
            for loss in lost:
                self._observer.step(f"lost: {loss.code}: {loss.cause}")
            self._require_fit(there)
            if not begun:
                self._drain(sampler)
        with self._target() as conn, speaking("target", "entering a new generation"):
            entered = anew.begin(conn, there.generation, [one.code for one in lost], reason)
        if entered:
            self._observer.step(f"capture begins anew: generation {there.generation + 1}")
        reach("anew.begun")

    def finish(self) -> None:
        """Do what is left of a capture that begins anew; does nothing where none does."""
        with self._target() as conn, speaking("target", "reading the migration"):
            there = migration.find(conn, self._options.name)
            if there is None:
                return
            schema.ensure(conn, "target")
            if not anew.under_way(conn):
                return
        began = time.monotonic()
        self._capture(there)
        reach("anew.captured")
        with self._target() as conn, speaking("target", "entering the phase"):
            migration.set_phase(conn, Phase.LOAD)
        options = self._options
        Keeping(
            options.source_dsn,
            options.target_dsn,
            there.names,
            options.load.workers,
            options.load.fence,
            lambda text: self._observer.step(f"compared: {text}"),
        ).run()
        reach("anew.kept")
        with self._target() as conn, speaking("target", "entering the phase"):
            anew.end(conn)
        self._observer.step(
            f"captured anew in {time.monotonic() - began:.1f} s: the stream goes on from here"
        )

    def _there(self) -> tuple[Migration, bool]:
        """The migration, and whether a capture of it begins anew already."""
        with self._target() as conn, speaking("target", "reading the migration"):
            there = migration.require(conn, self._options.name)
            schema.ensure(conn, "target")
            begun = anew.under_way(conn)
            if there.phase is not Phase.STREAM and not begun:
                cutover.require_not_open(conn)
                raise Refused(
                    "CDCM-CAPTURE-ANEW-EARLY",
                    f"the migration is in its phase {there.phase!s}, and nothing was applied yet "
                    "that would be worth keeping",
                    "`cdc-migrator abort`, empty the target's tables, then `cdc-migrator migrate`.",
                )
            cutover.require_not_open(conn)
            if cutover.unfinished(conn) is not None:
                raise Refused(
                    "CDCM-ABORT-CUTOVER",
                    "the source is being left for the target",
                    "`cdc-migrator cutover` goes on with it, `cdc-migrator cutover abort` undoes "
                    "it.",
                )
        return there, begun

    def _lost(self, sampler: Sampler) -> Sequence[Loss]:
        """What is lost at two looks, so that nothing that only moved between two questions is."""
        first = self._look(sampler)
        if not losses(first):
            return ()
        time.sleep(_AGAIN_SECONDS)
        before = {one.code for one in losses(first)}
        return [one for one in losses(self._look(sampler)) if one.code in before]

    def _look(self, sampler: Sampler) -> Sample:
        sample = sampler.sample()
        silent = [one for one in sample.notes if one.code != "CDCM-STREAM-TOPIC-MISSING"]
        if silent:
            raise Failed(
                "CDCM-GROUND-UNKNOWN",
                f"what is lost cannot be told while a part does not answer: {silent[0].part} "
                f"({silent[0].code}: {silent[0].cause})",
                "Bring it back, or correct how it is reached; then run the same command again.",
            )
        return sample

    def _require_fit(self, there: Migration) -> None:
        """See that everything is there that a new capture needs."""
        options = self._options
        capturing = options.capturing
        assert capturing is not None, "this step needs Connect and Kafka"
        with self._target() as conn, speaking("target", "reading the tables of the migration"):
            registered = {one.relation for one in load.read_tables(conn)}
        gone = sorted(registered - {table.name for table in self._tables()})
        if gone:
            raise Refused(
                "CDCM-SOURCE-TABLE-GONE",
                f"the source has no longer, or tables does not choose: {', '.join(map(str, gone))}",
                "See that the source is the right one and that `tables` in migration.yaml chooses "
                "them. `cdc-migrator abort`, then `cdc-migrator migrate` starts over.",
            )
        found = preflight.check(
            options.source_dsn,
            options.target_dsn,
            capturing.workers,
            capturing.brokers,
            there.names,
            options.include,
            options.exclude,
            {**dict.fromkeys(_NO_MATTER, "the target holds rows already"), **options.accept},
            stated=options.stated,
            replication_factor=capturing.options.replication_factor,
            connector=capturing.options.connector,
        )
        preflight.Preflight(
            tuple(one for one in found.findings if one.code not in _NO_MATTER), found.tables
        ).require()

    def _drain(self, sampler: Sampler) -> None:
        """Let whoever applies the former stream come to its end, if it can: so less differs."""
        until = time.monotonic() + _DRAIN_SECONDS
        told = False
        while time.monotonic() < until:
            sample = sampler.sample()
            if sample.service is None or (sample.events_pending == 0 and sample.pending_exact):
                return
            if not told:
                self._observer.step("waiting for `run` to apply what the former stream still has")
                told = True
            time.sleep(_AGAIN_SECONDS / 2)

    def _capture(self, there: Migration) -> None:
        options = self._options
        capturing = options.capturing
        assert capturing is not None, "this step needs Connect and Kafka"
        start_capture(
            options.source_dsn,
            options.target_dsn,
            capturing.workers,
            capturing.brokers,
            Names(there.name, there.generation),
            self._tables(),
            capturing.options,
            lambda text: self._observer.step(f"capture: {text}"),
        )

    def _tables(self) -> list[Table]:
        options = self._options
        with connect(options.source_dsn, application_name=self._called, side="source") as conn:
            return read_tables(conn, options.include, options.exclude)

    def _target(self) -> psycopg.Connection:
        return connect(self._options.target_dsn, application_name=self._called, side="target")
