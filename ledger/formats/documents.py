"""Documents: specs, schemas and cards as blobs, with one spelling per value.

A document is UTF-8 JSON with sorted keys and no spaces; fractions are decimal strings, so there are
no floats. Unlike an entry it may hold text in any script, since it lives in a blob that can be
erased. `parse_document` accepts exactly what `encode_document` writes.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from ledger.errors import MalformedInput
from ledger.formats.pattern_words import pattern_in_words

MAX_DOCUMENT = 1024 * 1024
_MAX_ECHO = 300

M = TypeVar("M", bound=BaseModel)


def encode_document(document: BaseModel) -> bytes:
    """The canonical bytes of a document, whose SHA-256 names it."""
    plain = document.model_dump(mode="json", by_alias=True)
    return orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)


def parse_document(data: bytes, model: type[M]) -> M:
    """A document from its canonical bytes.

    Raises:
        MalformedInput: too long, not a valid document of that kind, or not in canonical form.
    """
    where = model.__name__
    if len(data) > MAX_DOCUMENT:
        raise MalformedInput(where, f"has {len(data)} bytes; at most {MAX_DOCUMENT} are accepted")
    try:
        document = model.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise MalformedInput(where, explain(error)) from None
    if encode_document(document) != data:
        raise MalformedInput(where, "differs from its canonical form")
    return document


def plain_decimal(value: Decimal) -> Decimal:
    """The same number without exponent or trailing zeros, so that equal numbers have equal bytes.

    Args:
        value: finite, of few digits (a zero may have any exponent).
    """
    if not value:
        return Decimal(0)
    text = format(value, "f")
    return Decimal(text.rstrip("0").rstrip(".") if "." in text else text)


def explain(error: ValidationError) -> str:
    """The first of a model's complaints as one printable line: where, and what is wrong there."""
    first, *others = error.errors(include_url=False, include_input=False)
    place = ".".join(str(part) for part in first["loc"]) or "document"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "union_tag_invalid":  # pydantic's own text repeats the foreign tag
        message = f"it is none of {first['ctx']['expected_tags']}"
    if first["type"] == "string_pattern_mismatch":
        message = pattern_in_words(first["ctx"]["pattern"])
    rest = f" (and {len(others)} more)" if others else ""
    line = f"{place[:_MAX_ECHO]}: {message[:1].lower()}{message[1:_MAX_ECHO]}{rest}"
    return "".join(c if c.isprintable() else "?" for c in line)
