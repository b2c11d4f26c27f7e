"""What of the source's schema goes over: pg_dump's sections, less what stays behind."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cdc_migrator.backfill import toc
from cdc_migrator.backfill.diff.run import renamed
from cdc_migrator.backfill.excluded import staying
from cdc_migrator.backfill.schema_options import SchemaOptions
from cdc_migrator.backfill.toc import Entry
from cdc_migrator.backfill.tools import Tools, find
from cdc_migrator.databases.postgres.coded import speaking
from cdc_migrator.databases.postgres.connect import connect
from cdc_migrator.databases.postgres.ddl_trigger import PREFIX
from cdc_migrator.model.naming import Names
from cdc_migrator.model.tables import TableName

Section = Literal["pre-data", "post-data"]


@dataclass(frozen=True, slots=True)
class Listing:
    """One section of a schema, whether or not the target has it.

    Attributes:
        tools: the programs that wrote the dump.
        dump: the whole schema, in pg_dump's custom format.
        entries: of the section, those that go over.
        going: of all sections.
        left_out: for people, what depends on tables that are not migrated, or is never made.
    """

    tools: Tools
    dump: bytes
    entries: list[Entry]
    going: list[Entry]
    left_out: tuple[str, ...]


def read_listing(
    source_dsn: str,
    target_dsn: str,
    names: Names,
    tables: Sequence[TableName],
    options: SchemaOptions,
    section: Section,
) -> Listing:
    """What goes over of the source's schema as it is now; changes nothing.

    After the rows (``post-data``) what the target has under other names is not part of it.

    Raises:
        Refused: CDCM-SCHEMA-DEPENDS, CDCM-TOOLS-MISSING, CDCM-TOOLS-VERSION, CDCM-TOOLS-TLS.
        Failed: CDCM-TOOL-FAILED, or a server's error in coded form.
    """
    called = f"cdcm-{names.migration}-schema"
    with (
        connect(source_dsn, application_name=called, side="source") as source,
        connect(target_dsn, application_name=called, side="target") as target,
        tempfile.TemporaryDirectory(prefix="cdcm-schema-") as directory,
        ThreadPoolExecutor(2, thread_name_prefix="schema-reading") as beside,
    ):
        tools = find(
            source.info.server_version,
            target.info.server_version,
            options.postgres_bin,
            tls=source.pgconn.ssl_in_use or target.pgconn.ssl_in_use,
        )
        file = Path(directory) / "schema.dump"
        depending = beside.submit(staying, source, tables)  # takes as long as the dump
        if section == "post-data":
            otherwise = beside.submit(renamed, source_dsn, target_dsn, names, tables)
        tools.run(
            "pg_dump",
            [
                "--format=custom",
                "--schema-only",
                "--no-owner",
                *([] if options.grants else ["--no-privileges"]),
                "--no-publications",
                "--no-subscriptions",
                "--exclude-schema=cdc_migrator",
                f"--file={file}",
            ],
            source,
        )
        with speaking("source", "reading the dependencies of its tables"):
            excluded, left_out = depending.result()
        entries = toc.parse(tools.contents(file))
        going = toc.without(entries, excluded)
        left_out += [
            e.label for e in entries if e.kind == "EVENT TRIGGER" and PREFIX not in e.label
        ]
        numbers = {entry.number for entry in toc.parse(tools.contents(file, section))}
        in_section = [entry for entry in going if entry.number in numbers]
        if section == "post-data":
            in_section = toc.without_renamed(in_section, otherwise.result())
        return Listing(tools, file.read_bytes(), in_section, going, tuple(left_out))
