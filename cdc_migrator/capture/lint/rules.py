"""All rules, in the order in which a configuration is read: what loses data comes first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from cdc_migrator.capture.connector import PLUGIN
from cdc_migrator.capture.findings import Severity
from cdc_migrator.capture.lint import transforms
from cdc_migrator.capture.lint.rule import (
    DEFAULTS,
    SENSITIVE,
    Breaks,
    Broken,
    Config,
    Rule,
    given,
    unless,
    when,
)
from cdc_migrator.capture.lint.values import RULES as VALUES

_JSON = "org.apache.kafka.connect.json.JsonConverter"
_AVRO = "io.confluent.connect.avro.avroconverter"
_REFERENCE = re.compile(r"\$\{[^}:]+:.+\}")


def lint(settings: Mapping[str, str]) -> list[Broken]:
    """Every rule that these settings break, in order."""
    config = Config(settings)
    return [
        Broken(rule, setting, config.shown(setting))
        for rule in RULES
        for setting in rule.breaks(config)
    ]


def _class(config: Config) -> Iterable[str]:
    return () if config.given.get("connector.class") == PLUGIN else ("connector.class",)


def _named(setting: str) -> Breaks:
    """Broken where the name is the default, which every connector takes that is given none."""
    return lambda config: (setting,) if config.get(setting) in ("", DEFAULTS[setting]) else ()


def _flushes_nothing(config: Config) -> Iterable[str]:
    bad = {"flush.lsn.source": "false", "lsn.flush.mode": "manual"}
    return [setting for setting, value in bad.items() if config.get(setting) == value]


def _skipped(config: Config) -> Iterable[str]:
    return () if config.get("skipped.operations") in ("none", "") else ("skipped.operations",)


def _queue(config: Config) -> Iterable[str]:
    small = config.number("max.queue.size") <= config.number("max.batch.size")
    return ("max.queue.size",) if small else ()


def _memory(config: Config) -> Iterable[str]:
    return () if config.number("max.queue.size.in.bytes") > 0 else ("max.queue.size.in.bytes",)


def _heartbeat(config: Config) -> Iterable[str]:
    return () if config.number("heartbeat.interval.ms") > 0 else ("heartbeat.interval.ms",)


def _heartbeat_query(config: Config) -> Iterable[str]:
    return () if config.get("heartbeat.action.query") else ("heartbeat.action.query",)


def _passwords(config: Config) -> Iterable[str]:
    """Settings with a secret in clear: neither a reference nor a number or a truth value."""
    for setting, value in sorted(config.given.items()):
        plain = value.strip() and not _REFERENCE.search(value)
        if setting.endswith("sasl.jaas.config"):
            plain = plain and "password" in value.lower()
        elif not re.search(r"password|secret|token|basic\.auth\.user\.info|\.key$", setting):
            continue
        if plain and SENSITIVE.search(setting):
            yield setting


def _converters(config: Config) -> Iterable[str]:
    """Converters that write a column's default where the row holds NULL."""
    for kind in ("key", "value"):
        name = config.get(f"{kind}.converter")
        if name == _JSON.lower():
            setting, good = f"{kind}.converter.replace.null.with.default", "false"
        elif name == _AVRO:
            setting, good = f"{kind}.converter.ignore.default.for.nullables", "true"
        else:
            continue
        if config.get(setting) != good:
            yield setting


def _worker_converters(config: Config) -> Iterable[str]:
    return [f"{kind}.converter" for kind in ("key", "value") if not config.get(f"{kind}.converter")]


def _schemaless(config: Config) -> Iterable[str]:
    """Events without a schema, where the value alone does not tell what it is."""
    setting = "value.converter.schemas.enable"
    if config.get("value.converter") != _JSON.lower() or config.get(setting) != "false":
        return ()
    clear = config.get("decimal.handling.mode") == "string" and config.get(
        "time.precision.mode"
    ) in ("isostring", "microseconds")
    return () if clear else (setting,)


def _compacted(config: Config) -> Iterable[str]:
    return [
        name
        for name, value in sorted(config.given.items())
        if re.fullmatch(r"topic\.creation\..+\.cleanup\.policy", name) and "compact" in value
    ]


def _retention(config: Config) -> Iterable[str]:
    setting = "topic.creation.default.retention.ms"
    return () if config.get(setting) == "-1" else (setting,)


def _partitions(config: Config) -> Iterable[str]:
    setting = "topic.creation.default.partitions"
    return () if config.get(setting) == "1" else (setting,)


def _acknowledged(config: Config) -> Iterable[str]:
    weak = {
        "producer.override.acks": ("0", "1"),
        "producer.override.enable.idempotence": ("false",),
    }
    return [setting for setting, bad in weak.items() if config.get(setting) in bad]


_REFUSE, _WARN, _INFO = Severity.REFUSE, Severity.WARN, Severity.INFO

# fmt: off
RULES: tuple[Rule, ...] = (
    Rule("CDCM-LINT-CLASS", _REFUSE, "connector.class",
         "these rules, and this service, are for Debezium's connector for PostgreSQL",
         f"Use {PLUGIN}.", _class),
    Rule("CDCM-LINT-PLUGIN", _REFUSE, "plugin.name",
         "decoderbufs, the default, is an extension that the source rarely has",
         "Set it to pgoutput, which every PostgreSQL has.", unless("plugin.name", "pgoutput")),
    Rule("CDCM-LINT-SLOT-DROP", _REFUSE, "slot.drop.on.stop",
         "a connector that stops drops its slot: what is written until it is back is lost",
         "Set it to false; drop the slot yourself when the migration is over.",
         when("slot.drop.on.stop", "true")),
    Rule("CDCM-LINT-SLOT-NAME", _REFUSE, "slot.name",
         "two connectors with the default name share one slot, and each gets a part of the "
         "changes, in silence",
         "Give each connector a slot name of its own.", _named("slot.name")),
    Rule("CDCM-LINT-PUBLICATION-NAME", _REFUSE, "publication.name",
         "two connectors with the default name change one another's publication",
         "Give each connector a publication of its own.", _named("publication.name")),
    Rule("CDCM-LINT-PUBLICATION-MODE", _REFUSE, "publication.autocreate.mode",
         "all_tables, the default, publishes every table of the database and needs a superuser; "
         "a table without a replica identity then refuses the application's updates",
         "Set it to disabled, and make the publication with the tables that move.",
         when("publication.autocreate.mode", "all_tables")),
    Rule("CDCM-LINT-PUBLICATION-CHANGES", _WARN, "publication.autocreate.mode",
         "the connector alters the publication while the application writes, which can cost "
         "changes on PostgreSQL before 15.13, 16.9 and 17.5",
         "Set it to disabled, and make the publication with the tables that move.",
         when("publication.autocreate.mode", "filtered", "no_tables")),
    Rule("CDCM-LINT-SNAPSHOT-MODE", _REFUSE, "snapshot.mode",
         "always and when_needed read tables again when they see fit, so that old states arrive "
         "behind newer ones; initial_only ends after the first copy; others are not known to "
         "Debezium 3",
         "Set it to no_data where this service copies, or to initial.",
         unless("snapshot.mode", "initial", "no_data", "custom", "configuration_based")),
    Rule("CDCM-LINT-SNAPSHOT-CUSTOM", _WARN, "snapshot.mode",
         "whether rows are copied, and how often, is decided by what is not looked at here",
         "Set it to no_data where this service copies, or to initial.",
         when("snapshot.mode", "custom", "configuration_based")),
    Rule("CDCM-LINT-SNAPSHOT-ROWS", _REFUSE, "snapshot.select.statement.overrides",
         "the first copy leaves out the rows that the statement does not select",
         "Take it out.", given(r"snapshot\.select\.statement\.overrides(\..+)?")),
    Rule("CDCM-LINT-TRANSACTIONS", _REFUSE, "provide.transaction.metadata",
         "without it nothing tells where a transaction begins and ends, and whether it is whole",
         "Set it to true.", unless("provide.transaction.metadata", "true")),
    Rule("CDCM-LINT-EXACTLY-ONCE", _REFUSE, "exactly.once.support",
         "after a restart parts of transactions come twice, without their beginning",
         "Set it to required, and exactly.once.source.support=enabled in every worker.",
         unless("exactly.once.support", "required")),
    Rule("CDCM-LINT-BOUNDARY", _WARN, "transaction.boundary",
         "Kafka's transactions then end at other places than the connector's batches, and what "
         "was read last is repeated after a restart",
         "Leave it at poll.", unless("transaction.boundary", "poll")),
    Rule("CDCM-LINT-ERRORS-TOLERANCE", _REFUSE, "errors.tolerance",
         "records that cannot be converted or transformed are left out, and the connector goes on",
         "Set it to none.", when("errors.tolerance", "all")),
    Rule("CDCM-LINT-CONVERTING-FAILURES", _REFUSE, "event.converting.failure.handling.mode",
         "a value that the connector cannot convert becomes NULL, with a line in a log; warn is "
         "the default",
         "Set it to fail.", unless("event.converting.failure.handling.mode", "fail")),
    Rule("CDCM-LINT-PROCESSING-FAILURES", _REFUSE, "event.processing.failure.handling.mode",
         "an event that the connector cannot read is left out",
         "Set it to fail.", unless("event.processing.failure.handling.mode", "fail")),
    Rule("CDCM-LINT-SKIPPED-OPERATIONS", _REFUSE, "skipped.operations",
         "events of these kinds are left out: t, truncates, is the default",
         "Set it to none.", _skipped),
    Rule("CDCM-LINT-TRANSFORMS-LOSSY", _REFUSE, "transforms.….type",
         "this transform drops events or parts of them (old row, kind, transaction), or changes "
         "values",
         "Take it out; transform behind the migration.", transforms.lossy),
    Rule("CDCM-LINT-TRANSFORMS-ORDER", _REFUSE, "transforms.….type",
         "this transform spreads the changes of a table over topics or partitions: their order is "
         "lost",
         "Take it out, or route everything to one topic (RegexRouter).", transforms.scattering),
    Rule("CDCM-LINT-TRANSFORMS-UNKNOWN", _WARN, "transforms.….type",
         "what this transform does to events is not known here",
         "See that it drops and changes nothing.", transforms.unknown),
    Rule("CDCM-LINT-COLUMNS", _REFUSE, "column.….list, column.mask.…, column.truncate.…",
         "columns are left out, masked or cut: the target's rows would not be the source's",
         "Take it out; leave columns out behind the migration.",
         given(r"column\.(in|ex)clude\.list", r"column\.(mask|truncate)\..+")),
    *VALUES,
    Rule("CDCM-LINT-NULL-DEFAULTS", _REFUSE, "….converter.replace.null.with.default",
         "the converter writes a column's default where the row holds NULL, and nobody can tell "
         "afterwards",
         "JsonConverter: replace.null.with.default=false; AvroConverter: "
         "ignore.default.for.nullables=true.", _converters),
    Rule("CDCM-LINT-WORKER-CONVERTERS", _WARN, "key.converter, value.converter",
         "the worker's own settings decide how events are written, and another worker may have "
         "others",
         "Name both converters, with schemas.enable and replace.null.with.default.",
         _worker_converters),
    Rule("CDCM-LINT-SCHEMALESS", _REFUSE, "value.converter.schemas.enable",
         "without a schema the value alone does not tell a decimal's scale, or the unit of a time",
         "Set it to true; or decimal.handling.mode=string and time.precision.mode=isostring.",
         _schemaless),
    Rule("CDCM-LINT-REPLICA-IDENTITY", _REFUSE, "replica.identity.autoset.values",
         "the connector alters the source's tables, under a lock, when it starts",
         "Take it out; set the replica identity yourself where `check` asks for it.",
         given(r"replica\.identity\.autoset\.values")),
    Rule("CDCM-LINT-PASSWORD", _REFUSE, "database.password and its like",
         "Connect keeps the secret in a topic, and shows it to everybody who may ask for the "
         "connector's settings",
         "Put it into a file and refer to it: ${file:/path/secrets.properties:password}, with "
         "config.providers=file in the worker.", _passwords),
    Rule("CDCM-LINT-HEARTBEAT", _WARN, "heartbeat.interval.ms",
         "while the tables are quiet the slot does not advance, and the source keeps its log",
         "Set it to 10000.", _heartbeat),
    Rule("CDCM-LINT-HEARTBEAT-QUERY", _WARN, "heartbeat.action.query",
         "beside a busy database of the same server a quiet one's slot does not advance by "
         "heartbeats alone",
         "Update a row of a published table in it.", _heartbeat_query),
    Rule("CDCM-LINT-LSN-FLUSH", _WARN, "flush.lsn.source, lsn.flush.mode",
         "the connector does not confirm to the source what it has written: the source keeps its "
         "log for ever",
         "Leave it at its default.", _flushes_nothing),
    Rule("CDCM-LINT-QUEUE", _REFUSE, "max.queue.size",
         "the queue must be larger than a batch, or the connector does not start",
         "Set it to four times max.batch.size.", _queue),
    Rule("CDCM-LINT-QUEUE-BYTES", _WARN, "max.queue.size.in.bytes",
         "the queue is limited by the number of events: large rows use up the worker's memory",
         "Set it to a part of the worker's memory, such as 50000000.", _memory),
    Rule("CDCM-LINT-ACKS", _REFUSE, "producer.override.acks, producer.override.enable.idempotence",
         "a broker that fails takes acknowledged records with it, or they come twice",
         "Take it out: all and true are the defaults.", _acknowledged),
    Rule("CDCM-LINT-COMPACTION", _REFUSE, "topic.creation.….cleanup.policy",
         "compaction removes the older change of a row, which may hold the only copy of a value "
         "that the newer one leaves out",
         "Set it to delete.", _compacted),
    Rule("CDCM-LINT-RETENTION", _WARN, "topic.creation.default.retention.ms",
         "the topic deletes what is older than the brokers' default (often a week), read or not",
         "Set it to -1 for the length of the migration, and topic.creation.enable in the worker.",
         _retention),
    Rule("CDCM-LINT-PARTITIONS", _WARN, "topic.creation.default.partitions",
         "over several partitions only the changes of one row keep their order, not transactions",
         "Set it to 1.", _partitions),
    Rule("CDCM-LINT-TOMBSTONES", _INFO, "tombstones.on.delete",
         "each delete is followed by an empty record, which only compaction needs",
         "Set it to false.", when("tombstones.on.delete", "true")),
)
# fmt: on
