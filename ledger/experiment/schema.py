"""The public schema of a dataset: names, types, declared bounds, categories, units, missing values.

A schema is public by declaration and never computed from rows: bounds are clinical ranges, categories
are code lists, sizes are nominal. It is all that preprocessing may use, and all that a researcher
sees. It travels as a canonical JSON blob; numbers are decimal strings there, so that equal schemas
have equal bytes. What it cannot promise: that the declared bounds are sensible.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from ledger.entries.operations.values import Slug
from ledger.formats.documents import plain_decimal

ColumnName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,62}$")]
# Any script, but no control, format (bidirectional, zero-width) or line separator characters.
Text = Annotated[str, StringConstraints(max_length=400, pattern=r"^[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]*$")]
Label = Annotated[
    str,
    StringConstraints(min_length=1, max_length=80, pattern=r"^[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+$"),
]
Number = Annotated[
    Decimal,
    Field(allow_inf_nan=False, max_digits=18, ge=-(10**12), le=10**12),
    AfterValidator(plain_decimal),
]

MAX_COLUMNS = 2048
MAX_CATEGORIES = 4096
MAX_ROWS_EACH = 1024
"""The most that ``rows_per_patient`` may say."""
_MAX_EXPONENT = 100


class SchemaPart(BaseModel):
    """A frozen part of a schema; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NumberColumn(SchemaPart):
    """A measured quantity with declared bounds, mapped linearly to [-1, 1].

    Attributes:
        low, high: declared clinical range, in ``unit``.
        outside: what a value outside the range means: an error at registration (default), the
            nearest bound, or a missing value.
        missing: ``refuse`` rows without a value, ``impute`` the declared ``fill``, or impute it and
            add a 0/1 ``indicator`` feature.
        fill: a public constant within the bounds; the middle of the range when not given.
        missing_marks: texts that mean "not measured" in this column, beside the empty one.
    """

    type: Literal["number"]
    name: ColumnName
    low: Number
    high: Number
    unit: Text = ""
    about: Text = ""
    outside: Literal["refuse", "clip", "missing"] = "refuse"
    missing: Literal["refuse", "impute", "indicator"] = "refuse"
    fill: Number | None = None
    missing_marks: Annotated[tuple[Label, ...], Field(max_length=16)] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"column {self.name}: low {self.low} is not below high {self.high}")
        if self.fill is not None and not self.low <= self.fill <= self.high:
            raise ValueError(f"column {self.name}: fill {self.fill} is outside its own bounds")
        return self

    @property
    def filled(self) -> Decimal:
        """The public constant that stands for a missing value."""
        return self.fill if self.fill is not None else (self.low + self.high) / 2


class CategoryColumn(SchemaPart):
    """A coded value from a declared list, one 0/1 feature for each.

    Texts that read as numbers are compared as numbers: ``1``, ``1.0`` and ``01`` are one value.

    Attributes:
        values: every code that may occur; another one is an error at registration (``outside``:
            ``refuse``, default) or a missing value (``missing``).
        reference: the code that gets no feature of its own, the one that the others are compared
            with; None: each code has one.
        missing: ``refuse``; ``impute``: every indicator is 0; ``indicator``: one more 0/1 feature.
    """

    type: Literal["category"]
    name: ColumnName
    values: Annotated[tuple[Label, ...], Field(min_length=2, max_length=MAX_CATEGORIES)]
    reference: Label | None = None
    about: Text = ""
    outside: Literal["refuse", "missing"] = "refuse"
    missing: Literal["refuse", "impute", "indicator"] = "refuse"
    missing_marks: Annotated[tuple[Label, ...], Field(max_length=16)] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        seen: set[str] = set()
        for value in self.values:
            normal = normal_label(value)
            if normal in seen:
                raise ValueError(f"column {self.name}: value {value!r} is declared twice")
            seen.add(normal)
        if self.reference is not None and normal_label(self.reference) not in seen:
            raise ValueError(
                f"column {self.name}: reference {self.reference!r} is not a value of it"
            )
        return self

    @property
    def coded(self) -> tuple[str, ...]:
        """The codes that have a feature, in their order: all but the reference."""
        if self.reference is None:
            return self.values
        without = normal_label(self.reference)
        return tuple(value for value in self.values if normal_label(value) != without)


class PatientColumn(SchemaPart):
    """The patient's identifier: makes the patient the unit of privacy. Never a feature, never leaves."""

    type: Literal["patient_id"]
    name: ColumnName
    about: Text = ""


Column = Annotated[NumberColumn | CategoryColumn | PatientColumn, Field(discriminator="type")]


class Schema(SchemaPart):
    """A dataset's public description.

    Attributes:
        declared_rows: nominal number of units (patients, or records without patient ids) that the
            hospital agreed to publish. Not a count.
        test_percent: share of units, fixed by keyed hash at registration, kept for evaluation.
        missing_marks: texts that mean "missing" in every column, beside the empty one.
        header: column names of a file without a header line, in file order; empty when it has one.
        rows_per_patient: most rows of a patient that an experiment reads, the first ones of the file that
            have a target; None: the fast engine reads as many as ``fast_clip.ROWS_EACH`` says, the others all.
    """

    consilium: Literal[1]
    dataset: Slug
    title: Text = ""
    declared_rows: Annotated[int, Field(ge=1, le=10**9)]
    test_percent: Annotated[int, Field(ge=0, le=90)] = 30
    missing_marks: Annotated[tuple[Label, ...], Field(max_length=16)] = ()
    header: Annotated[tuple[ColumnName, ...], Field(max_length=MAX_COLUMNS)] = ()
    rows_per_patient: Annotated[int, Field(ge=1, le=MAX_ROWS_EACH)] | None = Field(
        default=None, exclude_if=lambda most: most is None
    )
    columns: Annotated[tuple[Column, ...], Field(min_length=2, max_length=MAX_COLUMNS)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [column.name for column in self.columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"column {twice[0]} is declared twice")
        if sum(isinstance(column, PatientColumn) for column in self.columns) > 1:
            raise ValueError("more than one patient_id column is declared")
        if self.rows_per_patient is not None and self.patient_column is None:
            raise ValueError(
                "rows_per_patient needs a patient_id column: each record is one patient"
            )
        if self.header:
            lacking = [name for name in names if name not in self.header]
            if lacking:
                raise ValueError(f"column {lacking[0]} is not in the declared header")
        return self

    def column(self, name: str) -> NumberColumn | CategoryColumn | PatientColumn | None:
        """The column of that name, or None."""
        return next((column for column in self.columns if column.name == name), None)

    @property
    def patient_column(self) -> PatientColumn | None:
        """The patient id column, or None when each record counts as its own unit."""
        return next((c for c in self.columns if isinstance(c, PatientColumn)), None)

    @property
    def declared_test(self) -> int:
        """Nominal number of units kept for evaluation."""
        return self.declared_rows * self.test_percent // 100

    @property
    def declared_train(self) -> int:
        """Nominal number of units for training: the public divisor and weight."""
        return self.declared_rows - self.declared_test


def normal_label(text: str) -> str:
    """Normalise a code for comparison: numbers by value, other texts stripped of outer spaces.

    A number with an exponent beyond 100 is taken as a text: nobody codes a category so, and its
    digits would fill the memory.
    """
    stripped = text.strip(" \t")
    try:
        number = Decimal(stripped)
    except ArithmeticError:
        return stripped
    if not number.is_finite() or (number and abs(number.adjusted()) > _MAX_EXPONENT):
        return stripped
    return format(plain_decimal(number), "f")


def feature_names(
    schema: Schema, features: tuple[str, ...], embedded: frozenset[str] = frozenset()
) -> tuple[str, ...]:
    """Names of the encoded inputs, in the order in which a model sees them.

    Args:
        schema: the dataset's public schema.
        features: column names, in the spec's order; each a number or category column.
        embedded: category columns that are one input each, the number of their code.
    """
    names: list[str] = []
    for feature in features:
        column = schema.column(feature)
        if isinstance(column, NumberColumn):
            names.append(feature)
        elif isinstance(column, CategoryColumn) and feature in embedded:
            names.append(feature)
            continue
        elif isinstance(column, CategoryColumn):
            names.extend(f"{feature}={value}" for value in column.coded)
        else:
            raise KeyError(feature)
        if column.missing == "indicator":
            names.append(f"{feature}:missing")
    return tuple(names)
