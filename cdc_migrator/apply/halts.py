"""What a halt says: the exact place in the stream, and why nothing goes past it."""

from __future__ import annotations

import psycopg

from cdc_migrator.apply.batcher import Batch
from cdc_migrator.apply.fold import UnknownTable
from cdc_migrator.apply.merge import RowsMissing
from cdc_migrator.databases.postgres.coded import describe
from cdc_migrator.databases.postgres.sqlstate import Disposition, disposition
from cdc_migrator.errors import Refused, StreamHalted
from cdc_migrator.model.positions import lsn_to_text
from cdc_migrator.model.tables import TableName
from cdc_migrator.stream.parts import TableUnproven, Unproven
from cdc_migrator.stream.rows import OtherShape

# What speaks against a single row.
OF_ROWS = (Disposition.BAD_ROW, Disposition.CONFLICT)
_OF_A_ROW = (
    "Nothing past this position was applied. Correct what the target demands beyond the source, "
    "then start `cdc-migrator run`, which goes on from here. Or set apply.bad_records to park: "
    "then such a row is kept back (`cdc-migrator dead-letters`) and all others go on; a table "
    "without a key cannot do that. `cdc-migrator abort` gives the migration up."
)


class Rejected(Exception):
    """A batch cannot be committed as it is; `table` is None where it is not known."""

    def __init__(self, table: TableName | None, cause: psycopg.Error | RowsMissing) -> None:
        super().__init__()
        self.table = table
        self.cause = cause

    def halt(self, at: str) -> StreamHalted:
        """The halt at this place."""
        cause = self.cause
        if isinstance(cause, RowsMissing):
            missing = Unproven(
                "CDCM-APPLY-ROW-MISSING",
                f"the stream has an {cause.action} of {cause.expected} rows in {cause.table}, "
                f"the target holds {cause.found} of them: the two sides have parted",
            )
            return TableUnproven(missing, self.table or cause.table, at)
        where = f" a row of {self.table}" if self.table else " a transaction"
        return StreamHalted(
            "CDCM-APPLY-REJECTED",
            f"the target does not accept{where}: {describe(cause)}",
            at,
            _OF_A_ROW if self.table and disposition(cause) in OF_ROWS else None,
        )


def place(stream: str, batch: Batch) -> str:
    """Where a batch of one transaction, or of none, lies."""
    if not batch.transactions:
        return f"{stream}, offsets below {batch.next_offset}"
    one = batch.transactions[0]
    return (
        f"{stream} offsets {one.first_offset} to {one.next_offset - 1}, "
        f"transaction {one.xid} committed at {lsn_to_text(one.commit_lsn)}"
    )


def placed(halt: StreamHalted, at: str) -> StreamHalted:
    """The same halt with the place in front of its own."""
    position = f"{at}, {halt.position}"
    if isinstance(halt, UnknownTable):
        return UnknownTable(halt.table, position)
    if isinstance(halt, OtherShape):
        return halt.at(position)
    cause = halt.cause.removesuffix(f" (at {halt.position})")
    return StreamHalted(halt.code, cause, position, halt.remedy)


def control_unwritable(exc: psycopg.Error) -> Refused:
    """What is raised where it is not the rows that the target refuses."""
    return Refused(
        "CDCM-APPLY-CONTROL",
        f"the progress of the stream cannot be written on the target: {describe(exc)}",
        "Give the role the rights on the schema cdc_migrator, or see the target's log.",
    )
