"""JUnit XML for CI systems: a suite for each table, a case for each rule. No row is named in it.

The format knows no warnings: a rule that is not kept and blocks nothing is a skipped case whose
message says so.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as Tree

if TYPE_CHECKING:
    from cdc_migrator.service.validating import Report
    from cdc_migrator.validate.results import Result

_FREE = "queries"  # the suite of rules without a table
# What XML 1.0 cannot hold, in any form.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(report: Report) -> bytes:
    """The whole of it, in UTF-8."""
    suites: dict[str, list[Result]] = {}
    for one in report.results:
        suites.setdefault(one.table or _FREE, []).append(one)
    root = Tree.Element("testsuites", {"name": "cdc-migrator validate", **_sums(report.results)})
    for number, (name, results) in enumerate(suites.items()):
        suite = Tree.SubElement(
            root,
            "testsuite",
            {
                "name": _clean(name),
                "id": str(number),
                "timestamp": f"{report.at:%Y-%m-%dT%H:%M:%S}",
                **_sums(results),
            },
        )
        properties = Tree.SubElement(suite, "properties")
        for key, value in (("aligned", report.aligned), ("run", report.run)):
            Tree.SubElement(properties, "property", {"name": key, "value": str(value).lower()})
        for one in results:
            _case(suite, name, one)
    Tree.indent(root)
    text: bytes = Tree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _case(suite: Tree.Element, table: str, one: Result) -> None:
    case = Tree.SubElement(
        suite,
        "testcase",
        {"name": _clean(one.name), "classname": _clean(table), "time": f"{one.seconds:.3f}"},
    )
    outcome = _outcome(one)
    if outcome is None:
        return
    reason = _clean(one.judged.reason)
    if outcome == "skipped":
        told = f"{one.status}, severity {one.severity}: {reason}" if one.code is None else reason
        Tree.SubElement(case, "skipped", {"message": told})
        return
    kind = one.code or one.kind
    element = Tree.SubElement(case, outcome, {"message": reason, "type": kind})
    element.text = _clean("\n".join(_details(one)))


def _details(one: Result) -> list[str]:
    lines = [f"severity: {one.severity}", f"asks: {one.told}"]
    for part in one.judged.parts:
        if not part.passed:
            sides = f"source {part.source or '?'}, target {part.target or '?'}"
            lines.append(f"{part.what}: {sides}")
            lines += [f"to look closer: {part.look}"] if part.look else []
    return [*lines, f"remedy: {one.remedy}"] if one.remedy else lines


def _outcome(one: Result) -> str | None:
    if one.passed:
        return None
    if one.status == "skipped" or one.severity != "blocker":
        return "skipped"
    return "failure" if one.status == "failed" else "error"


def _sums(results: tuple[Result, ...] | list[Result]) -> dict[str, str]:
    outcomes = [_outcome(one) for one in results]
    return {
        "tests": str(len(outcomes)),
        "failures": str(outcomes.count("failure")),
        "errors": str(outcomes.count("error")),
        "skipped": str(outcomes.count("skipped")),
        "time": f"{sum(one.seconds for one in results):.3f}",
    }


def _clean(text: str) -> str:
    return _NOT_XML.sub("?", text)
