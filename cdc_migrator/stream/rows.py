"""Row images and keys taken apart: each column's text as the event spells it, never its value.

What a column's text means is the business of one SQL expression per column on the target. Here
only two things are told apart from text: SQL NULL, and "unchanged", the placeholder that stands
for a value which the source keeps out of line and did not log again.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final, Literal

import msgspec

from cdc_migrator.errors import StreamHalted
from cdc_migrator.model.changes import Image
from cdc_migrator.model.positions import lsn_to_text
from cdc_migrator.model.tables import Straight
from cdc_migrator.native.rows import Layout


class Unchanged(Enum):
    """The type of `UNCHANGED`."""

    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED

Text = str | None | Literal[Unchanged.UNCHANGED]
Columns = Sequence[tuple[str, bool]]


class OtherShape(StreamHalted):
    """CDCM-STREAM-SCHEMA: an event of `table` is not made as the table was described."""

    def __init__(self, table: object, differences: Sequence[str], position: str) -> None:
        super().__init__(
            "CDCM-STREAM-SCHEMA",
            f"An event of {table} does not have the columns that the table was described with: "
            + "; ".join(differences),
            position,
            "Nothing past this position was applied. `cdc-migrator backfill --again` with this "
            "table reads it anew; then start `cdc-migrator run`.",
        )
        self.table = table
        self.differences = tuple(differences)

    def at(self, position: str) -> OtherShape:
        """The same at this place."""
        return OtherShape(self.table, self.differences, position)


class RowDecoder:
    """Takes the row images of one table apart.

    Args:
        table: for messages only.
        columns: name and kind of every column that an image carries, in the order in which
            `decode` returns them. True: the event carries a JSON string for it. False: anything
            else (number, true, array, object), which travels as the JSON text that it is; a
            string among those, such as ``"NaN"``, travels without its quotes.
        placeholder: the connector's ``unavailable.value.placeholder``.
        straight: of each column, which texts the target reads as they are.

    Attributes:
        layout: the same for rows that are never looked at here.
    """

    def __init__(
        self,
        table: object,
        columns: Columns,
        placeholder: str,
        straight: Sequence[Straight] = (),
    ) -> None:
        self._shape = _Shape(table, columns)
        self._texts, self._tokens = _placeholder_forms(placeholder)
        # An image in which none of these occurs has no placeholder in any column.
        self._traces = _traces(self._texts, self._tokens)
        texts, tokens = self._texts, self._tokens
        self.layout = Layout(
            columns,
            in_string=map(_spelled, texts),
            in_other=map(_spelled, tokens),
            as_token=[token.encode() for token in tokens - texts],
            texts=straight,
        )

    def decode(self, image: Image, lsn: int) -> tuple[Text, ...]:
        """The columns of one row image in their order; `lsn` is for messages only.

        Raises StreamHalted: CDCM-STREAM-SCHEMA (not the columns that the catalog says, named),
        CDCM-STREAM-UNDECODABLE.
        """
        values = self._shape.decode(image, lsn)
        text = bytes(image)
        for trace in self._traces:
            if trace in text:
                return self._with_unchanged(values)
        return values

    def decode_many(self, images: Sequence[Image]) -> list[tuple[str | None, ...] | None]:
        """The columns of many row images, in a fraction of the time.

        None where an image may hold a placeholder or is not as it should be: `decode` tells.
        """
        rows: list[tuple[str | None, ...] | None] = []
        for start in range(0, len(images), _AT_ONCE):
            rows += self._decode_some(images[start : start + _AT_ONCE])
        return rows

    def _decode_some(self, some: Sequence[Image]) -> Sequence[tuple[str | None, ...] | None]:
        if len(some) > 1 and sum(map(len, some)) > _BYTES_AT_ONCE:
            middle = len(some) // 2
            return [*self._decode_some(some[:middle]), *self._decode_some(some[middle:])]
        array = b"[" + b",".join(some) + b"]"
        decoded = self._shape.decode_many(array, len(some))
        if decoded is None:
            return [None] * len(some)
        if any(trace in array for trace in self._traces):
            texts = map(bytes, some)
            return [
                None if any(trace in text for trace in self._traces) else row
                for text, row in zip(texts, decoded, strict=True)
            ]
        return decoded

    def _with_unchanged(self, values: tuple[str | None, ...]) -> tuple[Text, ...]:
        forms = self._texts, self._tokens
        return tuple(
            UNCHANGED if value in forms[not is_string] else value
            for value, is_string in zip(values, self._shape.is_string, strict=True)
        )


class KeyDecoder:
    """Takes the record keys of one table apart; arguments as in `RowDecoder`."""

    def __init__(self, table: object, columns: Columns) -> None:
        self._shape = _Shape(table, columns)
        self.layout = Layout(columns)

    def decode(self, key: bytes, lsn: int) -> tuple[str, ...]:
        """The key columns in their order. Raises as `RowDecoder.decode`; no part may be null."""
        values = self._shape.decode(key, lsn)
        if None in values:
            raise self._shape.halt(
                lsn, [f"{self._shape.names[values.index(None)]} is null but part of the key"]
            )
        return values  # type: ignore[return-value]


class _Shape:
    """A JSON object with exactly these members, as a tuple of texts."""

    def __init__(self, table: object, columns: Columns) -> None:
        self._table = table
        self.names = [name for name, _ in columns]
        self.is_string = [is_string for _, is_string in columns]
        self._token_places = [i for i, is_string in enumerate(self.is_string) if not is_string]
        # All images of an array at once; None for names that a struct's member cannot have.
        self._split_all: Callable[[bytes], list[Any]] | None = None
        self._split = self._split_by_name if _odd(self.names) else self._splitter()

    def _splitter(self) -> Callable[[Image], Sequence[Any]]:
        """The fast way: one typed decode into a struct made for this table."""
        image = msgspec.defstruct(
            "Image",
            [(f"c{i}", str | None if s else msgspec.Raw) for i, s in enumerate(self.is_string)],
            rename={f"c{i}": name for i, name in enumerate(self.names)},
            forbid_unknown_fields=True,
            gc=False,
        )
        decode, astuple = msgspec.json.Decoder(image).decode, msgspec.structs.astuple
        self._split_all = msgspec.json.Decoder(list[image]).decode  # type: ignore[valid-type]
        return lambda text: astuple(decode(text))

    def decode_many(self, array: bytes, count: int) -> list[tuple[str | None, ...]] | None:
        """The images of a JSON array of `count`; None where one is not as it should be.

        Works on whole columns: little runs once a cell in Python.
        """
        if self._split_all is None:
            return None
        try:
            images = self._split_all(array)
            if len(images) != count:
                return None
            columns: list[Any] = list(zip(*map(msgspec.structs.astuple, images), strict=True))
            for place in self._token_places:
                tokens = [str(token, "utf-8") for token in columns[place]]
                columns[place] = [
                    token if token[0] not in _OTHERWISE else _text_of(token) for token in tokens
                ]
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        return list(zip(*columns, strict=True))

    def _split_by_name(self, image: Image) -> Sequence[Any]:
        """The same for names that a struct's member cannot have."""
        members = msgspec.json.decode(image, type=dict[str, msgspec.Raw])
        if members.keys() != set(self.names):
            raise msgspec.ValidationError
        return [
            _decode_nullable(members[name]) if is_string else members[name]
            for name, is_string in zip(self.names, self.is_string, strict=True)
        ]

    def decode(self, image: Image, lsn: int) -> tuple[str | None, ...]:
        try:
            values = list(self._split(image))
            for place in self._token_places:
                values[place] = _text_of(str(values[place], "utf-8"))
        except msgspec.ValidationError:
            raise self.halt(lsn, self._differences(image)) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise StreamHalted(
                "CDCM-STREAM-UNDECODABLE",
                f"A row image or key of {self._table} is not JSON: {type(exc).__name__}",
                self._position(lsn),
            ) from None
        return tuple(values)

    def halt(self, lsn: int, differences: list[str]) -> StreamHalted:
        return OtherShape(self._table, differences, self._position(lsn))

    def _differences(self, image: Image) -> list[str]:
        """What is wrong with an image, by column name."""
        try:
            members = msgspec.json.decode(image, type=dict[str, msgspec.Raw])
        except msgspec.ValidationError:
            return ["it is not an object"]
        found = [f"{name} is missing" for name in self.names if name not in members]
        found += [f"{name} is not expected" for name in members if name not in self.names]
        for name, is_string in zip(self.names, self.is_string, strict=True):
            token = bytes(members.get(name, msgspec.Raw(b"null")))
            if is_string and token != b"null" and not token.startswith(b'"'):
                found.append(f"{name} is not a JSON string")
        return found

    def _position(self, lsn: int) -> str:
        return f"log position {lsn_to_text(lsn)}"


# Images decoded in one go: few enough to stay in the processor's cache. Where they are large, by
# their size: together they are copied.
_AT_ONCE = 500
_BYTES_AT_ONCE = 4 << 20

_decode_text = msgspec.json.Decoder(str).decode
# How JSON tokens begin that are not their own text.
_OTHERWISE = frozenset('n"')


def _text_of(token: str) -> str | None:
    if token[0] == '"':
        return _decode_text(token)
    return None if token == "null" else token


_decode_nullable = msgspec.json.Decoder(str | None).decode


def _odd(names: list[str]) -> bool:
    return any(c in '"\\' or c < " " for name in names for c in name)


def _placeholder_forms(placeholder: str) -> tuple[frozenset[str], frozenset[str]]:
    """The exact texts of the placeholder in string columns, and in all others.

    Debezium puts the placeholder's text, its bytes (as base64 where the binary mode says so),
    or a one-element array of either where the array's type can hold it: for arrays of integers
    the bytes as numbers, for arrays of uuid the name-based (version 3, no namespace) uuid of
    the bytes. Arrays of other types have no placeholder: there the connector fails.
    """
    raw = placeholder.encode()
    in_base64 = base64.b64encode(raw).decode()
    digest = hashlib.md5(raw, usedforsecurity=False).digest()
    as_uuid = str(uuid.UUID(bytes=digest, version=3))
    encode = msgspec.json.encode
    texts = {placeholder, in_base64, encode({placeholder: placeholder}).decode()}
    tokens = {encode([text]).decode() for text in (placeholder, in_base64, as_uuid)}
    tokens.add(encode(list(raw)).decode())
    # A token that is a JSON string loses its quotes, so the string forms count there too.
    return frozenset(texts), frozenset(tokens | texts)


def _traces(texts: frozenset[str], tokens: frozenset[str]) -> list[bytes]:
    """Short byte strings, one of which occurs in every image that has a placeholder.

    As the event spells them: inside a string the quotes of a JSON text are escaped.
    """
    spelled = set(map(_spelled, texts))
    spelled |= {token.encode() for token in tokens if token not in texts}
    return [s for s in sorted(spelled, key=len) if not any(t in s for t in spelled if t != s)]


def _spelled(text: str) -> bytes:
    """As it stands between the quotes of a JSON string."""
    return msgspec.json.encode(text)[1:-1]
