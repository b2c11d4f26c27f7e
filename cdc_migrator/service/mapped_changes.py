"""A table that changes its shape on the way has changed on the source: can its routes bear it?

Nothing is ever altered on the target for such a table: what its columns are made of is the user's
to say. A change of what no route reads is noted, and the stream goes on; any other ends it.

A partition may leave its table, and go: what the target has of it stays. One that comes to a table,
or that gets other bounds, would have rows where the routes do not look for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import psycopg

from cdc_migrator.control import load, mapping
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.errors import StreamHalted
from cdc_migrator.model.mapping import Route, Wanted
from cdc_migrator.model.tables import ReplicaIdentity
from cdc_migrator.service.alteration import Change, Kind
from cdc_migrator.service.schema_step import Step
from cdc_migrator.service.schema_words import Place

# Values come as before, and what the target refuses of them it refuses row by row.
_HARMLESS = frozenset(
    {
        Kind.COLUMN_ADDED,
        Kind.DEFAULT_CHANGED,
        Kind.NULL_ALLOWED,
        Kind.NULL_REFUSED,
        Kind.IDENTITY_CHANGED,
        Kind.CONSTRAINT_ADDED,
        Kind.CONSTRAINT_DROPPED,
        # Where its rows go is said of the partition by its own name.
        Kind.PARTITION_DETACHED,
        Kind.PARTITION_ATTACHED,
        Kind.BOUND_CHANGED,
    }
)
_OF_COLUMN = frozenset(
    {
        Kind.COLUMN_DROPPED,
        Kind.COLUMN_RENAMED,
        Kind.TYPE_CHANGED,
        Kind.NO_LONGER_GENERATED,
        Kind.GENERATED_OTHERWISE,
    }
)
_LABELS = (Kind.VALUE_ADDED, Kind.VALUE_RENAMED)
_LABEL = """
SELECT EXISTS (SELECT FROM pg_enum WHERE enumtypid = to_regtype(%s) AND enumlabel = %s)
"""


def borne(target: psycopg.Connection, wanted: Sequence[Step], at: Place) -> list[Step]:
    """The same steps, of which the target lacks nothing where a table has routes.

    Can be done again with what it returned.

    Raises:
        StreamHalted: CDCM-SCHEMA-MAPPED: the routes cannot bear one of them.
    """
    with speaking("target", "reading the routes of its tables"):
        said = mapping.said(target)
        routes: dict[object, list[Route]] = {}
        for table in load.read_tables(target):
            if table.route is not None:
                routes.setdefault(table.relation, []).append(table.route)
        for one in wanted:
            _require_its_place(one, routes.get(one.before.name, ()), said, at)
        return [_borne(target, one, routes.get(one.before.name), at) for one in wanted]


def unbearable(one: Step, routes: Sequence[Route]) -> list[Change]:
    """Those of its changes that the routes cannot bear; new labels only where the target lacks
    them."""
    used = {name for route in routes for name in route.reads}
    parts = all(route.bound is not None for route in routes)
    return [
        change
        for change in one.changes
        if _against(one, change, used) and not (parts and change.kind is Kind.TABLE_DROPPED)
    ]


def _borne(
    target: psycopg.Connection, one: Step, routes: Sequence[Route] | None, at: Place
) -> Step:
    if routes is None:
        return one
    found = unbearable(one, routes)
    against = [c for c in found if c.kind not in _LABELS or not _has_label(target, c)]
    if against:
        raise _halted(one, against, at)
    quiet = [replace(change, statements=(), needed=False, safe=False) for change in one.changes]
    return replace(one, changes=tuple(quiet))


def _has_label(target: psycopg.Connection, change: Change) -> bool:
    return target.execute(_LABEL, (change.what, change.after)).fetchone() == (True,)


def _against(one: Step, change: Change, used: set[str]) -> bool:
    if change.kind in _HARMLESS:
        return False
    if change.kind in _OF_COLUMN:
        # By the name that the routes have for it.
        renamed = change.kind is Kind.COLUMN_RENAMED
        return (change.before if renamed else change.what) in used
    if change.kind in _LABELS:
        assert one.after is not None
        return any(c.enumeration == change.what and c.name in used for c in one.after.columns)
    if change.kind is Kind.REPLICA_IDENTITY:
        assert one.after is not None
        return one.after.table.replica_identity is not ReplicaIdentity.FULL
    return True


def misplaced(one: Step, routes: Sequence[Route], said: Sequence[Wanted]) -> str | None:
    """What a table has become, where it is a partition now that the mapping speaks of, or another
    one than it was; None: nothing of this."""
    before, after = one.before, one.after
    if after is None or (root := after.table.root) is None:
        return None
    moved = before.table.root != root
    # An earlier release did not note the bounds.
    if not moved and ("bounds" not in before.document or before.bounds == after.bounds):
        return None
    whole = any(entry.table == str(root) for entry in said)
    own = any(entry.table == str(before.name) for entry in said)
    if not (whole and not own) and not any(route.bound is not None for route in routes):
        return None
    return f"is a partition of {root} now" if moved else f"has other bounds in {root} now"


def _require_its_place(
    one: Step, routes: Sequence[Route], said: Sequence[Wanted], at: Place
) -> None:
    """Raise StreamHalted where a table is `misplaced`."""
    if (what := misplaced(one, routes, said)) is None:
        return
    raise StreamHalted(
        "CDCM-SCHEMA-MAPPED",
        f"the source has changed {one.before.name}: it {what}, and its rows would be where the "
        "mapping does not look for them",
        at.position,
        "A table that is made as a partition can join; one that has moved on its own cannot take "
        "its rows along. Begin anew: `cdc-migrator abort`, then `cdc-migrator migrate`.",
    )


def _halted(one: Step, against: Sequence[Change], at: Place) -> StreamHalted:
    told = "; ".join(map(str, against))
    if all(change.kind in _LABELS for change in against):
        statements = dict.fromkeys(text for change in against for text in change.statements)
        remedy = f"Run on the target: {'; '.join(statements)}. Then start `cdc-migrator run` again."
    else:
        remedy = (
            "Its rows cannot be made any more as `mapping` in migration.yaml says. Give it a "
            "mapping that fits and begin anew: `cdc-migrator abort`, then `cdc-migrator migrate`."
        )
    return StreamHalted(
        "CDCM-SCHEMA-MAPPED",
        f"the source has changed {one.before.name}, whose shape the mapping changes on the way: "
        f"{told}",
        at.position,
        remedy,
    )
