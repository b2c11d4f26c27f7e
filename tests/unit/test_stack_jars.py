"""Jars reach the class path with exactly the locked bytes, or not at all."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cdc_migrator.errors import ConfigurationError, Failed, Refused
from cdc_migrator.stack import jars, lock
from cdc_migrator.stack.lock import Artifact, JarLock
from cdc_migrator.stack.progress import Silent

CONTENT = {f"org/example/part{n}/1/part{n}-1.jar": bytes([n]) * 5000 for n in range(8)}


@dataclass
class Repository:
    """A Maven repository on loopback; ``asked`` lists the paths that were requested."""

    base: str
    files: dict[str, bytes]
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def repository() -> Iterator[Repository]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.lstrip("/")
            served.asked.append(path)
            body = served.files.get(path)
            self.send_response(200 if body is not None else 404)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Repository(f"http://127.0.0.1:{server.server_port}", dict(CONTENT))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


def artifacts() -> list[Artifact]:
    return [
        Artifact(f"org.example:{Path(path).stem}", path, len(body), sha256(body))
        for path, body in CONTENT.items()
    ]


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def files_below(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def test_a_cold_cache_is_filled_and_a_warm_one_asks_nobody(
    repository: Repository, tmp_path: Path
) -> None:
    """The second use of a cache verifies it without a request."""
    first = jars.ensure(artifacts(), tmp_path, repository.base, Silent())
    assert {path.read_bytes() for path in first.values()} == set(CONTENT.values())
    assert sorted(repository.asked) == sorted(CONTENT)

    repository.asked.clear()
    assert jars.ensure(artifacts(), tmp_path, repository.base, Silent()) == first
    assert repository.asked == []


@pytest.mark.parametrize("change", [b"tampered", b"\x03" * 4999 + b"\x04", b""])
def test_a_changed_jar_in_the_cache_is_fetched_again(
    repository: Repository, tmp_path: Path, change: bytes
) -> None:
    """A cached file that differs, also with its size unchanged, is replaced by the locked one."""
    places = jars.ensure(artifacts(), tmp_path, repository.base, Silent())
    victim = artifacts()[3]
    places[victim.coordinates].write_bytes(change)
    repository.asked.clear()

    places = jars.ensure(artifacts(), tmp_path, repository.base, Silent())

    assert sha256(places[victim.coordinates].read_bytes()) == victim.sha256
    assert repository.asked == [victim.path]


@pytest.mark.parametrize(
    "served", [b"\x03" * 4999 + b"\x04", b"\x03" * 4999, b"\x03" * 100_000, b""]
)
def test_a_tampered_download_is_refused_and_leaves_nothing(
    repository: Repository, tmp_path: Path, served: bytes
) -> None:
    """Wrong bytes, too few and too many are refused by name, and none of them stay on disk."""
    victim = artifacts()[3]
    repository.files[victim.path] = served

    with pytest.raises(Refused, match=r"part3-1\.jar") as caught:
        jars.ensure(artifacts(), tmp_path, repository.base, Silent())

    assert caught.value.code == "CDCM-STACK-TAMPERED"
    assert not (tmp_path / "jars" / victim.path).exists()
    assert list((tmp_path / "partial").iterdir()) == []


def test_offline_with_a_cold_cache_names_what_is_missing(
    repository: Repository, tmp_path: Path
) -> None:
    """The error counts and names the missing jars, not those that the cache has."""
    jars.ensure(artifacts()[:6], tmp_path, repository.base, Silent())

    with pytest.raises(Failed) as caught:
        jars.ensure(artifacts(), tmp_path, "http://127.0.0.1:9", Silent())

    assert caught.value.code == "CDCM-STACK-OFFLINE"
    assert "2 jars" in caught.value.cause
    assert "part6-1" in caught.value.cause
    assert "part7-1" in caught.value.cause
    assert "part5-1" not in caught.value.cause


def test_a_mirrors_password_is_not_shown(tmp_path: Path) -> None:
    """User name and password of a mirror's address stay out of the error."""
    with pytest.raises(Failed) as caught:
        jars.ensure(artifacts(), tmp_path, "http://me:hunter2@127.0.0.1:9/x", Silent())
    assert "hunter2" not in str(caught.value) + caught.value.remedy
    assert "127.0.0.1:9" in caught.value.cause


def test_a_mirror_without_the_jar_is_told_apart_from_no_network(
    repository: Repository, tmp_path: Path
) -> None:
    """A repository that answers, but not with the file, is named as such."""
    del repository.files[artifacts()[0].path]
    with pytest.raises(Failed, match="status 404") as caught:
        jars.ensure(artifacts(), tmp_path, repository.base, Silent())
    assert caught.value.code == "CDCM-STACK-REPOSITORY"


def test_a_directory_serves_as_mirror(tmp_path: Path) -> None:
    """A directory laid out like a repository is read, and checked, like one."""
    mirror = tmp_path / "mirror"
    for path, body in CONTENT.items():
        (mirror / path).parent.mkdir(parents=True)
        (mirror / path).write_bytes(body)

    places = jars.ensure(artifacts(), tmp_path / "cache", str(mirror), Silent())
    assert len(files_below(tmp_path / "cache" / "jars")) == len(places) == len(CONTENT)

    (mirror / artifacts()[0].path).write_bytes(b"tampered")
    with pytest.raises(Refused):
        jars.ensure(artifacts(), tmp_path / "other", f"file:{mirror}", Silent())


@pytest.mark.parametrize("path", ["/etc/passwd", "../../x.jar", "a/../../x.jar", ""])
def test_a_lock_cannot_write_outside_the_cache(tmp_path: Path, path: str) -> None:
    """A lock whose paths leave the repository's tree is not a lock."""
    entry = {"coordinates": "a:b:1", "path": path, "size": 1, "sha256": "00"}
    bad = tmp_path / "lock.json"
    bad.write_text(str({"class_path": [entry], "plugins": []}).replace("'", '"'))
    with pytest.raises(ConfigurationError) as caught:
        lock.read(bad)
    assert caught.value.code == "CDCM-STACK-LOCK"


def test_a_lock_survives_writing_and_reading(tmp_path: Path) -> None:
    """What is written is read back."""
    whole = JarLock(tuple(artifacts()[:5]), tuple(artifacts()[5:]))
    lock.write(whole, tmp_path / "lock.json")
    assert lock.read(tmp_path / "lock.json") == whole


def test_the_committed_lock_pins_every_file_and_no_address() -> None:
    """Coordinates are unique, checksums are whole, and no repository is named."""
    committed = lock.read()
    coordinates = [artifact.coordinates for artifact in committed.artifacts]
    assert len(set(coordinates)) == len(coordinates) == len({a.path for a in committed.artifacts})
    assert all(a.size > 0 and len(bytes.fromhex(a.sha256)) == 32 for a in committed.artifacts)
    assert "://" not in lock.COMMITTED.read_text()
    for part in (
        "kafka_2.13",
        "connect-runtime",
        "log4j-slf4j-impl",
        "debezium-connector-postgres",
    ):
        assert any(f":{part}:" in one for one in coordinates)
