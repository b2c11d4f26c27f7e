"""Where the schemas come from: this directory, packages that are fetched, files that are given."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

HERE = Path(__file__).parent


@dataclass(frozen=True)
class RealSchema:
    """A schema with its rows, as scripts for psql.

    Attributes:
        refused: how many statements every server refuses; None: not known.
    """

    name: str
    origin: str
    licence: str
    scripts: tuple[str, ...] = field(repr=False)
    refused: int | None = 0


def pagila() -> RealSchema:
    """The DVD shop with its rows."""
    return RealSchema(
        "pagila",
        "crate sea-schema 0.18.1",
        "BSD",
        (_kept("pagila/schema"), "SET synchronous_commit = off;\n" + _kept("pagila/data")),
        4,
    )


def procrastinate() -> RealSchema:
    """A queue of jobs: functions, triggers, enumerations."""
    return RealSchema(
        "procrastinate", "Python package 3.10.0", "MIT", (_kept("procrastinate/schema"),)
    )


def musicbrainz() -> RealSchema:
    """MusicBrainz with all its indexes, triggers and views in several schemas."""
    wheel = _wheel(
        "mbslave==28.0.0", "3b08710b18614786f25f6f35c4d24e75f519ef15253c147da80f7b764b05aaa1"
    )
    with zipfile.ZipFile(wheel) as files:
        names = set(files.namelist())

        def read(name: str) -> str | None:
            path = f"mbslave/sql/{name}"
            return files.read(path).decode() if path in names else None

        scripts = list(_musicbrainz(read))
    whole = "\n".join(scripts)
    return RealSchema("musicbrainz", "Python package mbslave 28.0.0", "GPL-2.0", (whole,))


_PARTS = {
    "musicbrainz": "",
    "cover_art_archive": "caa/",
    "event_art_archive": "eaa/",
    "statistics": "statistics/",
    "documentation": "documentation/",
    "wikidocs": "wikidocs/",
}
_STEPS = (
    *("Tables", "PrimaryKeys", "Functions", "MirrorOnlyFunctions", "Indexes", "MirrorIndexes"),
    *("Constraints", "FKConstraints", "Views", "Triggers", "SearchIndexes"),
)
# The tests' server is built without ICU.
_ICU = re.compile(r"provider = icu,\s*locale = '[^']*'")


def _musicbrainz(read: Callable[[str], str | None]) -> Iterator[str]:
    for schema in (*_PARTS, "sitemaps", "json_dump", "dbmirror2", "report"):
        yield f"CREATE SCHEMA {schema};"
    first = ("Extensions", "CreateSearchConfiguration", "CreateCollations", "CreateTypes")
    steps = [("public" if name == first[0] else "musicbrainz", f"{name}.sql") for name in first]
    steps += [
        (schema, f"{folder}Create{step}.sql")
        for step in _STEPS
        for schema, folder in _PARTS.items()
    ]
    for schema, name in [*steps, ("musicbrainz", "InsertDefaultRows.sql")]:
        text = read(name)
        if text is not None:
            plain = _ICU.sub("provider = libc, locale = 'C'", text)
            yield f"SET search_path = {schema}, public;\n{plain}"


def synapse() -> RealSchema:
    """The Matrix server's three parts."""
    wheel = _wheel("matrix-synapse==1.163.2")
    with zipfile.ZipFile(wheel) as files:
        full = sorted(
            name
            for name in files.namelist()
            if re.search(r"schema/(main|state|common)/full_schemas/72/full\.sql\.postgres$", name)
        )
        scripts = tuple(files.read(name).decode() for name in full)
    return RealSchema("synapse", "Python package matrix-synapse 1.163.2", "AGPL-3.0", scripts)


def zabbix() -> RealSchema:
    """The monitoring server with the rows that it is delivered with."""
    return _debian(
        "zabbix-server-pgsql",
        "zabbix",
        "GPL-2.0",
        [f"usr/share/zabbix-server-pgsql/{part}.sql.gz" for part in ("schema", "images", "data")],
    )


def kea() -> RealSchema:
    """The DHCP server: many functions, a trigger for every change."""
    return _debian(
        "kea-admin", "kea", "MPL-2.0", ["usr/share/kea/scripts/pgsql/dhcpdb_create.pgsql"]
    )


def graphile_worker() -> RealSchema:
    """A queue of jobs, as its migrations make it one after the other."""
    with tempfile.TemporaryDirectory() as place:
        _run(["npm", "pack", "--silent", "graphile-worker@0.17.3"], place)
        _run(["tar", "xzf", *(str(p) for p in Path(place).glob("*.tgz"))], place)
        files = sorted(Path(place, "package", "sql").glob("*.sql"))
        texts = [path.read_text() for path in files]
    whole = [text.replace(":GRAPHILE_WORKER_SCHEMA", "graphile_worker") for text in texts]
    scripts = [f"BEGIN;\n{text}\nCOMMIT;" for text in whole]
    return RealSchema(
        "graphile-worker", "npm 0.17.3", "MIT", ("CREATE SCHEMA graphile_worker;", *scripts)
    )


PACKAGED: Mapping[str, Callable[[], RealSchema]] = {
    "pagila": pagila,
    "procrastinate": procrastinate,
    "musicbrainz": musicbrainz,
    "synapse": synapse,
    "zabbix": zabbix,
    "kea": kea,
    "graphile-worker": graphile_worker,
}


def given(directory: Path) -> Iterator[RealSchema]:
    """``name.sql``, or ``name/*.sql`` in their order, of a directory."""
    for path in sorted(directory.iterdir()):
        files = sorted(path.glob("*.sql")) if path.is_dir() else [path]
        if files and files[0].suffix == ".sql":
            scripts = tuple(file.read_text() for file in files)
            digest = hashlib.sha256("".join(scripts).encode()).hexdigest()[:12]
            yield RealSchema(path.stem, f"given, sha256 {digest}", "not kept", scripts, None)


def _kept(name: str) -> str:
    return lzma.decompress((HERE / f"{name}.sql.xz").read_bytes()).decode()


def _wheel(requirement: str, digest: str | None = None) -> Path:
    """A wheel by its exact version, kept in the user's cache once it was fetched."""
    name, _, version = requirement.partition("==")
    cache = Path(platformdirs.user_cache_dir("cdc-migrator")) / "schemas"
    cache.mkdir(parents=True, exist_ok=True)
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    if not list(cache.glob(pattern)):
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        only = ["--only-binary=:all:", "--disable-pip-version-check"]
        _run([*pip, *only, "--dest", str(cache), requirement], str(cache))
    (wheel,) = cache.glob(pattern)
    if digest is not None:
        assert hashlib.sha256(wheel.read_bytes()).hexdigest() == digest, wheel
    return wheel


def _debian(package: str, name: str, licence: str, paths: list[str]) -> RealSchema:
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o777)
        _run(["apt-get", "download", "--quiet", "--quiet", package], place)
        (archive,) = Path(place).glob("*.deb")
        version = _run(["dpkg-deb", "--field", str(archive), "Version"], place).strip()
        _run(["dpkg-deb", "--extract", str(archive), f"{place}/x"], place)
        data = [(path, (Path(place, "x") / path).read_bytes()) for path in paths]
    texts = [gzip.decompress(b) if path.endswith(".gz") else b for path, b in data]
    scripts = tuple(text.decode() for text in texts)
    return RealSchema(name, f"Debian package {package} {version}", licence, scripts)


def _run(command: list[str], place: str) -> str:
    return subprocess.run(
        command, cwd=place, capture_output=True, text=True, check=True, timeout=300
    ).stdout
