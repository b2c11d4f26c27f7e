"""Random topics in the connector's form, and what bytes that went astray make of them.

What a topic holds follows from its seed alone.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

from cdc_migrator.apply.shape import Shape
from cdc_migrator.model.tables import Straight, TableName
from cdc_migrator.stream.rows import KeyDecoder, RowDecoder

PLACEHOLDER = "__debezium_unavailable_value"
WIDE = TableName("shop", "wide")
PAIRS = TableName("shop", "pairs")
KEYLESS = TableName("shop", "log")
ODD_NAME = TableName("shöp", 'o"dd')
# Name, whether the event has a JSON string, and which of its texts the target reads as they are.
_A = Straight.ANY
_COLUMNS: dict[TableName, list[tuple[str, bool, Straight]]] = {
    WIDE: [
        ("id", False, _A),
        ("text", True, _A),
        ("amount", True, Straight.NUMBER),
        ("at", True, Straight.CALENDAR),
        ("ok", False, _A),
        ("list", False, Straight.NONE),
        ("größe", True, _A),
    ],
    PAIRS: [("kind", True, _A), ("no", False, _A), ("note", True, _A), ("rate", False, _A)],
    KEYLESS: [("n", False, _A), ("note", True, _A)],
    ODD_NAME: [("id", False, _A), ("note", True, _A)],
}
_KEYS = {WIDE: ("id",), PAIRS: ("kind", "no"), KEYLESS: (), ODD_NAME: ("id",)}
_TEXTS = (
    "",
    "plain",
    "two words",
    'quo"te',
    "back\\slash",
    "tab\there",
    "line\nend",
    "return\r",
    "\b\f\x01\x1f",
    "\\N",
    "ü",
    "日本語のテキスト",
    "😀 smile 😀",
    "null",
    "x" * 70,
    "\\." * 9,
    PLACEHOLDER,
    PLACEHOLDER + "x",
    "\x7f\u2028",
    "\0",
)
_NUMBERS = ("1", "-12.50", "0.0000001", "NAN", "POSITIVE_INFINITY", "1E+10", "99999999999999999999")
_TIMES = (
    "2024-02-07T09:14:26.000000Z",
    "0001-01-01T00:00:00Z",
    "0000-01-01",
    "-0044-03-15",
    "+12345-01-01T00:00:00Z",
    "9999-12-31",
)
_LISTS: tuple[Any, ...] = (
    [],
    [1, 2, 3],
    ["a", "b\\c", 'd"e'],
    [None, True],
    [[1], [2]],
    {"x": 1.5, "y": [{}]},
    [PLACEHOLDER],
    "NaN",
    "text\twith tab",
    -1.5e-7,
)


def shapes() -> dict[TableName, Shape]:
    """What folding knows of the tables, all but one of which are plain."""
    found = {}
    for name, columns in _COLUMNS.items():
        members = [(column, is_string) for column, is_string, _ in columns]
        places = {column: place for place, (column, _) in enumerate(members)}
        key = tuple(places[column] for column in _KEYS[name])
        straight = [one for _, _, one in columns]
        found[name] = Shape(
            name,
            tuple(places),
            key,
            RowDecoder(name, members, PLACEHOLDER, straight),
            KeyDecoder(name, [members[place] for place in key]) if key else None,
            numeric_key=bool(key) and not members[key[0]][1],
        )
    return found


@dataclass
class Sent:
    """A record, as the Kafka client gives it."""

    at: int
    record_key: bytes | None
    record_value: bytes | None
    record_headers: Any = None
    sent_ms: int = 1_795_381_008_000

    def offset(self) -> int:
        return self.at

    def timestamp(self) -> tuple[int, int]:
        return 1, self.sent_ms

    def key(self) -> bytes | None:
        return self.record_key

    def value(self) -> bytes | None:
        return self.record_value

    def headers(self) -> Any:
        return self.record_headers


class Writer:
    """Writes a random topic."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.sent: list[Sent] = []
        self._lsn = 1_000_000
        self._xid = 700
        self._offset = self.random.randrange(5)
        # What the tables hold: the rows' keys.
        self._rows: dict[TableName, list[tuple[Any, ...]]] = {
            name: self._first_keys(name) for name in _COLUMNS
        }
        # A topic is written in one style.
        self._ascii = self.random.random() < 0.3
        self._spaces = self.random.random() < 0.05
        self._rare = self.random.choice((0.0, 0.0, 0.02))
        self._inserts = self.random.choice((0.2, 0.2, 1.0))
        self._many = self.random.choice((1, 3, 30))

    def _first_keys(self, name: TableName) -> list[tuple[Any, ...]]:
        return [] if name == KEYLESS else [self._new_key(name) for _ in range(20)]

    def _new_key(self, name: TableName) -> tuple[Any, ...]:
        if name == PAIRS:
            return self.random.choice(_TEXTS[:15]), self.random.randrange(100_000)
        return (self.random.randrange(-1000, 10**12),)

    def topic(self, transactions: int) -> list[Sent]:
        """The records of so many transactions."""
        for _ in range(transactions):
            self._transaction()
        return self.sent

    def _transaction(self) -> None:
        random = self.random
        self._xid += random.randrange(1, 4)
        begin = self._lsn = self._lsn + random.randrange(1, 500)
        ident = f"{self._xid}:{begin}"
        self._put({"id": ident}, {"status": "BEGIN", "id": ident, "event_count": None, "ts_ms": 1})
        count = 0
        for _ in range(random.randrange(self._many + 1)):
            count = self._change(count, begin if count == 0 and random.random() < 0.9 else None)
        self._lsn += random.randrange(1, 500)
        ident = f"{self._xid}:{self._lsn}"
        end = {"status": "END", "id": ident, "event_count": count, "data_collections": []}
        self._put({"id": ident}, end)
        if random.random() < 0.3:
            self._offset += 1  # the mark of a Kafka transaction

    def _change(self, count: int, lsn: int | None) -> int:
        random = self.random
        name = random.choice((WIDE, WIDE, PAIRS, PAIRS, KEYLESS, ODD_NAME))
        rows = self._rows[name]
        self._lsn = lsn if lsn is not None else self._lsn + random.randrange(1, 200)
        if name == KEYLESS:
            return self._event(name, "c", None, self._image(name, None), count)
        if self._rare and random.random() < self._rare:
            if random.random() < 0.3:
                rows.clear()
                return self._event(name, "t", None, None, count)
            if rows:
                return self._move(name, rows, count)
        if not rows or random.random() < self._inserts:
            key = self._new_key(name)
            if key in rows:
                return count
            rows.append(key)
            return self._event(name, "c", key, self._image(name, key), count)
        key = random.choice(rows[-10:])
        if random.random() < 0.2:
            rows.remove(key)
            return self._event(name, "d", key, None, count)
        unchanged = random.random() < 0.1
        return self._event(name, "u", key, self._image(name, key, unchanged), count)

    def _move(self, name: TableName, rows: list[tuple[Any, ...]], count: int) -> int:
        old, new = self.random.choice(rows), self._new_key(name)
        if new in rows:
            return count
        rows[rows.index(old)] = new
        there = [("__debezium.newkey", b"{}")]
        count = self._event(name, "d", old, None, count, there)
        here = [("__debezium.oldkey", b"{}")]
        return self._event(name, "c", new, self._image(name, new), count, here)

    def _image(
        self, name: TableName, key: tuple[Any, ...] | None, unchanged: bool = False
    ) -> dict[str, Any]:
        random = self.random
        image: dict[str, Any] = {}
        for column, is_string, _ in _COLUMNS[name]:
            if key is not None and column in _KEYS[name]:
                image[column] = key[_KEYS[name].index(column)]
            elif random.random() < 0.1:
                image[column] = None
            elif column == "amount":
                image[column] = random.choice(_NUMBERS)
            elif column == "at":
                image[column] = random.choice(_TIMES)
            elif column == "ok":
                image[column] = random.choice((True, False))
            elif column == "list":
                image[column] = random.choice(_LISTS)
            elif is_string:
                text = random.choice(_TEXTS if random.random() < 0.4 else _TEXTS[1:3])
                image[column] = PLACEHOLDER if unchanged and column != "at" else text
            else:
                image[column] = random.choice((0, 1.5, -3, 1e300, 12345678901234))
        if not unchanged:
            image = {c: "x" if v == PLACEHOLDER and c != "list" else v for c, v in image.items()}
            if image.get("list") == [PLACEHOLDER]:
                image["list"] = []
        return image

    def _event(
        self,
        name: TableName,
        op: str,
        key: tuple[Any, ...] | None,
        after: dict[str, Any] | None,
        count: int,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> int:
        count += 1
        value = {
            "before": {"id": 0, "note": "old"} if op == "d" else None,
            "after": after,
            "source": {
                "version": "3.7.0.Final",
                "db": "shop",
                "sequence": f'["{self._lsn}","{self._lsn}"]',
                "ts_ms": 1_795_381_005_966,
                "ts_us": self.random.choice((1_795_381_005_966_831, None)),
                "schema": name.schema,
                "table": name.name,
                "txId": self._xid,
                "lsn": self._lsn,
                "xmin": None,
            },
            "transaction": {
                "id": f"{self._xid}:{self._lsn}",
                "total_order": count,
                "data_collection_order": 1,
            },
            "op": op,
            "ts_ms": 1_795_381_008_265,
        }
        names = _KEYS[name]
        named = None if key is None else dict(zip(names, key, strict=True))
        self._put(named, value, headers)
        return count

    def _put(self, key: Any, value: Any, headers: list[tuple[str, bytes]] | None = None) -> None:
        spelled = None if key is None else self._spelled(key)
        self.sent.append(Sent(self._offset, spelled, self._spelled(value), headers))
        self._offset += 1

    def _spelled(self, value: Any) -> bytes:
        separators = (", ", " : ") if self._spaces else (",", ":")
        return json.dumps(value, ensure_ascii=self._ascii, separators=separators).encode()


def spoiled(sent: list[Sent], seed: int) -> list[Sent]:
    """The same with a few records that went astray: bytes changed, left out or added, records that
    are missing or came twice."""
    random_ = random.Random(seed)
    found = list(sent)
    for _ in range(random_.choice((1, 1, 5))):
        place = random_.randrange(len(found))
        one = found[place]
        value = bytearray(one.record_value or b"")
        what = random_.randrange(8)
        at = random_.randrange(len(value)) if value else 0
        if what == 0:
            value[at : at + 1] = bytes([random_.randrange(256)])
        elif what == 1:
            del value[at : at + random_.choice((1, 1, 40))]
        elif what == 2:
            value[at:at] = random_.choice(
                (b'"', b"\\", b"{", b"\xff", b" ", b"0", b"\\ud800", b",")
            )
        elif what == 3:
            del found[place]
            continue
        elif what == 4:
            found.insert(place, one)
            continue
        elif what == 5:
            found[place] = Sent(one.at, one.record_key, None)
            continue
        elif what == 6:
            found[place] = Sent(one.at, b"null", one.record_value, one.record_headers)
            continue
        else:
            value = bytearray(bytes(value).replace(b":1", b":01", 1))
        found[place] = Sent(one.at, one.record_key, bytes(value), one.record_headers)
    return found
