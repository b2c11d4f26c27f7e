"""The source server: version, logical decoding, room for one slot and two senders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cdc_migrator.capture.findings import Finding, Severity, refuse, warn
from cdc_migrator.databases.postgres.catalog import ServerFacts
from cdc_migrator.databases.postgres.decoding import DecodingFacts

MIN_VERSION = 15
PLUGIN = "pgoutput"


@dataclass(frozen=True, slots=True)
class Fault:
    """What a minor release of PostgreSQL does wrong when it decodes its log.

    Attributes:
        fixed_in: by major version, the minor in which it is mended; majors above have never had
            it.
        loses: changes can be missing in silence; otherwise decoding stops.
        what: what happens.
        note: where the release notes say so.
    """

    fixed_in: dict[int, int]
    loses: bool
    what: str
    note: str


FAULTS = (
    Fault(
        {15: 13, 16: 9, 17: 5},
        True,
        "a change of the schema that takes no strong lock (ALTER PUBLICATION, ALTER TYPE), while "
        "the tables are written to, can cost changes in silence",
        "release notes of 17.5, 16.9 and 15.13 (2025-05-08): avoid data loss when DDL operations "
        "that don't take a strong lock affect tables that are being logically replicated",
    ),
    Fault(
        {15: 14, 16: 10, 17: 6},
        False,
        "the slot can stop for good: log that it needs is removed before a crash, or its "
        "invalidation messages use up memory",
        "release notes of 17.6, 16.10 and 15.14 (2025-08-14): premature removal of old WAL during "
        "checkpoints; re-distribution of invalidation messages",
    ),
    Fault(
        {15: 10, 16: 6, 17: 2},
        False,
        "after a restart the slot can ask for log that is gone",
        "release notes of 17.2, 16.6 and 15.10 (2024-11-21): a logical replication slot's "
        "restart_lsn could go backwards",
    ),
)


def server(
    facts: ServerFacts, slot_exists: bool, may_replicate: bool, role: str = "…"
) -> list[Finding]:
    """Whether this server can be captured from.

    Args:
        slot_exists: this migration has its slot already, so that it needs no room.
        may_replicate: a replication session could be opened, by `role`.
    """
    found = []
    if facts.version_num // 10000 < MIN_VERSION:
        found.append(
            refuse(
                "CDCM-SOURCE-VERSION",
                "source",
                f"the source runs PostgreSQL {facts.version}; {MIN_VERSION} or newer is needed",
                f"Upgrade the source to PostgreSQL {MIN_VERSION} or newer.",
            )
        )
    found += minor(facts.version_num)
    if facts.wal_level != "logical":
        found.append(
            refuse(
                "CDCM-SOURCE-WAL-LEVEL",
                "source",
                f"wal_level is {facts.wal_level}: the source's log lacks what decoding needs",
                "ALTER SYSTEM SET wal_level = 'logical' and restart the source (managed services "
                "have a parameter for it).",
            )
        )
    if facts.in_recovery:
        found.append(
            refuse(
                "CDCM-SOURCE-STANDBY",
                "source",
                "the source is a standby: publication and markers cannot be written there",
                "Name the primary in the source's connection string.",
            )
        )
    if not may_replicate:
        found.append(
            refuse(
                "CDCM-SOURCE-REPLICATION",
                "source",
                f"the source does not let the role {role} open a replication session",
                f"ALTER ROLE {role} REPLICATION (managed services have a role to grant for it), "
                "and allow it in pg_hba.conf.",
            )
        )
    if not slot_exists:
        found += _room(facts)
    if facts.encoding == "SQL_ASCII":
        found.append(
            refuse(
                "CDCM-SOURCE-ENCODING",
                "source",
                "the source's encoding is SQL_ASCII: what its bytes mean is not known",
                "Move the data to a database with an encoding first.",
            )
        )
    if facts.max_slot_wal_keep_bytes is not None:
        found.append(
            warn(
                "CDCM-SOURCE-SLOT-LIMIT",
                "source",
                "max_slot_wal_keep_size is set: a connector that is away for long loses its slot",
                "Watch the slot's retained bytes, or set it to -1 during the migration.",
            )
        )
    return found


def minor(version_num: int) -> list[Finding]:
    """Whether this minor release is known to lose changes, or a slot.

    Args:
        version_num: ``server_version_num``, such as 150012 for 15.12.
    """
    major, release = divmod(version_num, 10000)
    known = [fault for fault in FAULTS if release < fault.fixed_in.get(major, 0)]
    if not known:
        return []
    loses = any(fault.loses for fault in known)
    wanted = max(fault.fixed_in[major] for fault in known)
    told = "; ".join(f"{fault.what} ({fault.note})" for fault in known)
    return [
        Finding(
            "CDCM-SOURCE-MINOR",
            Severity.REFUSE if loses else Severity.WARN,
            "source",
            f"PostgreSQL {major}.{release} has faults that later releases mend: {told}",
            f"Upgrade the source to {major}.{wanted} or newer, which needs only a restart; or let "
            "nobody change the schema or a publication during the migration, and `accept` it.",
        )
    ]


def decoding(facts: DecodingFacts) -> list[Finding]:
    """Whether the server lets the connector's plug-in decode, and keeps an idle slot."""
    found = []
    if facts.plugins is not None and PLUGIN not in facts.plugins:
        found.append(
            refuse(
                "CDCM-SOURCE-PLUGIN",
                "source",
                f"output_plugin_libraries does not name {PLUGIN}, which the connector decodes with",
                f"ALTER SYSTEM SET output_plugin_libraries = {PLUGIN} (and what else is needed), "
                "then SELECT pg_reload_conf().",
            )
        )
    if facts.idle_slot_timeout is not None:
        found.append(
            warn(
                "CDCM-SOURCE-SLOT-IDLE",
                "source",
                f"idle_replication_slot_timeout is {facts.idle_slot_timeout}: a connector that is "
                "away for so long loses its slot, and with it the migration",
                "Set it to 0 during the migration, or keep Kafka Connect's rests shorter.",
            )
        )
    return found


def telling(event_triggers: bool) -> list[Finding]:
    """Whether changes of the schema tell of themselves."""
    if event_triggers:
        return []
    return [
        warn(
            "CDCM-SOURCE-DDL",
            "source",
            "this role may not make event triggers: where the schema changes during the migration, "
            "that is found by looking every few seconds, not at its position in the stream, and a "
            "rewrite of a table that leaves its columns as they were is not seen",
            "Let a superuser (or the managed service's role for it) run `cdc-migrator capture "
            "start`, or change the schema while `run` has nothing left to apply.",
        )
    ]


def _room(facts: ServerFacts) -> Iterable[Finding]:
    for setting, (used, allowed), needed in (
        ("max_replication_slots", (facts.slots_used, facts.slots_allowed), 1),
        ("max_wal_senders", (facts.senders_used, facts.senders_allowed), 2),
    ):
        if allowed - used < needed:
            yield refuse(
                "CDCM-SOURCE-SLOTS",
                "source",
                f"{used} of {allowed} are in use ({setting}); {needed} more are needed",
                f"Raise {setting} and restart the source, or drop slots that nobody uses.",
            )
