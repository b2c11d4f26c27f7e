"""Row images become texts, NULL or "unchanged", and nothing else; a wrong shape is named."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from topics import decode, load

from cdc_migrator.errors import StreamHalted
from cdc_migrator.stream.envelope import Rows
from cdc_migrator.stream.rows import UNCHANGED, KeyDecoder, RowDecoder

P = "__cdcm_6f1d2c3b4a5968778695"
SECRET = "4111 1111 1111 1111"

ITEM = [
    ("id", False),
    ("Na me", True),
    ("price", True),
    ("ok", False),
    ("ratio", False),
    ("at", True),
    ("tags", False),
    ("n", False),
    ("u", False),
    ("big", True),
    ("bin", True),
    ("bigtags", False),
    ("bign", False),
    ("big8", False),
    ("j", True),
    ("bigj", True),
    ("bigu", False),
    ("bigby", False),
    ("d", True),
    ("few", False),
    ("bigvar", True),
    ("bigjs", True),
    ("bigx", False),
    ("bigja", False),
]


def decode_row(image: str, *columns: tuple[str, bool]) -> tuple[object, ...]:
    return RowDecoder("shop.item", columns, P).decode(image.encode(), 0x16B374D848)


def halted(image: str, *columns: tuple[str, bool]) -> StreamHalted:
    with pytest.raises(StreamHalted) as caught:
        decode_row(image, *columns)
    assert SECRET not in str(caught.value)
    return caught.value


def test_tokens_travel_as_they_are() -> None:
    """Numbers keep every digit and zero; objects and arrays keep their own text."""
    columns = [(name, False) for name in "abcdefg"]
    image = (
        '{"a":1.50,"b":-0.0,"c":12345678901234567890.000,"d":1e400,"e":true,'
        '"f":[1, null,"x"],"g":{"x":1.0,"y":[]}}'
    )
    assert decode_row(image, *columns) == (
        "1.50",
        "-0.0",
        "12345678901234567890.000",
        "1e400",
        "true",
        '[1, null,"x"]',
        '{"x":1.0,"y":[]}',
    )


def test_strings_are_unescaped() -> None:
    """A string column's text is what the JSON string stands for, also among tokens."""
    image = r'{"a":"\u00e4 \"q\" \\ \n \ud83d\ude00","b":"NaN","c":"{\"k\": 1}"}'
    assert decode_row(image, ("a", True), ("b", False), ("c", True)) == (
        'ä "q" \\ \n 😀',
        "NaN",
        '{"k": 1}',
    )


def test_null_is_not_text() -> None:
    """SQL NULL is None in either kind of column; the texts 'null' and '' are texts."""
    image = '{"a":null,"b":null,"c":"null","d":"","e":"null"}'
    kinds = [("a", True), ("b", False), ("c", True), ("d", True), ("e", False)]
    assert decode_row(image, *kinds) == (None, None, "null", "", "null")


def test_order_is_the_caller_s() -> None:
    """Values come in the order of the columns given, whatever the event's order."""
    assert decode_row('{"a":1,"b":"x"}', ("b", True), ("a", False)) == ("x", "1")


@pytest.mark.parametrize(
    ("token", "is_string"),
    [
        (json.dumps(P), True),
        ('"X19jZGNtXzZmMWQyYzNiNGE1OTY4Nzc4Njk1"', True),
        (json.dumps(json.dumps({P: P}, separators=(",", ":"))), True),
        (json.dumps([P]), False),
        ('["X19jZGNtXzZmMWQyYzNiNGE1OTY4Nzc4Njk1"]', False),
        ('["fd5bc89e-1218-3486-9708-091e90819105"]', False),
        (json.dumps(list(P.encode()), separators=(",", ":")), False),
        (json.dumps(P), False),
    ],
)
def test_placeholder_forms(token: str, is_string: bool) -> None:
    """Every form of the placeholder is "unchanged", and only in its own column."""
    image = f'{{"a":{token},"b":"kept","c":[1]}}'
    columns = [("a", is_string), ("b", True), ("c", False)]
    assert decode_row(image, *columns) == (UNCHANGED, "kept", "[1]")


@pytest.mark.parametrize("text", [f"{P} ", f"x{P}", P[:-1], P.upper(), f'["{P}"]'])
def test_near_misses_are_text(text: str) -> None:
    """The placeholder is compared as a whole and exactly; anything else is a value."""
    image = json.dumps({"a": text, "b": [text, text]})
    assert decode_row(image, ("a", True), ("b", False)) == (text, json.dumps([text, text]))


def test_captured_unchanged_columns() -> None:
    """A real update that leaves long values alone has them unchanged, of every type."""
    rows = [c for r in decode(load("operations.jsonl")) if isinstance(r, Rows) for c in r.changes]
    items = [c for c in rows if c.table.name == "item" and c.after]
    decoder = RowDecoder("shop.item", ITEM, P)
    names = [name for name, _ in ITEM]
    inserted, updated, moved = (
        dict(zip(names, decoder.decode(change.after or b"", change.lsn), strict=True))
        for change in items
    )
    assert UNCHANGED not in inserted.values()
    long = {name for name, value in updated.items() if value is UNCHANGED}
    # The bytes of bigby were compressed and stayed in the row. (An array of bytes that is really
    # unchanged stops the connector; such a column is refused.)
    assert long == {name for name in names if name.startswith(("big", "bin"))} - {"bigby"}
    assert {name for name, value in moved.items() if value is UNCHANGED} == long
    assert updated["Na me"] == 'Ärger "x" \\ y'
    assert (updated["price"], updated["ratio"], updated["ok"]) == ("13.00", "NaN", "true")
    assert (updated["tags"], updated["n"]) == ('["a",null,"b c"]', "[1,null,3]")


@pytest.mark.parametrize(
    ("image", "named"),
    [
        ('{"a":1}', "b is missing"),
        (f'{{"a":1,"b":"{SECRET}","c":"{SECRET}"}}', "c is not expected"),
        (f'{{"a":"{SECRET}","b":5}}', "b is not a JSON string"),
        ('{"a":1,"b":{"x":1}}', "b is not a JSON string"),
        ("[]", "not an object"),
        ("7", "not an object"),
    ],
)
def test_wrong_shape_halts_and_names_the_column(image: str, named: str) -> None:
    """An image that is not what the catalog says names table, column and log position."""
    error = halted(image, ("a", False), ("b", True))
    assert error.code == "CDCM-STREAM-SCHEMA"
    assert named in error.cause
    assert "shop.item" in error.cause
    assert error.position == "log position 16/B374D848"


@pytest.mark.parametrize("image", [b"{", b"", b'{"a":1,"b":"\xff"}', b'{"a":"\xff","b":"x"}'])
def test_broken_image_halts(image: bytes) -> None:
    """An image that is not JSON, or not UTF-8, halts."""
    with pytest.raises(StreamHalted) as caught:
        RowDecoder("t", [("a", False), ("b", True)], P).decode(image, 0)
    assert caught.value.code == "CDCM-STREAM-UNDECODABLE"


def test_any_column_name() -> None:
    """Column names may be keywords, hold quotes, backslashes, spaces and other alphabets."""
    names = ["class", "c0", "", "Ä ß", 'say "hi"', "back\\slash", "tab\there", "1st"]
    columns = [(name, i % 2 == 0) for i, name in enumerate(names)]
    image = json.dumps({name: str(i) for i, name in enumerate(names)}, ensure_ascii=False)
    assert decode_row(image, *columns) == tuple(str(i) for i in range(len(names)))
    error = halted(json.dumps(dict.fromkeys(names[1:], "")), *columns)
    assert "class is missing" in error.cause


def test_keys() -> None:
    """A key's parts come in the order of the key columns; null is no part of a key."""
    decoder = KeyDecoder("shop.line", [("a", False), ("b", True)])
    assert decoder.decode(b'{"b":"x","a":7}', 0) == ("7", "x")
    with pytest.raises(StreamHalted, match="b is null"):
        decoder.decode(b'{"b":null,"a":7}', 0)
    with pytest.raises(StreamHalted, match="c is not expected"):
        decoder.decode(b'{"b":"x","a":7,"c":1}', 0)


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.none()
        | st.text()
        | st.booleans()
        | st.integers()
        | st.lists(st.none() | st.integers() | st.text()),
        min_size=1,
        max_size=6,
    )
)
def test_any_row_comes_back(row: dict[str, object]) -> None:
    """Whatever a row holds, decoding gives strings as they were and other values' own text."""
    spelled = {name: json.dumps(value, ensure_ascii=False) for name, value in row.items()}
    image = "{" + ",".join(f"{json.dumps(n)}:{v}" for n, v in spelled.items()) + "}"
    columns = [(name, value is None or isinstance(value, str)) for name, value in row.items()]
    expected = tuple(
        value if value is None or isinstance(value, str) else spelled[name]
        for name, value in row.items()
    )
    assert RowDecoder("t", columns, P).decode(image.encode("utf-8", "replace"), 0) == expected


@pytest.mark.parametrize("placeholder_in", [None, 7, 700])
def test_many_images_are_decoded_as_each_is(placeholder_in: int | None) -> None:
    """Together or one by one; what may hold a placeholder is left to be looked at alone."""
    columns = [("id", False), ("ok", False), ("text", True), ("other", False)]
    decoder = RowDecoder("s.t", columns, P)
    images = [
        msgspec.Raw(
            json.dumps(
                {
                    "id": n,
                    "ok": [True, False, None][n % 3],
                    "text": P if n == placeholder_in else ["a\tb\\", "\u00e4", None][n % 3],
                    "other": ["NaN", None, {"a": [1.50]}][n % 3],
                }
            ).encode()
        )
        for n in range(1200)
    ]
    many = decoder.decode_many(images)
    each = [decoder.decode(image, 1) for image in images]
    assert [n for n, row in enumerate(many) if row is None] == (
        [] if placeholder_in is None else [placeholder_in]
    )
    assert all(one is None or one == other for one, other in zip(many, each, strict=True))


def test_an_image_that_is_not_as_it_should_be_is_left_to_be_named() -> None:
    """One with a column too many, and one that would be two, spoil no other's."""
    decoder = RowDecoder("s.t", [("id", False)], P)
    good = [msgspec.Raw(b'{"id":1}')] * 600
    assert (
        decoder.decode_many([*good, msgspec.Raw(b'{"id":1,"x":2}')])
        == [("1",)] * 500 + [None] * 101
    )
    assert decoder.decode_many([msgspec.Raw(b'{"id":1},{"id":2}')]) == [None]
