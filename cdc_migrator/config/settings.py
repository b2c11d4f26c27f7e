"""The settings: what can be said in migration.yaml, the environment and on the command line.

Values only, each frozen and with its description; reading them together is `loader`'s work.
A secret is a SecretStr and is revealed in the two methods that say so, at the time of connecting.
"""

from __future__ import annotations

import warnings
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PrivateAttr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from cdc_migrator.config.backup import Backup
from cdc_migrator.config.cutover import Cutover
from cdc_migrator.config.database import Database
from cdc_migrator.config.mapping import TableMapping, told_apart
from cdc_migrator.config.outside import Connect, Kafka
from cdc_migrator.config.people import People
from cdc_migrator.config.ready import Ready
from cdc_migrator.config.reconcile import Reconcile
from cdc_migrator.config.section import Section
from cdc_migrator.config.stack import Stack
from cdc_migrator.config.validate import Validate
from cdc_migrator.config.values import Duration, FilePath, Size, TextLike, Words
from cdc_migrator.config.watch import Watch
from cdc_migrator.model.changes import BadRecords, SchemaPolicy, TruncatePolicy
from cdc_migrator.model.naming import NAME_PATTERN
from cdc_migrator.model.retained import RetainedAction

ENV_PREFIX = "CDC_MIGRATOR_"


class Target(Database):
    """How to reach the target, and whether others may write to it."""

    fence: bool = Field(
        default=True,
        description="From before a table's first row until the cutover only this migration may "
        "change rows of the target's tables: a trigger on each refuses all others, with SQLSTATE "
        "25006. The role must own the tables. When it is switched off, the next `migrate` or `run` "
        "removes the triggers.",
    )
    free_bytes: Size | None = Field(
        default=None,
        ge=0,
        description="How much is free on the target's disk, for `check`, which can see it only "
        "where the server runs on this machine. It is compared with what the tables and indexes "
        "take on the source.",
    )


class Tables(Section):
    """Which tables move. Partitions are also chosen by the name of their partitioned table."""

    include: Words = Field(
        default=("*",), min_length=1, description="Shell patterns over schema.table, such as shop.*"
    )
    exclude: Words = Field(
        default=(), description="Patterns of tables to leave out; win over include."
    )


class Capture(Section):
    """How changes are captured on the source."""

    slot_patience: Duration = Field(
        default=timedelta(minutes=10),
        description="Making the slot, or adding a table, waits for every transaction that is open "
        "on the source: at most this long.",
    )
    streaming_patience: Duration = Field(
        default=timedelta(minutes=2),
        description="How long the connector may take until the first change arrives in Kafka.",
    )
    source_host: str | None = Field(
        default=None,
        description="The source's host as the Connect worker reaches it. Default: the DSN's.",
    )
    source_port: int | None = Field(
        default=None, ge=1, le=65535, description="Its port as the worker reaches it."
    )
    target_host: str | None = Field(
        default=None,
        description="For the way back: the target's host as the worker reaches it. Default: the "
        "DSN's.",
    )
    target_port: int | None = Field(
        default=None, ge=1, le=65535, description="Its port as the worker reaches it."
    )
    connector: dict[str, Annotated[str, TextLike]] = Field(
        default_factory=dict,
        description="More connector settings, such as max.batch.size; those that exactness rests "
        "on cannot be changed, and secrets do not belong here.",
    )
    retained_wal_warn: Size | None = Field(
        default=10 << 30,
        ge=1 << 20,
        description="When the source keeps more log than this for the slot, `run` warns; null: "
        "never.",
    )
    retained_wal_limit: Size | None = Field(
        default=None,
        ge=1 << 20,
        description="When it keeps more than this, `run` does what capture.retained_wal_action "
        "says. Default: there is no limit.",
    )
    retained_wal_action: RetainedAction = Field(
        default=RetainedAction.ALERT,
        description="Beyond the limit: `alert` tells it, and the verdict on switching over is no; "
        "`drop-slot` drops the slot so that the source's disk does not fill, which "
        "`migrate --new-capture` mends. Only the slot that capture.drop_slot_confirmed names.",
    )
    drop_slot_confirmed: str | None = Field(
        default=None,
        min_length=1,
        description="The name of the slot that may be dropped, as `status` shows it. It ends in "
        "the capture's number: what was confirmed for one capture does not hold for the next.",
    )

    @model_validator(mode="after")
    def _limit_above_warning(self) -> Capture:
        warn, limit = self.retained_wal_warn, self.retained_wal_limit
        if self.retained_wal_action is RetainedAction.DROP_SLOT and limit is None:
            raise ValueError("retained_wal_action: drop-slot needs a retained_wal_limit")
        if warn is not None and limit is not None and limit < warn:
            raise ValueError("retained_wal_limit must not be below retained_wal_warn")
        return self


class Load(Section):
    """The first copy of what is already there."""

    workers: int = Field(
        default=4, ge=1, le=64, description="Tables or parts of tables copied at once."
    )
    chunk_bytes: Size = Field(
        default=64 << 20,
        ge=1 << 20,
        description="Size of the parts that a large table is copied in.",
    )
    freeze_bytes: Size = Field(
        default=1 << 30,
        ge=0,
        description="A table up to this size is copied in one part, whose rows are frozen as they "
        "are written: indexes and foreign keys are then made faster. A part that is interrupted "
        "is copied again from its beginning. Not where the load is held back by the limits below.",
    )
    index_jobs: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Indexes and keys built at once, beside the load and after it; each takes a "
        "session of the target. Default: as many as workers.",
    )
    index_memory: Size | None = Field(
        default=None,
        ge=1 << 20,
        description="maintenance_work_mem of each build, at most. Without parallel workers a "
        "b-tree gets no more than lets its sort be merged in one pass, 16MiB for a gigabyte: "
        "with more it takes longer. Default: the target's own setting.",
    )
    index_workers: int | None = Field(
        default=None,
        ge=0,
        le=64,
        description="Parallel workers of each build (max_parallel_maintenance_workers); 0 is best "
        "where index_jobs already keeps the target's cores busy. Default: the target's own "
        "setting.",
    )
    max_rows_per_second: int | None = Field(
        default=None, ge=1, description="Held to this many rows a second. Default: as many as go."
    )
    max_bytes_per_second: Size | None = Field(
        default=None, ge=1024, description="The same by bytes, as COPY sends them."
    )
    max_replica_lag: Duration | None = Field(
        default=None,
        description="The load pauses while a physical standby of the source is further behind.",
    )
    max_active_sessions: int | None = Field(
        default=None,
        ge=0,
        description="The load pauses while more sessions of others are at work on the source.",
    )


class Apply(Section):
    """How changes are put into the target."""

    max_batch_rows: int = Field(
        default=50_000,
        ge=1,
        description="A batch is closed at the end of the transaction that reaches it.",
    )
    max_batch_bytes: Size = Field(
        default=32 << 20, ge=1 << 10, description="The same by size of the events."
    )
    max_batch_age: Duration = Field(
        default=timedelta(milliseconds=500),
        description="The same by age; a topic read to its end closes a batch at once.",
    )
    inline_rows: int = Field(
        default=250,
        ge=0,
        description="So many rows of a table in a batch go along with the statement that writes "
        "them; more go into a temporary table by COPY.",
    )
    queue_bytes: Size = Field(
        default=48 << 20, ge=1 << 20, description="Events read ahead of the applier, at most."
    )
    transaction_bytes: Size = Field(
        default=64 << 20,
        ge=1 << 10,
        description="A source transaction larger than this waits in a file on disk for its end, "
        "not in memory; it is applied in one transaction all the same.",
    )
    spill_dir: FilePath | None = Field(
        default=None, description="Where that file is made. Default: where temporary files go."
    )
    reread_bytes: Size = Field(
        default=10 << 30,
        ge=0,
        description="Where the connector may have lost changes of a table, or the target lacks "
        "rows that the stream changes, `run` reads tables up to this size again by itself, while "
        "the stream stands still. Larger ones halt it until `backfill --again` is typed.",
    )
    truncates: TruncatePolicy = Field(
        default=TruncatePolicy.APPLY,
        description="Where the source truncates a table: `apply` it, `halt` the stream, or "
        "`ignore` it, after which the verdict on switching over is no.",
    )
    ddl: SchemaPolicy = Field(
        default=SchemaPolicy.HALT,
        description="Where the source changes the schema of a table: `halt` in front of it until "
        "the target has the change, which `status` names with its statement; or `apply` what is "
        "safe by itself, and halt at the rest (docs/schema-changes.md).",
    )
    bad_records: BadRecords = Field(
        default=BadRecords.HALT,
        description="Where the target does not accept a record: `halt` the stream in front of it, "
        "or `park` it with all later records of its key and go on, after which the verdict on "
        "switching over is no until that is settled (`cdc-migrator dead-letters`).",
    )
    most_parked: int = Field(
        default=1_000,
        ge=1,
        description="So many keys are parked at a time; with more, the stream halts.",
    )
    retry_for: Duration = Field(
        default=timedelta(minutes=5),
        description="How long errors that pass by themselves (server restart, deadlock) are tried "
        "again before the service stops.",
    )


class Service(Section):
    """The long-running `cdc-migrator run`."""

    http_host: str = Field(
        default="127.0.0.1", description="Where /metrics, /livez, /readyz and /healthz are served."
    )
    http_port: int | None = Field(
        default=8642,
        ge=0,
        le=65535,
        description="Its port; 0 takes any free one, null serves nothing.",
    )
    takeover_after: Duration = Field(
        default=timedelta(seconds=15),
        description="A second process takes over when the owner was not seen for this long.",
    )


class _Most(BaseSettings):
    """Everything but what `Settings` adds."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        defer_build=True,
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        env_parse_none_str="null",
    )

    name: str = Field(
        pattern=f"^{NAME_PATTERN}$",
        description="Name of the migration: lower-case letters, digits, underscores. The slot, "
        "the connector and the topic are named after it.",
    )
    source: Database = Field(description="The database that the application writes to now.")
    target: Target = Field(description="The database that it moves to.")
    kafka: Kafka | None = Field(default=None, description=str(Kafka.__doc__))
    connect: Connect | None = Field(default=None, description=str(Connect.__doc__))
    accept: dict[str, Annotated[str, Field(pattern=r"\S")]] = Field(
        default={},
        description="What `check` finds and somebody answers for: code to reason, such as "
        "`CDCM-LEFT-JOBS: made by hand on the day`. `check` then only warns, and `status` shows it "
        "for as long as it stands here.",
    )
    tables: Tables = Field(default=Tables(), description=str(Tables.__doc__))
    mapping: tuple[TableMapping, ...] = Field(
        default=(),
        description="Tables that change their shape on the way (docs/transform.md).",
    )
    grants: bool = Field(
        default=False,
        description="Who may do what (GRANT, ALTER DEFAULT PRIVILEGES) comes along with the "
        "schema, and is compared. Roles are not made: those that are named must be on the target.",
    )
    capture: Capture = Field(default=Capture(), description=str(Capture.__doc__))
    load: Load = Field(default=Load(), description=str(Load.__doc__))
    apply: Apply = Field(default=Apply(), description=str(Apply.__doc__))
    service: Service = Field(default=Service(), description=str(Service.__doc__))
    reconcile: Reconcile = Field(default=Reconcile(), description=str(Reconcile.__doc__))
    ready: Ready = Field(default=Ready(), description=str(Ready.__doc__))
    cutover: Cutover = Field(default=Cutover(), description=str(Cutover.__doc__))
    watch: Watch = Field(default=Watch(), description=str(Watch.__doc__))
    backup: Backup = Field(default=Backup(), description=str(Backup.__doc__))
    people: People = Field(default=People(), description=str(People.__doc__))
    stack: Stack = Field(default=Stack(), description=str(Stack.__doc__))
    postgres_bin: FilePath | None = Field(
        default=None,
        description="Directory of pg_dump and pg_restore (and of the server for the local "
        "stack). Default: the PATH, then the wheel of the `local` extra.",
    )
    state_dir: FilePath = Field(
        default=Path(".cdc-migrator"),
        description="Directory for what a migration keeps on this machine (logs of its detached "
        "helpers, password files written by init). Default: beside migration.yaml.",
    )

    _file: Path | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.kafka is None) != (self.connect is None):
            raise ValueError(
                "kafka and connect belong together: name both, or neither for the local stack"
            )
        told_apart(self.mapping)
        return self

    @property
    def file(self) -> Path | None:
        """The file that was read; None where there was none."""
        return self._file

    @property
    def mode(self) -> Literal["local", "external"]:
        """Who runs Kafka and Connect: the local stack or the user."""
        return "local" if self.kafka is None else "external"


with warnings.catch_warnings():
    # pydantic has a method of this name from older days, which nobody here calls.
    warnings.filterwarnings("ignore", 'Field name "validate"', UserWarning)

    class Settings(_Most):
        """Everything that migration.yaml may say."""

        validate: Validate = Field(  # type: ignore[assignment]
            default=Validate(), description=str(Validate.__doc__)
        )
