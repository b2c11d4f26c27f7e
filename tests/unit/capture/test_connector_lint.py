"""Rules for connectors: each is broken by one change to a configuration that breaks none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_migrator.capture.checks.connector import connector, made
from cdc_migrator.capture.lint.files import properties, read
from cdc_migrator.capture.lint.rule import HIDDEN
from cdc_migrator.capture.lint.rules import RULES, lint
from cdc_migrator.errors import ConfigurationError
from cdc_migrator.model.naming import Names

OURS = made(Names("shop"), {})
KAFKA = "org.apache.kafka.connect.transforms"

# What is said instead; None: nothing, which leaves Debezium's default.
CHANGES: dict[str, list[dict[str, str | None]]] = {
    "CDCM-LINT-CLASS": [{"connector.class": "io.debezium.connector.mysql.MySqlConnector"}],
    "CDCM-LINT-PLUGIN": [{"plugin.name": None}, {"plugin.name": "decoderbufs"}],
    "CDCM-LINT-SLOT-DROP": [{"slot.drop.on.stop": "true"}],
    "CDCM-LINT-SLOT-NAME": [{"slot.name": None}, {"slot.name": "debezium"}],
    "CDCM-LINT-PUBLICATION-NAME": [{"publication.name": None}],
    "CDCM-LINT-PUBLICATION-MODE": [{"publication.autocreate.mode": None}],
    "CDCM-LINT-PUBLICATION-CHANGES": [{"publication.autocreate.mode": "filtered"}],
    "CDCM-LINT-SNAPSHOT-MODE": [
        {"snapshot.mode": mode} for mode in ("always", "when_needed", "initial_only", "never")
    ],
    "CDCM-LINT-SNAPSHOT-CUSTOM": [{"snapshot.mode": "custom"}],
    "CDCM-LINT-SNAPSHOT-ROWS": [
        {"snapshot.select.statement.overrides": "a.b"},
        {"snapshot.select.statement.overrides.a.b": "SELECT 1"},
    ],
    "CDCM-LINT-TRANSACTIONS": [{"provide.transaction.metadata": None}],
    "CDCM-LINT-EXACTLY-ONCE": [{"exactly.once.support": None}],
    "CDCM-LINT-BOUNDARY": [{"transaction.boundary": "interval"}],
    "CDCM-LINT-ERRORS-TOLERANCE": [{"errors.tolerance": "all"}],
    "CDCM-LINT-CONVERTING-FAILURES": [{"event.converting.failure.handling.mode": None}],
    "CDCM-LINT-PROCESSING-FAILURES": [{"event.processing.failure.handling.mode": "skip"}],
    "CDCM-LINT-SKIPPED-OPERATIONS": [{"skipped.operations": None}, {"skipped.operations": "d,t"}],
    "CDCM-LINT-TRANSFORMS-LOSSY": [
        {"transforms": "stream, flat", "transforms.flat.type": one}
        for one in ("io.debezium.transforms.ExtractNewRecordState", f"{KAFKA}.MaskField$Value")
    ],
    "CDCM-LINT-TRANSFORMS-ORDER": [{"transforms.stream.type": f"{KAFKA}.TimestampRouter"}],
    "CDCM-LINT-TRANSFORMS-UNKNOWN": [{"transforms.stream.type": "com.example.Mine"}],
    "CDCM-LINT-COLUMNS": [
        {"column.exclude.list": "a.b.c"},
        {"column.mask.with.12.chars": "a.b.c"},
        {"column.truncate.to.20.chars": "a.b.c"},
    ],
    "CDCM-LINT-DECIMALS-DOUBLE": [
        {"decimal.handling.mode": "double", "value.converter.schemas.enable": "true"}
    ],
    "CDCM-LINT-DECIMALS-PRECISE": [
        {"decimal.handling.mode": None, "value.converter.schemas.enable": "true"}
    ],
    "CDCM-LINT-INTERVALS": [{"interval.handling.mode": None}],
    "CDCM-LINT-TIMES": [
        {"time.precision.mode": mode, "value.converter.schemas.enable": "true"}
        for mode in ("connect", "nanoseconds")
    ],
    "CDCM-LINT-BINARY": [{"binary.handling.mode": "hex"}],
    "CDCM-LINT-UNKNOWN-TYPES": [{"include.unknown.datatypes": None}],
    "CDCM-LINT-PLACEHOLDER": [{"unavailable.value.placeholder": None}],
    "CDCM-LINT-CONVERTERS": [{"converters": "mine"}],
    "CDCM-LINT-POST-PROCESSORS": [{"post.processors": "reselector"}],
    "CDCM-LINT-MESSAGE-KEYS": [{"message.key.columns": "a.b:c"}],
    "CDCM-LINT-NULL-DEFAULTS": [
        {"key.converter.replace.null.with.default": None},
        {"value.converter": "io.confluent.connect.avro.AvroConverter"},
    ],
    "CDCM-LINT-WORKER-CONVERTERS": [{"key.converter": None}],
    "CDCM-LINT-SCHEMALESS": [{"time.precision.mode": None}],
    "CDCM-LINT-REPLICA-IDENTITY": [{"replica.identity.autoset.values": "a.b:FULL"}],
    "CDCM-LINT-PASSWORD": [
        {"database.password": "hunter2"},
        {"producer.override.sasl.jaas.config": 'x required username="u" password="hunter2";'},
    ],
    "CDCM-LINT-HEARTBEAT": [{"heartbeat.interval.ms": None}],
    "CDCM-LINT-HEARTBEAT-QUERY": [{"heartbeat.action.query": None}],
    "CDCM-LINT-LSN-FLUSH": [{"flush.lsn.source": "false"}, {"lsn.flush.mode": "manual"}],
    "CDCM-LINT-QUEUE": [{"max.queue.size": "2048"}, {"max.batch.size": "10000"}],
    "CDCM-LINT-QUEUE-BYTES": [{"max.queue.size.in.bytes": None}],
    "CDCM-LINT-ACKS": [
        {"producer.override.acks": "1"},
        {"producer.override.enable.idempotence": "false"},
    ],
    "CDCM-LINT-COMPACTION": [{"topic.creation.default.cleanup.policy": "compact,delete"}],
    "CDCM-LINT-RETENTION": [{"topic.creation.default.retention.ms": None}],
    "CDCM-LINT-PARTITIONS": [{"topic.creation.default.partitions": "8"}],
    "CDCM-LINT-TOMBSTONES": [{"tombstones.on.delete": None}],
}


def changed(change: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in (OURS | change).items() if value is not None}


def test_our_own_connector_breaks_no_rule() -> None:
    """Neither as it is made, nor with settings of the user's that trade latency and memory."""
    assert lint(OURS) == []
    assert lint(made(Names("shop"), {"max.batch.size": "4096", "poll.interval.ms": "50"})) == []


def test_every_rule_has_a_change_that_breaks_it() -> None:
    """None is missing here, none is told twice."""
    codes = [rule.code for rule in RULES]
    assert sorted(codes) == sorted(CHANGES)
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("code", CHANGES)
def test_each_rule_is_broken_by_its_own_change(code: str) -> None:
    """That rule and no other; each says what happens and what to set."""
    for change in CHANGES[code]:
        broken = lint(changed(change))
        assert [one.rule.code for one in broken] == [code], change
        (one,) = broken
        assert one.rule.why, code
        assert one.rule.remedy.endswith("."), code
        assert json.dumps(one.as_dict())


def test_no_secret_is_shown() -> None:
    """Where it stands in clear, its place is told."""
    broken = lint(changed({"database.password": "hunter2"}))
    assert [(one.setting, one.value) for one in broken] == [("database.password", HIDDEN)]
    assert "hunter2" not in str(broken)


def test_debeziums_defaults_are_told_with_their_values() -> None:
    """A configuration that says little is looked at as the connector would run it."""
    broken = {one.rule.code: one for one in lint({"connector.class": OURS["connector.class"]})}
    assert broken["CDCM-LINT-CONVERTING-FAILURES"].value == "warn"
    assert broken["CDCM-LINT-SKIPPED-OPERATIONS"].value == "t"
    assert broken["CDCM-LINT-SLOT-NAME"].value == "debezium"
    assert "CDCM-LINT-CLASS" not in broken


def test_the_users_own_settings_are_held_against_the_rules_by_check() -> None:
    """As findings, which name the place where they are set."""
    (found,) = connector(made(Names("shop"), {"heartbeat.interval.ms": "0"}))
    assert (found.code, found.object) == ("CDCM-LINT-HEARTBEAT", "connector")
    assert "capture.connector" in found.remedy
    with pytest.raises(ConfigurationError, match="CDCM-CONNECTOR-OVERRIDE"):
        made(Names("shop"), {"decimal.handling.mode": "double"})


def test_a_file_is_read_in_every_form(tmp_path: Path) -> None:
    """As Connect's settings, as a request, as properties, as Strimzi's resource."""
    wanted = {"connector.class": "X", "tasks.max": "1", "tombstones.on.delete": "false"}
    plain: dict[str, object] = {**wanted, "tasks.max": 1, "tombstones.on.delete": False}
    inside = {name: value for name, value in plain.items() if name != "connector.class"}
    forms = {
        "plain.json": json.dumps(plain),
        "request.json": json.dumps({"name": "x", "config": plain}),
        "x.properties": "# ours\nconnector.class=X\ntasks.max : 1\ntombstones.on.delete false\n",
        "x.yaml": json.dumps({"kind": "KafkaConnector", "spec": {"class": "X", "config": inside}}),
        "y.yml": "connector.class: X\ntasks.max: 1\ntombstones.on.delete: false\n",
    }
    for name, text in forms.items():
        (tmp_path / name).write_text(text)
        assert read(tmp_path / name) == wanted, name


@pytest.mark.parametrize("text", ["{", "[]", '{"a": {"b": 1}}', '{"a": [1]}'])
def test_what_is_no_configuration_is_said_without_its_text(tmp_path: Path, text: str) -> None:
    """The file may hold a password."""
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="CDCM-LINT-FILE"):
        read(path)
    with pytest.raises(ConfigurationError, match="CDCM-LINT-FILE"):
        read(tmp_path / "missing.json")


def _escaped(text: str) -> str:
    return "".join(f"\\u{unit:04x}" if unit > 126 else f"\\{chr(unit)}" if chr(unit) in ":=#! \\"
                   else f"\\u{unit:04x}" if unit < 32 else chr(unit)
                   for unit in map(ord, text))  # fmt: skip


@given(
    st.dictionaries(
        st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), min_size=1),
        st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"])),
    )
)
def test_properties_are_read_as_java_writes_them(wanted: dict[str, str]) -> None:
    """Whatever is in names and values."""
    text = "".join(f"{_escaped(name)}={_escaped(value)}\n" for name, value in wanted.items())
    assert dict(properties(text)) == wanted


def test_a_property_goes_on_in_the_next_line() -> None:
    """After a backslash, and not after two."""
    assert dict(properties("a=b,\\\n   c\nd=e\\\\\nf=g")) == {"a": "b,c", "d": "e\\", "f": "g"}
