"""Look at the sequences of both sides, set the target's, and look again whether that holds.

What to set is decided in `sequences`. No value is consumed on either side. Nothing here needs
the stream to stand still; but what the source gives after the second look is covered by the
margin alone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files

import psycopg

from cdc_migrator.backfill.sequences import (
    DEFAULT_MARGIN,
    Decision,
    Finding,
    Severity,
    decide,
    decide_alone,
    proven,
)
from cdc_migrator.control import journal
from cdc_migrator.databases.postgres import same
from cdc_migrator.databases.postgres import sequences as catalog
from cdc_migrator.databases.postgres.coded import describe, speaking
from cdc_migrator.databases.postgres.sqlstate import connection_lost
from cdc_migrator.errors import Refused
from cdc_migrator.model.sequences import Fed, SequenceName, SequenceState
from cdc_migrator.model.tables import TableName

_Pairs = list[tuple[SequenceState, SequenceState | None]]

_log = logging.getLogger("cdc_migrator.sequences")


@dataclass(frozen=True, slots=True)
class Synced:
    """What became of one sequence.

    Attributes:
        decision: with what went wrong while it was carried out among its findings.
        target: as it is now; None where there is none.
        moved, altered: what was done.
        proven: it was looked at again, and gives nothing that exists or that the source gave.
    """

    decision: Decision
    target: SequenceState | None
    moved: bool
    altered: bool
    proven: bool


def plan(
    source: psycopg.Connection,
    target: psycopg.Connection,
    tables: Sequence[TableName],
    margin: int = DEFAULT_MARGIN,
    reshaped: Collection[TableName] = (),
) -> list[Decision]:
    """What `sync` would do with each sequence of the source that goes to the target.

    These are all that the schema step brings over (none where both sides are one database), those
    that a default of one of `tables` takes values from, and those that feed one of `tables` or
    `reshaped` on the target only. The source is read first: rows that come to the target later can
    only be further.

    Args:
        tables: those that are on the target what they are on the source.
        reshaped: the target's tables that rows come to in another shape: the sequences that feed
            them are theirs alone, and are set past what their columns hold.

    Raises:
        MigratorError: as `coded.coded`.
    """
    with speaking("source", "reading its sequences"):
        ours, left_out, migrated = _in_scope(source, tables)
    with speaking("target", "reading its sequences"):
        theirs = catalog.read_sequences(target)
        pairs = _apart(source, target, _pairs(ours, theirs))
        paired = {other.oid for _, other in pairs if other}
        alone = [
            one
            for one in theirs
            if one.oid not in paired
            and any(fed.table in migrated or fed.table in reshaped for fed in one.feeds)
        ]
        feeds = [_feeds(one, other) for one, other in pairs] + [list(one.feeds) for one in alone]
        there = catalog.existing_columns(target, [fed for some in feeds for fed in some])
    decisions = []
    for (one, other), fed in zip([*pairs, *((one, one) for one in alone)], feeds, strict=True):
        present = [f for f in fed if other and (f.table, f.column) in there]
        columns, unread = _outermost(target, present, one)
        if one is other:
            meant = any(fed.table in reshaped for fed in one.feeds)
            decision = decide_alone(one, columns, meant=meant)
        else:
            decision = decide(one, other, columns, margin, left_out=one.oid in left_out)
        if unread:
            # What it might collide with is not known: leave it.
            decision = replace(decision, move_to=None, alter=False, findings=tuple(unread))
        elif decision.changes and other and not other.settable:
            refused = _not_set(one.name, "the role may not set it")
            findings = (*decision.findings, refused)
            decision = replace(decision, move_to=None, alter=False, findings=findings)
        decisions.append(decision)
    return decisions


def sync(
    source: psycopg.Connection,
    target: psycopg.Connection,
    tables: Sequence[TableName],
    margin: int = DEFAULT_MARGIN,
    reshaped: Collection[TableName] = (),
) -> list[Synced]:
    """Set the target's sequences as `plan` says, then look at both sides again.

    Parameters are set one sequence at a time, values in one statement. What is set is in the
    journal before. Can be killed and repeated at any point. The target's control schema must
    exist, and `target` must have no open transaction.

    Raises:
        MigratorError: as `coded.coded`.
    """
    decisions = plan(source, target, tables, margin, reshaped)
    doing = [d for d in decisions if d.changes]
    altered: set[int] = set()
    moved: set[int] = set()
    failed: dict[int, Finding] = {}
    if doing:
        with speaking("target", "writing the journal"):
            journal.write(target, "sequences-sync", margin=margin, sequences=_noted(doing))
        for decision in doing:
            if decision.alter and decision.target:
                finding = _alter(target, decision)
                if finding:
                    failed[decision.target.oid] = finding
                else:
                    altered.add(decision.target.oid)
        with speaking("target", "setting its sequences"):
            moved = _move(target, [d for d in doing if d.target and d.target.oid not in failed])
    with speaking("source", "reading its sequences again"):
        ours = {one.oid: one for one in catalog.read_sequences(source)}
    with speaking("target", "reading its sequences again"):
        theirs = {one.oid: one for one in catalog.read_sequences(target)}
    result = []
    for decision in decisions:
        oid = decision.target.oid if decision.target else 0
        now = theirs.get(oid)
        source_now = now if decision.alone else ours.get(decision.source.oid)
        holds = source_now is not None and proven(decision, source_now, now)
        findings = decision.findings
        if oid in failed:
            findings = (*findings, failed[oid])
        elif not holds and not decision.failed:
            findings = (*findings, _unproven(decision.name))
        final = replace(decision, findings=findings)
        result.append(Synced(final, now, oid in moved, oid in altered, holds and not final.failed))
    return result


def _in_scope(
    source: psycopg.Connection, tables: Sequence[TableName]
) -> tuple[list[SequenceState], set[int], set[TableName]]:
    """The source's sequences that go over, which of them the schema step leaves out, and the
    migrated tables with those that they are partitions of."""
    query = files(__package__).joinpath("excluded.sql").read_text().encode()
    parameters = {"schemas": [t.schema for t in tables], "names": [t.name for t in tables]}
    gone = {row[1] for row in source.execute(query, parameters)}
    migrated = set(catalog.partition_roots(source, tables))
    scope = [
        one
        for one in catalog.read_sequences(source)
        if one.oid not in gone or any(fed.table in migrated for fed in one.feeds)
    ]
    return scope, {one.oid for one in scope if one.oid in gone}, migrated


def _pairs(ours: Iterable[SequenceState], theirs: Iterable[SequenceState]) -> _Pairs:
    """Each sequence of the source with the target's of that name, or else of that column.

    A table that was made by hand may have its identity's sequence under another name.
    """
    named = {one.name: one for one in theirs}
    fed = {(column.table, column.column): one for one in named.values() for column in one.feeds}
    pairs = []
    for one in ours:
        other = named.get(one.name)
        for column in one.feeds if other is None else ():
            other = other or fed.get((column.table, column.column))
        pairs.append((one, other))
    return pairs


def _apart(source: psycopg.Connection, target: psycopg.Connection, pairs: _Pairs) -> _Pairs:
    """The pairs without those that are one sequence, which both sides of a migration inside one
    database use: it is past all that it gave as it is."""
    two = [(one, other) for one, other in pairs if other is None or one.oid != other.oid]
    # Servers that were copied from one another number alike.
    return two if len(two) < len(pairs) and same.one_database(source, target) else pairs


def _feeds(one: SequenceState, other: SequenceState | None) -> list[Fed]:
    """The columns of both sides' sequences; where both have one, as the target has it."""
    columns = {(fed.table, fed.column): fed for fed in one.feeds}
    columns |= {(fed.table, fed.column): fed for fed in (other.feeds if other else ())}
    return list(columns.values())


def _outermost(
    target: psycopg.Connection, columns: Iterable[Fed], one: SequenceState
) -> tuple[dict[Fed, int | None], list[Finding]]:
    """The columns with their outermost values, and which of them the role may not read."""
    values: dict[Fed, int | None] = {}
    unread = []
    for fed in columns:
        begun = time.monotonic()
        try:
            with speaking("target", f"reading its column {fed}"):
                values[fed] = (
                    catalog.furthest(target, fed, one.parameters) if fed.comparable else None
                )
        except Refused as exc:
            if exc.code != "CDCM-DB-PRIVILEGE":
                raise
            unread.append(_column_unreadable(fed))
        _log.debug("column %s read in %.3f s", fed, time.monotonic() - begun)
    return values, unread


def _alter(target: psycopg.Connection, decision: Decision) -> Finding | None:
    """Set the parameters; the finding if the server refuses."""
    assert decision.target is not None
    restart = decision.move_to.last if decision.restart and decision.move_to else None
    try:
        catalog.alter(target, decision.target.name, decision.source.parameters, restart)
    except psycopg.Error as exc:
        if connection_lost(exc):
            with speaking("target", "altering its sequences"):
                raise
        return _not_set(decision.name, describe(exc))
    return None


def _move(target: psycopg.Connection, decisions: Sequence[Decision]) -> set[int]:
    wanted = [
        (
            d.target.oid,
            d.move_to,
            0 if d.source.parameters.cycle else d.source.parameters.direction,
        )
        for d in decisions
        if d.target and d.move_to
    ]
    return set(catalog.move(target, wanted)) if wanted else set()


def _noted(decisions: Iterable[Decision]) -> list[dict[str, object]]:
    """What is going to be done, for the journal."""
    return [
        {
            "sequence": str(d.name),
            "parameters": list(d.differs) if d.alter else [],
            "last_value": d.move_to.last if d.move_to else None,
            "is_called": d.move_to.called if d.move_to else None,
        }
        for d in decisions
    ]


def _column_unreadable(fed: Fed) -> Finding:
    return Finding(
        "CDCM-SEQUENCE-UNREADABLE",
        Severity.ERROR,
        f"the role may not read all of the target's column {fed}",
        "On the target: GRANT SELECT on that table to the role of the connection string; with "
        "row security, BYPASSRLS.",
    )


def _not_set(name: SequenceName, reason: str) -> Finding:
    return Finding(
        "CDCM-SEQUENCE-NOT-SET",
        Severity.ERROR,
        f"the target's sequence {name} was not set: {reason}",
        "Use the role that owns it, or grant it (ALTER SEQUENCE … OWNER TO), then repeat.",
    )


def _unproven(name: SequenceName) -> Finding:
    return Finding(
        "CDCM-SEQUENCE-UNPROVEN",
        Severity.ERROR,
        f"the target's sequence {name} was looked at again and is not past the source's",
        "The source is faster than the margin, or somebody set the sequence: repeat, with a "
        "larger --margin.",
    )
