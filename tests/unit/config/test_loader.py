"""Flags over environment over file, and every fault told at once."""

from __future__ import annotations

import re
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from cdc_migrator.config.loader import find, load
from cdc_migrator.config.settings import Settings
from cdc_migrator.errors import ConfigurationError

MINIMAL = """\
name: shop
source: {dsn: "postgresql://app@db1/shop"}
target: {dsn: "postgresql://app@db2/shop"}
"""


def write(directory: Path, text: str) -> None:
    (directory / "migration.yaml").write_text(text)


def refused(**arguments: object) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load(**arguments)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    return caught.value


def test_a_minimal_file_is_enough(workdir: Path) -> None:
    """Everything but the name and the two databases has a default; the mode is local."""
    write(workdir, MINIMAL)
    settings = load()
    assert type(settings).__name__ == Settings.__name__
    assert (settings.mode, settings.service.http_port) == ("local", 8642)
    assert settings.apply.max_batch_age == timedelta(milliseconds=500)
    assert settings.state_dir == workdir / ".cdc-migrator"


def test_flags_win_over_the_environment_and_that_over_the_file(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each setting comes from the strongest source that has it."""
    write(workdir, MINIMAL + "load: {workers: 1}\napply: {max_batch_rows: 1, max_batch_age: 1}\n")
    monkeypatch.setenv("CDC_MIGRATOR_LOAD__WORKERS", "2")
    monkeypatch.setenv("CDC_MIGRATOR_APPLY__MAX_BATCH_ROWS", "2")
    settings = load(overrides={"apply": {"max_batch_rows": 3}})
    assert settings.load.workers == 2
    assert settings.apply.max_batch_rows == 3
    assert settings.apply.max_batch_age == timedelta(seconds=1)


def test_the_environment_alone_is_enough(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container needs no file; lists are given with commas."""
    for side in ("SOURCE", "TARGET"):
        monkeypatch.setenv(f"CDC_MIGRATOR_{side}__DSN", f"postgresql://app@{side.lower()}/shop")
        monkeypatch.setenv(f"CDC_MIGRATOR_{side}__PASSWORD", "hunter2")
    monkeypatch.setenv("CDC_MIGRATOR_NAME", "shop")
    monkeypatch.setenv("CDC_MIGRATOR_TABLES__INCLUDE", "shop.*, crm.people")
    settings = load()
    assert settings.tables.include == ("shop.*", "crm.people")
    assert settings.source.reveal_password() == "hunter2"


@pytest.mark.parametrize("source", ["file", "environment", "command line"])
def test_null_turns_a_setting_off(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """From each of the three sources."""
    write(workdir, MINIMAL + ("service: {http_port: null}\n" if source == "file" else ""))
    if source == "environment":
        monkeypatch.setenv("CDC_MIGRATOR_SERVICE__HTTP_PORT", "null")
    overrides = {"service": {"http_port": None}} if source == "command line" else {}
    assert load(overrides=overrides).service.http_port is None


def test_the_file_is_found_upwards(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a directory below, by the environment, or by name."""
    write(workdir, MINIMAL)
    below = workdir / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert find() == workdir / "migration.yaml"
    other = workdir / "other.yaml"
    other.write_text(MINIMAL.replace("shop\n", "other\n", 1))
    monkeypatch.setenv("CDC_MIGRATOR_CONFIG", str(other))
    assert load().name == "other"
    assert load(workdir / "migration.yaml").name == "shop"


def test_paths_in_the_file_are_relative_to_it(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the command is typed elsewhere; a flag's path is relative to where it is typed."""
    write(
        workdir,
        MINIMAL.replace('db1/shop"}', 'db1/shop", password_file: secrets/pw}')
        + "kafka: {bootstrap_servers: k, property_files: {sasl.password: secrets/kafka}}\n"
        + "connect: {url: 'http://connect:8083', secrets_dir: out}\n",
    )
    (workdir / "below").mkdir()
    monkeypatch.chdir(workdir / "below")
    settings = load(overrides={"postgres_bin": "bin"})
    assert settings.source.password_file == workdir / "secrets/pw"
    assert settings.kafka is not None
    assert settings.connect is not None
    assert settings.kafka.property_files["sasl.password"] == workdir / "secrets/kafka"
    assert settings.connect.secrets_path == str(workdir / "out")
    assert settings.postgres_bin == Path("bin")


def test_an_unknown_key_names_the_nearest_known_one(workdir: Path) -> None:
    """With its file and line, under a code of its own."""
    write(workdir, MINIMAL + "apply:\n  max_batch_rwos: 3\n")
    error = refused()
    assert error.code == "CDCM-CONFIG-UNKNOWN-KEY"
    assert "migration.yaml:5: apply.max_batch_rwos" in error.cause
    assert "did you mean apply.max_batch_rows?" in error.cause


def test_all_faults_are_told_together_in_the_order_of_lines(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Duplicates, unknown keys, wrong values, wrong variables and flags, in one message."""
    write(
        workdir,
        "name: Shop\nname: x\nsource: {dns: x}\napply: {max_batch_age: soon}\nload: {workers: 0}\n",
    )
    monkeypatch.setenv("CDC_MIGRATOR_LAOD__WORKERS", "2")
    monkeypatch.setenv("CDC_MIGRATOR_SERVICE__HTTP_PORT", "many")
    cause = refused(overrides={"ready": {"max_lag": "never"}}).cause
    for part in (
        "migration.yaml:1: name: ",
        "migration.yaml:2: name: is there twice",
        "migration.yaml:3: source.dns: is not known; did you mean source.dsn?",
        "migration.yaml:3: source.dsn: is missing",
        "migration.yaml:4: apply.max_batch_age: must be seconds",
        "migration.yaml:5: load.workers: ",
        "migration.yaml: target: is missing",
        "CDC_MIGRATOR_LAOD__WORKERS: names no setting; did you mean CDC_MIGRATOR_LOAD?",
        "CDC_MIGRATOR_SERVICE__HTTP_PORT: service.http_port: ",
        "command line: ready.max_lag: ",
    ):
        assert part in cause
    lines = [int(number) for number in re.findall(r"migration\.yaml:(\d+)", cause)]
    assert lines == sorted(lines)


def test_kubernetes_own_variables_are_left_alone(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Service that is called cdc-migrator gives every pod beside it variables of our prefix."""
    write(workdir, MINIMAL)
    for name in ("SERVICE_HOST", "SERVICE_PORT_HTTP", "PORT", "PORT_8642_TCP_ADDR"):
        monkeypatch.setenv(f"CDC_MIGRATOR_{name}", "tcp://10.0.0.1:8642")
    assert load().name == "shop"


def test_no_file_at_all_says_how_to_get_one(workdir: Path) -> None:
    """The remedy is the command that writes it."""
    error = refused()
    assert error.code == "CDCM-CONFIG-MISSING"
    assert "cdc-migrator init" in error.remedy
    assert refused(config_path=workdir / "none.yaml").code == "CDCM-CONFIG-MISSING"


def test_broken_yaml_has_its_own_code(workdir: Path) -> None:
    """Nothing else is said about a file that cannot be parsed."""
    write(workdir, "name: [shop\nsource: x\n")
    error = refused()
    assert error.code == "CDCM-CONFIG-SYNTAX"
    assert "migration.yaml:2" in error.cause


def test_kafka_and_connect_belong_together(workdir: Path) -> None:
    """One without the other would mix the local stack with the user's cluster."""
    write(workdir, MINIMAL + "kafka: {bootstrap_servers: k}\n")
    assert "belong together" in refused().cause


@pytest.mark.parametrize(
    "line",
    [
        'source: {dsn: "postgresql://app:hunter2%zz@db1/shop"}',
        'source: {dsn: "host=db1 hunter2"}',
        'source: {dsn: "postgresql://db1/shop", password: [hunter2]}',
        'source: {dsn: "postgresql://db1/shop", passwort: hunter2}',
        'source: {dsn: "postgresql://db1/shop", port: hunter2}',
        "source: hunter2",
    ],
)
def test_a_fault_never_repeats_what_may_be_a_password(workdir: Path, line: str) -> None:
    """Keys and lines are told; values are not."""
    write(workdir, f'name: shop\n{line}\ntarget: {{dsn: "postgresql://db2/shop"}}\n')
    error = refused()
    assert "hunter2" not in str(error) + error.remedy


def test_a_password_file_must_be_ones_own(workdir: Path) -> None:
    """Open to all, missing or empty: a coded error that names the file and the remedy."""
    write(workdir, MINIMAL.replace('db1/shop"}', 'db1/shop", password_file: pw}'))
    source = load().source
    for prepare in (
        lambda path: None,
        lambda path: (path.write_text("hunter2\n"), path.chmod(0o644)),
        lambda path: (path.write_text("\n"), path.chmod(0o600)),
    ):
        prepare(workdir / "pw")
        with pytest.raises(ConfigurationError) as caught:
            source.reveal_password()
        assert caught.value.code == "CDCM-CONFIG-PASSWORD-FILE"
        assert "hunter2" not in str(caught.value)
    (workdir / "pw").write_text("hunter2\n")
    (workdir / "pw").chmod(stat.S_IRUSR)
    assert source.reveal_password() == "hunter2"
    (workdir / "pw").chmod(0o600)
    (workdir / "pw").write_text("rotated\n")
    assert "password=rotated" in source.dsn_with_password()


def test_every_value_is_frozen(workdir: Path) -> None:
    """Settings are read once and never change."""
    write(workdir, MINIMAL)
    settings = load()
    with pytest.raises(ValueError, match="frozen"):
        settings.name = "x"
    with pytest.raises(ValueError, match="frozen"):
        settings.load.workers = 9
