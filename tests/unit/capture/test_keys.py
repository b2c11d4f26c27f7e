"""Private keys, whatever their wrapping, become what openssl makes of them as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc_migrator.capture.keys import pkcs8
from cdc_migrator.errors import ConfigurationError
from tests.support.certificates import openssl

KINDS = {
    "rsa": ("genrsa", "-traditional", "1024"),
    "elliptic curve": ("ecparam", "-genkey", "-name", "prime256v1"),
    "larger curve": ("ecparam", "-genkey", "-noout", "-name", "secp521r1"),
    "pkcs8": ("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"),
    "ed25519": ("genpkey", "-algorithm", "ED25519"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_key_is_wrapped_as_openssl_does(kind: str, tmp_path: Path) -> None:
    """Byte for byte; and what is DER already stays."""
    key = tmp_path / "key.pem"
    key.write_bytes(openssl(*KINDS[kind]))
    expected = openssl("pkcs8", "-topk8", "-nocrypt", "-in", str(key), "-outform", "DER")
    assert pkcs8(key.read_bytes(), "key.pem") == expected
    assert pkcs8(expected, "key.pk8") == expected


def test_a_key_with_a_password_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """Of both kinds; and a file that holds no key."""
    plain = tmp_path / "key.pem"
    plain.write_bytes(openssl(*KINDS["rsa"]))
    for form in (("rsa", "-traditional", "-aes128"), ("pkcs8", "-topk8")):
        locked = openssl(*form, "-in", str(plain), "-passout", "pass:s3cret")
        with pytest.raises(ConfigurationError, match="password") as refused:
            pkcs8(locked, "key.pem")
        assert refused.value.code == "CDCM-SOURCE-CERTIFICATE"
    with pytest.raises(ConfigurationError, match="no private key"):
        pkcs8(b"-----BEGIN CERTIFICATE-----\n", "key.pem")
