"""The roles beside a database's own login: who they are there, and what lets them in."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, SecretStr

from cdc_migrator.config.secrets import read_secret_file, with_password
from cdc_migrator.config.section import Section
from cdc_migrator.config.values import FilePath
from cdc_migrator.model.logins import Logins, Role


class Login(Section):
    """A role of the server, and what lets it in. Host, database and TLS are those of the DSN."""

    user: str = Field(min_length=1, description="The role's name on the server.")
    password: SecretStr | None = Field(
        default=None,
        description="Its password. Meant for the environment, such as "
        "CDC_MIGRATOR_SOURCE__ROLES__CAPTURE__PASSWORD. Wins over password_file.",
    )
    password_file: FilePath | None = Field(
        default=None,
        description="File whose first line is its password; others must not be able to read it.",
    )
    sslcert: FilePath | None = Field(default=None, description="Its client certificate.")
    sslkey: FilePath | None = Field(default=None, description="Private key of that certificate.")

    def dsn(self, place: Mapping[str, str]) -> str:
        """The complete connection string, with the password in clear, at this place.

        Raises ConfigurationError: CDCM-CONFIG-PASSWORD-FILE.
        """
        # Another role's own means to get in are not this one's.
        kept = {k: v for k, v in place.items() if k not in ("sslcert", "sslkey", "passfile")}
        files = {"sslcert": self.sslcert, "sslkey": self.sslkey}
        given = {name: str(path) for name, path in files.items() if path is not None}
        return with_password({**kept, **given, "user": self.user}, self.reveal_password())

    def reveal_password(self) -> str | None:
        """The password in clear, or None where libpq's own ways are left.

        Raises ConfigurationError: CDCM-CONFIG-PASSWORD-FILE.
        """
        if self.password is not None:
            return self.password.get_secret_value()
        return read_secret_file(self.password_file) if self.password_file is not None else None


class Roles(Section):
    """Who does what on this server, each with no more rights than it needs.

    `cdc-migrator init --grants` prints the SQL that makes them, `check` looks at each grant;
    docs/deployment.md says what each does. What no role is named for, the DSN's login does.
    """

    capture: Login | None = Field(
        default=None, description="The connector, and the replication slot: REPLICATION."
    )
    apply: Login | None = Field(
        default=None,
        description="Writes rows and the service's own state; on the source markers, and rows on "
        "the way back.",
    )
    verify: Login | None = Field(
        default=None, description="Reads rows, to copy and to compare them: SELECT."
    )
    monitor: Login | None = Field(
        default=None, description="Measures the server and the migration: pg_monitor, no rows."
    )
    cutover: Login | None = Field(
        default=None,
        description="Owns the tables, or is a member of their owners: schema, publication, "
        "triggers, fences, sequences, and whatever no other role is named for.",
    )

    def named(self) -> dict[Role, Login]:
        """The roles that have a login of their own."""
        found = {role: getattr(self, role) for role in Role}
        return {role: login for role, login in found.items() if login is not None}

    def over(self, place: Mapping[str, str], own: str) -> str:
        """The connection string `own` with those of the roles behind it.

        Args:
            place: parameters of the database, without a password.

        Raises ConfigurationError: CDCM-CONFIG-PASSWORD-FILE.
        """
        dsns = {role: login.dsn(place) for role, login in self.named().items()}
        return Logins(dsns.get(Role.CUTOVER, own), dsns) if dsns else own
