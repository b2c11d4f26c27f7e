"""The migration.yaml that `init` writes: what was found on the source, and what can be said.

Pure: facts in, text out. No password is among the facts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from glob import escape

from cdc_migrator.config.reference import commented_defaults
from cdc_migrator.config.values import size_text
from cdc_migrator.model.tables import ReplicaIdentity, Table


@dataclass(frozen=True, slots=True)
class Side:
    """One database as the file names it.

    Attributes:
        dsn: without a password.
        password_file: path as it stands in the file, or None.
        variable: the variable of the environment that may hold the password.
        server: what the server said of itself, or why it did not.
    """

    dsn: str
    password_file: str | None
    variable: str
    server: str


@dataclass(frozen=True, slots=True)
class Found:
    """What `init` found. `problems` are (table, reason, statement that helps); `include` and
    `exclude` are the patterns that were asked for, empty for all tables and none; `within`: source
    and target are one database."""

    name: str
    source: Side
    target: Side
    tables: Sequence[Table]
    problems: Sequence[tuple[str, str, str]]
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    within: bool = False


def text(found: Found) -> str:
    """The commented file."""
    return "\n".join(
        [
            "# A migration by cdc-migrator. Every key: docs/configuration.md, or",
            "# `cdc-migrator config schema` for editors. A wrong key is told with its line by",
            "# `cdc-migrator config check`.",
            "",
            "# The slot, the connector and the topic are named after it.",
            f"name: {json.dumps(found.name)}",
            "",
            *_side("source", found.source),
            *_side("target", found.target),
            *_tables(found),
            *(_mapping(found) if found.within else ()),
            "# Your own Kafka and Kafka Connect; without them the local stack's",
            "# (`cdc-migrator stack up`) are used.",
            "# kafka:",
            '#   bootstrap_servers: "kafka-1:9092,kafka-2:9092"',
            "#   properties:",
            "#     security.protocol: SASL_SSL",
            "#     sasl.mechanism: SCRAM-SHA-512",
            "#     sasl.username: cdc-migrator",
            "#     ssl.ca.location: /etc/kafka/ca.pem",
            "#   property_files: {sasl.password: kafka.password}",
            "# connect:",
            '#   url: ["https://connect-1:8083", "https://connect-2:8083"]',
            "#   ca_file: connect-ca.pem",
            "#   username: cdc-migrator",
            "#   password_file: connect.password",
            "#   secrets_dir: /srv/connect-secrets",
            "# The rights on Kafka that this needs: `cdc-migrator init --acls`.",
            "",
            commented_defaults(("capture", "load", "apply", "service", "ready")),
        ]
    )


def _side(name: str, side: Side) -> list[str]:
    lines = [f"# {_plain(side.server)}", f"{name}:", f"  dsn: {_quoted(side.dsn)}"]
    if side.password_file:
        lines.append(f"  password_file: {_quoted(side.password_file)}")
    else:
        lines += [
            f"  # The password: set {side.variable}, or name a file that only you can read:",
            f"  # password_file: {name}.password",
        ]
    lines += [
        "  # Logins with fewer rights than this one: `cdc-migrator init --grants` prints the SQL.",
        "  # roles: {capture: {user: cdcm_capture, password_file: capture.password}}",
    ]
    return [*lines, ""]


def _tables(found: Found) -> list[str]:
    schemas = sorted({table.name.schema for table in found.tables})
    every_schema = [f"{escape(schema)}.*" for schema in schemas] or ["*"]
    patterns = list(found.include) or every_schema
    lines = ["# Found on the source (rows by its statistics):"]
    lines += [f"#   {_plain(line)}" for line in table_lines(found.tables)]
    if not found.tables:
        lines.append("#   no table")
    for table, reason, statement in found.problems:
        lines += [
            f"# WARNING: {_plain(table)}: {_plain(reason)}. Before the migration, on the source:",
            f"#   {_plain(statement)};",
        ]
    lines += [
        "tables:",
        f"  include: {json.dumps(patterns, ensure_ascii=False)}",
        "  # Patterns over schema.table; they win over include.",
        f"  exclude: {json.dumps(list(found.exclude), ensure_ascii=False)}",
        "",
    ]
    return lines


def _mapping(found: Found) -> list[str]:
    schemas = sorted({table.name.schema for table in found.tables})
    places = (
        json.dumps({"table": f"{schema}.*", "to": f"{schema}_new.*"}, ensure_ascii=False)
        for schema in schemas
        if not {".", "*"} & set(schema)  # which cannot be named here
    )
    return [
        "# Source and target are one database: every table goes to another name. What else can be",
        "# said here: docs/transform.md.",
        "mapping:",
        *(f"  - {place}" for place in places),
        "",
    ]


def table_lines(tables: Sequence[Table]) -> list[str]:
    """One line a table: name, rows, size, how its rows are told apart."""
    width = max((len(str(table.name)) for table in tables), default=0)
    return [
        f"{table.name!s:<{width}}  {table.estimated_rows:>12,} rows  {_size(table.bytes):>9}  "
        + identity_text(table)
        for table in tables
    ]


def identity_text(table: Table) -> str:
    """How the rows of a table are told apart."""
    part = f", part of {table.root}" if table.root else ""
    if table.key:
        return f"key ({', '.join(table.key)}){part}"
    whole = table.replica_identity is ReplicaIdentity.FULL
    return ("no key, whole rows compared" if whole else "NO KEY and no replica identity") + part


def _size(count: int) -> str:
    for factor in (1 << 30, 1 << 20, 1 << 10):
        if count >= factor:
            return size_text(count // factor * factor)
    return f"{count}B"


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _plain(value: str) -> str:
    """One line, whatever a name contains: it must not leave its comment."""
    return "".join(c if c.isprintable() else "?" for c in value)
