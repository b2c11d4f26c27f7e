"""The local stack as a whole: `up`, `down`, `status`. The only module of this package that other
parts need."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs

from cdc_migrator.errors import Failed
from cdc_migrator.stack import (
    lock,
    logs,
    owner,
    ports,
    postgres,
    prepare,
    probes,
    processes,
    records,
)
from cdc_migrator.stack.layout import CHILDREN, SERVERS, Layout
from cdc_migrator.stack.progress import Silent, Talk
from cdc_migrator.stack.records import Death, Plan, Running, Settled, SupervisorRecord

TAIL_LINES = 15


@dataclass(frozen=True, slots=True)
class StackOptions:
    """How to start a stack.

    ``postgres_bin``: directory of `postgres` and `initdb`; None for the wheel's. ``full_jit``: let
    Java optimise fully: slower start, higher throughput. ``jar_repository``: base address of a
    Maven repository; None for the central one. ``cache_dir``: None for the user's cache.
    ``timeout``: seconds until everything must serve.
    """

    state_dir: Path
    postgres_bin: Path | None = None
    full_jit: bool = False
    jar_repository: str | None = None
    jar_lock: Path = lock.COMMITTED
    cache_dir: Path | None = None
    timeout: float = 180.0


@dataclass(frozen=True, slots=True)
class StackInfo:
    """Where a running stack serves. The DSNs hold passwords. Files written to ``secrets_dir`` can
    be referred to in a connector's configuration as ``${file:<path>:<key>}``."""

    source_dsn: str
    target_dsn: str
    bootstrap_servers: str
    connect_url: str
    state_dir: Path
    secrets_dir: Path


@dataclass(frozen=True, slots=True)
class ChildStatus:
    """``uptime`` in seconds, ``memory`` in bytes; ``last_death`` is the latest one of this run.
    ``lost``: the supervisor is gone, the child goes on unwatched."""

    name: str
    state: records.ChildState | Literal["lost"]
    pid: int | None
    port: int
    uptime: float | None
    memory: int | None
    restarts: int
    last_death: Death | None
    reason: str | None
    log: Path


@dataclass(frozen=True, slots=True)
class StackStatus:
    state_dir: Path
    supervisor_pid: int | None
    running: Running | None
    children: tuple[ChildStatus, ...]

    @property
    def pids(self) -> dict[str, int]:
        """Process numbers of the living children by name."""
        return {child.name: child.pid for child in self.children if child.pid is not None}

    @property
    def healthy(self) -> bool:
        return self.supervisor_pid is not None and all(c.state == "running" for c in self.children)


def default_state_dir(base: Path = Path(".cdc-migrator")) -> Path:
    """The stack's directory below the one where a migration keeps its local state."""
    return base / "stack"


def up(options: StackOptions, talk: Talk | None = None) -> StackInfo:
    """Start the stack, or find the running one; returns when every part serves.

    Raises Failed or Refused or ConfigurationError with a CDCM-STACK code: no jars and no
    network, jars that are not the locked ones, no Java, a child that dies again and again.
    """
    talk = talk or Silent()
    layout = _layout(options.state_dir)
    layout.create(traversable=os.geteuid() == 0)
    with layout.locked(talk):
        settled = prepare.settle(layout)
        if owner.find(layout) is not None:
            talk.say(f"found the stack in {layout.root}")
            _note_ignored_options(layout, options, talk)
            owner.retry_failed(layout)
        else:
            owner.stop_orphans(layout, talk)
            prepare.check_ports(settled)
            plan = prepare.prepare(
                layout,
                settled,
                postgres_bin=options.postgres_bin,
                jar_lock=options.jar_lock,
                jar_repository=options.jar_repository,
                cache=options.cache_dir or platformdirs.user_cache_path("cdc-migrator"),
                full_jit=options.full_jit,
                environ=os.environ,
                talk=talk,
            )
            records.write(layout.plan, plan)
            owner.start(layout)
        _wait_until_serving(layout, settled, options.timeout, talk)
    return _info(layout, settled)


def down(state_dir: Path, purge: bool = False, talk: Talk | None = None) -> bool:
    """Stop the stack in good order; with ``purge`` remove everything that it wrote. Returns
    whether there was one. Data is kept without ``purge``."""
    talk = talk or Silent()
    layout = _layout(state_dir)
    if not layout.exists():
        return False
    with layout.locked(talk):
        supervisor = owner.find(layout)
        if supervisor is not None:
            talk.say("stopping Connect, the broker and both PostgreSQL servers")
            owner.stop(supervisor, at_once=purge)
        owner.stop_orphans(layout, talk, at_once=purge)
        if purge:
            _purge(layout)
    return True


def status(state_dir: Path) -> StackStatus:
    """What runs and what died. Raises Failed (CDCM-STACK-NONE) when there is no stack."""
    layout = _layout(state_dir)
    settled = _settled(layout)
    plan = records.read(layout.plan, Plan)
    record = records.read(layout.supervisor, SupervisorRecord)
    watched = record is not None and processes.alive(record.process) is not None
    return StackStatus(
        state_dir=layout.root,
        supervisor_pid=record.process.pid if record and watched else None,
        running=plan.running if plan else None,
        children=tuple(_child_status(layout, settled, record, name, watched) for name in CHILDREN),
    )


def info(state_dir: Path) -> StackInfo:
    """Addresses and passwords of a stack, running or not. Raises Failed (CDCM-STACK-NONE)."""
    layout = _layout(state_dir)
    return _info(layout, _settled(layout))


def log_file(state_dir: Path, name: str) -> Path:
    """The log of a child or of the supervisor. Raises Failed (CDCM-STACK-NONE)."""
    layout = _layout(state_dir)
    _settled(layout)
    return layout.log(name)


def _layout(state_dir: Path) -> Layout:
    return Layout(state_dir.expanduser().resolve())


def _settled(layout: Layout) -> Settled:
    settled = records.read(layout.settled, Settled)
    if settled is None:
        raise Failed(
            "CDCM-STACK-NONE",
            f"there is no stack in {layout.root}",
            "start one with `cdc-migrator stack up`, or name its directory with --state-dir",
        )
    return settled


def _info(layout: Layout, settled: Settled) -> StackInfo:
    return StackInfo(
        source_dsn=_dsn(settled, "source", postgres.DATABASE),
        target_dsn=_dsn(settled, "target", postgres.DATABASE),
        bootstrap_servers=f"{ports.HOST}:{settled.ports['kafka']}",
        connect_url=f"http://{ports.HOST}:{settled.ports['connect']}",
        state_dir=layout.root,
        secrets_dir=layout.secrets,
    )


def _dsn(settled: Settled, name: str, database: str) -> str:
    login = f"{postgres.USER}:{settled.passwords[name]}"
    return f"postgresql://{login}@{ports.HOST}:{settled.ports[name]}/{database}"


def _note_ignored_options(layout: Layout, options: StackOptions, talk: Talk) -> None:
    plan = records.read(layout.plan, Plan)
    if plan is None:
        return
    other_bin = (
        options.postgres_bin is not None and str(options.postgres_bin) != plan.running.postgres_bin
    )
    if other_bin or (options.full_jit and not plan.running.full_jit):
        talk.say("it was started with other options, which stay until `stack down`")


def _wait_until_serving(layout: Layout, settled: Settled, timeout: float, talk: Talk) -> None:
    port = settled.ports
    wanted: dict[str, probes.Probe] = {
        **{
            name: lambda name=name: probes.postgres_serves(  # type: ignore[misc]
                _dsn(settled, name, "postgres")
            )
            for name in SERVERS
        },
        "kafka": lambda: probes.broker_serves(port["kafka"]),
        "connect": lambda: probes.worker_serves(port["connect"]),
    }
    missing = probes.wait_for_all(
        wanted,
        timeout,
        lambda name, seconds: talk.say(f"{name} serves on port {port[name]} ({seconds:.1f} s)"),
        lambda: owner.raise_if_dead(layout),
    )
    if missing:
        log = layout.log(missing[0])
        raise Failed(
            "CDCM-STACK-TIMEOUT",
            f"{' and '.join(missing)} did not serve within {timeout:.0f} s"
            + owner.log_end(logs.tail(log, TAIL_LINES)),
            f"see `cdc-migrator stack logs {missing[0]}`; on a slow machine raise --timeout",
        )


def _child_status(
    layout: Layout, settled: Settled, record: SupervisorRecord | None, name: str, watched: bool
) -> ChildStatus:
    child = record.children.get(name) if record else None
    process = processes.alive(child.process) if child else None
    state: records.ChildState | Literal["lost"] = "stopped"
    if child is not None and watched:
        state = child.state
        if state == "running" and process is None:
            state = "restarting"  # dead for a moment: its supervisor is about to notice
    elif process is not None:
        state = "lost"
    return ChildStatus(
        name=name,
        state=state,
        pid=process.pid if process else None,
        port=settled.ports[name],
        uptime=time.time() - process.create_time() if process else None,
        memory=processes.memory(process) if process else None,
        restarts=child.restarts if child else 0,
        last_death=child.deaths[-1] if child and child.deaths else None,
        reason=child.reason if child else None,
        log=layout.log(name),
    )


def _purge(layout: Layout) -> None:
    annex = Path(_settled(layout).annex)
    if annex != layout.root:
        shutil.rmtree(annex, ignore_errors=True)
    shutil.rmtree(layout.root)
    if layout.root.parent.name == ".cdc-migrator" and not any(layout.root.parent.iterdir()):
        layout.root.parent.rmdir()
