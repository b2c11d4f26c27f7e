"""A password goes in, is used to connect, and is shown nowhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from cdc_migrator.config.database import Database
from cdc_migrator.config.reference import redacted
from cdc_migrator.config.secrets import clean_dsn, parse_dsn, write_secret_file
from cdc_migrator.config.settings import Kafka, Settings, Target


@pytest.mark.parametrize(
    ("given_dsn", "expected"),
    [
        ("postgresql://app:hunter2@db/shop", "postgresql://app@db/shop"),
        ("postgresql://app@db/shop?password=hunter2", "postgresql://app@db/shop"),
        (
            "postgresql://app@db/shop?password=hunter2&sslmode=require",
            "postgresql://app@db/shop?sslmode=require",
        ),
        ("postgresql://app:hun%40ter2@db:5433/shop", "postgresql://app@db:5433/shop"),
        ("postgresql://app@db/shop", "postgresql://app@db/shop"),
        ("host=db user=app", "host=db user=app"),
    ],
)
def test_the_password_is_cut_out_of_the_form_that_was_given(given_dsn: str, expected: str) -> None:
    """A URL stays a URL, and nothing else of it changes."""
    assert clean_dsn(given_dsn) == expected


words = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=12)


@given(user=words, password=words, database=words)
def test_cleaning_keeps_all_but_the_password(user: str, password: str, database: str) -> None:
    """Whatever the words hold, quotes and blanks included."""
    whole = make_conninfo("", host="db", user=user, password=password, dbname=database)
    assert parse_dsn(clean_dsn(whole)) == {"host": "db", "user": user, "dbname": database}


@given(password=words)
def test_the_complete_string_carries_the_password_exactly(password: str) -> None:
    """What libpq reads back is what was given."""
    side = Database(dsn=SecretStr("postgresql://app@db/shop"), password=SecretStr(password))
    assert parse_dsn(side.dsn_with_password())["password"] == password


def test_the_environment_wins_over_the_file_and_that_over_the_string(tmp_path: Path) -> None:
    """One order, whichever are given."""
    path = tmp_path / "secrets" / "pw"
    write_secret_file(path, "from file")
    dsn = SecretStr("postgresql://app:indsn@db/shop")
    assert Database(dsn=dsn).reveal_password() == "indsn"
    assert Database(dsn=dsn, password_file=path).reveal_password() == "from file"
    both = Database(dsn=dsn, password_file=path, password=SecretStr("env"))
    assert both.reveal_password() == "env"
    assert path.stat().st_mode & 0o777 == 0o600


def test_tls_settings_win_over_the_string() -> None:
    """They are parameters of the connection like those in the string."""
    side = Database(
        dsn=SecretStr("postgresql://app@db/shop?sslmode=prefer"),
        sslmode="verify-full",
        sslrootcert=Path("/etc/ca.pem"),
    )
    assert side.parameters()["sslmode"] == "verify-full"
    assert side.parameters()["sslrootcert"] == "/etc/ca.pem"


def test_no_secret_is_shown(tmp_path: Path) -> None:
    """Neither by `config show` nor by printing settings; properties by the look of their key."""
    settings = Settings(
        name="shop",
        source=Database(dsn=SecretStr("postgresql://app:hunter2@db/shop")),
        target=Target(dsn=SecretStr("host=db password=hunter2"), password=SecretStr("hunter2")),
        kafka=Kafka(
            bootstrap_servers="k:9092",
            properties={
                "sasl.password": SecretStr("hunter2"),
                "sasl.jaas.config": SecretStr("hunter2"),
                "security.protocol": SecretStr("SASL_SSL"),
            },
        ),
        connect={"url": "http://connect:8083", "secrets_dir": tmp_path},  # type: ignore[arg-type]
    )
    shown = redacted(settings)
    assert "hunter2" not in json.dumps(shown) + repr(settings) + str(settings)
    assert shown["kafka"]["properties"]["security.protocol"] == "SASL_SSL"
    assert settings.kafka is not None
    assert settings.kafka.other_properties()["sasl.password"] == "hunter2"
