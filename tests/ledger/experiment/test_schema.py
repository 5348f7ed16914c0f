"""Schemas: declared, public, and the same meaning for every reader."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ledger.experiment.schema import (
    CategoryColumn,
    NumberColumn,
    PatientColumn,
    Schema,
    feature_names,
    normal_label,
)

AGE = {"type": "number", "name": "age", "low": "0", "high": "100"}
SEX = {"type": "category", "name": "sex", "values": ["f", "m"]}
ID = {"type": "patient_id", "name": "pid"}


def schema(*columns: dict[str, Any], **fields: Any) -> Schema:
    base = {"consilium": 1, "dataset": "d", "declared_rows": 100, "columns": columns or (AGE, SEX)}
    return Schema.model_validate(base | fields)


def refused(*columns: dict[str, Any], **fields: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        schema(*columns, **fields)
    return str(caught.value)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (({**AGE, "low": "100"}, SEX), "column age: low 100 is not below high 100"),
        (({**AGE, "fill": "101"}, SEX), "column age: fill 101 is outside its own bounds"),
        (({**AGE, "low": "NaN"}, SEX), "finite number"),
        (({**AGE, "low": "-1e13"}, SEX), "greater than or equal"),
        (({**AGE, "high": "1.0000000000000000001"}, SEX), "no more than 18 digits"),
        ((AGE, {**SEX, "values": ["f", " f"]}), "declared twice"),
        ((AGE, {**SEX, "values": ["1", "1.0"]}), "declared twice"),
        ((AGE, {**SEX, "values": ["f"]}), "at least 2"),
        ((AGE, {**SEX, "values": ["f", "\u202em"]}), "match pattern"),
        ((AGE, AGE), "column age is declared twice"),
        ((AGE, ID, {**ID, "name": "other"}), "more than one patient_id"),
        ((AGE,), "at least 2"),
        ((AGE, {**SEX, "type": "free_text"}), "does not match any of the expected tags"),
        ((AGE, {**SEX, "guess": 1}), "not permitted"),
        ((AGE, {**SEX, "name": "a b"}), "match pattern"),
    ],
)
def test_a_schema_that_contradicts_itself_is_refused(
    columns: tuple[dict[str, Any], ...], reason: str
) -> None:
    assert reason in refused(*columns)


def test_a_header_names_every_column() -> None:
    assert "column sex is not in the declared header" in refused(header=("age", "x"))
    assert schema(header=("x", "sex", "age")).header == ("x", "sex", "age")


def test_declared_sizes_follow_from_rows_and_percentage() -> None:
    made = schema(declared_rows=303, test_percent=30)
    assert (made.declared_test, made.declared_train) == (90, 213)
    everything = schema(declared_rows=1, test_percent=90)
    assert (everything.declared_test, everything.declared_train) == (0, 1)


def test_a_missing_value_is_filled_by_a_public_constant() -> None:
    column = schema().column("age")
    assert isinstance(column, NumberColumn)
    assert column.filled == 50
    filled = schema({**AGE, "fill": "7.50"}, SEX).column("age")
    assert isinstance(filled, NumberColumn)
    assert str(filled.filled) == "7.5"


def test_columns_are_found_by_name() -> None:
    made = schema(AGE, SEX, ID)
    assert isinstance(made.column("sex"), CategoryColumn)
    assert made.patient_column == PatientColumn(type="patient_id", name="pid")
    assert schema().patient_column is None
    assert made.column("none") is None


def test_feature_names_say_what_a_model_sees() -> None:
    made = schema({**AGE, "missing": "indicator"}, SEX, ID)
    assert feature_names(made, ("sex", "age")) == ("sex=f", "sex=m", "age", "age:missing")
    for name in ("pid", "none"):
        with pytest.raises(KeyError):
            feature_names(made, (name,))


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("1", "1"), ("1.0", "1"), ("01", "1"), (" 1\t", "1"), ("-0", "0"), ("1e2", "100"),
        ("0.10", "0.1"), ("male", "male"), (" male ", "male"), ("nan", "nan"), ("inf", "inf"),
        ("", ""), ("1,5", "1,5"), ("sNaN", "sNaN"),
    ],
)  # fmt: skip
def test_codes_that_read_as_numbers_are_compared_as_numbers(text: str, normal: str) -> None:
    assert normal_label(text) == normal


def test_long_codes_are_not_rounded_into_one() -> None:
    first, second = "1" * 40 + "2", "1" * 40 + "3"
    assert normal_label(first) != normal_label(second)
    assert normal_label(first + ".000") == first


def test_a_reference_is_one_of_the_codes_however_it_is_written() -> None:
    codes = {**SEX, "values": ["0", "1", "2"], "reference": "1.0"}
    column = schema(AGE, codes).column("sex")
    assert isinstance(column, CategoryColumn)
    assert column.coded == ("0", "2")
    with pytest.raises(ValidationError, match="reference '3' is not a value"):
        schema(AGE, {**codes, "reference": "3"})


@pytest.mark.parametrize("text", ["1e999999", "1e-999999", "1e9999999999999", "-1E+101"])
def test_a_code_with_a_monstrous_exponent_is_a_text(text: str) -> None:
    assert normal_label(text) == text
    schema(AGE, {**SEX, "values": [text, "m"]})


@given(st.text(max_size=20))
def test_normalising_is_total_and_done_once(text: str) -> None:
    normal = normal_label(text)
    assert normal_label(normal) == normal


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, places=5, min_value=-(10**9), max_value=10**9
    )
)
def test_equal_numbers_are_one_code(value: Decimal) -> None:
    assert normal_label(str(value)) == normal_label(f"{value:.7f}")
