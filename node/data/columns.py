"""One column's raw values as a typed array, or one clear refusal.

Promise: what the declared column does not allow (a text that is no number, NaN or infinity, a value
out of bounds declared ``refuse``, an unknown code, a missing value where none may be) raises one
``DatasetError`` with column, row and value; everything else is a number (float64, NaN for missing)
or a code (int32, index into the declared values, -1 for missing). Bounds and codes are the declared
ones; nothing is computed from the rows.

Not promised: that a value is true, or in the declared unit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import polars as pl

from ledger.experiment.schema import CategoryColumn, NumberColumn, normal_label
from node.errors import DatasetError

MISSING_CODE = -1
_SPOILT_ID = re.compile(r"[0-9]+\.0+")
_SHOWN = 40
"""Characters of a value that a message quotes."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Where a piece of a column stands in its file.

    Attributes:
        dataset: the dataset's name, for messages.
        marks: the dataset's own texts that mean "missing".
        first_row: number, as a person counts, of the slice's first row.
        rows: number of each row where rows were left out (blank lines), or None.
    """

    dataset: str
    marks: tuple[str, ...]
    first_row: int
    rows: tuple[int, ...] | None = None

    def row(self, index: int) -> int:
        """Return the number, as a person counts, of the row at ``index`` of the slice."""
        return self.rows[index] if self.rows is not None else self.first_row + index


def numbers(raw: pl.Series, column: NumberColumn, place: Slice) -> npt.NDArray[np.float64]:
    """Read a number column.

    Args:
        raw: texts, numbers or booleans; shape [n].
        column: what is declared.
        place: for messages.

    Returns:
        float64 [n] within the declared bounds; NaN where the value is missing.

    Raises:
        DatasetError: a value that is not allowed.
    """
    marks = (*column.missing_marks, *place.marks)
    if raw.dtype == pl.String:
        text = raw.str.strip_chars()
        blank = (text.is_null() | text.is_in(["", *marks])).to_numpy()
        cast = text.cast(pl.Float64, strict=False)
    elif raw.dtype.is_numeric() or raw.dtype == pl.Boolean:
        cast = raw.cast(pl.Float64)
        blank = raw.is_null().to_numpy()
    else:
        raise DatasetError(
            place.dataset,
            f"the file stores {raw.dtype} where numbers are declared; store them as numbers",
            column=column.name,
        )
    values: npt.NDArray[np.float64] = cast.fill_null(np.nan).to_numpy().astype(np.float64)
    for mark in marks:
        number = _number(mark)
        if number is not None:
            blank = blank | (values == number)

    strange = _first(~blank & ~np.isfinite(values))
    if strange is not None:
        _refuse(
            column.name,
            place,
            strange,
            f"{_shown(raw[strange])} is not a finite number; fix the source, leave the field "
            "empty, or list this text under missing_marks in the schema",
        )
    low, high = float(column.low), float(column.high)
    outside = ~blank & ((values < low) | (values > high))
    if column.outside == "refuse":
        wrong = _first(outside)
        if wrong is not None:
            unit = f" {column.unit}" if column.unit else ""
            _refuse(
                column.name,
                place,
                wrong,
                f"{_shown(raw[wrong])} is outside {column.low}..{column.high}{unit}; fix the "
                "source, widen the bound or declare outside: clip or missing in the schema (either "
                "changes the dataset's fingerprint)",
            )
    elif column.outside == "missing":
        blank = blank | outside
    _check_missing(blank, column, place)
    return np.where(blank, np.nan, np.clip(values, low, high))


def codes(raw: pl.Series, column: CategoryColumn, place: Slice) -> npt.NDArray[np.int32]:
    """Read a category column.

    Args:
        raw: texts, numbers or booleans; shape [n]. Numbers are compared by value.
        column: what is declared.
        place: for messages.

    Returns:
        int32 [n], index into ``column.values``; -1 where the value is missing.

    Raises:
        DatasetError: a value that is not allowed.
    """
    text = _texts(raw, column.name, place)
    blank_labels = {normal_label(mark) for mark in ("", *column.missing_marks, *place.marks)}
    declared = {normal_label(value): code for code, value in enumerate(column.values)}
    unknown = len(declared)
    meaning: dict[str, int] = {}
    for value in text.drop_nulls().unique().to_list():
        label = normal_label(value)
        meaning[value] = MISSING_CODE if label in blank_labels else declared.get(label, unknown)
    found: npt.NDArray[np.int32] = np.full(len(text), MISSING_CODE, dtype=np.int32)
    if meaning:
        mapped = text.replace_strict(
            list(meaning), list(meaning.values()), default=MISSING_CODE, return_dtype=pl.Int32
        )
        found = mapped.fill_null(MISSING_CODE).to_numpy().astype(np.int32)
    wrong = _first(found == unknown)
    if wrong is not None:
        if column.outside == "refuse":
            known = ", ".join(column.values[:12]) + (", ..." if len(column.values) > 12 else "")
            _refuse(
                column.name,
                place,
                wrong,
                f"{_shown(raw[wrong])} is not one of the declared values ({known}); fix the "
                "source, declare the value, or declare outside: missing in the schema (either "
                "changes the dataset's fingerprint)",
            )
        found = np.where(found == unknown, np.int32(MISSING_CODE), found)
    _check_missing(found == MISSING_CODE, column, place)
    return found


def patient_ids(raw: pl.Series, name: str, place: Slice) -> list[str]:
    """Read a patient id column: every row needs one; outer spaces do not count.

    Raises:
        DatasetError: an id is missing, stored as a type whose text is not certain.
    """
    if raw.dtype.is_float():
        raise DatasetError(
            place.dataset,
            "patient ids are stored as floating-point numbers, which do not keep them apart; "
            "store them as text or integers",
            column=name,
        )
    ids = _texts(raw, name, place).str.strip_chars()
    lacking = _first((ids.is_null() | (ids == "")).to_numpy())
    if lacking is not None:
        _refuse(name, place, lacking, "the patient id is missing; every row must have one")
    return [str(value) for value in ids.to_list()]


def refuse_spoilt_ids(ids: list[str], name: str, place: Slice) -> None:
    """Refuse a patient id that was a number with decimals on its way: 7.0.

    Asked of what is to be registered. What is registered was divided by the ids that it has.

    Raises:
        DatasetError: there is one.
    """
    for index, patient in enumerate(ids):
        if _SPOILT_ID.fullmatch(patient):
            _refuse(
                name,
                place,
                index,
                f"the patient id {_shown(patient)} is a whole number with decimals, as spreadsheets and "
                "data frames write it; write it as elsewhere, or the same patient has a second budget there",
            )


def _texts(raw: pl.Series, name: str, place: Slice) -> pl.Series:
    if raw.dtype == pl.String:
        return raw
    if raw.dtype == pl.Boolean or raw.dtype.is_numeric() or raw.dtype in (pl.Categorical, pl.Enum):
        return raw.cast(pl.String)
    raise DatasetError(
        place.dataset,
        f"the file stores {raw.dtype} where codes are declared; store them as text or integers",
        column=name,
    )


def _check_missing(
    blank: npt.NDArray[np.bool_], column: NumberColumn | CategoryColumn, place: Slice
) -> None:
    lacking = _first(blank) if column.missing == "refuse" else None
    if lacking is not None:
        _refuse(
            column.name,
            place,
            lacking,
            "the value is missing; fix the source or declare missing: impute or indicator in the "
            "schema (either changes the dataset's fingerprint)",
        )


def _refuse(column: str, place: Slice, index: int, reason: str) -> NoReturn:
    raise DatasetError(place.dataset, reason, column=column, row=place.row(index))


def _first(wrong: npt.NDArray[np.bool_]) -> int | None:
    return int(np.argmax(wrong)) if wrong.any() else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _shown(value: object) -> str:
    """Quote a value on one line of a terminal."""
    text = str(value)
    clean = "".join(char if char.isprintable() else "?" for char in text[:_SHOWN])
    return clean if isinstance(value, int | float) else f'"{clean}"'
