"""The result of rules as one HTML page that needs nothing else: no script, no font, no file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cdc_migrator.cli.report_page import environment

_WORST = ("failed", "error", "skipped")


def page(document: Mapping[str, Any]) -> str:
    """The page of a result's document (`validate_view.document`)."""
    rules = document["rules"]
    bad = [one for one in rules if one["status"] != "passed"]
    bad.sort(key=lambda one: (one["severity"] != "blocker", _WORST.index(one["status"])))
    good: dict[str, list[Mapping[str, Any]]] = {}
    for one in rules:
        if one["status"] == "passed":
            good.setdefault(one["table"] or "queries", []).append(one)
    blockers = sum(one["severity"] == "blocker" for one in bad)
    made = environment(html=True)
    made.filters["badge"] = _badge
    return made.get_template("validate.html.j2").render(
        it=document,
        bad=bad,
        good=list(good.items()),
        blockers=blockers,
        others=len(bad) - blockers,
        shown=any(part["examples"] for one in bad for part in one["parts"]),
    )


def _badge(rule: Mapping[str, Any]) -> str:
    """Its colour: what blocks nothing is not red."""
    warned = rule["status"] in ("failed", "error") and rule["severity"] != "blocker"
    return "warned" if warned else str(rule["status"])
