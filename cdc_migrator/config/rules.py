"""The rules of `validate`: what the user says must hold of the rows, each kind with its fields."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from cdc_migrator.config.section import Section
from cdc_migrator.config.values import Duration
from cdc_migrator.model.tolerance import NONE, Tolerance

Severity = Literal["blocker", "warning", "info"]
Plain = bool | int | float | str
Tolerated = Annotated[
    Tolerance,
    BeforeValidator(Tolerance.parse),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": r"^\d+(\.\d+)?\s*%?$"},
            ]
        }
    ),
]
Columns = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
_TABLE = r"^[^.]+\..+$"


class _Common(Section):
    """What each kind of rule has."""

    # The fields that tell two rules of a kind about one table apart.
    told_by: ClassVar[tuple[str, ...]] = ()

    name: str | None = Field(
        default=None,
        pattern=r"^[^\x00-\x1f\x7f]{1,120}$",
        description="How results call it. Default: its kind, table and columns.",
    )
    severity: Severity = Field(
        default="blocker",
        description="What it means when it fails: `blocker`: exit code 1, and the verdict on "
        "switching over is no; `warning` and `info` are told and block nothing.",
    )
    timeout: Duration | None = Field(
        default=None,
        gt=timedelta(0),
        description="How long one of its statements may take. Default: validate.timeout.",
    )
    max_examples: int = Field(
        default=5, ge=0, le=1000, description="With `--show-values`: so many rows are named."
    )

    @property
    def called(self) -> str:
        """Its name."""
        return self.name or " ".join(
            [str(getattr(self, "kind", "")), *filter(None, (self._of(one) for one in self._told()))]
        )

    def _told(self) -> tuple[str, ...]:
        return ("table", *self.told_by)

    def _of(self, field: str) -> str:
        value = getattr(self, field, None)
        return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value or "")


class _OnTable(_Common):
    """What each rule about one table has."""

    table: str = Field(
        pattern=_TABLE, description="The table, as schema.table, by the source's name."
    )
    where: str | None = Field(
        default=None,
        min_length=1,
        description="Only rows that meet this SQL condition; names of functions and operators that "
        "are not PostgreSQL's own need their schema.",
    )


class _Violations(_OnTable):
    """What each rule has that counts rows which break it."""

    tolerance: Tolerated = Field(
        default=NONE,
        description="So many rows may break it: a number, or a share of the rows such as `0.1%`.",
    )
    sides: Literal["both", "source", "target"] = Field(
        default="both", description="On which side it must hold."
    )


class Count(_OnTable):
    """Both sides have the same number of rows."""

    kind: Literal["count"] = Field(description="`count`")
    tolerance: Tolerated = Field(
        default=NONE,
        description="By how much they may differ: a number of rows, or a share of the source's "
        "such as `0.1%`.",
    )


class NotNull(_Violations):
    """Columns have a value in every row."""

    told_by = ("columns",)
    kind: Literal["not_null"] = Field(description="`not_null`")
    columns: Columns = Field(description="The columns, each on its own.")


class Types(_Violations):
    """Columns are of the type that they should be."""

    told_by = ("columns", "is_")
    kind: Literal["type"] = Field(description="`type`")
    columns: tuple[str, ...] = Field(default=(), description="The columns. Default: all.")
    is_: str | None = Field(
        default=None,
        alias="is",
        min_length=1,
        description="Every value reads as one of this type, such as `integer`, `date` or `json`: "
        "for text that means something else (PostgreSQL 16 or newer). Default: both sides "
        "declare the column alike.",
    )


class Orphans(_Violations):
    """Rows that a foreign key refers to are there."""

    told_by = ("columns", "references")
    kind: Literal["orphans"] = Field(description="`orphans`")
    columns: tuple[str, ...] = Field(
        default=(),
        description="The columns that refer. Default: each foreign key that is declared on either "
        "side.",
    )
    references: str | None = Field(
        default=None, pattern=_TABLE, description="The table that they refer to, as schema.table."
    )
    referenced: tuple[str, ...] = Field(
        default=(), description="The columns there. Default: its primary key."
    )

    @model_validator(mode="after")
    def _stated_whole(self) -> Orphans:
        if bool(self.columns) != bool(self.references):
            raise ValueError("columns and references belong together: state both, or neither")
        if self.referenced and len(self.referenced) != len(self.columns):
            raise ValueError("referenced must name as many columns as columns")
        return self


class Range(_Violations):
    """Numbers and dates lie between two bounds, which are allowed themselves."""

    told_by = ("columns",)
    kind: Literal["range"] = Field(description="`range`")
    columns: Columns = Field(description="The columns, each on its own; empty values pass.")
    min: int | float | str | None = Field(
        default=None,
        description="The lower bound; for dates also PostgreSQL's words such as `today`.",
    )
    max: int | float | str | None = Field(default=None, description="The upper bound.")

    @model_validator(mode="after")
    def _bounded(self) -> Range:
        if self.min is None and self.max is None:
            raise ValueError("needs min, max, or both")
        return self


class Allowed(_Violations):
    """A column has one of some values."""

    told_by = ("columns",)
    kind: Literal["allowed"] = Field(description="`allowed`")
    columns: Columns = Field(description="The columns, each on its own; empty values pass.")
    values: tuple[Plain, ...] = Field(min_length=1, description="The values that are allowed.")


class Unique(_Violations):
    """No two rows have the same values in some columns together."""

    told_by = ("columns",)
    kind: Literal["unique"] = Field(description="`unique`")
    columns: Columns = Field(description="The columns, together; rows with an empty one pass.")


class Check(_Violations):
    """A condition holds of every row, or cannot be told because of an empty value."""

    told_by = ("condition",)
    kind: Literal["check"] = Field(description="`check`")
    condition: str = Field(min_length=1, description="The condition, in SQL.")


class Aggregate(_Common):
    """A query returns the same on both sides: one row, or a set of rows told apart by a key."""

    told_by = ("sql", "source_sql")
    kind: Literal["aggregate"] = Field(description="`aggregate`")
    table: str | None = Field(
        default=None, pattern=_TABLE, description="The table by which results are grouped."
    )
    sql: str | None = Field(
        default=None,
        min_length=1,
        description="The query; names of tables need their schema. It can only read.",
    )
    source_sql: str | None = Field(
        default=None, min_length=1, description="The query for the source, where they differ."
    )
    target_sql: str | None = Field(default=None, min_length=1, description="That for the target.")
    key: tuple[str, ...] = Field(
        default=(),
        description="Columns of the result that tell its rows apart. Default: there is one row.",
    )
    tolerance: Tolerated = Field(
        default=NONE,
        description="By how much numbers may differ: a number, or a share such as `0.1%`.",
    )

    @model_validator(mode="after")
    def _both_sides(self) -> Aggregate:
        each = (self.source_sql is not None) + (self.target_sql is not None)
        if each == 1 or (each == 2) == (self.sql is not None):
            raise ValueError("needs sql, or source_sql and target_sql")
        return self

    @property
    def called(self) -> str:
        return self.name or f"aggregate {self.table or (self.sql or self.source_sql or '')[:60]}"


class Freshness(_OnTable):
    """The newest row is recent, and the target's as recent as the source's."""

    told_by = ("column",)
    kind: Literal["freshness"] = Field(description="`freshness`")
    column: str = Field(
        min_length=1, description="The column with a date or time; without a zone it is in UTC."
    )
    max_age: Duration | None = Field(
        default=None,
        description="How old the newest row may be, on either side. Default: any age.",
    )
    max_behind: Duration = Field(
        default=timedelta(0), description="By how much the target's may be older than the source's."
    )


class Spot(_OnTable):
    """Some rows are the same on both sides, field by field."""

    kind: Literal["spot"] = Field(description="`spot`")
    random: int = Field(
        default=100, ge=0, le=10_000, description="So many rows by chance, of either side."
    )
    keys: tuple[Plain | tuple[Plain, ...], ...] = Field(
        default=(),
        description="These rows, each by its key; a key of several columns is a list.",
    )
    edges: bool = Field(
        default=True,
        description="The first and last rows by key, and by each column of numbers or dates.",
    )
    recent: Duration | None = Field(
        default=None, description="The rows of this last time, by `by`; such as 24h."
    )
    by: str | None = Field(
        default=None, min_length=1, description="The column that says how recent a row is."
    )
    most_recent: int = Field(
        default=1_000, ge=1, le=100_000, description="So many of these at most, the newest first."
    )
    tolerance: Tolerated = Field(
        default=NONE, description="So many rows may differ, or such a share of those looked at."
    )

    @model_validator(mode="after")
    def _recent_by(self) -> Spot:
        if (self.recent is None) != (self.by is None):
            raise ValueError("recent and by belong together")
        return self


Rule = Annotated[
    Count
    | NotNull
    | Types
    | Orphans
    | Range
    | Allowed
    | Unique
    | Check
    | Aggregate
    | Freshness
    | Spot,
    Field(discriminator="kind"),
]


def told_apart(rules: Sequence[Any]) -> None:
    """Raises ValueError where two rules have one name."""
    twice = [name for name, count in Counter(one.called for one in rules).items() if count > 1]
    if twice:
        raise ValueError(f"two are called {twice[0][:80]!r}: give each a `name` of its own")


class RulesFile(Section):
    """A file of rules, as `validate init` writes it."""

    rules: tuple[Rule, ...] = Field(default=(), description="The rules, each with a `kind`.")

    @model_validator(mode="after")
    def _told_apart(self) -> RulesFile:
        told_apart(self.rules)
        return self
