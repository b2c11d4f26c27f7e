"""Writes the committed jar lock, when a version changes: `python -m cdc_migrator.stack.lock_jars`.

jgo resolves (its list equals Maven's for these coordinates); sizes and checksums are taken from
the bytes that the repository serves, after they agreed with the SHA-1 that it publishes. A file
without a published checksum is locked as served, and named, so that somebody looks at it once.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import jgo
from jgo.constants import MAVEN_CENTRAL_URL

from cdc_migrator.errors import Failed
from cdc_migrator.stack import lock

KAFKA = "4.3.1"
DEBEZIUM = "3.7.0.Final"
LOG4J = "2.25.4"

# Each tuple is resolved on its own. Resolved together with Kafka, the logging binding's own parent
# would pin kafka-clients to an old version, which Maven would not do.
CLASS_PATH = (
    tuple(
        f"org.apache.kafka:{artifact}:{KAFKA}"
        for artifact in (
            "kafka_2.13",
            "connect-runtime",
            "connect-json",
            "connect-transforms",
            "kafka-tools",
        )
    ),
    # Kafka speaks to slf4j 1.7; without the matching binding Connect logs nothing.
    (f"org.apache.logging.log4j:log4j-slf4j-impl:{LOG4J}",),
)
PLUGINS = (("io.debezium", "debezium-connector-postgres", DEBEZIUM, "plugin", "tar.gz"),)


def repository_path(group: str, artifact: str, version: str, classifier: str, kind: str) -> str:
    """Where the standard Maven layout keeps a file."""
    tail = f"-{classifier}" if classifier else ""
    return f"{group.replace('.', '/')}/{artifact}/{version}/{artifact}-{version}{tail}.{kind}"


def resolve(endpoints: Iterable[str]) -> dict[str, str]:
    """Coordinates to repository path of the endpoints and everything they need at run time."""
    resolved = {}
    for found in jgo.resolve("+".join(endpoints)):
        parts = (found.groupId, found.artifactId, found.version)
        coordinates = ":".join((*parts, found.classifier) if found.classifier else parts)
        resolved[coordinates] = repository_path(*parts, found.classifier, found.packaging)
    return resolved


def measure(client: httpx.Client, base: str, coordinates: str, path: str) -> lock.Artifact:
    """Size and SHA-256 of the file as the repository serves it. Raises Failed when its bytes do
    not match the checksum published beside it."""
    published = client.get(f"{base}/{path}.sha1")
    content = client.get(f"{base}/{path}").raise_for_status().content
    if published.status_code == httpx.codes.NOT_FOUND:
        sys.stderr.write(f"no published checksum: {path}\n")
    elif hashlib.sha1(content).hexdigest() != published.raise_for_status().text.split()[0]:
        raise Failed(
            "CDCM-STACK-TAMPERED",
            f"{path} does not match the SHA-1 that the repository publishes",
            "run again; if it stays, use another repository",
        )
    return lock.Artifact(coordinates, path, len(content), hashlib.sha256(content).hexdigest())


def build(base: str) -> lock.JarLock:
    wanted: dict[str, str] = {}
    for endpoints in CLASS_PATH:
        wanted |= {k: v for k, v in resolve(endpoints).items() if k not in wanted}
    archives = {":".join(parts): repository_path(*parts) for parts in PLUGINS}
    with httpx.Client(follow_redirects=True, timeout=60) as client, ThreadPoolExecutor(6) as pool:

        def measured(items: dict[str, str]) -> tuple[lock.Artifact, ...]:
            return tuple(pool.map(lambda item: measure(client, base, *item), items.items()))

        return lock.JarLock(class_path=measured(wanted), plugins=measured(archives))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m cdc_migrator.stack.lock_jars", description=__doc__
    )
    parser.add_argument("--output", type=Path, default=lock.COMMITTED)
    output = parser.parse_args().output
    built = build(MAVEN_CENTRAL_URL)
    lock.write(built, output)
    size = sum(artifact.size for artifact in built.artifacts)
    sys.stderr.write(f"{len(built.artifacts)} files, {size / 1e6:.0f} MB, locked in {output}\n")


if __name__ == "__main__":
    main()
