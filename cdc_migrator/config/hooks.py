"""The settings of the hooks that send applications from one side to the other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator

from cdc_migrator.config.database import Database
from cdc_migrator.config.secrets import read_secret_file
from cdc_migrator.config.section import Section
from cdc_migrator.config.values import Duration, FilePath, TextLike, Words

Moments = tuple[Literal["check", "hold", "switch", "undo"], ...]


class _Common(Section):
    """What each kind of hook has."""

    name: str | None = Field(
        default=None, min_length=1, description="How messages call it. Default: its kind."
    )
    timeout: Duration = Field(
        default=timedelta(seconds=5), description="One try may take this long, at most."
    )
    retries: int = Field(
        default=2, ge=0, le=20, description="How often a try that failed is repeated."
    )


class Route(_Common):
    """The row of `cdc_migrator.route` on both sides, which applications read."""

    kind: Literal["route"] = Field(description="`route`")
    readers: Words = Field(
        default=(),
        description="Roles that may read the row, on both sides; they are granted it by the check.",
    )


class Pgbouncer(_Common):
    """PgBouncer: pause, change the database's line in its file, reload, resume."""

    kind: Literal["pgbouncer"] = Field(description="`pgbouncer`")
    console: Database = Field(
        description="Its console, as an administrator of it: dsn, password or password_file, "
        "sslmode and so on, as for `source`."
    )
    database: str = Field(
        min_length=1, description="The database as PgBouncer calls it: the name applications use."
    )
    config: FilePath = Field(
        description="The file in which the database's line stands: pgbouncer.ini, or one that it "
        "includes. It is changed in place of the line only, and a copy is kept beside it."
    )
    target_line: str | None = Field(
        default=None,
        min_length=1,
        pattern=r"^[^\r\n]*$",
        description="What the line shall say, such as `host=db2 port=5432 dbname=shop`. Default: "
        "as it is, but for host, port and dbname, which become those of the target's connection "
        "string.",
    )


class Command(_Common):
    """A program of the user."""

    kind: Literal["command"] = Field(description="`command`")
    argv: tuple[str, ...] = Field(
        min_length=1, description="The program and its arguments; no shell reads them."
    )
    moments: Moments = Field(
        default=("switch", "undo"),
        min_length=1,
        description="When it is run: `check`, `hold`, `switch`, `undo`.",
    )


class Webhook(_Common):
    """A request to a service of the user."""

    kind: Literal["webhook"] = Field(description="`webhook`")
    url: SecretStr = Field(description="Where to: http://… or https://…; shown without its path.")
    headers: dict[str, Annotated[SecretStr, TextLike]] = Field(
        default_factory=dict, description="More headers."
    )
    header_files: dict[str, FilePath] = Field(
        default_factory=dict,
        description="Headers whose value is the first line of a file, such as Authorization.",
    )
    moments: Moments = Field(
        default=("switch", "undo"),
        min_length=1,
        description="When it is sent: `check`, `hold`, `switch`, `undo`.",
    )

    @field_validator("url")
    @classmethod
    def _of_http(cls, url: SecretStr) -> SecretStr:
        if not re.fullmatch(r"https?://[^@\s/?#]+([/?#]\S*)?", url.get_secret_value()):
            raise ValueError("must be http://host… or https://host…, without a user or password")
        return url

    def reveal_headers(self) -> dict[str, str]:
        """All headers with secrets in clear: only for sending.

        Raises:
            ConfigurationError: CDCM-CONFIG-PASSWORD-FILE: a header's file cannot be used.
        """
        return {
            **{name: value.get_secret_value() for name, value in self.headers.items()},
            **{name: read_secret_file(path) for name, path in self.header_files.items()},
        }


Hook = Annotated[Route | Pgbouncer | Command | Webhook, Field(discriminator="kind")]


def each_its_name(hooks: Sequence[Route | Pgbouncer | Command | Webhook]) -> None:
    """Raise ValueError where two are called the same: messages could not tell them apart."""
    called = Counter(hook.name or hook.kind for hook in hooks)
    if any(count > 1 for count in called.values()):
        raise ValueError("two are called the same: give each a `name` of its own")
