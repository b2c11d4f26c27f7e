"""Read the settings: flags over environment over migration.yaml, all faults reported together.

The only place where the environment is read.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsError,
)

from cdc_migrator.config import document
from cdc_migrator.config.document import Document, Fault, KeyPath
from cdc_migrator.config.section import variants, written
from cdc_migrator.config.settings import ENV_PREFIX, Settings
from cdc_migrator.config.values import FromFile
from cdc_migrator.errors import ConfigurationError

FILE_NAME = "migration.yaml"
FILE_VARIABLE = ENV_PREFIX + "CONFIG"
STATE_DIR = ".cdc-migrator"

# Kubernetes gives these to every pod beside a Service that is called cdc-migrator; we give some to
# a hook's command, which may call us; the tests have variables of their own.
_NO_SETTING = re.compile(
    r"SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?|TEST_\w+"
    r"|MOMENT|SIDE|MIGRATION|ATTEMPT|(SOURCE|TARGET)_(HOST|PORT|DBNAME)"
)


def find(config_path: Path | None = None) -> Path | None:
    """The configuration file: as given, as ``CDC_MIGRATOR_CONFIG`` says, or the nearest
    ``migration.yaml`` from the working directory upwards; None where there is none.

    Raises:
        ConfigurationError: CDCM-CONFIG-MISSING: the file that was named does not exist.
    """
    named = config_path or (Path(v) if (v := os.environ.get(FILE_VARIABLE)) else None)
    if named is not None:
        if not named.is_file():
            raise _missing(f"there is no configuration file {named}")
        return named.resolve()
    here = Path.cwd()
    for directory in (here, *here.parents):
        candidate = directory / FILE_NAME
        if candidate.is_file():
            return candidate
    return None


def environment_password(side: str) -> SecretStr | None:
    """What ``CDC_MIGRATOR_SOURCE__PASSWORD`` or ``…_TARGET__PASSWORD`` gives, for `init`."""
    given = os.environ.get(f"{ENV_PREFIX}{side.upper()}__PASSWORD")
    return SecretStr(given) if given else None


def load(config_path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """The settings from the file, the environment and `overrides` (nested, the flags).

    A relative path is relative to the file's directory when it stands in the file, else to the
    working directory.

    Raises:
        ConfigurationError: CDCM-CONFIG-MISSING, CDCM-CONFIG-SYNTAX, CDCM-CONFIG-UNKNOWN-KEY or
            CDCM-CONFIG-INVALID, with every fault and its line.
    """
    path = find(config_path)
    flags = dict(overrides or {})
    doc = _read(path) if path else Document(Path(FILE_NAME))
    faults = [*doc.faults, *_unknown_variables()]
    if any(fault.kind == "syntax" for fault in faults):
        raise refuse(faults)
    if path is not None:
        _anchor(doc.values, Settings, path.parent)
        doc.values.setdefault("state_dir", path.parent / STATE_DIR)
    try:
        settings = _assemble(doc.values, flags)
    except ValidationError as error:
        faults += [_fault(e, doc, flags) for e in error.errors(include_input=False)]
    except SettingsError as error:
        faults.append(_undecodable(error))
    else:
        if not faults:
            settings._file = path
            return settings
    if path is None and any(fault.kind == "missing" for fault in faults):
        raise _missing(f"there is no {FILE_NAME} here or in a directory above")
    raise refuse(faults)


Group = TypeVar("Group", bound=BaseModel)


def load_group(path: Path, model: type[Group]) -> tuple[Group, Document]:
    """A file of its own that holds one group of settings, and where in it each key stands.

    Raises:
        ConfigurationError: CDCM-CONFIG-MISSING, CDCM-CONFIG-SYNTAX, CDCM-CONFIG-UNKNOWN-KEY or
            CDCM-CONFIG-INVALID, with every fault and its line.
    """
    doc = _read(path)
    faults = list(doc.faults)
    if not any(fault.kind == "syntax" for fault in faults):
        try:
            found = model.model_validate(doc.values)
        except ValidationError as error:
            faults += [_fault(e, doc, {}, model) for e in error.errors(include_input=False)]
    if faults:
        raise refuse(faults)
    return found, doc


def _assemble(values: dict[str, Any], flags: dict[str, Any]) -> Settings:
    class FromAll(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, values)

    FromAll.__name__ = Settings.__name__
    return FromAll(**flags)


def _read(path: Path) -> Document:
    try:
        return document.read(path)
    except OSError as error:
        raise _missing(f"{path} cannot be read ({error.strerror})") from None


def _anchor(values: dict[str, Any], model: type[BaseModel], base: Path) -> None:
    """Make the file's relative paths absolute, in place."""
    for name, field in model.model_fields.items():
        value = values.get(name)
        inner = _section(field)
        if isinstance(value, dict) and inner is not None:
            _anchor(value, inner, base)
        elif isinstance(value, list):
            for item in value:
                one = variants(field).get(str(item.get("kind"))) if isinstance(item, dict) else None
                if one is not None:
                    _anchor(item, one, base)
        elif _is_path(field) and isinstance(value, str):
            values[name] = base / Path(value).expanduser()
        elif _is_path(field) and isinstance(value, dict):
            for key, one in value.items():
                if isinstance(one, str):
                    value[key] = base / Path(one).expanduser()


def _is_path(field: FieldInfo) -> bool:
    return any(isinstance(mark, FromFile) for mark in _marks(field))


def _marks(field: FieldInfo) -> Iterator[Any]:
    """The annotation marks of a field, also of `X | None` and of a map's values."""
    yield from field.metadata
    for argument in getattr(field.annotation, "__args__", ()):
        yield from getattr(argument, "__metadata__", ())


def _section(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a field holds, also where it may be left out."""
    for candidate in (field.annotation, *getattr(field.annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _within(
    path: KeyPath, root: type[BaseModel]
) -> tuple[type[BaseModel] | None, dict[str, type[BaseModel]]]:
    """The section at `path` below `root`, or the kinds of those in the list there.

    An item's number is followed by its kind, as pydantic has it.
    """
    model = root
    kinds: dict[str, type[BaseModel]] = {}
    for key in path:
        if isinstance(key, int):
            continue
        if key in kinds:
            model, kinds = kinds[key], {}
            continue
        field = model.model_fields.get(key)
        inner = _section(field) if field else None
        kinds = variants(field) if field else {}
        if inner is None and not kinds:
            return None, {}
        model = inner or model
    return (None, kinds) if kinds else (model, {})


def _fields(path: KeyPath, root: type[BaseModel]) -> Iterator[str]:
    """The known keys of the section at `path`."""
    model, _ = _within(path, root)
    for name, field in model.model_fields.items() if model else ():
        yield written(name, field)


def _as_written(path: KeyPath, root: type[BaseModel]) -> KeyPath:
    """The path without the kinds that pydantic puts behind the number of an item."""
    return tuple(
        key
        for at, key in enumerate(path)
        if not (at and isinstance(path[at - 1], int) and key in _within(path[:at], root)[1])
    )


def _fault(
    error: Any, doc: Document, flags: dict[str, Any], root: type[BaseModel] = Settings
) -> Fault:
    full = cast(KeyPath, tuple(error["loc"]))
    path = _as_written(full, root)
    key = ".".join(map(str, path))
    if error["type"] == "extra_forbidden":
        return Fault(_origin(path, doc, flags), key, _nearest(full, root), "unknown")
    if error["type"] == "missing":
        return Fault(_origin(path[:-1], doc, flags), key, "is missing", "missing")
    if error["type"].startswith("union_tag"):
        kinds = ", ".join(_within(full, root)[1])
        return Fault(_origin(path, doc, flags), key, f"needs a kind: one of {kinds}", "invalid")
    message = str(error["msg"]).removeprefix("Value error, ")
    return Fault(_origin(path, doc, flags), key, message[:1].lower() + message[1:], "invalid")


def _nearest(path: KeyPath, root: type[BaseModel]) -> str:
    known = list(_fields(path[:-1], root))
    near = difflib.get_close_matches(str(path[-1]).lower(), known, n=1, cutoff=0.5)
    if near:
        meant = ".".join(map(str, (*_as_written(path[:-1], root), near[0])))
        return f"is not known; did you mean {meant}?"
    return f"is not known; known here: {', '.join(known)}"


def _origin(path: KeyPath, doc: Document, flags: dict[str, Any]) -> str:
    """Where the value at `path` was given: on the command line, in the environment, in a file."""
    inside: Any = flags
    for key in path:
        inside = inside.get(key) if isinstance(inside, dict) else None
    if path and inside is not None:
        return "command line"
    for length in range(len(path), 0, -1):
        variable = ENV_PREFIX + "__".join(map(str, path[:length])).upper()
        if variable in os.environ:
            return variable
    return doc.place(path)


def _unknown_variables() -> list[Fault]:
    """Variables of ours that name no setting; inside a known section pydantic finds them."""
    faults = []
    for variable in sorted(os.environ):
        rest = variable.upper().removeprefix(ENV_PREFIX)
        if rest == variable.upper() or variable.upper() == FILE_VARIABLE:
            continue
        first = rest.split("__")[0].lower()
        if first not in Settings.model_fields and not _NO_SETTING.fullmatch(rest):
            near = difflib.get_close_matches(first, Settings.model_fields, n=1, cutoff=0.5)
            meant = f"; did you mean {ENV_PREFIX}{near[0].upper()}?" if near else ""
            faults.append(Fault(variable, "", f"names no setting{meant}", "unknown"))
    return faults


def _undecodable(error: SettingsError) -> Fault:
    named = re.search(r'field "(\w+)"', str(error))
    key = named[1] if named else ""
    return Fault("environment", key, "is not valid JSON", "invalid")


def _by_line(fault: Fault) -> tuple[str, int]:
    name, _, line = fault.where.rpartition(":")
    return (name, int(line)) if line.isdigit() else (fault.where, 0)


def _missing(cause: str) -> ConfigurationError:
    return ConfigurationError(
        "CDCM-CONFIG-MISSING",
        cause,
        "Write one with `cdc-migrator init --source DSN --target DSN`, or name it with --config "
        f"or {FILE_VARIABLE}.",
    )


def refuse(faults: list[Fault]) -> ConfigurationError:
    """What is raised for these faults."""
    code, remedy = "CDCM-CONFIG-INVALID", "Correct what is named; `cdc-migrator config check`."
    if any(fault.kind == "syntax" for fault in faults):
        code = "CDCM-CONFIG-SYNTAX"
    elif all(fault.kind == "unknown" for fault in faults):
        code = "CDCM-CONFIG-UNKNOWN-KEY"
        remedy = "Correct the key; `cdc-migrator config schema` lists all of them."
    lines = [str(fault) for fault in sorted(faults, key=_by_line)]
    cause = lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} faults", *lines])
    return ConfigurationError(code, cause, remedy)
