"""Who may do what: compare it, and bring it in line. Decides only.

What an object's owner may do is left out on either side: owners are not carried over, and an owner
may do everything with what is its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cdc_migrator.model.parts import Part

Held = Mapping[str, list[str]]  # role, quoted -> privileges, with " *" where it may pass them on

_EXECUTED = ("function", "procedure", "aggregate")
_TYPES = ("enumeration", "domain", "composite type", "range type")
_PLAIN = {"sequence": "SEQUENCE", "schema": "SCHEMA", "procedure": "PROCEDURE"}


def differ(part: Part, there: Part) -> bool:
    """Whether anybody but the two owners may do other things on the target."""
    owners = {part.facts["role"], there.facts["role"]}
    return _without(part.facts["grants"], owners) != _without(there.facts["grants"], owners)


def given(part: Part, there: Part | None) -> Iterator[str]:
    """The statements that bring the target's privileges on `part` in line.

    Args:
        there: the part as the target has it; None: it has just been made there.
    """
    if "grants" not in part.facts:
        return
    found = _new(part) if there is None else there.facts["grants"]
    owners = {part.facts["role"], there.facts["role"] if there else part.facts["role"]}
    wanted, found = _without(part.facts["grants"], owners), _without(found, owners)
    for role in sorted(wanted.keys() | found.keys()):
        if wanted.get(role) == found.get(role):
            continue
        if role in found:
            yield _statement(part, "REVOKE", ["ALL"], f"FROM {role}")
        privileges = wanted.get(role, [])
        plain = [one for one in privileges if not one.endswith(" *")]
        passed = [one.removesuffix(" *") for one in privileges if one.endswith(" *")]
        if plain:
            yield _statement(part, "GRANT", plain, f"TO {role}")
        if passed:
            yield _statement(part, "GRANT", passed, f"TO {role} WITH GRANT OPTION")


def text(held: Held, owner: str) -> str | None:
    """What the roles but the owner may do, in one line; None for nothing."""
    return (
        "; ".join(f"{role}: {', '.join(held[role])}" for role in sorted(held) if role != owner)
        or None
    )


def _new(part: Part) -> Held:
    """What everybody may do with an object that was just made."""
    if part.kind in _EXECUTED:
        return {"PUBLIC": ["EXECUTE"]}
    return {"PUBLIC": ["USAGE"]} if part.kind in _TYPES else {}


def _without(held: Held, roles: set[str]) -> dict[str, list[str]]:
    return {role: privileges for role, privileges in held.items() if role not in roles}


def _statement(part: Part, verb: str, privileges: list[str], whom: str) -> str:
    if part.kind == "default privileges":
        words = ", ".join(privileges)
        return f"{part.facts['alter']} {verb} {words} ON {part.facts['word']} {whom}"
    if part.kind in ("column", "view column"):
        words = ", ".join(f"{one} ({part.facts['column']})" for one in privileges)
        return f"{verb} {words} ON TABLE {part.owner} {whom}"
    if part.kind in _TYPES:
        on = f"TYPE {part.name}"
    elif part.kind in _EXECUTED:
        word = "PROCEDURE" if part.kind == "procedure" else "FUNCTION"
        on = f"{word} {part.address.split(' ', 1)[1]}"
    else:
        on = f"{_PLAIN.get(part.kind, 'TABLE')} {part.name}"
    return f"{verb} {', '.join(privileges)} ON {on} {whom}"
