"""Where the source changes its schema: bring the target in line or wait for it, then go on.

The stream stands in front of the transaction that changed the schema. What the target needs is run
here where that is wanted and safe; else it is told, and waited for: whoever runs the statement on
the target need not tell anybody. Rows that have changed without events are read again then.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from cdc_migrator.apply.applier import Applier
from cdc_migrator.apply.ddl import SchemaChange
from cdc_migrator.apply.fold import UnknownTable
from cdc_migrator.errors import StreamHalted
from cdc_migrator.faultpoints import reach
from cdc_migrator.model.described import Described
from cdc_migrator.service.options import RunOptions
from cdc_migrator.service.registry import Registry
from cdc_migrator.service.resuming import Resumed, Resuming
from cdc_migrator.service.schema_following import Following
from cdc_migrator.service.schema_step import UNSEEN, Step, step, steps
from cdc_migrator.service.schema_words import Place, added, statements, told_of
from cdc_migrator.service.writer import Writer
from cdc_migrator.stream.parts import TableUnproven, Unproven
from cdc_migrator.stream.rows import OtherShape


class SchemaChanges:
    """Settles changes of the schema between two flows of the stream.

    Args:
        resuming: takes the tables up again.
    """

    def __init__(
        self,
        options: RunOptions,
        applier: Applier,
        writer: Writer,
        resuming: Resuming,
    ) -> None:
        self._options = options
        self._applier = applier
        self._writer = writer
        self._resuming = resuming
        self._read = resuming.read
        self._following = Following(options, resuming.stop, resuming.turn, lambda: applier.active)

    def settle(self, change: SchemaChange, known: Registry) -> Resumed | None:
        """Settle what a transaction's markers tell and go on; None when stopped meanwhile.

        Raises StreamHalted where it cannot be settled here, and what reading a table again has
        met.
        """
        # A table that has joined and had no change since is not among them yet.
        known = replace(self._read(), passed=known.passed)
        beside = {name: one.name for name, one in known.sides.items()}
        found, others = steps(change, known.shapes, beside)
        one = change.transaction
        passed = []
        for each in found:
            name = each.before.name
            if not self._applier.active or known.covers(name, one.xid, one.commit_lsn):
                passed.append(each)
            elif name in known.joining:
                return self._resuming.wait_for(UnknownTable(name, change.position))
        wanted = [each for each in found if each not in passed]
        place = Place(change.position, one.commit_lsn, any(each.found for each in found))
        return self._settle(wanted, passed, others, place)

    def settle_found(self, halt: OtherShape, known: Registry) -> Resumed | None:
        """Events do not fit: look whether the table has changed by now. Returns as `settle`.

        Raises `halt` where that does not explain it, and reading the table again has not helped.
        """
        before = next((one for one in known.shapes.values() if one.name == halt.table), None)
        if before is None or not self._applier.active:
            raise halt
        after = self._following.described([before.oid]).get(before.oid)
        if after is None or after.same(before):
            unproven = Unproven(halt.code, halt.cause)
            return self._resuming.read_again(
                TableUnproven(unproven, before.name, halt.position), known
            )
        return self._settle_found(before, after, halt.position)

    def settle_renamed(self, unknown: UnknownTable, known: Registry) -> Resumed | None:
        """A table that nobody knows: one that has another name by now? None where it is not."""
        for oid, after in self._following.described(known.shapes).items():
            if after.name == unknown.table and known.shapes[oid].name != unknown.table:
                return self._settle_found(known.shapes[oid], after, unknown.position)
        return None

    def _settle_found(self, before: Described, after: Described, position: str) -> Resumed | None:
        rewrites = () if after.file == before.file else (UNSEEN,)
        wanted = step(before, after, rewrites)
        return self._settle([wanted], [], [], Place(position, 0, found=True))

    def _settle(
        self, wanted: Sequence[Step], passed: Sequence[Step], others: Collection[str], at: Place
    ) -> Resumed | None:
        self._writer.interrupt()
        wanted = [self._following.as_of_now(one) if one.reload else one for one in wanted]
        wanted = self._following.borne(wanted, at)
        for one in wanted:
            self._following.require_same_side(one, at)
            self._require_small(one, at)
        if not self._following.follow(wanted, passed, others, at):
            return None
        reach("ddl.settled")
        later = any(one.later or added(one) for one in wanted)
        if not self._following.read_again(wanted, at):
            return None
        if later:
            self._options.complete()
        return self._resuming.take_up(self._read())

    def _require_small(self, one: Step, at: Place) -> None:
        options = self._options
        if not one.reload or one.after is None:
            return
        if not options.way_back and one.before.table.bytes <= options.reread_bytes:
            return
        how = (
            "on the way back nothing is read again"
            if options.way_back
            else "it is larger than apply.reread_bytes"
        )
        raise StreamHalted(
            "CDCM-SCHEMA-RELOAD",
            f"{one.name} was changed in a way that sends no events of its rows, so it must be read "
            f"again, and {how} ({told_of([one])})",
            at.position,
            "Bring both sides of the table in line by hand, then compare them."
            if options.way_back
            else f"{statements([one], None)}Then type `cdc-migrator backfill --again "
            f"'{one.name}'` and start `cdc-migrator run`, which goes on from here.",
        )
