"""The settings of one database: how it is reached, with the secret apart from what may be shown."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, field_validator

from cdc_migrator.config.roles import Roles
from cdc_migrator.config.secrets import clean_dsn, parse_dsn, read_secret_file, with_password
from cdc_migrator.config.section import Section
from cdc_migrator.config.values import FilePath

SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]


class Database(Section):
    """How to reach one PostgreSQL database."""

    dsn: SecretStr = Field(
        description="Connection string of PostgreSQL: postgresql://user@host:5432/database or "
        "key=value pairs. A password in it works, but belongs in password_file or the environment."
    )
    password: SecretStr | None = Field(
        default=None,
        description="The password. Meant for the environment (CDC_MIGRATOR_SOURCE__PASSWORD, "
        "CDC_MIGRATOR_TARGET__PASSWORD), not for the file. Wins over password_file.",
    )
    password_file: FilePath | None = Field(
        default=None,
        description="File whose first line is the password; others must not be able to read it. "
        "Read at each connection, so that a rotated password is picked up.",
    )
    sslmode: SslMode | None = Field(
        default=None, description="How TLS is used; verify-full for production. Default: the DSN's."
    )
    sslrootcert: FilePath | None = Field(
        default=None,
        description="Certificate authority that the server's certificate must come from.",
    )
    sslcert: FilePath | None = Field(default=None, description="Client certificate.")
    sslkey: FilePath | None = Field(
        default=None, description="Private key of the client certificate."
    )
    roles: Roles = Field(default=Roles(), description=str(Roles.__doc__))

    @field_validator("dsn")
    @classmethod
    def _readable(cls, dsn: SecretStr) -> SecretStr:
        parse_dsn(dsn.get_secret_value())
        return dsn

    @property
    def public_dsn(self) -> str:
        """The connection string without a password, fit to be shown."""
        return clean_dsn(self.dsn.get_secret_value())

    def parameters(self) -> dict[str, str]:
        """The libpq parameters by name, TLS settings included, the password left out."""
        given = parse_dsn(self.dsn.get_secret_value())
        given.pop("password", None)
        tls = {
            name: getattr(self, name) for name in ("sslmode", "sslrootcert", "sslcert", "sslkey")
        }
        return {**given, **{name: str(value) for name, value in tls.items() if value is not None}}

    def reveal_password(self) -> str | None:
        """The password in clear, or None where libpq's own ways (PGPASSWORD, ~/.pgpass) are left.

        Reads `password_file` each time.

        Raises:
            ConfigurationError: CDCM-CONFIG-PASSWORD-FILE: the file cannot be used.
        """
        if self.password is not None:
            return self.password.get_secret_value()
        if self.password_file is not None:
            return read_secret_file(self.password_file)
        return parse_dsn(self.dsn.get_secret_value()).get("password")

    def own_dsn(self) -> str:
        """The complete connection string of the DSN's own login. Raises as `reveal_password`."""
        return with_password(self.parameters(), self.reveal_password())

    def dsn_with_password(self) -> str:
        """The complete connection string with the password in clear: only for connecting.

        It knows those of `roles`, for `model.logins.login`. Raises as `reveal_password`.
        """
        return self.roles.over(self.parameters(), self.own_dsn())
