"""Jars of a lock, in a cache on disk: found, verified by SHA-256 on every use, fetched if need be.

A file that differs from the lock is never handed out: in the cache it is fetched again, from the
repository it is refused.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from cdc_migrator.errors import ConfigurationError, Failed, Refused
from cdc_migrator.stack.lock import Artifact
from cdc_migrator.stack.progress import Talk

THREADS = 6
ATTEMPTS = 3
CHUNK = 1 << 18
PARTIAL_KEPT_SECONDS = 24 * 3600


def central_repository() -> str:
    """The central Java repository's address, as the resolver library knows it."""
    try:
        from jgo.constants import MAVEN_CENTRAL_URL
    except ImportError as error:
        raise ConfigurationError(
            "CDCM-STACK-REPOSITORY",
            "no jar repository is configured and the library that knows the central one, jgo, "
            "is not installed",
            "install `cdc-migrator[local]`, or give a mirror with --jar-repository",
        ) from error
    return str(MAVEN_CENTRAL_URL)


def ensure(
    artifacts: Sequence[Artifact], cache: Path, repository: str | None, talk: Talk
) -> dict[str, Path]:
    """Files of ``artifacts`` by coordinates, each verified now.

    ``repository`` is the base address of a Maven repository, or a directory laid out like one
    (`file:/…` or an absolute path); None means the central one.
    Raises Refused (CDCM-STACK-TAMPERED) when the repository serves other bytes than locked, and
    Failed (CDCM-STACK-OFFLINE, CDCM-STACK-REPOSITORY) when it does not serve them at all.
    """
    places = {artifact.coordinates: cache / "jars" / artifact.path for artifact in artifacts}
    with ThreadPoolExecutor(THREADS) as pool:
        intact = list(pool.map(lambda a: is_intact(places[a.coordinates], a), artifacts))
    wanted = [artifact for artifact, ok in zip(artifacts, intact, strict=True) if not ok]
    for artifact in wanted:
        if places[artifact.coordinates].exists():
            talk.say(f"{artifact.name} in the cache differs from the lock: fetching it again")
    if wanted:
        base = (repository or central_repository()).rstrip("/")
        size = sum(artifact.size for artifact in wanted)
        with talk.downloading(len(wanted), size) as arrived:
            fetch_all(wanted, places, cache / "partial", base, arrived)
    return places


def is_intact(path: Path, artifact: Artifact) -> bool:
    """Whether ``path`` holds exactly the locked bytes."""
    try:
        if path.stat().st_size != artifact.size:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == artifact.sha256
    except OSError:
        return False


def fetch_all(
    wanted: Sequence[Artifact],
    places: dict[str, Path],
    partial: Path,
    base: str,
    arrived: Callable[[int], None],
) -> None:
    partial.mkdir(parents=True, exist_ok=True)
    _drop_old(partial)
    with httpx.Client(follow_redirects=True, timeout=httpx.Timeout(30, connect=10)) as client:
        pool = ThreadPoolExecutor(THREADS)
        try:
            futures = [
                pool.submit(fetch, client, base, a, places[a.coordinates], partial, arrived)
                for a in wanted
            ]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        except httpx.TransportError as error:
            raise _offline(wanted, places, base, error) from error
        finally:
            pool.shutdown(cancel_futures=True)


def fetch(
    client: httpx.Client,
    base: str,
    artifact: Artifact,
    place: Path,
    partial: Path,
    arrived: Callable[[int], None],
) -> None:
    """Download one file beside its place and rename it there once its bytes are proven."""
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=artifact.name, dir=partial)
    os.close(handle)
    part = Path(name)
    try:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                _download(client, base, artifact, part, arrived)
                break
            except httpx.TransportError:
                if attempt == ATTEMPTS:
                    raise
                time.sleep(0.2 * attempt)
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)


def _download(
    client: httpx.Client,
    base: str,
    artifact: Artifact,
    part: Path,
    arrived: Callable[[int], None],
) -> None:
    digest, size = hashlib.sha256(), 0
    with part.open("wb") as file, _served(client, base, artifact) as chunks:
        for chunk in chunks:
            size += len(chunk)
            if size > artifact.size:
                break
            digest.update(chunk)
            file.write(chunk)
            arrived(len(chunk))
    if size != artifact.size or digest.hexdigest() != artifact.sha256:
        raise Refused(
            "CDCM-STACK-TAMPERED",
            f"the jar repository {_shown(base)} served {artifact.path} with other bytes than "
            "locked; nothing of it was kept",
            "do not run it: use another repository (--jar-repository), and find out who "
            "changed the file",
        )


@contextmanager
def _served(client: httpx.Client, base: str, artifact: Artifact) -> Iterator[Iterator[bytes]]:
    """The bytes of one file as they come, from the network or from a directory."""
    if _is_directory(base):
        try:
            with (Path(base.removeprefix("file:")) / artifact.path).open("rb") as file:
                yield iter(lambda: file.read(CHUNK), b"")
        except OSError as error:
            raise _not_served(base, artifact, error.strerror or "an error") from error
        return
    with client.stream("GET", f"{base}/{artifact.path}") as response:
        if response.status_code != httpx.codes.OK:
            raise _not_served(base, artifact, f"status {response.status_code}")
        yield response.iter_bytes(CHUNK)


def _not_served(base: str, artifact: Artifact, answer: str) -> Failed:
    return Failed(
        "CDCM-STACK-REPOSITORY",
        f"the jar repository {_shown(base)} answered with {answer} for {artifact.path}",
        "check the mirror given by --jar-repository (it must hold what the central Java "
        "repository holds), or try again later",
    )


def unpack(archive: Path, directory: Path) -> None:
    """Unpack a tar.gz that was verified against the lock."""
    directory.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        # The first releases of Python 3.11 have no filters; there the checksum alone vouches.
        if hasattr(tarfile, "data_filter"):
            tar.extraction_filter = tarfile.data_filter
        tar.extractall(directory)


def _offline(
    wanted: Sequence[Artifact], places: dict[str, Path], base: str, error: Exception
) -> Failed:
    missing = [a for a in wanted if not is_intact(places[a.coordinates], a)]
    named = ", ".join(a.coordinates for a in missing[:5])
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    size = sum(a.size for a in missing) / 1e6
    return Failed(
        "CDCM-STACK-OFFLINE",
        f"{len(missing)} jars ({size:.0f} MB) are missing from the cache and {_shown(base)} "
        f"cannot be reached ({type(error).__name__}): {named}{more}",
        "connect this machine once, or give a reachable mirror with --jar-repository, or copy "
        "the cache directory of a machine that has run `cdc-migrator stack up`",
    )


def _is_directory(base: str) -> bool:
    return base.startswith(("/", "file:/"))


def _shown(base: str) -> str:
    """The address without user name, password and query."""
    if _is_directory(base):
        return base
    parts = urlsplit(base)
    return f"{parts.scheme}://{parts.hostname or ''}" + (f":{parts.port}" if parts.port else "")


def _drop_old(partial: Path) -> None:
    """What a killed download left behind, once nobody can be writing it any more."""
    for path in partial.iterdir():
        try:
            if path.stat().st_mtime < time.time() - PARTIAL_KEPT_SECONDS:
                path.unlink()
        except FileNotFoundError:
            continue  # another process was quicker
