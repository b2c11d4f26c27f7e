"""What single message transforms do to events, by their classes."""

from __future__ import annotations

from collections.abc import Iterator

from cdc_migrator.capture.lint.rule import Config

# They leave every event as it is, or add headers.
HARMLESS = frozenset(
    {
        "org.apache.kafka.connect.transforms.RegexRouter",
        "org.apache.kafka.connect.transforms.InsertHeader",
        "io.debezium.transforms.ExtractChangedRecordState",
    }
)
# They drop events or parts of them, or put another value in place of one.
LOSSY = frozenset(
    {
        "io.debezium.transforms.ExtractNewRecordState",
        "io.debezium.transforms.Filter",
        "io.debezium.transforms.HeaderToValue",
        "io.debezium.transforms.SchemaChangeEventFilter",
        "io.debezium.transforms.TimezoneConverter",
        "io.debezium.transforms.VectorToJsonConverter",
        "io.debezium.transforms.SwapGeometryCoordinates",
        "io.debezium.transforms.outbox.EventRouter",
        "org.apache.kafka.connect.transforms.Cast",
        "org.apache.kafka.connect.transforms.DropHeaders",
        "org.apache.kafka.connect.transforms.ExtractField",
        "org.apache.kafka.connect.transforms.Filter",
        "org.apache.kafka.connect.transforms.Flatten",
        "org.apache.kafka.connect.transforms.HoistField",
        "org.apache.kafka.connect.transforms.InsertField",
        "org.apache.kafka.connect.transforms.MaskField",
        "org.apache.kafka.connect.transforms.ReplaceField",
        "org.apache.kafka.connect.transforms.SetSchemaMetadata",
        "org.apache.kafka.connect.transforms.TimestampConverter",
        "org.apache.kafka.connect.transforms.ValueToKey",
    }
)
# They spread events over topics or partitions in another way than by table.
SCATTERING = frozenset(
    {
        "io.debezium.transforms.ByLogicalTableRouter",
        "io.debezium.transforms.ContentBasedRouter",
        "io.debezium.transforms.partitions.PartitionRouting",
        "org.apache.kafka.connect.transforms.TimestampRouter",
    }
)


def _types(config: Config) -> Iterator[tuple[str, str]]:
    """The setting that names each transform's class, and the class without ``$Key``, ``$Value``."""
    for alias in config.given.get("transforms", "").split(","):
        if alias.strip():
            setting = f"transforms.{alias.strip()}.type"
            yield setting, config.given.get(setting, "").strip().partition("$")[0]


def lossy(config: Config) -> list[str]:
    """Settings of transforms that lose something."""
    return [setting for setting, kind in _types(config) if kind in LOSSY]


def scattering(config: Config) -> list[str]:
    """Settings of transforms after which commit order is lost."""
    return [setting for setting, kind in _types(config) if kind in SCATTERING]


def unknown(config: Config) -> list[str]:
    """Settings of transforms of which nothing is known here."""
    known = HARMLESS | LOSSY | SCATTERING
    return [setting for setting, kind in _types(config) if kind not in known]
