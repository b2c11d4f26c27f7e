"""The end of a run: what is gone, and whether both sides are equal.

A difference is gone when every chunk that may hold it was read, and it was not found. A chunk that
differed is never taken for proven, so of chunks that were not read none holds one, unless it is
told apart here. Where chunks by chance differ, somebody wrote past the stream: then none of the
table's proofs is relied on any more.
"""

from __future__ import annotations

from collections.abc import Iterable

import psycopg

from cdc_migrator.control import differences, proofs, reconcile
from cdc_migrator.control.reconcile import CONTINUOUS, Run, RunState
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.model.tables import TableName
from cdc_migrator.reconcile.options import Outcome


def conclude(
    control: psycopg.Connection, run: Run, pairs: Iterable[TableName], outcome: Outcome
) -> RunState:
    """Write the end of a run down: what is gone, and whether both sides are equal.

    Args:
        pairs: the tables that could be compared at all.
    """
    known = {one.table: one for one in reconcile.proven(control, run.id)}
    standing = {one.table: one for one in proofs.standing(control, run.id)}
    whole = [
        name
        for name in pairs
        if name in known and known[name].planned == known[name].done and not known[name].more
    ]
    with speaking("target", "writing down what was compared"), control.transaction():
        if run.mode == "sample":
            for one in known.values():
                if one.differences:
                    proofs.withdraw(control, one.table)
        else:
            looked_through = [
                one for one in whole if one not in standing or not standing[one].unequal_before
            ]
            differences.gone(control, run.id, looked_through)
        known_ones = differences.standing(control, run.tables)
        open_ones = [one for one in known_ones if one.state == "open"]
        # A round of the service reads some chunks; others may never have been read.
        through = run.mode != CONTINUOUS or all(
            name in standing and standing[name].since is not None for name in whole
        )
        if not outcome.finished or outcome.unproven or not through:
            state = RunState.STOPPED
        elif open_ones or len(whole) < len(run.tables):
            state = RunState.DIFFERS
        else:
            state = RunState.EQUAL
        reconcile.end(control, run, state)
    return state
