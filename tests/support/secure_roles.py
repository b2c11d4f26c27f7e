"""A migration on the secured stack that has the printed rights and no others, on every server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from psycopg.conninfo import make_conninfo

from cdc_migrator.capture.acls import Acl, Who
from cdc_migrator.clients.kafka import Right
from tests.support.live import LiveMigration
from tests.support.roles import Server, make_app, under_roles
from tests.support.secure_stack import PRINCIPALS, WORKER, SecureStack


def printed_acls(live: LiveMigration) -> list[Acl]:
    """What `init --acls` says."""
    users = ("--service-user", "cdcm", "--worker-user", "connect", "--worker-group", WORKER.group)
    told = json.loads(live.cli("init", "--acls", *users, "-o", "json").stdout)["acls"]
    assert {one["principal"] for one in told} == set(PRINCIPALS.values())
    named = dict(zip(("connect-configs", "connect-offsets", "connect-status"),
                     (WORKER.configs, WORKER.offsets, WORKER.status), strict=True))  # fmt: skip
    return [
        Acl(
            Who(one["for"]),
            Right(
                one["operation"],
                one["resource_type"],
                named.get(one["resource_name"], one["resource_name"]),
            ),
            one["pattern_type"] == "prefixed",
            one["why"],
        )
        for one in told
    ]


@contextmanager
def least(
    secure: SecureStack,
    directory: Path,
    name: str,
    settings: dict[str, Any],
    make: Callable[[Server], None] = make_app,
) -> Iterator[tuple[LiveMigration, Server, Server]]:
    """As `under_roles`, in databases of their own called `name`; the ACLs are granted as well."""
    for side in ("source", "target"):
        secure.administer(side, f"CREATE DATABASE {name}")
    source, target = (
        make_conninfo(secure.postgres(side, name), password=secure.passwords[side])
        for side in ("source", "target")
    )
    whole = {"kafka": secure.kafka(), "connect": secure.connect(), **settings}
    try:
        with under_roles(secure, source, target, directory, name, whole, make) as made:
            secure.grant(printed_acls(made[0]))
            secure.start_worker()
            yield made
    finally:
        for side in ("source", "target"):
            secure.administer(side, f"DROP DATABASE {name} WITH (FORCE)")
