"""How much a difference matters to the rows that are to arrive. Decides only."""

from __future__ import annotations

import re
from collections.abc import Collection

from cdc_migrator.model.parts import Part, Severity

ERROR, WARN, INFO = Severity.ERROR, Severity.WARN, Severity.INFO

_LIMITING = frozenset("cpux")  # pg_constraint.contype: they refuse rows
_MISSING = {"table": ERROR, "column": ERROR, "attribute": ERROR, "enumeration": ERROR}
_MISSING |= {"domain": ERROR, "composite type": ERROR, "range type": ERROR}
_WIDER = ("smallint", "integer", "bigint")
_LENGTH = re.compile(r"(character varying|character|bit varying)\((\d+)\)")
_NUMERIC = re.compile(r"numeric(?:\((\d+),(-?\d+)\))?")


def missing(source: Part) -> Severity:
    """The target lacks the whole part."""
    return _MISSING.get(source.kind, WARN)


def extra(target: Part, enforced: Collection[str], keyed: bool) -> Severity:
    """The target has a part that the source lacks.

    Args:
        enforced: what the source's unique keys and indexes of that table cover.
        keyed: the source's table has a primary key: its own could not be made beside another.
    """
    if keyed and target.kind == "constraint" and target.facts["type"] == "p":
        return ERROR
    if target.kind == "column":
        refuses = target.attributes["not null"] == "yes" and not (
            {"default", "identity", "generated"} & target.attributes.keys()
        )
        return ERROR if refuses else WARN
    covers = target.facts.get("unique")
    if covers is not None:
        return WARN if covers in enforced else ERROR
    if target.kind == "constraint":
        return ERROR if target.facts["type"] in _LIMITING else WARN
    if target.kind in ("trigger", "rule"):
        return _fires(target.attributes["fires"])
    if target.kind == "attribute":
        return ERROR
    if target.kind in ("table", "extension", "schema"):
        return INFO
    return WARN


def changed(source: Part, target: Part, attribute: str) -> Severity:
    """Both sides have the part, and one attribute of it differs."""
    said, found = source.attributes.get(attribute), target.attributes.get(attribute)
    if attribute in ("comment", "name", "version", "column order"):
        return INFO
    match source.kind, attribute:
        case (("column" | "attribute" | "domain"), "type"):
            return WARN if holds(said or "", found or "") else ERROR
        case (("column" | "domain"), "not null"):
            return ERROR if found == "yes" else WARN
        case "column", "generated":
            return ERROR
        case "enumeration", "labels":
            known = target.facts["labels"]
            return WARN if all(label in known for label in source.facts["labels"]) else ERROR
        case "range type", "definition":
            return ERROR
        case "table", ("partition bound" | "partition key" | "parent"):
            return ERROR
        case "constraint", "definition":
            refuses = target.facts["type"] in _LIMITING and _rule(said) != _rule(found)
            return ERROR if refuses else WARN
        case "index", "definition":
            covers = target.facts["unique"]
            return ERROR if covers is not None and covers != source.facts["unique"] else WARN
        case (("trigger" | "rule"), "fires"):
            return _fires(found or "")
    return WARN


def _fires(word: str) -> Severity:
    # Rows arrive under session_replication_role = replica: these fire, and may change them.
    return ERROR if word in ("always", "replica") else WARN


def _rule(definition: str | None) -> str:
    """A constraint without the words that say when it is looked at."""
    return re.sub(
        r"( NOT VALID| NOT ENFORCED| DEFERRABLE| INITIALLY DEFERRED)+$", "", definition or ""
    )


def holds(source: str, target: str) -> bool:
    """Whether every value of the source's type can be kept in the target's as the same text.

    Types as ``format_type`` spells them. False where that is not known.
    """
    if target in ("text", "character varying"):
        # A char(n) is padded, and its padding is lost in any other type.
        return not source.startswith("character(")
    if source in _WIDER:
        if target in _WIDER:
            return _WIDER.index(target) >= _WIDER.index(source)
        return target == "numeric"
    if (one := _LENGTH.fullmatch(source)) and (other := _LENGTH.fullmatch(target)):
        return one[1] == other[1] != "character" and int(one[2]) <= int(other[2])
    if (one := _NUMERIC.fullmatch(source)) and (other := _NUMERIC.fullmatch(target)):
        # Another scale pads with zeros, which is another text.
        return other[1] is None or (
            one[1] is not None and one[2] == other[2] and int(one[1]) <= int(other[1])
        )
    return source.partition("(")[0] == target and "(" in source


def same_family(one: str, other: str) -> bool:
    """Whether both are integers, numerics or strings, which PostgreSQL casts and checks itself."""
    return one != other and _family(one) is not None and _family(one) == _family(other)


def _family(text: str) -> str | None:
    if text in _WIDER or _NUMERIC.fullmatch(text):
        return "number"
    if text in ("text", "character varying") or _LENGTH.fullmatch(text):
        return "bits" if text.startswith("bit") else "string"
    return None
