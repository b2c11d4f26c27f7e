"""A certificate authority for tests, by the machine's own openssl."""

from __future__ import annotations

import hashlib
import struct
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.support.tools import debian_tool

# The only host of the tests, and one that none of them is reached as.
HERE = "DNS:localhost,IP:127.0.0.1"
ELSEWHERE = "DNS:elsewhere.example"


@cache
def _program() -> str:
    return str(debian_tool("openssl", "usr/bin/openssl"))


def openssl(*arguments: str) -> bytes:
    """What it writes."""
    return subprocess.run([_program(), *arguments], check=True, capture_output=True).stdout


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, PEM: each in a file, and both in one."""

    certificate: Path
    key: Path
    both: Path


class Authority:
    """Signs certificates; its own is `file`."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self.file = directory / f"{name}.crt"
        self._key = directory / f"{name}.key"
        openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", str(self._key), "-out", str(self.file), "-days", "2",
            "-subj", f"/CN={name}",
            "-addext", "basicConstraints=critical,CA:TRUE",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )  # fmt: skip

    def issue(self, name: str, hosts: str = HERE, days: int = 2) -> Issued:
        """A certificate of CN=`name` for server and client; 0 days: it has expired."""
        base = self._directory / name
        key, request, made = (base.with_suffix(kind) for kind in (".key", ".csr", ".crt"))
        extensions = base.with_suffix(".ext")
        extensions.write_text(f"subjectAltName={hosts}\nextendedKeyUsage=serverAuth,clientAuth\n")
        openssl(
            "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", str(key), "-out", str(request), "-subj", f"/CN={name}",
        )  # fmt: skip
        openssl(
            "x509", "-req", "-in", str(request), "-CA", str(self.file), "-CAkey", str(self._key),
            "-CAcreateserial", "-out", str(made), "-days", str(days),
            "-extfile", str(extensions),
        )  # fmt: skip
        both = base.with_suffix(".pem")
        both.write_text(key.read_text() + made.read_text() + self.file.read_text())
        return Issued(made, key, both)


def key_store(issued: Issued, file: Path, password: str) -> None:
    """Certificate and key in a PKCS #12 file, for servers in Java."""
    openssl(
        "pkcs12", "-export", "-in", str(issued.both), "-out", str(file),
        "-passout", f"pass:{password}", "-name", "server",
    )  # fmt: skip


def trust_store(authority: Path, file: Path, password: str) -> None:
    """One trusted certificate in a file of Java's own kind (JKS), which openssl cannot make."""
    made = openssl("x509", "-in", str(authority), "-outform", "DER")

    def text(value: str) -> bytes:
        return struct.pack(">H", len(value)) + value.encode()

    body = struct.pack(">IIII", 0xFEEDFEED, 2, 1, 2) + text("authority") + struct.pack(">Q", 0)
    body += text("X.509") + struct.pack(">I", len(made)) + made
    salted = password.encode("utf-16-be") + b"Mighty Aphrodite" + body
    file.write_bytes(body + hashlib.sha1(salted, usedforsecurity=False).digest())
