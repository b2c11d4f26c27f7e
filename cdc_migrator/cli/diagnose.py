"""`diagnose`: one file with what somebody needs who is to help."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cdc_migrator.cli import context
from cdc_migrator.cli.files import write_file
from cdc_migrator.cli.output import printer, to_json, to_yaml

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cdc_migrator.config.settings import Settings
    from cdc_migrator.service.diagnose import Bundle

_PACKAGES = (
    "cdc-migrator", "confluent-kafka", "fastavro", "psycopg", "psycopg-binary", "orjson",
    "pydantic", "pydantic-settings", "prometheus-client", "httpx", "structlog", "typer",
)  # fmt: skip
_LOG_BYTES = 1 << 20
_SECONDS = 10.0


def diagnose(
    ctx: typer.Context,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", metavar="FILE", help="Where to write it. Default: one named after the time."
        ),
    ] = None,
    log: Annotated[
        list[Path] | None,
        typer.Option(
            "--log",
            metavar="FILE",
            help="Put the end of this log in as well, such as that of run; may be repeated.",
        ),
    ] = None,
) -> None:
    """Write a bundle for whoever is to help: no password and no row in it.

    In it are versions, the configuration with its secrets hidden, status, preflight and report,
    metrics, both servers' settings and catalogs (tables, columns, keys, slots, sessions; no rows,
    no defaults, no texts of queries), the connector as Connect has it, the topics, and the ends
    of logs. It changes nothing, and works also while parts of the migration are away: what could
    not be had is listed with its reason. PostgreSQL's own logs are not in it, for they quote rows.

    Look through it before you send it: names of tables and hosts are in it.

    Exit code 0 when the bundle was written, whatever could not be had.

    Example: [bold]cdc-migrator diagnose --to bundle.tar.gz[/bold]
    """
    from cdc_migrator.model.redaction import Redactor
    from cdc_migrator.service.diagnose import gather

    configured = context.settings(ctx)
    out = printer(ctx)
    at = datetime.now(UTC)
    top = f"cdc-migrator-{configured.name}-{at:%Y%m%dT%H%M%SZ}"
    path = to or Path(f"{top}.tar.gz")
    bundle = gather(_parts(configured, log or []), Redactor(_secrets(configured)))
    write_file(path, bundle.archive(top, at))
    path.chmod(0o600)
    document = {
        "file": str(path),
        "parts": [{"name": name, "bytes": len(text)} for name, text in bundle.texts.items()],
        "missing": [
            {"name": one.part, "code": one.code, "cause": one.cause} for one in bundle.missing
        ],
    }
    out.data(document, lambda: _view(path, bundle))


def _parts(configured: Settings, logs: list[Path]) -> Iterator[tuple[str, Callable[[], str]]]:
    from cdc_migrator.config.reference import redacted

    yield "versions.json", lambda: to_json(_versions(), indent=True)
    yield "configuration.yaml", lambda: to_yaml(redacted(configured))
    yield "status.json", lambda: to_json(_status(configured), indent=True)
    yield "check.json", lambda: to_json(_check(configured), indent=True)
    yield "report.json", lambda: to_json(_report(configured), indent=True)
    yield "metrics.txt", lambda: _metrics(configured)
    yield "source.json", lambda: to_json(_facts(configured, "source"), indent=True)
    yield "target.json", lambda: to_json(_facts(configured, "target"), indent=True)
    yield "connect.json", lambda: to_json(_connect(configured), indent=True)
    yield "topics.json", lambda: to_json(_topics(configured), indent=True)
    for path in sorted({*configured.state_dir.glob("*.log"), *logs}):
        yield f"logs/{path.name}", lambda path=path: _end(path)  # type: ignore[misc]
    if configured.mode == "local":
        from cdc_migrator.cli.endpoints import stack_dir

        for name in ("kafka", "connect", "supervisor"):
            yield (
                f"logs/stack-{name}.log",
                lambda name=name: _stack_log(stack_dir(configured), name),  # type: ignore[misc]
            )


def _secrets(configured: Settings) -> Iterator[str | None]:
    """Each secret of the configuration in clear; one that cannot be read cannot be told either."""
    from cdc_migrator.config.reference import SENSITIVE
    from cdc_migrator.errors import MigratorError

    readers: list[Callable[[], str | None]] = [
        configured.source.reveal_password,
        configured.target.reveal_password,
        *(one.reveal_password for one in configured.source.roles.named().values()),
        *(one.reveal_password for one in configured.target.roles.named().values()),
        lambda: os.environ.get("PGPASSWORD"),
        lambda: ((configured.connect and configured.connect.reveal_login()) or ("", None))[1],
    ]
    for read in readers:
        try:
            yield read()
        except MigratorError:
            continue
    if configured.connect is not None:
        try:
            login = configured.connect.reveal_login()
            yield login[1] if login else None
        except MigratorError:
            pass
    if configured.kafka is not None:
        try:
            for name, value in configured.kafka.other_properties().items():
                if SENSITIVE.search(name):
                    yield value
        except MigratorError:
            return


def _versions() -> dict[str, Any]:
    import confluent_kafka
    import psycopg

    found: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return {
        "at": datetime.now(UTC),
        "packages": found,
        "python": sys.version,
        "platform": platform.platform(),
        "librdkafka": confluent_kafka.libversion()[0],
        "libpq": psycopg.pq.version_pretty(psycopg.pq.version()),
    }


def _status(configured: Settings) -> dict[str, Any]:
    from cdc_migrator.cli.measuring import limits, places
    from cdc_migrator.monitor.sampler import Sampler
    from cdc_migrator.monitor.status import document

    with Sampler(places(configured)) as sampler:
        return document(sampler.sample(), limits(configured))


def _check(configured: Settings) -> dict[str, Any]:
    from cdc_migrator.cli.steps import Logged, migrate_steps

    found = migrate_steps(configured, Logged(time.monotonic)).check()
    return {
        "refused": found.refused,
        "tables": [str(table.name) for table in found.tables],
        "findings": [finding.as_dict() for finding in found.findings],
    }


def _report(configured: Settings) -> dict[str, Any]:
    from cdc_migrator.cli.report import make

    return make(configured)


def _metrics(configured: Settings) -> str:
    import httpx

    from cdc_migrator.errors import Failed

    served = configured.service
    host = "127.0.0.1" if served.http_host in ("0.0.0.0", "::", "") else served.http_host
    if not served.http_port:
        raise Failed("CDCM-DIAGNOSE-METRICS", "no fixed port is served", "Set service.http_port.")
    try:
        answer = httpx.get(f"http://{host}:{served.http_port}/metrics", timeout=_SECONDS)
    except httpx.HTTPError:
        raise Failed(
            "CDCM-DIAGNOSE-METRICS",
            f"nothing serves metrics on {host}:{served.http_port}",
            "Start `cdc-migrator run`, or run diagnose where it runs.",
        ) from None
    return answer.text


def _facts(configured: Settings, side: str) -> dict[str, Any]:
    from cdc_migrator.databases.postgres.connect import connect
    from cdc_migrator.databases.postgres.facts import read_facts
    from cdc_migrator.model.logins import Role, login

    database = configured.source if side == "source" else configured.target
    called = f"cdcm-{configured.name}-diagnose"
    dsn = login(database.dsn_with_password(), Role.MONITOR)
    with connect(dsn, application_name=called, side=side, read_only=True) as conn:
        return read_facts(conn)


def _connect(configured: Settings) -> dict[str, Any]:
    from cdc_migrator.capture.connect_rest import ConnectClient
    from cdc_migrator.cli.endpoints import endpoints
    from cdc_migrator.config.reference import HIDDEN, SENSITIVE

    found: dict[str, Any] = {}
    workers = endpoints(configured).workers
    with ConnectClient(workers, patience=_SECONDS) as client:
        found["worker"] = client.version()
        found["plugins"] = {one.name: one.version for one in client.plugins()}
        found["connectors"] = {}
        for name in client.names():
            reserved = name in workers.connectors.values()
            if not name.startswith(f"cdcm-{configured.name}") and not reserved:
                continue
            settings, status = client.config(name) or {}, client.status(name)
            found["connectors"][name] = {
                "configuration": {
                    key: HIDDEN if SENSITIVE.search(key) else value
                    for key, value in settings.items()
                },
                "status": status,
            }
    return found


def _topics(configured: Settings) -> dict[str, Any]:
    from cdc_migrator.capture.topics import Topics
    from cdc_migrator.cli.endpoints import endpoints

    topics = Topics(endpoints(configured).brokers, timeout=_SECONDS)
    ours = sorted(name for name in topics.names() if name.startswith(f"cdcm.{configured.name}."))
    return {name: {"end_offset": topics.end_offset(name)} for name in ours}


def _end(path: Path) -> str:
    from cdc_migrator.errors import Failed

    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _LOG_BYTES))
            return file.read().decode(errors="replace")
    except OSError as error:
        raise Failed(
            "CDCM-DIAGNOSE-LOG", f"{path} cannot be read: {error.strerror}", "Name another file."
        ) from None


def _stack_log(directory: Path, name: str) -> str:
    """Warnings and errors of a Java process, without what their texts may quote."""
    from cdc_migrator.model.traces import noteworthy
    from cdc_migrator.stack import local

    return noteworthy(_end(local.log_file(directory, name)))


def _view(path: Path, bundle: Bundle) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(Text(str(path), "bold"))
    for name, text in bundle.texts.items():
        table.add_row(name, f"{len(text):,} bytes")
    for one in bundle.missing:
        table.add_row(Text(one.part, "yellow"), Text(f"not had: {one.code}: {one.cause}"))
    return table
