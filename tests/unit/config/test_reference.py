"""What the settings say of themselves is complete and current."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from pydantic import BaseModel

from cdc_migrator.config import reference
from cdc_migrator.config.loader import load
from cdc_migrator.config.settings import Settings
from cdc_migrator.config.starter import Found, Side, text
from cdc_migrator.model.tables import Column, ReplicaIdentity, Table, TableName

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_page_is_current() -> None:
    """`python -m cdc_migrator.config.reference > docs/configuration.md` after a change."""
    assert PAGE.read_text(encoding="utf-8") == reference.markdown()


def test_every_setting_has_a_description() -> None:
    """Of the top level and of each section."""

    def check(model: type[BaseModel]) -> None:
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
            inner = reference._section(field)
            if inner is not None:
                check(inner)

    check(Settings)


def test_the_schema_forbids_unknown_keys_everywhere() -> None:
    """So that an editor shows them; nothing is required that the environment may give."""
    schema = reference.json_schema()
    sections = [schema, *schema["$defs"].values()]
    assert all(s["additionalProperties"] is False for s in sections if "properties" in s)
    assert "required" not in schema
    json.dumps(schema)


def test_the_commented_defaults_are_the_defaults(workdir: Path) -> None:
    """Taking the comment marks away gives a file that changes nothing."""
    minimal = {
        "name": "shop",
        "source": {"dsn": "postgresql://db1/shop"},
        "target": {"dsn": "postgresql://db2/shop"},
    }
    path = workdir / "migration.yaml"
    path.write_text(yaml.safe_dump(minimal))
    plain = reference.redacted(load())
    lines = reference.commented_defaults(
        ("capture", "load", "apply", "service", "ready")
    ).splitlines()
    uncommented = [line[2:] for line in lines if line.startswith("# ") and ":" in line]
    uncommented = [line for line in uncommented if line[0] == " " or line.endswith(":")]
    path.write_text(yaml.safe_dump(minimal) + "\n".join(uncommented) + "\n")
    assert reference.redacted(load()) == plain
    assert len(uncommented) > 10


def test_the_starter_file_is_valid_whatever_a_table_is_called(workdir: Path) -> None:
    """A name cannot leave its comment or break a pattern."""
    nasty = 'a"\n- b: *[c]'
    column = Column("id", "integer", "pg_catalog.int4", "b", None, None, True, False, "")
    table = Table(
        TableName(nasty, nasty), (column,), (), ReplicaIdentity.DEFAULT, None, 12, 8 << 10
    )
    side = Side("postgresql://app@db/shop", None, "CDC_MIGRATOR_SOURCE__PASSWORD", "server 18")
    other = Side("host=db2 dbname='x y'", ".cdc-migrator/target.password", "X", "line\nbreak")
    found = Found("shop", side, other, [table], [(nasty, "no identity", f"ALTER {nasty}")])
    (workdir / "migration.yaml").write_text(text(found))
    settings = load()
    assert settings.target.parameters() == {"host": "db2", "dbname": "x y"}
    assert settings.target.password_file == workdir / ".cdc-migrator/target.password"
    assert settings.tables.include == ('a"\n- b: [*][[]c].*',)
