"""Private keys in the one form that the connector's driver always reads: PKCS #8, DER.

Pure: bytes in, bytes out. Only the wrapping is changed; nothing is computed with a key.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

from cdc_migrator.errors import ConfigurationError

_PEM = re.compile(
    rb"-----BEGIN (?P<kind>[A-Z ]*PRIVATE KEY)-----\s(?P<body>.*?)-----END (?P=kind)-----", re.S
)
_RSA = bytes.fromhex("06092a864886f70d0101010500")  # its identifier, and NULL
_ELLIPTIC = bytes.fromhex("06072a8648ce3d0201")
_SEQUENCE, _OCTETS, _OBJECT, _PARAMETERS = 0x30, 0x04, 0x06, 0xA0
_VERSION = bytes.fromhex("020100")


def pkcs8(given: bytes, name: str) -> bytes:
    """The key in PKCS #8, DER.

    Args:
        given: as libpq reads it: PEM (PKCS #8, or the older forms of RSA and elliptic curves), or
            DER, which stays as it is.
        name: of the file, for messages.

    Raises:
        ConfigurationError: CDCM-SOURCE-CERTIFICATE: it has a password, or is no such key.
    """
    if b"-----BEGIN" not in given:
        return given
    found = _PEM.search(given)
    if found is None:
        raise _unusable(name, "holds no private key")
    kind, body = found["kind"], found["body"]
    if kind == b"ENCRYPTED PRIVATE KEY" or b"ENCRYPTED" in body:
        raise _unusable(name, "is protected by a password, which the connector cannot give")
    try:
        key = base64.b64decode(b"".join(body.split()), validate=True)
    except binascii.Error:
        raise _unusable(name, "is damaged") from None
    if kind == b"PRIVATE KEY":
        return key
    if kind == b"RSA PRIVATE KEY":
        return _wrapped(_RSA, key)
    if kind == b"EC PRIVATE KEY" and (curve := _curve(key)):
        return _wrapped(_ELLIPTIC + curve, _without_curve(key))
    raise _unusable(name, "is of a kind that the connector does not know")


def _wrapped(algorithm: bytes, key: bytes) -> bytes:
    return _item(_SEQUENCE, _VERSION + _item(_SEQUENCE, algorithm) + _item(_OCTETS, key))


def _item(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def _curve(key: bytes) -> bytes | None:
    """The named curve of an elliptic key, as an object identifier with tag and length."""
    for tag, content in _items(key):
        if tag == _PARAMETERS and content[:1] == bytes((_OBJECT,)):
            return content
    return None


def _without_curve(key: bytes) -> bytes:
    """It stands in the wrapping, and need not be said twice."""
    kept = [_item(tag, content) for tag, content in _items(key) if tag != _PARAMETERS]
    return _item(_SEQUENCE, b"".join(kept))


def _items(key: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of what a sequence holds."""
    _, inside, _ = _first(key)
    while inside:
        tag, content, inside = _first(inside)
        yield tag, content


def _first(given: bytes) -> tuple[int, bytes, bytes]:
    """Tag and content of the first item, and what follows it."""
    size, start = given[1], 2
    if size & 0x80:
        start = 2 + (size & 0x7F)
        size = int.from_bytes(given[2:start], "big")
    return given[0], given[start : start + size], given[start + size :]


def _unusable(name: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        "CDCM-SOURCE-CERTIFICATE",
        f"the private key {name} {what}",
        "Name one that the connector can use: PEM or DER, RSA or elliptic curve, without a "
        "password (`openssl pkcs8 -topk8 -nocrypt -in KEY -out NEW`).",
    )
