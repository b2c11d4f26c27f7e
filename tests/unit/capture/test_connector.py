"""The connector's configuration: routing, secrets, and what may not be changed."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_migrator.capture import connector
from cdc_migrator.capture.connector import configuration, differences
from cdc_migrator.errors import ConfigurationError
from cdc_migrator.model.naming import Names

NAMES = Names("shop", 2)
WAY_IN = {
    "database.hostname": "db.example",
    "database.port": "5433",
    "database.password": "${file:/run/s/x.properties:password}",
    "database.sslmode": "verify-full",
}


def settings(**overrides: str) -> dict[str, str]:
    return configuration(NAMES, WAY_IN, "mark", 3, overrides)


def test_everything_but_heartbeats_goes_to_the_one_topic() -> None:
    """Rows, truncates and transaction records are routed; the stream's own name is not."""
    regex = re.compile(settings()["transforms.stream.regex"])

    for topic in ("cdcm.shop.2.shop.item", "cdcm.shop.2.transaction", "cdcm.shop.2.streams"):
        assert regex.fullmatch(topic), topic
    for topic in ("cdcm.shop.2.stream", "__debezium-heartbeat.cdcm.shop.2", "cdcmxshop.2.a.b"):
        assert not regex.fullmatch(topic), topic
    assert settings()["transforms.stream.replacement"] == NAMES.topic


def test_exactness_settings_are_in_the_template() -> None:
    """The settings without which rows are lost, doubled or altered in silence."""
    wanted = {
        "exactly.once.support": "required",
        "snapshot.mode": "no_data",
        "publication.autocreate.mode": "disabled",
        "provide.transaction.metadata": "true",
        "event.converting.failure.handling.mode": "fail",
        "skipped.operations": "none",
        "tombstones.on.delete": "false",
        "decimal.handling.mode": "string",
        "time.precision.mode": "isostring",
        "include.unknown.datatypes": "true",
        "value.converter.replace.null.with.default": "false",
        "key.converter.replace.null.with.default": "false",
        "max.queue.size.in.bytes": "50000000",
        "slot.drop.on.stop": "false",
    }
    assert wanted.items() <= settings().items()


def test_address_and_names_are_filled_in_and_the_password_is_a_reference() -> None:
    """Everything is a string, as Connect stores it; the password is a place, not a word."""
    made = settings()

    assert all(isinstance(value, str) for value in made.values())
    assert made["database.password"] == "${file:/run/s/x.properties:password}"
    assert (made["database.hostname"], made["database.port"]) == ("db.example", "5433")
    assert made["database.sslmode"] == "verify-full"
    assert (made["slot.name"], made["publication.name"]) == ("cdcm_shop_2", "cdcm_shop")
    assert made["heartbeat.action.query"].endswith("WHERE migration = 'shop'")
    assert made["topic.creation.default.replication.factor"] == "3"


def test_only_tunable_settings_can_be_overridden() -> None:
    """Latency and memory are the user's; the meaning of an event is not. New settings pass."""
    assert settings(**{"poll.interval.ms": "1"})["poll.interval.ms"] == "1"
    assert settings(**{"slot.failover": "true"})["slot.failover"] == "true"
    with pytest.raises(ConfigurationError, match="CDCM-CONNECTOR-OVERRIDE"):
        settings(**{"snapshot.mode": "initial"})


def test_differences_name_the_settings_and_ignore_the_name() -> None:
    """Connect adds the connector's name to what it stores; that is no difference."""
    made = settings()

    assert differences(made, {**made, "name": NAMES.connector}) == []
    assert differences(made, {**made, "max.batch.size": "1", "odd": "x"}) == [
        "max.batch.size",
        "odd",
    ]


def load_properties(text: str) -> dict[str, str]:
    """java.util.Properties.load for one ``key=value`` line (its documentation, second half)."""
    key, _, value = text.rstrip("\n").partition("=")
    units: list[int] = []
    at = 0
    value = value.lstrip(" \t\f")
    while at < len(value):
        char = value[at]
        if char != "\\":
            units.append(ord(char))
            at += 1
        elif value[at + 1] == "u":
            units.append(int(value[at + 2 : at + 6], 16))
            at += 6
        else:
            units.append(
                ord({"t": "\t", "n": "\n", "r": "\r", "f": "\f"}.get(value[at + 1], value[at + 1]))
            )
            at += 2
    return {key: b"".join(u.to_bytes(2, "big") for u in units).decode("utf-16-be")}


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_password_survives_the_properties_file(password: str) -> None:
    """Spaces, backslashes, equals signs, line ends, letters beyond Latin: all come back."""
    text = connector.secrets_text(password)

    assert text.isascii()
    assert text.count("\n") == 1
    assert load_properties(text) == {"password": password}
