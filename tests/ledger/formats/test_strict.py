"""One value has one spelling, and everything else is refused with its place."""

from __future__ import annotations

import base64
import json
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_validator

from ledger.errors import MalformedInput
from ledger.formats.strict import (
    MAX_DEPTH,
    MAX_ENTRY,
    MAX_INT,
    canonical,
    decode_b64,
    encode_b64,
    excerpt,
    parse_canonical,
)


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Cat(Frozen):
    type: Literal["cat"]
    lives: int


class Dog(Frozen):
    type: Literal["dog"]
    tricks: tuple[str, ...]


class Thing(Frozen):
    count: int
    label: str = "none"
    pet: Annotated[Cat | Dog, Field(discriminator="type")] | None = None
    parts: tuple[int, ...] = ()
    names: dict[str, int] = {}
    ratio: float | None = None

    @field_validator("label")
    @classmethod
    def check_label(cls, label: str) -> str:
        if label.startswith("bad"):
            raise ValueError(f"the label {label} is bad")
        return label


GOOD = b'{"count":7,"label":"x","names":{"a":1,"b":-2},"parts":[1,2],"pet":null,"ratio":null}'

printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)
integers = st.integers(-MAX_INT, MAX_INT)
things = st.builds(
    Thing,
    count=integers,
    label=printable.filter(lambda text: not text.startswith("bad")),
    pet=st.none()
    | st.builds(Cat, type=st.just("cat"), lives=integers)
    | st.builds(Dog, type=st.just("dog"), tricks=st.lists(printable, max_size=3).map(tuple)),
    parts=st.lists(integers, max_size=4).map(tuple),
    names=st.dictionaries(printable, integers, max_size=3),
)


def refusal(data: bytes, limit: int = MAX_ENTRY) -> MalformedInput:
    with pytest.raises(MalformedInput) as caught:
        parse_canonical(data, Thing, limit=limit)
    return caught.value


@given(things)
def test_what_is_written_reads_back_equal_and_writes_the_same_bytes(thing: Thing) -> None:
    data = canonical(thing)
    parsed = parse_canonical(data, Thing)
    assert parsed == thing
    assert canonical(parsed) == data


@given(things)
def test_another_json_encoder_writes_the_same_bytes(thing: Thing) -> None:
    plain = json.loads(canonical(thing))
    assert json.dumps(plain, sort_keys=True, separators=(",", ":")).encode() == canonical(thing)


@given(things, st.data())
def test_any_changed_byte_is_another_value_or_refused(thing: Thing, data: st.DataObject) -> None:
    good = canonical(thing)
    at = data.draw(st.integers(0, len(good) - 1))
    changed = bytearray(good)
    changed[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != good[at]))
    try:
        parsed = parse_canonical(bytes(changed), Thing)
    except MalformedInput:
        return
    assert parsed != thing
    assert canonical(parsed) == changed


@given(st.binary(max_size=200))
def test_arbitrary_bytes_meet_only_typed_refusals(data: bytes) -> None:
    try:
        parsed = parse_canonical(data, Thing)
    except MalformedInput:
        return
    assert canonical(parsed) == data


@pytest.mark.parametrize(
    ("data", "where", "reason"),
    [
        (b"", "Thing", "EOF"),
        (b"null", "Thing", "should be an object"),
        (GOOD + b" ", "Thing", "canonical form at byte 84"),
        (b" " + GOOD, "Thing", "canonical form at byte 0"),
        (GOOD + GOOD, "Thing", "trailing characters"),
        (b"\xef\xbb\xbf" + GOOD, "Thing", "byte 0 is not printable ASCII"),
        (GOOD.decode().encode("utf-16"), "Thing", "byte 0 is not printable ASCII"),
        (GOOD.replace(b'"x"', b'"\xed\xa0\x80"'), "Thing", "byte 20 is not printable ASCII"),
        (GOOD.replace(b'"x"', '"é"'.encode()), "Thing", "byte 20 is not printable ASCII"),
        (GOOD.replace(b'"x"', b'"\\u0000"'), "Thing", "byte 20 is not printable ASCII"),
        (GOOD.replace(b'"x"', b'"\\n"'), "Thing", "byte 20 is not printable ASCII"),
        (GOOD.replace(b'"x"', b'"\\ud800"'), "Thing", "byte 20"),
        (GOOD.replace(b'"x"', b'"\\/"'), "Thing", "byte 20"),
        (GOOD.replace(b'"x"', b'"\x7f"'), "Thing", "byte 20"),
        (GOOD.replace(b':7,"l', b':7,"count":7,"l'), "Thing", "canonical form at byte 12"),
        (GOOD.replace(b':7,"l', b':7,"c\\u006funt":7,"l'), "Thing", "byte 13"),
        (GOOD.replace(b'"a":1,"b":-2', b'"b":-2,"a":1'), "Thing", "canonical form at byte 33"),
        (GOOD.replace(b":7,", b":-0,"), "Thing", "canonical form at byte 9"),
        (GOOD.replace(b":7,", b":7.0,"), "Thing.count", "valid integer"),
        (GOOD.replace(b":7,", b":7e2,"), "Thing.count", "valid integer"),
        (GOOD.replace(b":7,", b':"7",'), "Thing.count", "valid integer"),
        (GOOD.replace(b":7,", b":true,"), "Thing.count", "valid integer"),
        (GOOD.replace(b":7,", b":NaN,"), "Thing.count", "valid integer"),
        (GOOD.replace(b":7,", b":07,"), "Thing", "invalid JSON"),
        (GOOD.replace(b":7,", b":9007199254740992,"), "Thing.count", "2^53"),
        (GOOD.replace(b":7,", b":-9007199254740992,"), "Thing.count", "2^53"),
        (GOOD.replace(b":7,", b":18446744073709551616,"), "Thing.count", "2^53"),
        (GOOD.replace(b":7,", b":" + b"9" * 5001 + b","), "Thing", "invalid JSON"),
        (GOOD.replace(b'"ratio":null', b'"ratio":1.5'), "Thing.ratio", "is a float"),
        (GOOD.replace(b'"ratio":null', b'"ratio":NaN'), "Thing.ratio", "is a float"),
        (GOOD.replace(b'"x"', b'"badly"'), "Thing.label", "the label badly is bad"),
        (GOOD.replace(b',"ratio":null', b""), "Thing", "every field present"),
        (GOOD.replace(b'"count":7,', b""), "Thing.count", "field required"),
        (GOOD.replace(b'"count":7,', b'"count":7,"extra":1,'), "Thing.extra", "not permitted"),
        (GOOD.replace(b'"pet":null', b'"pet":{"type":"cow"}'), "Thing.pet", "none of those known"),
        (b"[" * 5000, "Thing", "recursion limit"),
    ],
)
def test_each_malformed_input_is_refused_with_its_place(
    data: bytes, where: str, reason: str
) -> None:
    refused = refusal(data)
    assert refused.where == where
    assert reason in refused.reason


def test_input_over_the_limit_is_refused_before_it_is_parsed() -> None:
    assert parse_canonical(GOOD, Thing, limit=len(GOOD)).count == 7
    assert refusal(GOOD, limit=len(GOOD) - 1).reason == "has 84 bytes; at most 83 are accepted"


@pytest.mark.parametrize(
    "data",
    [
        GOOD.replace(b'"count":7,', b'"count":7,"%s":1,' % (b"k" * 5000)),
        GOOD.replace(b'"a":1', b'"%s":"text"' % (b"k" * 5000)),
        GOOD.replace(b'"pet":null', b'"pet":{"type":"%s"}' % (b"k" * 5000)),
        GOOD.replace(b'"parts":[1,2]', b'"parts":"%s"' % (b"k" * 5000)),
        b'"%s"' % (b"k" * 5000),
    ],
)
def test_a_refusal_repeats_at_most_eighty_characters_of_the_input(data: bytes) -> None:
    message = str(refusal(data))
    assert message.count("k") <= 80
    assert len(message) < 300


@pytest.mark.parametrize(
    ("value", "where", "reason"),
    [
        ({"a": 1.0}, "dict.a", "is a float"),
        ({"a": [0, {"b": "é"}]}, "dict.a[1].b", "outside U+0020..U+007E"),
        ({"a": "line\n"}, "dict.a", "outside U+0020..U+007E"),
        ({"é": 1}, "dict", "key outside U+0020..U+007E"),
        ({1: 1}, "dict", "key outside U+0020..U+007E"),
        ({"a": 2**53}, "dict.a", "2^53"),
        ({"a": -(2**53)}, "dict.a", "2^53"),
        ({"a": b"bytes"}, "dict.a", "is a bytes"),
        ({"a": {1, 2}}, "dict.a", "is a set"),
        ({"a": float("nan")}, "dict.a", "is a float"),
    ],
)
def test_a_value_without_a_canonical_spelling_is_refused(
    value: dict[str, object], where: str, reason: str
) -> None:
    with pytest.raises(MalformedInput) as caught:
        canonical(value)
    assert caught.value.where == where
    assert reason in caught.value.reason


def test_nesting_has_a_limit_that_is_reached_before_python_or_orjson_fail() -> None:
    def nested(depth: int) -> dict[str, object]:
        value: dict[str, object] = {}
        for _ in range(depth):
            value = {"a": value}
        return value

    assert canonical(nested(MAX_DEPTH)).count(b"{") == MAX_DEPTH + 1
    with pytest.raises(MalformedInput, match="nested deeper than 64 levels"):
        canonical(nested(900))


def test_a_model_built_without_validation_is_refused_when_encoded() -> None:
    with pytest.raises(MalformedInput, match="Thing: a field holds a value that its type forbids"):
        canonical(Thing.model_construct(count="seven"))


@given(st.binary(max_size=60))
def test_base64_reads_back_what_it_wrote(data: bytes) -> None:
    assert encode_b64(data) == base64.b64encode(data).decode()
    assert decode_b64(encode_b64(data), size=len(data)) == data


@pytest.mark.parametrize(
    "text", ["AB==", "AA", "AA=", "A A=", "AA==\n", " AA==", "AA==AA==", "_w==", "é", "="]
)
def test_base64_in_any_other_spelling_is_refused(text: str) -> None:
    with pytest.raises(MalformedInput, match=r"^here: .*(base64|canonical)") as caught:
        decode_b64(text, "here")
    assert caught.value.where == "here"


def test_base64_of_another_size_is_refused() -> None:
    with pytest.raises(MalformedInput, match="holds 1 bytes where 32 are expected"):
        decode_b64("AA==", size=32)


def test_an_excerpt_is_short_and_has_no_control_characters() -> None:
    assert excerpt("plain") == "'plain'"
    assert len(excerpt("\x1b[2J" * 100)) == 80
    assert excerpt("\x1b—").isascii()
