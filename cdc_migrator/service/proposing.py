"""Look at the source's catalog and rows, and propose rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cdc_migrator.databases.postgres.catalog import chosen
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.databases.postgres.relations import Relation, read_relations
from cdc_migrator.errors import ConfigurationError, MigratorError
from cdc_migrator.model.logins import Role, login
from cdc_migrator.validate import profile
from cdc_migrator.validate.propose import Found, text
from cdc_migrator.validate.reading import Reader


@dataclass(frozen=True, slots=True)
class ProposeOptions:
    """Which tables are looked at. The string holds a password.

    Attributes:
        include, exclude: shell patterns over ``schema.table``; partitions go by the table that they
            are part of.
        timeout: seconds that one statement may take; then a table's rows are not looked at.
    """

    name: str
    source_dsn: str
    include: Sequence[str]
    exclude: Sequence[str]
    timeout: float

    @property
    def called(self) -> str:
        return f"cdcm-{self.name}-validate"


def propose(options: ProposeOptions) -> str:
    """The file of rules. Reads only.

    Raises:
        ConfigurationError: CDCM-VALIDATE-NONE: no table is chosen.
        MigratorError: the source does not answer.
    """
    dsn = login(options.source_dsn, Role.VERIFY)
    with (
        connect(dsn, application_name=options.called, side="source", read_only=True) as source,
        speaking("source", "reading its tables"),
    ):
        tables = [
            one
            for one in read_relations(source).values()
            if one.root is None and chosen([str(one.name)], options.include, options.exclude)
        ]
        known = {str(one.name): profile.distinct(source, one) for one in tables}
    if not tables:
        raise ConfigurationError(
            "CDCM-VALIDATE-NONE",
            "no table of the source is chosen",
            "Check --tables, or tables.include and tables.exclude; patterns are like shop.*.",
        )
    reader = Reader("source", options.source_dsn, options.called)
    try:
        return text([_look(reader, one, known[str(one.name)], options.timeout) for one in tables])
    finally:
        reader.close()


def _look(reader: Reader, of: Relation, distinct: dict[str, float], timeout: float) -> Found:
    try:
        with reader.under(None, timeout):
            return Found(of, profile.read(reader, of, distinct))
    except MigratorError as error:
        if error.code == "CDCM-DB-LOST":
            raise
        return Found(of, None, error.cause)
