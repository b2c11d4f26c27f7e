"""How the result of rules looks: its document, and its table for people."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cdc_migrator.service.validating import Report
    from cdc_migrator.validate.results import Example, Part, Result

_STYLES = {"passed": "green", "failed": "bold red", "error": "bold red", "skipped": "yellow"}
_ORDER = ("failed", "error", "skipped", "passed")


def document(report: Report, migration: str) -> dict[str, Any]:
    """The whole of it, for programs."""
    counts = Counter(str(one.status) for one in report.results)
    return {
        "migration": migration,
        "passed": report.passed,
        "run": report.run,
        "aligned": report.aligned,
        "whole": report.whole,
        "as_of": report.at,
        "seconds": round(report.seconds, 3),
        "counts": {status: counts[status] for status in _ORDER},
        "rules": [_rule(one) for one in report.results],
    }


def _rule(one: Result) -> dict[str, Any]:
    return {
        "name": one.name,
        "kind": one.kind,
        "table": one.table,
        "asks": one.told,
        "severity": one.severity,
        "status": str(one.status),
        "reason": one.judged.reason,
        "code": one.code,
        "remedy": one.remedy,
        "as_of": one.at,
        "seconds": round(one.seconds, 3),
        "parts": [_part(part) for part in one.judged.parts],
    }


def _part(part: Part) -> dict[str, Any]:
    return {
        "what": part.what,
        "passed": part.passed,
        "source": part.source,
        "target": part.target,
        "look": part.look,
        "examples": [_example(one) for one in part.examples],
    }


def _example(one: Example) -> dict[str, Any]:
    return {
        "side": one.side,
        "key": dict(one.key),
        "columns": list(one.columns),
        "source": dict(one.source),
        "target": dict(one.target),
    }


def view(document: dict[str, Any]) -> RenderableType:
    """The document for people: what is not kept first, with the statements to look closer."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("", "rule", "severity", "source", "target", ""):
        table.add_column(title, overflow="fold")
    rules = sorted(document["rules"], key=lambda one: _ORDER.index(one["status"]))
    for rule in rules:
        shown = [part for part in rule["parts"] if not part["passed"]] or rule["parts"]
        first = shown[0] if len(shown) == 1 else {"source": None, "target": None}
        table.add_row(
            Text(rule["status"], style=_STYLES[rule["status"]]),
            Text(rule["name"]),
            Text(rule["severity"]),
            Text(first["source"] or ""),
            Text(first["target"] or ""),
            Text(rule["reason"]),
        )
    lines = [Text(line) for rule in rules for line in _lines(rule)]
    return Group(table, *lines, _sum(document))


def _lines(rule: dict[str, Any]) -> list[str]:
    """Examples and statements of what is not kept."""
    lines = []
    for part in rule["parts"]:
        if part["passed"]:
            continue
        for one in part["examples"]:
            lines.append(f"{rule['name']}: {part['what']}: {example(one)}")
        if part["look"]:
            # A comment of the user's ends with its line.
            statement = part["look"] if "--" in part["look"] else " ".join(part["look"].split())
            lines.append(f"{rule['name']}: to look closer: {statement}")
    if rule["remedy"]:
        lines.append(f"{rule['name']}: {rule['code']}: {rule['remedy']}")
    return lines


def example(one: dict[str, Any]) -> str:
    """A row that breaks a rule, in one line."""
    key = ", ".join(f"{name}={_value(value)}" for name, value in one["key"].items())
    if one["side"] is not None:
        values = ", ".join(
            f"{name} {_value(value)}"
            for name, value in one[one["side"]].items()
            if name not in one["key"]
        )
        return f"{key} on the {one['side']}" + (f": {values}" if values else "")
    differing = "; ".join(
        f"{name}: source {_value(one['source'].get(name))}, "
        f"target {_value(one['target'].get(name))}"
        for name in one["columns"]
    )
    return f"{key}: {differing}"


def _value(value: str | None) -> str:
    return "null" if value is None else value


def _sum(document: dict[str, Any]) -> RenderableType:
    from rich.text import Text

    whole, counts = len(document["rules"]), document["counts"]
    told = f"{counts['passed']} of {whole} rules are kept, in {document['seconds']:.1f} s"
    if document["aligned"]:
        told += f", at one commit point ({document['as_of']:%Y-%m-%d %H:%M:%S} UTC)"
    if not document["passed"]:
        blockers = sum(
            one["severity"] == "blocker" and one["status"] != "passed" for one in document["rules"]
        )
        return Text(f"{told}; blockers that are not: {blockers}", "bold red")
    style = "green" if counts["passed"] == whole else "yellow"
    return Text(told + ("" if counts["passed"] == whole else "; the others block nothing"), style)
