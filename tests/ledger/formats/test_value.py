"""Values: typed when they are read and when they are made, written in one order, at home in documents."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta
from pydantic import BaseModel, ConfigDict, ValidationError

from ledger.entries.operations.values import BlobRef, Count, Hash, PublicKey, Slug, Value
from ledger.errors import MalformedInput
from ledger.formats.strict import canonical, parse_canonical
from ledger.formats.value import replace, write


class Part(Value):
    """Fields in no order."""

    type: Literal["part"]
    blob: BlobRef
    at: Annotated[int, Meta(ge=1, le=9)]
    names: Annotated[tuple[Slug, ...], Meta(max_length=2)]
    flag: bool
    maybe: Hash | None


HASH = "ab" * 32
BLOB = BlobRef(sha256=HASH, bytes=3)
PART = Part(type="part", blob=BLOB, at=1, names=("a",), flag=True, maybe=None)
BYTES = (
    b'{"at":1,"blob":{"bytes":3,"sha256":"%s"},"flag":true,"maybe":null,"names":["a"],"type":"part"}'
    % HASH.encode()
)


def test_a_value_is_written_sorted_and_read_back() -> None:
    assert canonical(PART) == write(PART) == BYTES
    assert parse_canonical(BYTES, Part) == PART
    assert hash(parse_canonical(BYTES, Part)) == hash(PART)


@pytest.mark.parametrize(
    ("changed", "where", "reason"),
    [
        ({"at": 0}, "Part.at", "expected `int` >= 1"),
        ({"at": 1.0}, "Part.at", "expected `int`, got `float`"),
        ({"at": True}, "Part.at", "expected `int`, got `bool`"),
        ({"at": None}, "Part.at", "expected `int`, got `null`"),
        ({"flag": 1}, "Part.flag", "expected `bool`, got `int`"),
        ({"type": "whole"}, "Part.type", "invalid enum value 'whole'"),
        ({"names": ("A",)}, "Part.names[0]", "must be small letters, digits and hyphens"),
        ({"names": ("a", "b", "c")}, "Part.names", "length <= 2"),
        ({"names": ["a"]}, "Part", "a field holds a value that its type forbids"),
        ({"maybe": HASH.upper()}, "Part.maybe", "should match pattern"),
        ({"names": ("\udcff",)}, "Part", "its type forbids"),
        ({"names": object()}, "Part", "its type forbids"),
        ({"blob": {"bytes": 3, "sha256": HASH}}, "Part", "its type forbids"),
    ],
)
def test_a_value_that_is_made_is_held_to_its_types_as_one_that_is_read(
    changed: dict[str, Any], where: str, reason: str
) -> None:
    fields = {name: getattr(PART, name) for name in Part.__struct_fields__}
    for make in (lambda: Part(**(fields | changed)), lambda: canonical(replace(PART, **changed))):
        with pytest.raises(MalformedInput) as caught:
            make()
        assert caught.value.where == where
        assert reason in caught.value.reason


def test_a_value_is_made_by_field_names_alone_with_all_of_them() -> None:
    with pytest.raises(TypeError):
        BlobRef(HASH, 3)  # type: ignore[misc]
    with pytest.raises(TypeError):
        BlobRef(sha256=HASH)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        BLOB.bytes = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("data", "where", "reason"),
    [
        (b"", "Part", "truncated"),
        (b"[]", "Part", "expected `object`, got `array`"),
        (BYTES + b" ", "Part", "canonical form"),
        (BYTES + BYTES, "Part", "malformed"),
        (BYTES.replace(b'"at":1', b'"at":1,"at":1'), "Part", "canonical form"),
        (BYTES.replace(b'"at":1,', b""), "Part.at", "field required"),
        (BYTES.replace(b'"at":1,', b'"at":1,"odd":2,'), "Part.odd", "is not permitted"),
        (BYTES.replace(b'"at"', b'"\\u0061t"'), "Part", "byte 2 is not printable ASCII"),
        (BYTES.replace(b'"bytes":3', b'"bytes":-1'), "Part.blob.bytes", "expected `int` >= 0"),
        (b"[" * 5000, "Part", "expected `object`"),
    ],
)
def test_bytes_that_are_no_such_value_are_refused_by_their_place(
    data: bytes, where: str, reason: str
) -> None:
    with pytest.raises(MalformedInput) as caught:
        parse_canonical(data, Part)
    assert caught.value.where == where
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    "data",
    [
        BYTES.replace(b'"at":1,', b'"at":1,"%s":1,' % (b"k" * 5000)),
        BYTES.replace(b'"part"', b'"%s"' % (b"k" * 5000)),
        BYTES.replace(b'"a"', b'"%s"' % (b"k" * 5000)),
        b'"%s"' % (b"k" * 5000),
    ],
)
def test_a_refusal_repeats_at_most_eighty_characters_of_the_input(data: bytes) -> None:
    with pytest.raises(MalformedInput) as caught:
        parse_canonical(data, Part)
    assert str(caught.value).count("k") <= 80
    assert len(str(caught.value)) < 300


class Document(BaseModel):
    """As an invitation holds seats."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    key: PublicKey
    parts: tuple[Part, ...]
    size: Count
    name: Slug


def test_a_document_holds_values_and_keeps_their_limits() -> None:
    key = PublicKey(alg="ed25519", public=HASH)
    document = Document(key=key, parts=(PART,), size=1, name="a")
    data = canonical(document)
    assert data == b'{"key":%s,"name":"a","parts":[%s],"size":1}' % (canonical(key), BYTES)
    assert parse_canonical(data, Document) == document
    for good, bad, where in (
        (b'"at":1', b'"at":0', "Document.parts[0]"),
        (b'"alg":"ed25519"', b'"alg":"rsa"', "Document.key"),
        (b'"size":1', b'"size":-1', "Document.size"),
        (b'"size":1', b'"size":9007199254740992', "Document.size"),
        (b'"name":"a"', b'"name":"A"', "Document.name"),
        (b'"name":"a"', b'"name":""', "Document.name"),
        (b'"flag":true', b'"flag":true,"odd":1', "Document.parts[0]"),
    ):
        with pytest.raises(MalformedInput) as caught:
            parse_canonical(data.replace(good, bad), Document)
        assert caught.value.where == where
    with pytest.raises(ValidationError):
        Document(key=key, parts=(PART,), size=2**53, name="a")
