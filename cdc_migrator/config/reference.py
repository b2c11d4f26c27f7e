"""What can be configured, told in four forms: JSON Schema, a page, a commented file, a safe dump.

All four come from the descriptions in `settings`; `python -m cdc_migrator.config.reference`
prints `docs/configuration.md`.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from cdc_migrator.config.database import Database
from cdc_migrator.config.outside import Kafka
from cdc_migrator.config.section import variants, written
from cdc_migrator.config.settings import Settings
from cdc_migrator.config.values import duration_text, size_text

HIDDEN = "**********"
SENSITIVE = re.compile(r"pass|secret|token|key|jaas|credential", re.IGNORECASE)

_INTRODUCTION = """# Configuration

Generated from the settings' own descriptions (`python -m cdc_migrator.config.reference`).

`migration.yaml` is looked for in the working directory and the directories above it, or named by
`--config` or `CDC_MIGRATOR_CONFIG`. Over the file goes the environment (`CDC_MIGRATOR_` and the
path of the setting in capitals, joined by two underscores: `CDC_MIGRATOR_APPLY__MAX_BATCH_ROWS`),
over the environment go flags (`--set apply.max_batch_rows=1000`, or a verb's own). `init` writes a
commented file, `config check` names every fault at once with its line, `config show` prints what is
in force without secrets, `config schema` prints the JSON Schema for editors and CI.

The file is strict: an unknown or repeated key is an error, aliases are not used, and only `true`
and `false` are truth values. Durations are seconds or text such as `250ms`, `10s`, `5m`; sizes are
bytes or text such as `64MiB`. A relative path in the file is relative to the file.

Passwords are looked for in this order: `password` (the environment), `password_file`, the
connection string, and at last libpq's own ways (`PGPASSWORD`, `~/.pgpass`, a service file). What
was found is written for the Connect worker into `connect.secrets_dir`, together with certificates
and keys, and written anew by `run` when it has changed. None is ever printed, logged, passed as an
argument of a process or stored in the connector's configuration.
"""


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of migration.yaml."""
    schema = Settings.model_json_schema()
    # What the environment may give instead need not stand in the file.
    schema.pop("required", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "cdc-migrator: migration.yaml",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def redacted(settings: Settings) -> dict[str, Any]:
    """The settings in force as plain values, every secret hidden; fit to be printed."""
    return _plain(settings)


def _plain(section: BaseModel) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for attribute, field in type(section).model_fields.items():
        value = getattr(section, attribute)
        name = written(attribute, field)
        if isinstance(section, Database) and name == "dsn":
            shown[name] = section.public_dsn
        elif isinstance(section, Kafka) and name == "properties":
            shown[name] = {
                key: HIDDEN if SENSITIVE.search(key) else secret.get_secret_value()
                for key, secret in section.properties.items()
            }
        elif isinstance(value, BaseModel):
            shown[name] = _plain(value)
        elif isinstance(value, SecretStr):
            shown[name] = HIDDEN
        elif isinstance(value, timedelta):
            shown[name] = duration_text(value)
        elif isinstance(value, tuple):
            shown[name] = [_plain(v) if isinstance(v, BaseModel) else v for v in value]
        elif isinstance(value, dict):
            shown[name] = {key: str(one) for key, one in value.items()}
        else:
            shown[name] = value if value is None or isinstance(value, (int, str)) else str(value)
    return shown


def markdown() -> str:
    """The page `docs/configuration.md`."""
    parts = [_INTRODUCTION]
    top = [(n, f) for n, f in Settings.model_fields.items() if _section(f) is None]
    parts.append("## Top level\n\n" + _table("", top))
    for name, field in Settings.model_fields.items():
        model = _section(field)
        if model is None:
            continue
        told_before = Database.model_fields if name == "target" else {}
        fields = [(key, one) for key, one in model.model_fields.items() if key not in told_before]
        own = [(key, one) for key, one in fields if _section(one) is None]
        heading = "`source` and `target`" if name == "source" else f"`{name}`"
        told = str(model.__doc__) if name == "source" else str(field.description)
        listed = get_origin(field.annotation) is tuple
        if listed:
            told += f"\n\nEach entry: {inspect.cleandoc(str(model.__doc__))}"
        prefix = "" if listed else f"{name}."
        parts.append(f"## {heading}\n\n{told}\n\n" + _table(prefix, own))
        for key, one in fields:
            if (below := _section(one)) is not None:
                parts.append(_nested(name, key, below))
        for key, one in own:
            for kind, inner in variants(one).items():
                told = inspect.cleandoc(str(inner.__doc__))
                title = f"## `{name}.{key}`, kind `{kind}`\n\n{told}\n\n"
                parts.append(title + _table("", inner.model_fields.items()))
    return "\n".join(parts)


def _nested(name: str, key: str, model: type[BaseModel]) -> str:
    """A group of settings within another one, and those within that."""
    both = f"`{name}.{key}` and `target.{key}`" if name == "source" else f"`{name}.{key}`"
    told = inspect.cleandoc(str(model.__doc__))
    page = f"## {both}\n\n{told}\n\n" + _table(f"{name}.{key}.", model.model_fields.items())
    for inner in dict.fromkeys(filter(None, map(_section, model.model_fields.values()))):
        page += f"\nEach of them: {inner.__doc__}\n\n" + _table("", inner.model_fields.items())
    return page


def _table(prefix: str, fields: Any) -> str:
    rows = ["| Key | Default | Meaning |", "|---|---|---|"]
    for name, field in fields:
        default = _default(name, field)
        shown = "required" if default is None else f"`{default}`" if default else ""
        told = str(field.description).replace("|", "\\|")
        rows.append(f"| `{prefix}{written(name, field)}` | {shown} | {told} |")
    return "\n".join(rows) + "\n"


def _default(name: str, field: FieldInfo) -> str | None:
    """The default as it would be written in the file; '' for none, None where required."""
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return None
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, tuple):
        return json.dumps([_item(one) for one in value])
    if isinstance(value, timedelta):
        return duration_text(value)
    if isinstance(value, int) and name.endswith(("_bytes", "_wal_warn", "_wal_limit")):
        return size_text(value)
    return str(value)


def _item(one: Any) -> Any:
    return one.model_dump(mode="json", exclude_unset=True) if isinstance(one, BaseModel) else one


def _section(field: FieldInfo) -> type[BaseModel] | None:
    for candidate in (field.annotation, *get_args(field.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def commented_defaults(sections: tuple[str, ...]) -> str:
    """These sections as YAML that is commented out, each key with its default and meaning."""
    return "\n".join(line.rstrip() for name in sections for line in _commented(name)) + "\n"


def _commented(name: str) -> Iterator[str]:
    field = Settings.model_fields[name]
    model = _section(field)
    yield f"# {field.description}"
    if model is None:
        yield f"# {name}: {_default(name, field)}"
    else:
        yield f"# {name}:"
        for key, inner in model.model_fields.items():
            setting = f"{key}: {_default(key, inner) or ''}"
            yield f"#   {setting:<26} # {inner.description}"
    yield ""


if __name__ == "__main__":
    print(markdown(), end="")  # noqa: T201
