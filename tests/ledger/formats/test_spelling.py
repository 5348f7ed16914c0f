"""Every text of a signed value is held to its pattern, by a judge that is made from the types."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, json

from ledger.formats import spelling
from ledger.formats.spelling import Spelling, spelt, with_algorithm
from ledger.formats.value import Value

Hex = Annotated[str, spelt(r"^[0-9a-f]{4}$", 4, 4)]
Word = Annotated[str, spelt(r"^[a-z]+$", 1, 8)]
Long = Annotated[str, spelt(r"^[A-Z]+$", 1, 500)]


class Key(Value):
    alg: Literal["ed25519", "x25519"]
    public: Hex


class Left(Value, tag="left", tag_field="side"):
    word: Word


class Right(Value, tag="right", tag_field="side"):
    hex: Hex


class All(Value):
    first: Hex
    second: Hex
    word: Word
    other: Word
    long: Long
    key: Annotated[Key, with_algorithm("ed25519")]
    maybe: Hex | None
    inner: Key | None
    words: tuple[Word, ...]
    hexes: tuple[Hex, ...]
    keys: tuple[Key, ...]
    side: Left | Right
    count: Annotated[int, Meta(ge=0, le=5)]


GOOD = {
    "first": "00ff", "second": "abcd", "word": "a", "other": "b", "long": "A" * 200, "count": 1,
    "key": {"alg": "ed25519", "public": "0123"}, "maybe": "9999", "words": ["x", "y"],
    "inner": {"alg": "x25519", "public": "0123"}, "side": {"side": "left", "word": "w"},
    "hexes": ["00ff", "1234"],
    "keys": [{"alg": "x25519", "public": "0123"}],
}  # fmt: skip
JUDGE = Spelling(All)


def decoded(**changed: Any) -> All:
    return json.decode(json.encode(GOOD | changed), type=All)


@pytest.mark.parametrize(
    ("changed", "path"),
    [
        ({"first": "00FF"}, ("first",)),
        ({"second": "00g0"}, ("second",)),
        ({"first": " 0ff"}, ("first",)),
        ({"first": "0f 0"}, ("first",)),
        ({"second": "٠٠٠٠"}, ("second",)),
        ({"word": "A"}, ("word",)),
        ({"other": "a\n"}, ("other",)),
        ({"long": "AAa"}, ("long",)),
        ({"key": {"alg": "x25519", "public": "0123"}}, ("key",)),
        ({"key": {"alg": "ed25519", "public": "012x"}}, ("key", "public")),
        ({"maybe": "xxxx"}, ("maybe",)),
        ({"inner": {"alg": "x25519", "public": "012x"}}, ("inner", "public")),
        ({"words": ["x", "1"]}, ("words", 1)),
        ({"hexes": ["1234", "00fF"]}, ("hexes", 1)),
        ({"hexes": ["00 f"]}, ("hexes", 0)),
        ({"keys": [{"alg": "x25519", "public": "012x"}]}, ("keys", 0, "public")),
        ({"side": {"side": "right", "hex": "zzzz"}}, ("side", "hex")),
        ({"side": {"side": "left", "word": "W"}}, ("side", "word")),
    ],
)
def test_a_text_out_of_its_pattern_is_found_by_its_path(
    changed: dict[str, Any], path: tuple[str | int, ...]
) -> None:
    value = decoded(**changed)
    assert not JUDGE.holds(value)
    fault = JUDGE.fault(value)
    assert fault is not None
    assert fault.path == path
    assert "should match pattern" in fault.reason or fault.reason.startswith(
        "a key that signs is an"
    )


def test_what_is_spelt_as_declared_has_no_fault() -> None:
    for changed in ({}, {"maybe": None, "inner": None, "words": [], "hexes": [], "keys": []}):
        assert JUDGE.holds(decoded(**changed))
        assert JUDGE.fault(decoded(**changed)) is None


_TEXTS = st.text(st.sampled_from("09afAFgz \u0660"), min_size=4, max_size=4)


@given(
    st.dictionaries(st.sampled_from(["first", "second"]), _TEXTS),
    st.lists(_TEXTS, max_size=3),
    st.lists(st.text(st.sampled_from("azA1"), min_size=1, max_size=3), max_size=3),
)
def test_the_fast_judge_and_the_one_that_finds_the_place_agree(
    changed: dict[str, str], hexes: list[str], words: list[str]
) -> None:
    value = decoded(**changed, hexes=hexes, words=words)
    assert JUDGE.holds(value) == (JUDGE.fault(value) is None)


def test_names_that_anybody_makes_up_take_a_bounded_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spelling, "_MOST_KNOWN", 10)
    pattern = spelling.Pattern(r"^[a-z]+$")
    for number in range(100):
        assert pattern.hold(("a" * (number % 60 + 1), chr(97 + number % 26)))
        assert len(pattern.known) <= 10
    assert pattern.hold(("a" * 200,))
    assert "a" * 200 not in pattern.known
    assert not pattern.hold(("a", "A"))


def test_what_could_have_two_spellings_cannot_be_declared() -> None:
    def declared(kind: Any) -> type[Value]:
        return type(Value)("Bad", (Value,), {"__annotations__": {"it": kind}})

    for kind in (str, float, Any, bytes, dict[str, Hex], list[Hex], int, Literal[1], Hex | Word):
        with pytest.raises(TypeError):
            Spelling(declared(kind))
    for kind in (Hex, bool, Literal["a"], Hex | None, tuple[Hex, ...]):
        Spelling(declared(kind))
