"""What every group of settings has in common, and how groups in a list are told apart."""

from __future__ import annotations

from typing import Annotated, get_args, get_origin

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo


class Section(BaseModel):
    """A group of settings: frozen, no unknown keys, defaults checked like given values."""

    # Each verb builds what checks them as a part of the whole; none is built by itself unasked.
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, defer_build=True)


def written(name: str, field: FieldInfo) -> str:
    """A setting as the file calls it: not every word can name an attribute."""
    return field.alias or name


def variants(field: FieldInfo) -> dict[str, type[BaseModel]]:
    """Where a field is a list of groups: each by its ``kind``; empty for any other field."""
    found: dict[str, type[BaseModel]] = {}
    for item in get_args(field.annotation):
        if get_origin(item) is not Annotated:
            continue
        for model in get_args(get_args(item)[0]):
            if isinstance(model, type) and issubclass(model, BaseModel):
                found.update(dict.fromkeys(get_args(model.model_fields["kind"].annotation), model))
    return found
