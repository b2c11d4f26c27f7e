"""The way back: a migration of its own from the target to the source, which writes nothing yet.

Its slot, publication, connector and topic are those of any migration, with the two sides changed
over, and so are its control tables: the source database has then a target's part as well, and the
target a source's. It loads nothing, because both sides hold the same rows; and its stream is
passed over up to the marker that the opening of the target commits. So what the way there wrote
does not come back.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg

from cdc_migrator.capture import preflight
from cdc_migrator.capture import slot as slots
from cdc_migrator.capture.abort import Aborted, abort
from cdc_migrator.capture.leftover import ACCEPTABLE
from cdc_migrator.capture.start import start_capture
from cdc_migrator.control import (
    access,
    cutover,
    deferring,
    journal,
    load,
    mapping,
    markers,
    migration,
    progress,
    schema,
    within,
)
from cdc_migrator.control import fence as fences
from cdc_migrator.control.migration import Phase
from cdc_migrator.databases.postgres.catalog import read_tables
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.databases.postgres.grants import named
from cdc_migrator.errors import Failed, MigratorError, Refused
from cdc_migrator.faultpoints import reach
from cdc_migrator.model.logins import Role, login
from cdc_migrator.model.mapping import Wanted
from cdc_migrator.model.naming import Names, way_back_of
from cdc_migrator.model.positions import lsn_to_text
from cdc_migrator.model.tables import TableName
from cdc_migrator.service.capturing import Capturing
from cdc_migrator.service.returning import Comes, Ways, comes

# The source holds rows and may be of an older release: neither is in the way of going back.
_NO_MATTER = frozenset(
    {*ACCEPTABLE, "CDCM-TARGET-VERSION", "CDCM-TARGET-NOT-EMPTY", "CDCM-TARGET-SPACE"}
)


@dataclass(frozen=True, slots=True)
class WayBackOptions:
    """Of which migration; the strings hold passwords, and are those of the way there.

    `accept`: reasons for which a finding of `check` is accepted, by code. `wanted`: what is said of
    tables that change their shape, and of their way back.
    """

    name: str
    source_dsn: str
    target_dsn: str
    capturing: Capturing
    accept: Mapping[str, str] = field(default_factory=dict)
    wanted: Sequence[Wanted] = ()

    @property
    def back(self) -> str:
        return way_back_of(self.name)


def prepare(options: WayBackOptions, notify: Callable[[str], None] = lambda _: None) -> bool:
    """Capture what will be written on the target; False where all was there.

    Can be killed and repeated. Tables that came to the migration since are taken in by making it
    anew, which nothing is lost by: nothing rests on it as long as the source is written to.

    Raises:
        Refused: CDCM-WAY-BACK-EARLY, CDCM-WAY-BACK-LATE, CDCM-TARGET-TAKEN: the source has the
            way back of another migration; CDCM-MAPPING-NO-WAY-BACK, CDCM-WAY-BACK-SAME-DATABASE.
            MigratorError: as `start_capture`.
    """
    called = f"cdcm-{options.back}-prepare"
    with (
        connect(options.source_dsn, application_name=called, side="source") as source,
        connect(options.target_dsn, application_name=called, side="target") as target,
    ):
        with speaking("target", "reading the migration"):
            within.require_apart(target)
            loads, leg = _require_in_time(target, options.name)
        with speaking("source", "reading its way back"):
            there = _find(source, options.back)
            known, left = _known(source) if there else ({}, [])
        coming = comes(source, target, loads, options.wanted)
        coming.told(notify)
        same = known == coming.ways and left == [*coming.left]
        complete = there is not None and same and there.phase.reached(Phase.STREAM)
        if known and not same:
            notify("the migration has other tables by now: making the way back anew")
            _require_gone(drop(options))
            there = None
        with speaking("source", "preparing its control schema"):
            schema.ensure(source, "target", True, named(options.source_dsn))
            access.give_rows(source, named(options.source_dsn), coming.source, (Role.APPLY,))
            fences.have_token(source)
            migration.create(source, options.back)
        with speaking("target", "preparing its control schema"):
            schema.ensure(target, "source", True, named(options.target_dsn))
        if there is None or there.consistent_point is None:
            _require_held_off(options, target)
            notify("checking the target as a source")
            _require_fit(options, coming.tables)
        started = _capture(options, target, coming, notify)
        if not complete:
            reach("way-back.captured")
            with speaking("source", "writing the way back down"), source.transaction():
                without = [str(there) for _, there in coming.left]
                journal.write(
                    source,
                    "way-back-prepared",
                    leg=leg,
                    tables=len(coming.tables),
                    **({"without": without} if without else {}),
                )
                mapping.leave(source, coming.left)
                source.execute(
                    "UPDATE cdc_migrator.table_progress SET load_state = 'loaded', "
                    "load_started_at = now(), load_ended_at = now()"
                )
                progress.passive(source, leg)
                # Its snapshot's holder has nothing to hold any more.
                migration.update(source, "phase", phase=Phase.SWITCHED, snapshot_name=None)
        return not complete or bool(started)


def drop(options: WayBackOptions, notify: Callable[[str], None] = lambda _: None) -> Aborted:
    """Remove all that `prepare` made. The fences of both sides stay as they are.

    Raises as `capture.abort.abort`.
    """
    capturing = options.capturing
    return abort(
        options.target_dsn,
        options.source_dsn,
        capturing.workers,
        capturing.brokers,
        options.back,
        capturing.options.secrets_dir,
        notify,
        way_back=True,
    )


def prove(options: WayBackOptions, patience: float) -> float:
    """Seconds from the commit of a ping on the target until the way back has applied it.

    Raises Failed: CDCM-WAY-BACK-SILENT.
    """
    called = f"cdcm-{options.back}-ping"
    with (
        connect(options.source_dsn, application_name=called, side="source") as source,
        connect(options.target_dsn, application_name=called, side="target") as target,
    ):
        return ping(target, source, options.back, patience)


def ping(
    leaving: psycopg.Connection, entering: psycopg.Connection, back: str, patience: float
) -> float:
    """As `prove`, on sessions that are there."""
    token = f"ping-{secrets.token_hex(12)}"
    began = time.monotonic()
    with speaking("source", "listening for the way back"):
        markers.listen(entering)
    with speaking("target", "sending a ping down the way back"):
        markers.write(leaving, back, "ping", token)
    with speaking("source", "waiting for the ping"):
        if markers.wait(entering, token, patience):
            return time.monotonic() - began
    raise Failed(
        "CDCM-WAY-BACK-SILENT",
        f"a ping on the target was not applied on the source within {patience:.0f} s",
        "Is `cdc-migrator run` alive? It applies the way back, too; `cdc-migrator status` shows "
        "both. Then run the same command again.",
    )


def look(name: str, source_dsn: str, stale_after: float = 15.0) -> dict[str, Any]:
    """The document of `way-back status`. Raises MigratorError where the source does not answer."""
    called = f"cdcm-{name}-way-back-status"
    with (
        connect(
            login(source_dsn, Role.MONITOR), application_name=called, side="source", read_only=True
        ) as source,
        speaking("source", "reading the way back"),
    ):
        there = _find(source, way_back_of(name))
        stored = progress.read(source) if there else None
        if there is None or stored is None or not there.phase.reached(Phase.STREAM):
            return {"prepared": False}
        return {
            "prepared": True,
            "active": stored.active,
            "leg": stored.leg,
            "tables": len(load.read_tables(source)),
            "without": [str(there) for _, there in mapping.left(source)],
            "alive": progress.alive(source, stale_after),
            "lag_seconds": progress.lag(source),
            "changes_ignored": stored.changes_ignored,
            "transactions_applied": stored.transactions_applied,
            "commit_position": lsn_to_text(stored.commit_position),
            "error": there.last_error,
        }


def may_be_there(options: WayBackOptions) -> bool:
    """Whether something of the way back is on the source, or the source cannot be asked while
    there is something on the target."""
    called = f"cdcm-{options.back}-look"
    with (
        suppress(MigratorError),
        connect(options.source_dsn, application_name=called, side="source") as source,
    ):
        there = migration.read(source) if schema.exists(source, "target") else None
        return there is not None and there.name == options.back
    with (
        suppress(MigratorError),
        connect(options.target_dsn, application_name=called, side="target") as target,
    ):
        return schema.exists(target, "source") and slots.owner(target, options.back) is not None
    return False


def _find(source: psycopg.Connection, back: str) -> migration.Migration | None:
    if within.both_sides(source):
        return None
    try:
        return migration.find(source, back)
    except Refused:
        raise Refused(
            "CDCM-WAY-BACK-TAKEN",
            "the source is the target of another migration, or has another one's way back",
            "Finish or abort that one first; a database has one way into it.",
        ) from None


def against(source: psycopg.Connection, name: str, stale_after: float) -> list[tuple[str, str]]:
    """What stands against going back now, each reason with its remedy.

    Args:
        stale_after: seconds without a sign of life after which nobody applies the way back.
    """
    found = []
    there = _find(source, way_back_of(name))
    run = "Start `cdc-migrator run`, which applies the way back, too."
    if there is not None and there.last_error is not None:
        error = there.last_error
        found.append((f"the way back has stopped: {error['cause']}", str(error["remedy"])))
    elif not progress.alive(source, stale_after):
        found.append(("nobody applies the way back", run))
    return found


def _require_in_time(target: psycopg.Connection, name: str) -> tuple[list[load.TableLoad], int]:
    """The migration's tables, and the leg that is under way."""
    there = migration.require(target, name)
    schema.ensure(target, "target")
    if not there.phase.reached(Phase.STREAM):
        raise Refused(
            "CDCM-WAY-BACK-EARLY",
            f"the migration is in its phase {there.phase!s}: the target is not loaded yet",
            "Type `cdc-migrator migrate` first, which goes on where it stopped.",
        )
    stored = progress.read(target)
    assert stored is not None
    if cutover.opened(target):
        raise Refused(
            "CDCM-WAY-BACK-LATE",
            "the target was opened, so what was written there before now would be missing",
            "`cdc-migrator way-back status` shows the one that there is.",
        )
    loads = load.read_tables(target)
    if any(one.joining for one in loads):
        raise Failed(
            "CDCM-WAY-BACK-JOINING",
            "a table is on its way into the migration",
            "Wait for it (`cdc-migrator status`), then run the same command again.",
        )
    return loads, stored.leg


def _known(source: psycopg.Connection) -> tuple[Ways, list[tuple[TableName, TableName]]]:
    """What the way back that there is brings back, and what it was told to leave."""
    there = load.read_tables(source)
    return {one.source: (one.target, one.route) for one in there}, mapping.left(source)


def _require_held_off(options: WayBackOptions, target: psycopg.Connection) -> None:
    """See that nothing acts on what is applied, there and back."""
    grant = "GRANT SET ON PARAMETER session_replication_role TO the role that applies, on the "
    without = "Or go without a way back: say why in cutover.without_way_back."
    with speaking("target", "reading what waits until it is opened"):
        if deferring.defers(target):
            raise Refused(
                "CDCM-WAY-BACK-DEFERS",
                "the target's role may not hold off foreign keys and triggers, so they are made "
                "when it is opened; after a rollback nothing could be applied there again",
                f"{grant}target before a new start. {without}",
            )
    if not deferring.may_hold_off(options.source_dsn):
        raise Refused(
            "CDCM-WAY-BACK-REPLICA-ROLE",
            "the source's role may not set session_replication_role: the source's foreign keys and "
            "triggers would act on what comes back",
            f"{grant}source. {without}",
        )


def _require_fit(options: WayBackOptions, tables: Sequence[TableName]) -> None:
    found = preflight.check(
        options.target_dsn,
        options.source_dsn,
        options.capturing.workers,
        options.capturing.brokers,
        Names(options.back),
        None,
        accept=options.accept,
        replication_factor=options.capturing.options.replication_factor,
    )
    wanted = {str(table) for table in tables}
    against = tuple(
        one
        for one in found.findings
        if one.code not in _NO_MATTER and (one.object in wanted or "." not in one.object)
    )
    try:
        replace(found, findings=against).require()
    except MigratorError as error:
        raise type(error)(
            error.code,
            f"there can be no way back yet (the target is its source): {error.cause}",
            error.remedy,
        ) from None


def _capture(
    options: WayBackOptions,
    target: psycopg.Connection,
    coming: Comes,
    notify: Callable[[str], None],
) -> tuple[str, ...]:
    capturing = options.capturing
    with speaking("target", "reading its tables"):
        wanted = set(coming.tables)
        found = [table for table in read_tables(target) if table.name in wanted]
    return start_capture(
        options.target_dsn,
        options.source_dsn,
        capturing.workers,
        capturing.brokers,
        Names(options.back),
        found,
        capturing.options,
        lambda text: notify(f"way back: {text}"),
        coming.routes,
    ).did


def _require_gone(aborted: Aborted) -> None:
    if aborted.kept:
        raise aborted.kept[0].error
