"""Everything before the first child starts: addresses, passwords, jars, data, settings."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cdc_migrator.errors import Failed
from cdc_migrator.stack import (
    account,
    class_archive,
    jars,
    java,
    kafka,
    lock,
    ports,
    postgres,
    records,
)
from cdc_migrator.stack.class_archive import Archive
from cdc_migrator.stack.layout import SERVERS, Layout
from cdc_migrator.stack.progress import Talk
from cdc_migrator.stack.records import Plan, Running, Settled

PORTS = ("source", "target", "kafka", "controller", "connect")


def settle(layout: Layout) -> Settled:
    """What this state directory's stack keeps for its life; chosen now when it is new."""
    settled = records.read(layout.settled, Settled)
    if settled is None:
        user = account.unprivileged()
        reachable = user is None or user.can_enter(layout.root)
        settled = Settled(
            ports=dict(zip(PORTS, ports.choose(len(PORTS)), strict=True)),
            passwords={name: secrets.token_hex(16) for name in SERVERS},
            cluster_id=kafka.new_cluster_id(),
            annex=str(layout.root if reachable else _new_annex()),
            account=user.name if user else None,
        )
        records.write(layout.settled, settled)
    layout.rooms()
    return settled


def check_ports(settled: Settled) -> None:
    """Raises Failed (CDCM-STACK-PORT) when another program listens on a port of this stack."""
    for name, port in settled.ports.items():
        if not ports.is_free(port):
            raise Failed(
                "CDCM-STACK-PORT",
                f"another program listens on port {port}, which the stack's {name} has had since "
                "its first start",
                "end that program, or begin anew with `cdc-migrator stack down --purge`",
            )


def prepare(
    layout: Layout,
    settled: Settled,
    *,
    postgres_bin: Path | None,
    jar_lock: Path,
    jar_repository: str | None,
    cache: Path,
    full_jit: bool,
    environ: Mapping[str, str],
    talk: Talk,
) -> Plan:
    """Make whatever is missing and write all settings; returns the children to run. Nothing of
    this stack may be running."""
    user = account.unprivileged()
    annex = Path(settled.annex)
    binaries = postgres.locate(postgres_bin, user, annex)
    with ThreadPoolExecutor(3) as pool:
        servers = [
            pool.submit(postgres.initialise, annex / name, binaries, settled.passwords[name], user)
            for name in SERVERS
        ]
        runtime = java.find(environ)
        talk.say(
            f"PostgreSQL {binaries.version} ({binaries.directory}), "
            f"Java {runtime.major} ({runtime.origin})"
        )
        archives = _kafka(layout, settled, runtime, jar_lock, jar_repository, cache, full_jit, talk)
        for server in servers:
            server.result()
    for name in SERVERS:
        postgres.configure(annex / name, name, settled.ports[name], user)
        postgres.drop_foreign_pid_file(annex / name)
    children = (
        *(
            postgres.child(name, layout, annex / name, binaries, settled.ports[name], user)
            for name in SERVERS
        ),
        *kafka.children(
            layout, runtime, settled.ports["kafka"], settled.ports["connect"], archives
        ),
    )
    return Plan(
        children=children,
        running=Running(
            postgres_bin=str(binaries.directory),
            postgres_version=binaries.version,
            java=str(runtime.executable),
            java_version=runtime.major,
            full_jit=full_jit,
        ),
    )


def _kafka(
    layout: Layout,
    settled: Settled,
    runtime: java.Java,
    jar_lock: Path,
    jar_repository: str | None,
    cache: Path,
    full_jit: bool,
    talk: Talk,
) -> dict[str, Archive]:
    """Write what broker and worker are started with; their class archives by name."""
    locked = lock.read(jar_lock)
    places = jars.ensure(locked.artifacts, cache, jar_repository, talk)
    # Unpacked at every start, from the archive just verified: what lay there may have changed.
    shutil.rmtree(layout.plugins, ignore_errors=True)
    for archive in locked.plugins:
        jars.unpack(places[archive.coordinates], layout.plugins)
    class_path = [places[jar.coordinates] for jar in locked.class_path]
    port = settled.ports
    broker = kafka.broker_settings(layout, port["kafka"], port["controller"])
    worker = kafka.worker_settings(layout, port["connect"], port["kafka"])
    for home, settings, level in (
        (layout.kafka, broker, "warn"),
        (layout.connect, worker, "info"),
    ):
        options = kafka.arguments(runtime, class_path, home, full_jit)
        kafka.write_home(home, options, settings, level)
    kafka.format_storage(runtime, layout, settled.cluster_id)
    return {
        home.name: class_archive.find(cache, home.name, runtime, class_path, home)
        for home in (layout.kafka, layout.connect)
    }


def _new_annex() -> Path:
    """A directory that every account can pass through; for root only, whose home others cannot."""
    lasting = Path("/var/tmp")
    directory = tempfile.mkdtemp(
        prefix="cdc-migrator-", dir=lasting if os.access(lasting, os.W_OK) else None
    )
    Path(directory).chmod(0o711)
    return Path(directory)
