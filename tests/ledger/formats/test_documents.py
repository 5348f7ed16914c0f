"""Documents: one spelling per value, and complaints that name the place."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ledger.errors import MalformedInput
from ledger.experiment.schema import NumberColumn, Schema
from ledger.formats.documents import (
    MAX_DOCUMENT,
    encode_document,
    explain,
    parse_document,
    plain_decimal,
)
from tests.federation import small_schema

SCHEMA = small_schema("basel-heart").model_copy(update={"title": "Herz — Zürich"})
DATA = encode_document(SCHEMA)


def test_a_document_comes_back_as_it_was() -> None:
    assert parse_document(DATA, Schema) == SCHEMA
    assert "Herz — Zürich".encode() in DATA


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (DATA + b" ", "canonical form"),
        (DATA.replace(b'"low":"20"', b'"low":20'), "canonical form"),
        (DATA.replace(b'"low":"20"', b'"low":"20.0"'), "canonical form"),
        (DATA.replace(b'"low":"20"', b'"low":"2E+1"'), "canonical form"),
        (DATA.replace(b'{"columns"', b'{"consilium":1,"columns"'), "canonical form"),
        (DATA.replace("ü".encode(), b"\\u00fc"), "canonical form"),
        (DATA.replace(b'"header":[],', b""), "canonical form"),
        (DATA.replace(b'"header":[]', b'"header":[],"more":1'), "more: extra inputs"),
        (DATA.replace(b'"consilium":1', b'"consilium":2'), "consilium: input should be 1"),
        (DATA.replace("ü".encode(), b"\xff"), "document: invalid JSON"),
        (b"", "document: invalid JSON"),
        (b"[" * 10_000, "document: invalid JSON"),
        (b" " * (MAX_DOCUMENT + 1), f"at most {MAX_DOCUMENT} are accepted"),
    ],
)
def test_other_bytes_are_refused(data: bytes, reason: str) -> None:
    assert data != DATA
    with pytest.raises(MalformedInput) as caught:
        parse_document(data, Schema)
    assert caught.value.where == "Schema"
    assert reason in caught.value.reason


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, places=9, min_value=-(10**6), max_value=10**6
    )
)
def test_equal_numbers_have_equal_spellings(value: Decimal) -> None:
    plain = plain_decimal(value)
    assert plain == value
    assert str(plain_decimal(value * Decimal("1.000"))) == str(plain)
    assert str(plain_decimal(plain)) == str(plain)


@pytest.mark.parametrize(
    ("text", "plain"),
    [("0.50", "0.5"), ("1E+2", "100"), ("-0", "0"), ("0E-1000000", "0"), ("20.0", "20")],
)
def test_a_number_has_one_spelling(text: str, plain: str) -> None:
    assert str(plain_decimal(Decimal(text))) == plain
    column = NumberColumn(type="number", name="a", low=Decimal(text), high=Decimal(1000))
    assert column.model_dump(mode="json")["low"] == plain


def complaint(value: object) -> str:
    with pytest.raises(ValidationError) as caught:
        Schema.model_validate(value)
    return explain(caught.value)


def test_a_complaint_names_the_place_and_how_many_there_are() -> None:
    plain = SCHEMA.model_dump(mode="json")
    assert complaint({**plain, "declared_rows": 0}) == (
        "declared_rows: input should be greater than or equal to 1"
    )
    assert complaint({**plain, "declared_rows": 0, "test_percent": 99}).endswith("(and 1 more)")
    assert complaint("no schema").startswith("document: ")


def test_a_complaint_repeats_nothing_that_a_terminal_would_obey() -> None:
    plain = SCHEMA.model_dump(mode="json")
    evil = "\x1b[31m" + "x" * 5000
    for value in ({**plain, evil: 1}, {**plain, "columns": [{"type": evil}] * 2}):
        said = complaint(value)
        assert said.isprintable()
        assert len(said) < 1000
    assert "it is none of 'number', 'category', 'patient_id'" in complaint(
        {**plain, "columns": [{"type": evil}] * 2}
    )
