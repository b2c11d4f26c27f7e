"""The connector as it would be made, held against the rules for connectors."""

from __future__ import annotations

from collections.abc import Mapping

from cdc_migrator.capture.connector import configuration
from cdc_migrator.capture.findings import Finding
from cdc_migrator.capture.lint.rules import lint
from cdc_migrator.model.naming import Names

_NO_PLACE = {
    "database.hostname": "source",
    "database.port": "5432",
    "database.user": "",
    "database.dbname": "",
    "database.password": "${file:secrets.properties:password}",
}


def made(names: Names, overrides: Mapping[str, str]) -> dict[str, str]:
    """The settings of this migration's connector, with an address that nobody has.

    Raises:
        ConfigurationError: CDCM-CONNECTOR-OVERRIDE: one is not the user's to set.
    """
    return configuration(names, _NO_PLACE, "placeholder", overrides=overrides)


def connector(settings: Mapping[str, str]) -> list[Finding]:
    """What the user's own settings for it (`capture.connector`) make of it."""
    return [
        Finding(
            broken.rule.code,
            broken.rule.severity,
            "connector",
            f"{broken.setting}={broken.value or ''}: {broken.rule.why}",
            f"{broken.rule.remedy} (`capture.connector` in migration.yaml)",
        )
        for broken in lint(settings)
    ]
