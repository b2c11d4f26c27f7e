"""The settings of the user's own Kafka and Kafka Connect."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, WithJsonSchema, field_validator, model_validator

from cdc_migrator.config.secrets import read_secret_file
from cdc_migrator.config.section import Section
from cdc_migrator.config.values import FilePath, TextLike, Words

_ONE_OR_MORE: dict[str, Any] = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]
}
_CONNECTOR = r"[A-Za-z0-9._-]{1,200}"


class Kafka(Section):
    """The user's own Kafka cluster. Left out: the local stack's."""

    bootstrap_servers: str = Field(min_length=1, description="host:port, several with commas.")
    properties: dict[str, Annotated[SecretStr, TextLike]] = Field(
        default_factory=dict,
        description="More librdkafka properties for every client, such as security.protocol, "
        "sasl.mechanism, sasl.username, ssl.ca.location.",
    )
    property_files: dict[str, FilePath] = Field(
        default_factory=dict,
        description="Properties whose value is the first line of a file, such as sasl.password. "
        "Read whenever a client is made, and when the brokers refuse the password.",
    )
    replication_factor: int = Field(
        default=-1,
        ge=-1,
        description="Replicas of the stream's topic; -1 takes the broker's default.",
    )
    topics: Literal["ours", "given"] = Field(
        default="ours",
        description="Who makes the topics: `ours`: this program, which also removes them; "
        "`given`: somebody made them beforehand, as `cdc-migrator init --acls` prints it.",
    )

    def other_properties(self) -> dict[str, str]:
        """The clients' properties but for the servers, secrets in clear: only for making a client.

        Raises:
            ConfigurationError: CDCM-CONFIG-PASSWORD-FILE: a property's file cannot be used.
        """
        return {
            **{name: value.get_secret_value() for name, value in self.properties.items()},
            **{name: read_secret_file(path) for name, path in self.property_files.items()},
        }


class Connect(Section):
    """The user's own Kafka Connect workers. Left out: the local stack's."""

    url: Annotated[Words, WithJsonSchema(_ONE_OR_MORE)] = Field(
        min_length=1,
        description="Address of a worker's REST API, http(s)://…; a list of several: the next is "
        "asked where one does not answer.",
    )
    username: str | None = Field(
        default=None, description="User for the REST API's basic authentication."
    )
    password: SecretStr | None = Field(
        default=None,
        description="Its password. Meant for the environment (CDC_MIGRATOR_CONNECT__PASSWORD), not "
        "for the file. Wins over password_file.",
    )
    password_file: FilePath | None = Field(
        default=None,
        description="File whose first line is the password; others must not be able to read it. "
        "Read again when the worker refuses the password.",
    )
    ca_file: FilePath | None = Field(
        default=None,
        description="Certificate authority (PEM) that the workers' certificates must come from. "
        "Default: the system's.",
    )
    client_cert: FilePath | None = Field(
        default=None, description="Client certificate (PEM) that the workers are shown."
    )
    client_key: FilePath | None = Field(
        default=None,
        description="Its private key (PEM, without a password). Default: in the file of "
        "client_cert.",
    )
    connector: str | None = Field(
        default=None,
        pattern=f"^{_CONNECTOR}$",
        description="Name of the connector, where one is reserved for us. Default: cdcm-<name>-1.",
    )
    connector_back: str | None = Field(
        default=None,
        pattern=f"^{_CONNECTOR}$",
        description="The same for the way back's connector. Default: cdcm-<name>_back-1.",
    )
    secrets_dir: FilePath = Field(
        description="Directory into which the source's password is written for the worker, which "
        "reads it through its file config provider: a password never enters a stored connector. "
        "Certificates and keys for the databases are copied there as well."
    )
    secrets_dir_in_worker: str | None = Field(
        default=None, description="The same directory as the worker sees it. Default: secrets_dir."
    )
    secrets_for_group: bool = Field(
        default=False,
        description="The files are readable by their group as well: for a worker that runs as "
        "another user of that group, as in a container of its own.",
    )

    @field_validator("url")
    @classmethod
    def _addresses(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if not re.fullmatch(r"https?://[^@\s]+", url):
                raise ValueError(
                    "must be http://… or https://…, without user and password: those go to "
                    "username and password_file"
                )
        return urls

    @model_validator(mode="after")
    def _belong_together(self) -> Connect:
        if (self.password or self.password_file) and self.username is None:
            raise ValueError("a password needs a username")
        if self.username is not None and not (self.password or self.password_file):
            raise ValueError("username needs a password: password_file, or the environment")
        if self.client_key is not None and self.client_cert is None:
            raise ValueError("client_key needs client_cert")
        if self.connector is not None and self.connector == self.connector_back:
            raise ValueError("connector and connector_back must differ")
        return self

    @property
    def secrets_path(self) -> str:
        """The secrets directory as the worker sees it."""
        return self.secrets_dir_in_worker or str(self.secrets_dir)

    def reveal_login(self) -> tuple[str, str] | None:
        """User and password in clear, None where there is none: only for connecting.

        Raises:
            ConfigurationError: CDCM-CONFIG-PASSWORD-FILE: the file cannot be used.
        """
        if self.username is None:
            return None
        if self.password is not None:
            return self.username, self.password.get_secret_value()
        assert self.password_file is not None
        return self.username, read_secret_file(self.password_file)
