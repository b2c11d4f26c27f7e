"""Give a migration up at any phase: remove all it has made beside the target's own tables.

Each part is removed on its own, and what is gone already is no error; so an abort that was
killed, or that could not reach one side, is simply run again. The order keeps things from
coming back: first the connector, then the slot that it would take again and the topics that it
would write to; the target's control schema, which knows whose all this is, comes last.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from cdc_migrator.capture import secrets, sides
from cdc_migrator.capture import slot as slots
from cdc_migrator.capture.connect_rest import ConnectClient
from cdc_migrator.capture.topics import Topics
from cdc_migrator.control import cutover, fence, journal, migration, schema
from cdc_migrator.databases.postgres import ddl_trigger, same
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.errors import MigratorError, Refused
from cdc_migrator.model.logins import Role, login
from cdc_migrator.model.outside import Brokers, TopicsMade, Workers


@dataclass(frozen=True, slots=True)
class Kept:
    """Something that is still there, and the error that kept it."""

    what: str
    error: MigratorError


@dataclass(frozen=True, slots=True)
class Aborted:
    """What an abort removed, in order, what it could not remove, and what it left on purpose."""

    removed: tuple[str, ...]
    kept: tuple[Kept, ...]
    left: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Nothing of the migration is left behind."""
        return not self.kept


def together(parts: Sequence[Aborted]) -> Aborted:
    """As if it had been one."""
    return Aborted(
        tuple(one for part in parts for one in part.removed),
        tuple(one for part in parts for one in part.kept),
        tuple(dict.fromkeys(one for part in parts for one in part.left)),
    )


@dataclass(slots=True)
class _Work:
    """The lists as they grow; `part` keeps one part's failure from stopping the others."""

    notify: Callable[[str], None]
    removed: list[str] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)

    def gone(self, what: str) -> None:
        self.removed.append(what)
        self.notify(what)

    @contextmanager
    def part(self, what: str) -> Iterator[None]:
        try:
            yield
        except MigratorError as exc:
            self.kept.append(Kept(what, exc))


def abort(
    source_dsn: str,
    target_dsn: str,
    workers: Workers,
    brokers: Brokers,
    name: str,
    secrets_dir: Path,
    notify: Callable[[str], None] = lambda _: None,
    *,
    after_cutover: bool = False,
    keep_fence: bool = False,
    way_back: bool = False,
) -> Aborted:
    """Remove connector, offsets, slot, publication, topics, secrets and control schemas.

    The target's own tables and their rows stay. A snapshot holder or a loader ends by itself
    when its sessions are ended here, on whichever machine it runs.

    Args:
        name: of the migration; all its generations are removed.
        notify: called with each thing as it is removed.
        after_cutover: the source was left for good. keep_fence: it stays fenced.
        way_back: it is a way back, from the target to the source; both sides' fences stay.

    Raises:
        Refused: CDCM-TARGET-TAKEN: the target belongs to a migration of another name.
            CDCM-ABORT-CUTOVER: the source is left, or is being left. Nothing was removed.
    """
    work = _Work(notify)
    left = [] if way_back else ["the tables of the target, with their rows"]
    called = f"cdcm-{name}-abort"
    with ExitStack() as stack:
        source = target = None
        with work.part("the target's control schema"):
            target = stack.enter_context(
                connect(target_dsn, application_name=called, side="target")
            )
        with work.part("the source's slot, publication and control schema"):
            source = stack.enter_context(
                connect(source_dsn, application_name=called, side="source")
            )
        if _foreign(source, target, name, after_cutover, way_back):
            left.append(
                f"everything else called {name}: it belongs to a migration with another target"
            )
        else:
            with work.part("the connector, its offsets and its secrets"):
                _connectors(work, workers, name, secrets_dir)
            if source is not None:
                with work.part("the source's slot, publication and control schema"):
                    _source(work, source, source_dsn, name, keep_fence, target)
            with work.part("the topics"):
                pattern = re.compile(rf"(__debezium-heartbeat\.)?cdcm\.{name}\.\d+(\..*)?")
                topics = Topics(brokers)
                ours = [topic for topic in topics.names() if pattern.fullmatch(topic)]
                if brokers.topics is TopicsMade.GIVEN:
                    left += [f"the topic {topic}, which others made" for topic in ours]
                else:
                    for topic in topics.delete(ours):
                        work.gone(f"topic {topic}")
        if target is not None:
            with (
                work.part("the target's control schema"),
                speaking("target", "removing the control schema"),
            ):
                slots.end_sessions(target, name, source)
                if not way_back and (fenced := fence.remove(target)):
                    work.gone(f"fence of {fenced} tables of the target")
                if _one(source, target):
                    _both(work, target, keep_fence)
                elif schema.drop(target, "target"):
                    work.gone("control schema cdc_migrator on the target")
    return Aborted(tuple(work.removed), tuple(work.kept), tuple(left))


def require_left(target_dsn: str, name: str, after_cutover: bool) -> None:
    """See that the migration may be removed now; does nothing where the target does not answer.

    Raises Refused: as `abort`.
    """
    try:
        conn = connect(target_dsn, application_name=f"cdcm-{name}-abort", side="target")
    except MigratorError:
        return
    with conn, speaking("target", "reading the last cutover"):
        if schema.exists(conn, "target"):
            _no_cutover(conn, after_cutover)


def _no_cutover(target: psycopg.Connection, after_cutover: bool) -> None:
    """Without the source's fence, which would go, both sides could be written to."""
    if not schema.has(target, "cutover"):
        return
    under_way = cutover.unfinished(target) is not None
    if under_way or (cutover.opened(target) and not after_cutover):
        raise Refused(
            "CDCM-ABORT-CUTOVER",
            "the source is being left for the target"
            if under_way
            else "the source was left for the target, and its fence would go with the rest",
            "`cdc-migrator cutover` goes on with it, `cdc-migrator cutover abort` undoes it."
            if under_way
            else "`cdc-migrator finish` removes what the migration made, and keeps the fence.",
        )
    if after_cutover and not cutover.opened(target):
        raise Refused(
            "CDCM-FINISH-EARLY",
            "the target was not opened: applications still write to the source",
            "`cdc-migrator cutover` comes first; `cdc-migrator abort` gives the migration up.",
        )


def _foreign(
    source: psycopg.Connection | None,
    target: psycopg.Connection | None,
    name: str,
    after_cutover: bool,
    way_back: bool,
) -> bool:
    """Whether what the source has under this name belongs to a migration with another target."""
    if target is None or not schema.exists(target, "target"):
        return False
    with speaking("target", "reading the migration"):
        there = migration.read(target)
        if there is None:
            return False
        if there.name != name:
            raise Refused(
                "CDCM-TARGET-TAKEN",
                f"this target belongs to the migration {there.name!r}, not to {name!r}",
                "Name that migration, or the right target.",
            )
        if not way_back:
            _no_cutover(target, after_cutover)
        journal.write(target, "abort", name=name)
    if source is None or not schema.exists(source, "source"):
        return False
    with speaking("source", "reading the migration"):
        owner = slots.owner(source, name)
    return owner is not None and owner != there.placeholder


def _both(work: _Work, database: psycopg.Connection, keep_fence: bool) -> None:
    """Remove the target's part where the source's was in the same database, and is gone.

    Without either part the schema holds nothing but the function of a fence that was kept.
    """
    there = schema.sides(database)
    if there == {"target"} and keep_fence:
        schema.drop_tables(database)
        work.gone("control tables of cdc_migrator; the source's fence stays up")
    elif there and schema.drop(database, "target"):
        work.gone("control schema cdc_migrator")


def _one(source: psycopg.Connection | None, target: psycopg.Connection | None) -> bool:
    """Whether both sides are one database."""
    return source is not None and target is not None and same.one_database(source, target)


def _connectors(work: _Work, workers: Workers, name: str, secrets_dir: Path) -> None:
    pattern = re.compile(rf"cdcm-{name}-\d+")
    with ConnectClient(workers) as client:
        for connector in client.names():
            if not pattern.fullmatch(connector) and not (
                # One whose name was chosen for us may be somebody else's by now.
                connector == workers.connectors.get(name)
                and (client.config(connector) or {})
                .get("topic.prefix", "")
                .startswith(f"cdcm.{name}.")
            ):
                continue
            # Offsets can be forgotten only while the connector is there and stopped. Those that
            # stay are reset when a connector of this name is made again.
            offsets = "with its offsets"
            try:
                client.stop(connector)
                client.reset_offsets(connector)
            except Refused:
                offsets = "without its offsets"
            if client.delete(connector):
                work.gone(f"connector {connector} {offsets}")
    # Not before: a worker that cannot read a connector's secrets cannot even stop it.
    for file in secrets.of_migration(secrets_dir, name):
        file.unlink(missing_ok=True)
        work.gone(f"secrets file {file}")


def _source(
    work: _Work,
    source: psycopg.Connection,
    source_dsn: str,
    name: str,
    keep_fence: bool,
    target: psycopg.Connection | None,
) -> None:
    with speaking("source", "removing the slot, the publication and the control schema"):
        ended = slots.end_sessions(source, name, target)
        if ended:
            work.gone(f"{ended} sessions of this migration on the source")
        if made := slots.ours(source, name):
            with connect(
                login(source_dsn, Role.CAPTURE),
                application_name=f"cdcm-{name}-abort",
                side="source",
            ) as capture:
                for slot in made:
                    if slots.drop(capture, slot):
                        work.gone(f"replication slot {slot}")
        publication = f"cdcm_{name}"
        if slots.unpublish(source, publication):
            work.gone(f"publication {publication}")
        if schema.exists(source, "source"):
            for table in sides.remove(source, name):
                work.gone(f"side table and trigger of {table}")
        if not schema.exists(source, "source") or not slots.unregister(source, name):
            return
        # Somebody else's go with the schema that their function is in.
        with suppress(psycopg.errors.InsufficientPrivilege):
            if ddl_trigger.remove(source):
                work.gone("event triggers on the source")
        if _one(source, target) and schema.exists(source, "target"):
            schema.drop(source, "source")  # the schema itself goes with the target's part
        elif keep_fence and schema.drop_tables(source):
            work.gone("control tables of cdc_migrator on the source; its fence stays up")
        elif not keep_fence and schema.drop(source, "source"):
            work.gone("control schema cdc_migrator on the source")
