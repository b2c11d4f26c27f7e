"""How the Connect worker gets into the database that we have a session with.

Whatever libpq found out for us (service file, password file, environment, default places of
certificates) is spelt out, because the connector's driver knows nothing of it. The password, the
certificate authority, our certificate and its key go into files beside each other, in the
directory that the worker sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from cdc_migrator.capture.connector import PASSWORD_KEY, secrets_text
from cdc_migrator.capture.keys import pkcs8
from cdc_migrator.errors import ConfigurationError
from cdc_migrator.model.naming import Names

_VERIFYING = ("verify-ca", "verify-full")
_HOME = Path(".postgresql")


@dataclass(frozen=True, slots=True)
class Access:
    """The way in.

    Attributes:
        settings: of the connector; a path in them is as the worker sees it.
        files: what lies in the directory, by name.
    """

    settings: Mapping[str, str]
    files: Mapping[str, bytes] = field(repr=False)


def of(
    conn: psycopg.Connection,
    names: Names,
    directory: Path,
    host: str | None = None,
    port: int | None = None,
) -> Access:
    """The worker's way to where `conn` leads.

    Args:
        directory: the secrets directory as the worker sees it.
        host, port: the server as the worker reaches it; None: as we do.

    Raises:
        ConfigurationError: CDCM-SOURCE-SOCKET: it is reached through a Unix socket.
            CDCM-SOURCE-CERTIFICATE: a certificate or key cannot be used by the connector.
    """
    info = conn.info
    host = host or info.host
    if not host or host.startswith("/"):
        raise ConfigurationError(
            "CDCM-SOURCE-SOCKET",
            "the source is reached through a Unix socket, which the connector cannot use",
            "Name the source's host in its connection string, or the one that the Connect worker "
            "shall use in `capture.source_host`.",
        )
    files: dict[str, bytes] = {}
    settings = {
        "database.hostname": host,
        "database.port": str(port or info.port),
        "database.user": info.user,
        "database.dbname": info.dbname,
    }

    def put(kind: str, content: bytes) -> str:
        name = f"{names.connector}.{kind}"
        files[name] = content
        return str(directory / name)

    if info.password:
        place = put("properties", secrets_text(info.password).encode("ascii"))
        settings["database.password"] = f"${{file:{place}:{PASSWORD_KEY}}}"
    given = info.get_parameters()
    mode = given.get("sslmode")
    if mode:
        settings["database.sslmode"] = mode
    if given.get("channel_binding"):
        settings["driver.channelBinding"] = given["channel_binding"]
    if not conn.pgconn.ssl_in_use:
        return Access(settings, files)
    root = given.get("sslrootcert") or _default("root.crt")
    if root == "system":
        settings["database.sslmode"] = "verify-full"
        settings["database.sslfactory"] = "org.postgresql.ssl.DefaultJavaSSLFactory"
    elif root and (mode in _VERIFYING or (mode == "require" and given.get("sslrootcert"))):
        # With an authority at hand libpq makes sure of the server under `require` as well, which
        # the connector's driver does not.
        settings["database.sslmode"] = mode if mode in _VERIFYING else "verify-ca"
        settings["database.sslrootcert"] = put("root.crt", _read(Path(root)))
    certificate = given.get("sslcert") or _default("postgresql.crt")
    key = given.get("sslkey") or _default("postgresql.key")
    if certificate and key and given.get("sslcertmode") != "disable":
        settings["database.sslcert"] = put("client.crt", _read(Path(certificate)))
        settings["database.sslkey"] = put("client.pk8", pkcs8(_read(Path(key)), key))
    return Access(settings, files)


def _default(name: str) -> str | None:
    """Where libpq looks when nothing is said, if there is something."""
    path = Path.home() / _HOME / name
    return str(path) if path.exists() else None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            "CDCM-SOURCE-CERTIFICATE",
            f"{path} cannot be read ({error.strerror})",
            "Name a file that this user can read: sslrootcert, sslcert, sslkey.",
        ) from None
