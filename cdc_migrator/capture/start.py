"""Start, stop and look at capture. Starting again goes on where it was, or changes nothing.

The order matters: the tables' files are noted and the publication is made, then the slot (by a
snapshot holder), then the topics, then the connector, stopped and without offsets, then the
stream's progress row, and only then may the connector run. So whatever is found on the way says
how far an earlier start came:

* no consistent point on the target: nothing has read the slot, if there is one; it is made anew;
* no progress row: the connector has never run; offsets that Connect still keeps under its name
  are those of an earlier life and are reset;
* both: capture is complete; what differs from what is wanted is refused or put right. Tables that
  are not captured yet are left to `join`.

A generation behind the first one is made in the same order, after what the former ones made is gone
(`former`); it captures the tables that the migration has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from cdc_migrator.capture import access, ddl, former, secrets, sides
from cdc_migrator.capture import connector as config
from cdc_migrator.capture import slot as slots
from cdc_migrator.capture.connect_rest import ConnectClient, ConnectorStatus
from cdc_migrator.capture.holder import Request
from cdc_migrator.capture.ping import prove_streaming
from cdc_migrator.capture.publishing import ABORT, check, wanted
from cdc_migrator.capture.spawn import hold_snapshot
from cdc_migrator.capture.topics import Topics
from cdc_migrator.control import access as control_access
from cdc_migrator.control import anew, journal, load, locks, migration, progress, relations, schema
from cdc_migrator.control.load import NO_ROUTES, Routes
from cdc_migrator.databases.postgres import same, side
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.databases.postgres.grants import named
from cdc_migrator.errors import Refused
from cdc_migrator.model.logins import Role, login
from cdc_migrator.model.naming import Names
from cdc_migrator.model.outside import Brokers, Workers
from cdc_migrator.model.positions import lsn_to_int
from cdc_migrator.model.tables import Table


@dataclass(frozen=True, slots=True)
class CaptureOptions:
    """How capture is set up.

    Attributes:
        secrets_dir: where this machine writes the connector's secrets.
        state_dir: where the snapshot holder writes its log.
        worker_secrets_dir: the same directory as the Connect worker sees it; None: alike.
        secrets_mode: of each such file; 0o640 where the worker is another user of the group.
        source_host, source_port: the source as the worker reaches it; None: as we do.
        replication_factor: of the topics.
        slot_patience: seconds that making the slot may wait for the source's open transactions.
        streaming_patience: seconds until the first change must have arrived in the topic.
        connector: more connector settings (see `connector.configuration`).
    """

    secrets_dir: Path
    state_dir: Path
    worker_secrets_dir: Path | None = None
    secrets_mode: int = 0o600
    source_host: str | None = None
    source_port: int | None = None
    replication_factor: int = 1
    slot_patience: float = 600.0
    streaming_patience: float = 120.0
    connector: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CaptureStarted:
    """What a start did, in order (empty: all was there), and where the stream begins."""

    names: Names
    consistent_point: str
    did: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CaptureStatus:
    """The slot on the source and the connector in Connect; None where there is none."""

    slot: slots.Slot | None
    connector: ConnectorStatus | None


def start_capture(
    source_dsn: str,
    target_dsn: str,
    workers: Workers,
    brokers: Brokers,
    names: Names,
    tables: Sequence[Table],
    options: CaptureOptions,
    notify: Callable[[str], None] = lambda _: None,
    routes: Routes = NO_ROUTES,
) -> CaptureStarted:
    """Capture `tables` into the stream's topic; returns when a change was seen to arrive there.

    Args:
        notify: called with each step as it is begun, for people to read.
        routes: written down with the tables of a migration that begins.

    Raises:
        Refused: among others CDCM-CAPTURE-RUNNING (another process is at it),
            CDCM-CAPTURE-TABLES (a captured table is not among the tables), CDCM-SLOT-LOST,
            CDCM-CONNECTOR-TAKEN, CDCM-TOPIC-USED.
        Failed: among others CDCM-SLOT-TIMEOUT, CDCM-CONNECTOR-FAILED.
    """
    if not tables:
        raise Refused(
            "CDCM-TABLES-NONE",
            "there is no table to capture",
            "Check `tables.include` and `tables.exclude`.",
        )
    called = f"cdcm-{names.migration}-capture"
    as_connector = login(source_dsn, Role.CAPTURE)
    did: list[str] = []

    def step(text: str) -> None:
        notify(text)
        did.append(text)

    with ExitStack() as stack:
        source = stack.enter_context(connect(source_dsn, application_name=called, side="source"))
        target = stack.enter_context(connect(target_dsn, application_name=called, side="target"))
        with speaking("target", "preparing the control schema"):
            schema.ensure(target, "target", named=named(target_dsn))
            there = migration.create(target, names.migration)
            if not locks.try_lock(target, locks.Role.CAPTURE):
                raise Refused(
                    "CDCM-CAPTURE-RUNNING",
                    "another process is starting the capture of this migration",
                    "Wait for it, or end it and run the same command again.",
                )
        if there.names != names:
            raise Refused(
                "CDCM-GENERATION",
                f"the migration is in generation {there.generation}, not {names.generation}",
                ABORT,
            )
        client = stack.enter_context(ConnectClient(workers))
        topics = Topics(brokers)
        with speaking("source", "preparing the control schema"):
            one = same.one_database(source, target)
            schema.ensure(source, "source", one, named=named(source_dsn))
        if there.consistent_point is None and names.generation > 1:
            with connect(as_connector, application_name=called, side="source") as capture:
                former.leave(
                    source,
                    capture,
                    client,
                    topics,
                    names,
                    there.placeholder,
                    options.secrets_dir,
                    step,
                )
            with speaking("target", "reading the tables of the migration"):
                known = set(relations.of_source(load.read_tables(target)))
            tables = [table for table in tables if table.name in known]
        with speaking("source", "writing the migration down"):
            slots.register(source, names, there.placeholder)
        ddl.install(source, target, step)
        if there.consistent_point is None:
            _make_slot(source, target, source_dsn, target_dsn, names, tables, routes, options, step)
        else:
            check(source, target, names, tables)
        row = migration.read(target)
        assert row is not None
        assert row.consistent_point is not None
        _make_topics(target, topics, names, options, step)
        with connect(as_connector, application_name=called, side="source") as capture:
            password = capture.info.password
            settings = _settings(capture, names, row.placeholder, options)
        was_streaming = _streaming(source, names)
        _make_connector(client, target, topics, names, settings, row.consistent_point, step)
        if not (was_streaming and _streaming(source, names)):
            step("waiting for the first change to arrive in the topic")
            prove_streaming(
                source,
                client,
                brokers,
                names,
                options.streaming_patience,
                lambda text: text.replace(password, "***") if password else text,
            )
        return CaptureStarted(names, row.consistent_point, tuple(did))


def stop_capture(target_dsn: str, workers: Workers, names: Names) -> bool:
    """Stop the connector; its slot stays and keeps the source's log. False if there is none.

    `start_capture` lets it go on where it stopped.
    """
    called = f"cdcm-{names.migration}-capture"
    with (
        connect(target_dsn, application_name=called, side="target") as target,
        ConnectClient(workers) as client,
    ):
        with speaking("target", "writing the journal"):
            journal.write(target, "capture-stop", connector=client.called(names))
        return client.stop(client.called(names))


def capture_status(source_dsn: str, workers: Workers, names: Names) -> CaptureStatus:
    """The slot and the connector as they are now."""
    called = f"cdcm-{names.migration}-status"
    with (
        connect(login(source_dsn, Role.MONITOR), application_name=called, side="source") as source,
        ConnectClient(workers, patience=5.0) as client,
    ):
        with speaking("source", "looking at the replication slot"):
            slot = slots.read(source, names.slot)
        return CaptureStatus(slot, client.status(client.called(names)))


def _make_slot(
    source: psycopg.Connection,
    target: psycopg.Connection,
    source_dsn: str,
    target_dsn: str,
    names: Names,
    tables: Sequence[Table],
    routes: Routes,
    options: CaptureOptions,
    step: Callable[[str], None],
) -> None:
    beside = side.sides(tables, names.migration).values()
    with speaking("source", "making side tables and their triggers"):
        if beside:
            step(f"side tables and triggers for {len(beside)} tables")
            journal.write(target, "side-create", tables=[str(one.of.name) for one in beside])
        sides.install(source, names.migration, beside)
        control_access.give(source, named(source_dsn))
    with speaking("source", "making the publication"):
        step(f"publication {names.publication} of {len(tables)} tables")
        journal.write(target, "publication-create", publication=names.publication)
        slots.publish(source, names.publication, wanted(tables, names))
        files = slots.filenodes(source)
    with speaking("target", "writing down the tables"):
        if names.generation == 1:
            load.register(target, [(table, files[table.name]) for table in tables], routes)
        else:
            captured = {table.name for table in tables}
            known = [one for one in load.read_tables(target) if one.relation in captured]
            anew.note_files(target, {one.source: files[one.relation] for one in known})
    step(f"replication slot {names.slot} with its snapshot")
    hold_snapshot(
        Request(
            login(source_dsn, Role.VERIFY),
            login(target_dsn, Role.APPLY),
            names.migration,
            names.generation,
            options.slot_patience,
            login(source_dsn, Role.CAPTURE),
        ),
        options.state_dir,
    )
    ddl.note(source, target, tables)


def _make_topics(
    target: psycopg.Connection,
    topics: Topics,
    names: Names,
    options: CaptureOptions,
    step: Callable[[str], None],
) -> None:
    for topic in (names.topic, names.heartbeat_topic):
        if topics.ensure(topic, options.replication_factor):
            step(f"topic {topic}")
    if not anew.ran(target, names.generation) and topics.end_offset(names.topic) > 0:
        raise Refused(
            "CDCM-TOPIC-USED",
            f"the topic {names.topic} holds records though this stream has never run",
            ABORT,
        )


def _settings(
    capture: psycopg.Connection,
    names: Names,
    placeholder: str,
    options: CaptureOptions,
) -> dict[str, str]:
    """The connector's configuration; writes the files that it refers to.

    Args:
        capture: a session of the connector's own login.
    """
    seen_by_worker = options.worker_secrets_dir or options.secrets_dir.absolute()
    way_in = access.of(capture, names, seen_by_worker, options.source_host, options.source_port)
    secrets.write(options.secrets_dir, way_in.files, options.secrets_mode)
    return config.configuration(
        names, way_in.settings, placeholder, options.replication_factor, options.connector
    )


def _make_connector(
    client: ConnectClient,
    target: psycopg.Connection,
    topics: Topics,
    names: Names,
    settings: dict[str, str],
    consistent_point: str,
    step: Callable[[str], None],
) -> None:
    name = client.called(names)
    there = client.config(name)
    if there is not None and there.get(config.OWNER) != settings[config.OWNER]:
        raise Refused(
            "CDCM-CONNECTOR-TAKEN",
            f"Connect has a connector {name} of another migration",
            "Choose another name for this migration, or remove that one with `cdc-migrator abort`.",
        )
    if there is None:
        _validate(client, settings)
        step(f"connector {name}")
        journal.write(target, "connector-create", connector=name)
        client.create_stopped(name, settings)
    elif changed := config.differences(settings, there):
        step(f"connector {name}: changing {', '.join(changed)}")
        journal.write(target, "connector-change", connector=name, settings=changed)
        client.put_config(name, settings)
    if not anew.ran(target, names.generation):
        client.stop(name)
        client.reset_offsets(name)
        topic_id = topics.id(names.topic)
        journal.write(target, "stream-create", topic=names.topic, generation=names.generation)
        progress.create(
            target,
            names.topic,
            names.generation,
            commit_position=lsn_to_int(consistent_point),
            topic_id=topic_id,
        )
    status = client.status(name)
    if status is None or status.state in ("STOPPED", "PAUSED"):
        step(f"connector {name}: running")
        journal.write(target, "connector-resume", connector=name)
        client.resume(name)
    elif status.failed:
        step(f"connector {name}: restarting what had failed")
        journal.write(target, "connector-restart", connector=name)
        client.restart_failed(name)


def _validate(client: ConnectClient, settings: dict[str, str]) -> None:
    objections = client.validate(config.PLUGIN, {**settings, "name": "cdcm-validate"})
    if objections:
        told = "; ".join(f"{key}: {' '.join(errors)}" for key, errors in sorted(objections.items()))
        raise Refused(
            "CDCM-CONNECTOR-CONFIG",
            f"Kafka Connect does not accept the connector's configuration: {told}",
            "Check that the worker can reach the source under this address, that it can read the "
            "secrets file, and that exactly-once source support is on.",
        )


def _streaming(source: psycopg.Connection, names: Names) -> bool:
    with speaking("source", "looking at the replication slot"):
        slot = slots.read(source, names.slot)
    return slot is not None and slot.streaming
