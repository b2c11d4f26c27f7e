"""How a database orders and writes text: encoding, collation, sessions' defaults. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

_PROVIDERS = {"c": "libc", "i": "ICU", "b": "builtin", "d": "default"}
# They decide how the application's values are written, read and compared.
_DEFAULTS = (
    "TimeZone",
    "DateStyle",
    "IntervalStyle",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "bytea_output",
    "extra_float_digits",
    "standard_conforming_strings",
    "xmloption",
    "default_text_search_config",
    "default_transaction_isolation",
    "search_path",
)


@dataclass(frozen=True, slots=True)
class LocaleFacts:
    """Encoding and collation of one database.

    Attributes:
        provider: one letter of ``pg_database.datlocprovider``.
        locale: of ICU or the builtin provider, else None.
        actual_version: of the collation as the server has it now; None where it has none.
        stale: collations that indexes were made with in another version: ``database default``,
            or names of those in use.
    """

    encoding: str
    provider: str
    collate: str
    ctype: str
    locale: str | None
    actual_version: str | None
    stale: list[str]

    @property
    def sorting(self) -> tuple[str, ...]:
        """What decides order and case; equal where both sides sort alike."""
        if self.provider == "c":
            return (_plain(self.collate), _plain(self.ctype))
        if self.locale == "C":
            return ("c", "c")
        return (self.provider, self.locale or "")

    def __str__(self) -> str:
        name = _PROVIDERS.get(self.provider, self.provider)
        own = f" {self.locale}" if self.locale else ""
        return f"{name}{own} (lc_collate {self.collate}, lc_ctype {self.ctype})"


def _plain(name: str) -> str:
    """``en_US.utf8`` and ``en_US.UTF-8`` are one, as are ``C`` and ``POSIX``."""
    return "c" if name in ("C", "POSIX") else name.lower().replace("-", "")


_LOCALE = """
SELECT current_setting('server_encoding') AS encoding,
       coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') AS provider,
       d.datcollate::text AS collate, d.datctype::text AS ctype,
       coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale') AS locale,
       pg_database_collation_actual_version(d.oid) AS actual_version,
       CASE WHEN d.datcollversion <> pg_database_collation_actual_version(d.oid)
            THEN ARRAY['database default'] ELSE '{}'::text[] END
       || ARRAY(SELECT DISTINCT n.nspname || '.' || c.collname
                FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
                JOIN pg_depend u ON u.refclassid = 'pg_collation'::regclass AND u.refobjid = c.oid
                WHERE c.collversion <> pg_collation_actual_version(c.oid) ORDER BY 1) AS stale
FROM pg_database d WHERE d.datname = current_database()
"""


def locale_facts(conn: psycopg.Connection) -> LocaleFacts:
    """Those of the database behind `conn`."""
    with conn.cursor(row_factory=class_row(LocaleFacts)) as cursor:
        facts = cursor.execute(_LOCALE).fetchone()
    assert facts is not None
    return facts


def session_defaults(dsn: str) -> Mapping[str, str]:
    """What a session starts with that says nothing itself, by setting.

    A session of its own: those of this service pin such settings. Raises psycopg.Error.
    """
    with psycopg.connect(dsn, connect_timeout=10) as conn:
        rows = conn.execute(
            "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", (list(_DEFAULTS),)
        ).fetchall()
    return {name: "UTC" if value in ("Etc/UTC", "GMT") else value for name, value in rows}
