"""Open a PostgreSQL session whose text forms never depend on server, role or database settings.

Every session of the service comes from here, so that what one session writes as text another
one reads back as the same value. Errors name the server, never the password.
"""

from __future__ import annotations

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from cdc_migrator.errors import ConfigurationError, Failed, MigratorError, Refused

# Settings that decide how values are written and read as text, then those that keep a
# forgotten session from holding locks for ever. search_path: names in SQL are qualified.
PINNED = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "xmloption": "content",
    "search_path": "pg_catalog",
    "row_security": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "statement_timeout": "0",
    "lock_timeout": "30s",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
}

_DEFAULTS: dict[str, str | int] = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}

# A failed attempt to connect has no SQLSTATE in libpq, only the server's message.
_PASSWORD_STATES = ("28P01", "28000")
_PASSWORD_MARKS = (
    "authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    'role "',
)
_MISSING_STATES = ("3D000",)
_TLS_MARKS = (
    "SSL error",
    "server does not support SSL",
    "root certificate file",
    "server certificate for",
    "certificate file",
    "private key file",
    "channel binding",
    "valid client certificate",
)


def describe_dsn(dsn: str) -> str:
    """``host:port/dbname`` of a connection string, without user, password or other options."""
    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        return "(unreadable connection string)"
    if parts.get("service") and not parts.get("host"):
        return f"service {parts['service']}"
    host = str(parts.get("host") or parts.get("hostaddr") or "localhost")
    user = parts.get("user")
    database = parts.get("dbname") or user or "postgres"
    return f"{host}:{parts.get('port') or 5432}/{database}"


def connect(
    dsn: str,
    *,
    application_name: str,
    side: str = "database",
    autocommit: bool = True,
    read_only: bool = False,
    settings: dict[str, str] | None = None,
) -> psycopg.Connection:
    """A session with every setting of `PINNED`, keepalives and a connect timeout.

    Args:
        dsn: URI or key-value form; what it says about timeouts and keepalives wins.
        application_name: shown in ``pg_stat_activity``.
        side: how messages call this server, e.g. ``source`` or ``target``.
        settings: more run-time settings for the session; they win over `PINNED`.

    Raises:
        ConfigurationError: CDCM-DB-DSN: the connection string cannot be read.
        Refused: CDCM-DB-PASSWORD, CDCM-DB-DENIED or CDCM-DB-MISSING: the server does not let us
            in; CDCM-DB-TLS: there is no TLS session of the kind that is asked for.
        Failed: CDCM-DB-UNREACHABLE: no answer, or not now.
    """
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        raise ConfigurationError(
            "CDCM-DB-DSN",
            f"the connection string of the {side} cannot be read",
            "Write it as postgresql://user@host:port/dbname; percent-encode special characters.",
        ) from None
    merged = {
        **_DEFAULTS,
        **{k: v for k, v in given.items() if v is not None},
        "application_name": application_name,
    }
    try:
        conn = psycopg.connect("", **merged, autocommit=True)  # type: ignore[arg-type]
    except psycopg.OperationalError as exc:
        raise _refusal(exc, side, describe_dsn(dsn), str(given.get("user") or "…")) from None
    try:
        conn.execute(pins(settings or {}))
        conn.read_only = read_only or None
        conn.autocommit = autocommit
    except psycopg.Error as exc:
        conn.close()
        raise _refusal(exc, side, describe_dsn(dsn)) from exc
    return conn


def pins(settings: dict[str, str]) -> sql.Composed:
    """The statement that sets `PINNED` and `settings` for a session, in one round trip.

    A setting that this server version does not know is left out.
    """
    merged = {**PINNED, **settings}
    return sql.SQL(
        "SELECT set_config(s.name, s.value, false) FROM unnest({}::text[], {}::text[]) "
        "AS s(name, value) JOIN pg_settings g ON lower(g.name) = lower(s.name)"
    ).format(list(merged), list(merged.values()))


def _refusal(exc: psycopg.Error, side: str, where: str, user: str = "…") -> MigratorError:
    state = exc.sqlstate
    text = str(exc)
    line = next((one for one in text.splitlines() if any(m in one for m in _TLS_MARKS)), None)
    if state is None and line is not None:
        return Refused(
            "CDCM-DB-TLS",
            f"no TLS session with the {side} at {where}: {_reason(line)}",
            "Check sslmode, sslrootcert against who signed the server's certificate, the host in "
            "the connection string against that certificate and its validity, and sslcert and "
            "sslkey where the server wants one of ours.",
        )
    for mark, attempt, right in (
        ("is not permitted to log in", "log in", f"ALTER ROLE {user} LOGIN"),
        ("not have CONNECT privilege", "connect", f"GRANT CONNECT ON DATABASE … TO {user}"),
    ):
        if mark in text:
            return Refused(
                "CDCM-DB-DENIED",
                f"the role {user} may not {attempt} on the {side} at {where}",
                f"{right};",
            )
    if state in _PASSWORD_STATES or (state is None and any(m in text for m in _PASSWORD_MARKS)):
        return Refused(
            "CDCM-DB-PASSWORD",
            f"the {side} at {where} does not accept this user or password",
            "Check user and password of the connection string (or PGPASSWORD, ~/.pgpass) and "
            "the server's pg_hba.conf.",
        )
    if state in _MISSING_STATES or (
        state is None and 'database "' in text and "does not exist" in text
    ):
        return Refused(
            "CDCM-DB-MISSING",
            f"the {side} at {where} has no such database",
            "Check the database name in the connection string, or create the database.",
        )
    return Failed(
        "CDCM-DB-UNREACHABLE",
        f"the {side} at {where} cannot be reached ({_reason(text)})",
        "Check that the server runs and that host, port and firewall let this machine in.",
    )


def _reason(text: str) -> str:
    """The last words of libpq's message: ``Connection refused``, ``timeout expired``, ..."""
    first = text.strip().splitlines()[0] if text.strip() else "no answer"
    return first.rpartition("failed: ")[2].strip() or "no answer"
