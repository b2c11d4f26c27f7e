"""Connection strings and secret files, handled so that a password never reaches a message."""

from __future__ import annotations

import re
import stat
from pathlib import Path

from cdc_migrator.errors import ConfigurationError

_MAX_SECRET = 64 << 10
_USER_PASSWORD = re.compile(r"^(?P<head>[a-z]+://[^/@:?#]*):[^/@?#]*@")
_QUERY_PASSWORD = re.compile(r"(?<=[?&])password=[^&#]*&?")


def parse_dsn(dsn: str) -> dict[str, str]:
    """The libpq parameters of a connection string.

    Raises ValueError, without the text, when libpq cannot read it.
    """
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.Error:
        # libpq quotes the part that it does not understand: often the password.
        parts = {}
    if not parts:
        raise ValueError(
            "is not a connection string of PostgreSQL: write postgresql://user@host:5432/database "
            "and percent-encode special characters"
        ) from None
    return {name: str(value) for name, value in parts.items() if value is not None}


def clean_dsn(dsn: str) -> str:
    """The connection string without its password, in the form it was given where possible."""
    parts = parse_dsn(dsn)
    if parts.pop("password", None) is None:
        return dsn
    cleaned = _QUERY_PASSWORD.sub("", _USER_PASSWORD.sub(r"\g<head>@", dsn)).rstrip("?&")
    try:
        if parse_dsn(cleaned) == parts:
            return cleaned
    except ValueError:
        pass
    return with_password(parts, None)


def with_password(parameters: dict[str, str], password: str | None) -> str:
    """A key=value connection string of these parameters and, if there is one, the password."""
    from psycopg.conninfo import make_conninfo

    return make_conninfo("", **parameters, **({"password": password} if password else {}))


def read_secret_file(path: Path) -> str:
    """The first line of a secret's file.

    Raises:
        ConfigurationError: CDCM-CONFIG-PASSWORD-FILE: missing, empty, or readable by everybody.
    """
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            text = file.read(_MAX_SECRET)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not text"
        raise _unusable(path, f"cannot be read ({reason})") from None
    if mode & 0o007:
        raise _unusable(path, f"is open to every user of this machine (mode {mode:04o})")
    lines = text.splitlines()
    if not lines or not lines[0]:
        raise _unusable(path, "is empty")
    return lines[0]


def write_secret_file(path: Path, secret: str) -> None:
    """Write a secret to a file that only this user can read, replacing what was there."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600, exist_ok=False)
    fresh.write_text(secret + "\n", encoding="utf-8")
    fresh.replace(path)


def _unusable(path: Path, what: str) -> ConfigurationError:
    return ConfigurationError(
        "CDCM-CONFIG-PASSWORD-FILE",
        f"the password file {path} {what}",
        f"Put the password on its first line and protect it: chmod 600 {path}",
    )
