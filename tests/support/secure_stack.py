"""Kafka, Connect and two PostgreSQL servers as a careful platform team runs them.

The broker speaks TLS only and asks for SCRAM or PLAIN, or for a certificate; nobody may do
anything that no ACL allows. The worker speaks HTTPS, asks for a certificate and for user and
password. PostgreSQL takes TLS sessions only, by SCRAM or by certificate. All of them are the
programs of the local stack with other settings, but for PostgreSQL, whose wheel knows no TLS.
"""

from __future__ import annotations

import os
import secrets
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import platformdirs
import psycopg
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from psycopg.conninfo import make_conninfo

from cdc_migrator.capture.acls import Acl, Who, WorkerNames
from cdc_migrator.clients.kafka import QUIET
from cdc_migrator.stack import jars, java, kafka, lock, ports
from cdc_migrator.stack.layout import Layout
from cdc_migrator.stack.progress import Silent
from tests.support.certificates import Authority, Issued
from tests.support.secure_postgres import postgres_server
from tests.support.secure_settings import broker_settings, worker_settings

WORKER = WorkerNames("cdc-migrator-connect", "connect-config", "connect-offset", "connect-status")
PRINCIPALS = {Who.SERVICE: "User:cdcm", Who.WORKER: "User:connect"}
_LOCK = Path(__file__).with_name("secure.lock.json")
_LISTENERS = ("SASL", "MTLS", "ELSEWHERE", "EXPIRED")


@dataclass
class SecureStack:
    """Where everything is, and the secrets of all users; `files` holds what users are given."""

    files: Path
    authority: Path
    stranger: Path
    client: Issued
    listeners: dict[str, int]
    worker_port: int
    passwords: dict[str, str]
    secrets_dir: Path
    postgres_ports: dict[str, int]
    layout: Layout
    ends: ExitStack
    worker_command: tuple[str, ...] = ()
    worker_runs: bool = False
    _admin: AdminClient | None = None

    def servers(self, listener: str = "SASL", host: str = ports.HOST) -> str:
        return f"{host}:{self.listeners[listener]}"

    @property
    def worker_url(self) -> str:
        return f"https://{ports.HOST}:{self.worker_port}"

    @property
    def bootstrap_servers(self) -> str:
        return self.servers()

    @property
    def connect_url(self) -> str:
        return self.worker_url

    def secret(self, name: str) -> Path:
        """A file with one of the passwords, as a user would keep it."""
        path = self.files / f"{name}.password"
        path.touch(mode=0o600)
        path.write_text(self.passwords[name] + "\n")
        return path

    def kafka(self, mechanism: str = "SCRAM-SHA-512") -> dict[str, Any]:
        """The section of migration.yaml."""
        return {
            "bootstrap_servers": self.servers(),
            "properties": {
                "security.protocol": "SASL_SSL",
                "sasl.mechanism": mechanism,
                "sasl.username": "cdcm",
                "ssl.ca.location": str(self.authority),
            },
            "property_files": {"sasl.password": str(self.secret("cdcm"))},
        }

    def kafka_by_certificate(self, listener: str = "MTLS") -> dict[str, Any]:
        return {
            "bootstrap_servers": self.servers(listener),
            "properties": {
                "security.protocol": "SSL",
                "ssl.ca.location": str(self.authority),
                "ssl.certificate.location": str(self.client.certificate),
                "ssl.key.location": str(self.client.key),
            },
        }

    def connect(self) -> dict[str, Any]:
        """The section of migration.yaml; the first of the workers is not there."""
        (away,) = ports.choose(1)
        return {
            "url": [f"https://{ports.HOST}:{away}", self.worker_url],
            "username": "cdcm",
            "password_file": str(self.secret("rest")),
            "ca_file": str(self.authority),
            "client_cert": str(self.client.certificate),
            "client_key": str(self.client.key),
            "secrets_dir": str(self.secrets_dir),
        }

    def postgres(self, side: str, database: str = "postgres", user: str = "postgres") -> str:
        """A connection string without a password, which makes sure of the server."""
        return (
            f"host=localhost hostaddr={ports.HOST} port={self.postgres_ports[side]} "
            f"dbname={database} user={user} sslmode=verify-full sslrootcert={self.authority} "
            "channel_binding=require"
        )

    def start_worker(self) -> None:
        """Once; it needs its rights to start."""
        if not self.worker_runs:
            log = self.layout.log("connect")
            self.ends.enter_context(_process(self.worker_command, log))
            _until("the worker answers", lambda: _worker_answers(self), log)
            self.worker_runs = True

    def administer(self, side: str, statement: str, database: str = "postgres") -> None:
        dsn = make_conninfo(self.postgres(side, database), password=self.passwords[side])
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(statement)  # type: ignore[call-overload]

    @property
    def admin(self) -> AdminClient:
        if self._admin is None:
            self._admin = AdminClient(
                {
                    "bootstrap.servers": self.servers(),
                    "security.protocol": "SASL_SSL",
                    "sasl.mechanism": "PLAIN",
                    "sasl.username": "admin",
                    "sasl.password": self.passwords["admin"],
                    "ssl.ca.location": str(self.authority),
                    "log_level": 0,
                },
                logger=QUIET,
            )
        return self._admin

    def grant(self, acls: Iterable[Acl]) -> None:
        for asked in self.admin.create_acls([_binding(one) for one in acls]).values():
            asked.result(20)

    def take_away(self, acls: Iterable[Acl]) -> None:
        filters = [_filter(_binding(one)) for one in acls]
        for asked in self.admin.delete_acls(filters).values():
            assert len(asked.result(20)) == 1, "this one was not there"

    def set_password(self, user: str, password: str) -> None:
        """Of a user of the brokers, by SCRAM."""
        made = UserScramCredentialUpsertion(
            user, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), password.encode()
        )
        for asked in self.admin.alter_user_scram_credentials([made]).values():
            asked.result(20)


def _binding(acl: Acl) -> AclBinding:
    kind = {
        "topic": ResourceType.TOPIC,
        "group": ResourceType.GROUP,
        "transactional-id": ResourceType.TRANSACTIONAL_ID,
    }[acl.right.kind]
    operation = {
        "Read": AclOperation.READ,
        "Write": AclOperation.WRITE,
        "Create": AclOperation.CREATE,
        "Delete": AclOperation.DELETE,
        "Describe": AclOperation.DESCRIBE,
        "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
    }[acl.right.operation]
    pattern = ResourcePatternType.PREFIXED if acl.prefixed else ResourcePatternType.LITERAL
    return AclBinding(
        kind, acl.right.name, pattern, PRINCIPALS[acl.who], "*", operation, AclPermissionType.ALLOW
    )


def _filter(of: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        of.restype, of.name, of.resource_pattern_type, of.principal, of.host, of.operation,
        of.permission_type,
    )  # fmt: skip


@pytest.fixture(scope="session")
def secure_stack() -> Iterator[SecureStack]:
    """The session's secured stack: share it, and leave its ACLs as you found them."""
    base = Path(tempfile.mkdtemp(prefix="cdcm-secure-"))
    base.chmod(0o755)
    try:
        with ExitStack() as ends:
            yield _up(base, ends)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _up(base: Path, ends: ExitStack) -> SecureStack:
    authority = Authority(base / "files")
    stranger = Authority(base / "stranger", "stranger")
    layout = Layout(base / "stack")
    layout.root.mkdir()
    layout.rooms()
    users = ("admin", "cdcm", "connect", "rest", "source", "target")
    numbers = ports.choose(len(_LISTENERS) + 4)
    stack = SecureStack(
        files=base / "files",
        authority=authority.file,
        stranger=stranger.file,
        client=authority.issue("cdcm"),
        listeners=dict(zip(_LISTENERS, numbers, strict=False)),
        worker_port=numbers[-1],
        passwords={user: secrets.token_hex(12) for user in users},
        secrets_dir=layout.secrets,
        postgres_ports={"source": numbers[-2], "target": numbers[-3]},
        layout=layout,
        ends=ends,
    )
    for side in ("source", "target"):
        ends.enter_context(postgres_server(stack, authority, side))
    _kafka(stack, authority, numbers[-4])
    return stack


def _kafka(stack: SecureStack, authority: Authority, controller: int) -> None:
    layout = stack.layout
    cache = platformdirs.user_cache_path("cdc-migrator")
    locked, more = lock.read(), lock.read(_LOCK)
    places = jars.ensure((*locked.artifacts, *more.artifacts), cache, None, Silent())
    for archive in locked.plugins:
        jars.unpack(places[archive.coordinates], layout.plugins)
    class_path = [places[jar.coordinates] for jar in (*locked.class_path, *more.class_path)]
    runtime = java.find(os.environ)
    arguments = kafka.arguments(runtime, class_path, layout.kafka, False)
    broker = broker_settings(stack, authority, layout, controller)
    kafka.write_home(layout.kafka, arguments, broker, "warn")
    kafka.format_storage(runtime, layout, kafka.new_cluster_id())
    stack.ends.enter_context(
        _process(kafka.command(runtime, layout.kafka, "kafka.Kafka"), layout.log("kafka"))
    )
    _until("the broker answers", lambda: _broker_answers(stack), layout.log("kafka"))
    for user in ("cdcm", "connect"):
        stack.set_password(user, stack.passwords[user])

    worker = worker_settings(stack, authority, layout)
    login = layout.connect / "jaas.conf"
    arguments = kafka.arguments(runtime, class_path, layout.connect, False)
    arguments += f'"-Djava.security.auth.login.config={login}"\n'
    kafka.write_home(layout.connect, arguments, worker, "info")
    main = "org.apache.kafka.connect.cli.ConnectDistributed"
    stack.worker_command = kafka.command(runtime, layout.connect, main)


def _broker_answers(stack: SecureStack) -> bool:
    try:
        return bool(stack.admin.list_topics(timeout=2).brokers)
    except KafkaException:
        return False


def _worker_answers(stack: SecureStack) -> bool:
    context = ssl.create_default_context(cafile=stack.authority)
    context.load_cert_chain(stack.client.certificate, stack.client.key)
    try:
        answer = httpx.get(
            f"{stack.worker_url}/connector-plugins",
            auth=("cdcm", stack.passwords["rest"]),
            verify=context,
            trust_env=False,
            timeout=5,
        )
    except httpx.TransportError:
        return False
    return answer.status_code == httpx.codes.OK


@contextmanager
def _process(command: tuple[str, ...], log: Path) -> Iterator[None]:
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=kafka.environment(),
            cwd=log.parent,
            start_new_session=True,
        )
    try:
        yield
    finally:
        # Nobody needs what they hold.
        process.kill()
        process.wait(20)


def _until(what: str, condition: Any, log: Path, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        said = log.read_text(errors="replace")[-3000:]
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}\n{said}"
        time.sleep(0.1)
