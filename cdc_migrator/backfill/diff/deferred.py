"""What the target gets only when it is opened: foreign keys, triggers and rules of the source.

Where nothing can keep them from acting on what is applied they cannot be there before. In the
transaction that opens the target foreign keys are made NOT VALID, which takes no longer for many
rows than for few; they are proven afterwards. A partitioned table cannot have such a key: there
its partitions get it first, and the table takes theirs over once they are proven.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from cdc_migrator.backfill.diff.compare import acts, renamed
from cdc_migrator.backfill.diff.mend import Mender
from cdc_migrator.backfill.diff.run import read_both
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.model.parts import Part
from cdc_migrator.model.tables import TableName

_NOT_VALID = " NOT VALID"
_PARTITIONS = """
SELECT format('%%I.%%I', n.nspname, c.relname), k.oid IS NOT NULL
FROM pg_class p CROSS JOIN LATERAL pg_partition_tree(p.oid) t JOIN pg_class c ON c.oid = t.relid
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_constraint k ON k.conrelid = c.oid AND quote_ident(k.conname) = %s
WHERE p.oid = to_regclass(%s) AND p.relkind = 'p' AND t.isleaf ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One of them.

    Attributes:
        what: kind and name, for people.
        make: statements for the moment in which the target is opened; none where it is there.
        prove: statements for afterwards, in their order, during which everybody may write.
    """

    what: str
    make: tuple[str, ...]
    prove: tuple[str, ...] = ()


def left_out(
    source: psycopg.Connection, target: psycopg.Connection, tables: Sequence[TableName]
) -> list[LeftOut]:
    """What of the source's the target still lacks, or has and has not proven yet.

    Changes nothing. Raises Refused: CDCM-SCHEMA-DEPENDS; a server's error in coded form.
    """
    ours, theirs = read_both(source, target, tables)
    mender, others = Mender(ours, theirs), dict(renamed(ours, theirs))
    found = []
    for key, part in ours.parts.items():
        if not acts(part):
            continue
        there = theirs.parts.get(others.get(key, key))
        made = [one.sql for one in mender.make(part)] if there is None else []
        if part.kind != "constraint":
            if made:
                found.append(LeftOut(f"{part.kind} {part.name}", tuple(made)))
            continue
        with speaking("target", "looking for what its tables lack"):
            one = _foreign_key(target, part, there, made)
        if one.make or one.prove:
            found.append(one)
    return found


def _foreign_key(
    target: psycopg.Connection, part: Part, there: Part | None, made: Sequence[str]
) -> LeftOut:
    what, definition = f"foreign key {part.name}", part.attributes["definition"]
    name, altering = part.facts["local name"], part.facts["altering"]
    proven = definition.endswith((_NOT_VALID, " NOT ENFORCED"))
    if there is not None:
        unproven = there.attributes["definition"] == definition + _NOT_VALID
        named = there.facts["local name"]
        prove = f"ALTER {altering} VALIDATE CONSTRAINT {named}"
        return LeftOut(what, (), (prove,) if unproven else ())
    if proven:
        return LeftOut(what, tuple(made))
    leaves = target.execute(_PARTITIONS, (name, part.owner)).fetchall()
    add = f"ADD CONSTRAINT {name} {definition}"
    if not leaves:
        rest = [one for one in made if add not in one]
        return LeftOut(
            what,
            (f"ALTER {altering} {add}{_NOT_VALID}", *rest),
            (f"ALTER {altering} VALIDATE CONSTRAINT {name}",),
        )
    return LeftOut(
        what,
        tuple(f"ALTER TABLE {leaf} {add}{_NOT_VALID}" for leaf, has in leaves if not has),
        (*(f"ALTER TABLE {leaf} VALIDATE CONSTRAINT {name}" for leaf, _ in leaves), *made),
    )
