"""Both sides' encoding, order of text and settings of sessions, held against each other."""

from __future__ import annotations

from collections.abc import Mapping

from cdc_migrator.capture.findings import Finding, inform, refuse, warn
from cdc_migrator.databases.postgres.locale import LocaleFacts


def stale(facts: LocaleFacts, side: str) -> list[Finding]:
    """Collations whose indexes were made in another version than the server has now."""
    if not facts.stale:
        return []
    return [
        warn(
            "CDCM-COLLATION-STALE",
            side,
            f"indexes of the {side} were made with another version of a collation than it has now "
            f"({', '.join(facts.stale)}): they may be out of order, find rows not, and hold "
            "duplicates that a unique index of the other side refuses",
            "REINDEX DATABASE, then ALTER DATABASE (or COLLATION) … REFRESH COLLATION VERSION; "
            "amcheck shows whether an index is affected.",
        )
    ]


def between(source: LocaleFacts, target: LocaleFacts) -> list[Finding]:
    """What one side writes and the other cannot hold, or sorts in another way."""
    found = []
    if target.encoding not in ("UTF8", source.encoding):
        found.append(
            refuse(
                "CDCM-TARGET-ENCODING",
                "target",
                f"the target's encoding {target.encoding} cannot hold all that the source's "
                f"{source.encoding} can",
                "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and use that one.",
            )
        )
    if source.sorting != target.sorting:
        found.append(
            warn(
                "CDCM-TARGET-COLLATION",
                "target",
                f"text is ordered and compared in another way: {source} on the source, {target} "
                "on the target. Rows arrive alike; ORDER BY, ranges, upper and lower case, and "
                "indexes over expressions of them may give other results",
                "Where the application relies on it, make the target's database with the source's "
                "locale (CREATE DATABASE … LOCALE_PROVIDER … LOCALE … TEMPLATE template0).",
            )
        )
    elif source.actual_version != target.actual_version:
        found.append(
            inform(
                "CDCM-TARGET-COLLATION",
                "target",
                f"the collation has version {source.actual_version or 'none'} on the source and "
                f"{target.actual_version or 'none'} on the target: some texts may sort differently",
                "Nothing; indexes are made anew on the target.",
            )
        )
    return found


def defaults(source: Mapping[str, str], target: Mapping[str, str]) -> list[Finding]:
    """Settings that a session starts with, where the application says nothing itself."""
    differ = [
        f"{name} ({source[name]}; {target[name]})"
        for name in sorted(source.keys() & target.keys())
        if source[name] != target[name]
    ]
    if not differ:
        return []
    return [
        warn(
            "CDCM-TARGET-DEFAULTS",
            "target",
            "sessions begin with other settings on the target (source; target): "
            f"{', '.join(differ)}. What the application writes and reads as text may change its "
            "meaning after the switch; what is migrated does not",
            "ALTER DATABASE … SET …, or ALTER ROLE … SET …, on the target before the switch.",
        )
    ]
