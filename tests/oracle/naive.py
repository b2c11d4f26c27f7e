"""The naive applier: the source's own logical decoding, one statement for each row event.

It is an oracle, so it shares no code with cdc_migrator and knows none of its tricks: a slot of
its own, read by SQL in the binary form of pgoutput (PostgreSQL documentation, "Logical
Replication Message Formats", protocol version 1), and for each message the obvious statement. A
statement that does not touch exactly one row is an error.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import psycopg
from psycopg import sql

# What a column of a row is in pgoutput: its text, None for NULL, or left as it was.
Text = str | None


class Unchanged:
    """An out-of-line value that the update did not touch: the log does not have it."""


Tuple = list[Text | type[Unchanged]]


class Disagrees(AssertionError):
    """The source's log does not fit what this applier has made of it so far."""


@dataclass(frozen=True)
class Relation:
    """One table as the log describes it; `keys` are the places of its identity's columns."""

    name: sql.Identifier
    columns: list[str]
    keys: list[int]
    whole: bool


class Message:
    """Takes one message apart, from front to back."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, form: str) -> int:
        (value,) = struct.unpack_from(f"!{form}", self._data, self._at)
        self._at += struct.calcsize(f"!{form}")
        return int(value)

    def letter(self) -> str:
        return chr(self.number("B"))

    def peek(self) -> str:
        return chr(self._data[self._at])

    def string(self) -> str:
        end = self._data.index(b"\0", self._at)
        text = self._data[self._at : end].decode()
        self._at = end + 1
        return text

    def row(self) -> Tuple:
        found: Tuple = []
        for _ in range(self.number("H")):
            kind = self.letter()
            if kind == "t":
                size = self.number("I")
                found.append(self._data[self._at : self._at + size].decode())
                self._at += size
            elif kind == "n":
                found.append(None)
            elif kind == "u":
                found.append(Unchanged)
            else:
                raise Disagrees(f"a column of kind {kind!r}")
        return found


class NaiveApplier:
    """Carries everything that a slot has over to a target, row by row.

    `target` holds the same tables, without data that the slot will bring; identity columns
    must take given values (BY DEFAULT).
    """

    def __init__(
        self, source: psycopg.Connection, target: psycopg.Connection, slot: str, publication: str
    ) -> None:
        self._source = source
        self._target = target
        self._slot = slot
        self._publication = publication
        self._relations: dict[int, Relation] = {}
        self.transactions = 0
        target.execute("SET session_replication_role = replica")

    def catch_up(self) -> None:
        """Apply whatever was committed until now."""
        rows = self._source.execute(
            "SELECT data FROM pg_logical_slot_get_binary_changes(%s, NULL, NULL, "
            "'proto_version', '1', 'publication_names', %s)",
            (self._slot, self._publication),
            binary=True,
        ).fetchall()
        for (data,) in rows:
            self._take(bytes(data))

    def _take(self, data: bytes) -> None:
        message = Message(data)
        kind = message.letter()
        if kind == "B":
            self._target.execute("BEGIN")
        elif kind == "C":
            self._target.execute("COMMIT")
            self.transactions += 1
        elif kind == "R":
            self._describe(message)
        elif kind == "I":
            relation = self._relations[message.number("I")]
            message.letter()
            self._insert(relation, message.row())
        elif kind == "U":
            relation = self._relations[message.number("I")]
            old = None
            if message.peek() in "KO":
                message.letter()
                old = message.row()
            message.letter()
            self._update(relation, old, message.row())
        elif kind == "D":
            relation = self._relations[message.number("I")]
            message.letter()
            self._delete(relation, message.row())
        elif kind == "T":
            count = message.number("I")
            message.number("B")
            names = [self._relations[message.number("I")].name for _ in range(count)]
            self._target.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(names)))
        elif kind not in "YO":
            raise Disagrees(f"a message of kind {kind!r}")

    def _describe(self, message: Message) -> None:
        oid = message.number("I")
        name = sql.Identifier(message.string(), message.string())
        whole = message.letter() == "f"
        columns, keys = [], []
        for place in range(message.number("H")):
            if message.number("B") & 1:
                keys.append(place)
            columns.append(message.string())
            message.number("I"), message.number("i")
        self._relations[oid] = Relation(name, columns, keys, whole)

    def _insert(self, relation: Relation, row: Tuple) -> None:
        self._one(
            sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                relation.name,
                sql.SQL(", ").join(map(sql.Identifier, relation.columns)),
                sql.SQL(", ").join(sql.Placeholder() * len(row)),
            ),
            row,
        )

    def _update(self, relation: Relation, old: Tuple | None, new: Tuple) -> None:
        changed = [n for n, value in enumerate(new) if value is not Unchanged]
        where, found = self._where(relation, new if old is None else old)
        assignments = [
            sql.SQL("{} = %s").format(sql.Identifier(relation.columns[n])) for n in changed
        ]
        self._one(
            sql.SQL("UPDATE {} SET {} {}").format(
                relation.name, sql.SQL(", ").join(assignments), where
            ),
            [*(new[n] for n in changed), *found],
        )

    def _delete(self, relation: Relation, old: Tuple) -> None:
        where, found = self._where(relation, old)
        self._one(sql.SQL("DELETE FROM {} {}").format(relation.name, where), found)

    def _where(self, relation: Relation, row: Tuple) -> tuple[sql.Composed, Tuple]:
        """The one row meant; where whole rows tell rows apart, any one of the equal ones."""
        places = range(len(relation.columns)) if relation.whole else relation.keys
        same = sql.SQL(" AND ").join(
            sql.SQL("{}::text IS NOT DISTINCT FROM %s").format(sql.Identifier(relation.columns[n]))
            for n in places
        )
        one = sql.SQL("WHERE ctid = (SELECT ctid FROM {} WHERE {} LIMIT 1)")
        return one.format(relation.name, same), [row[n] for n in places]

    def _one(self, statement: sql.Composed, values: Tuple) -> None:
        if self._target.execute(statement, values).rowcount != 1:
            raise Disagrees(f"not one row: {statement.as_string(self._target)}")
