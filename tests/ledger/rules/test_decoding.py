"""A state read back from its bytes is that state, and other bytes are refused."""

from __future__ import annotations

import random

import orjson
import pytest
from immutables import Map

from ledger.errors import MalformedInput
from ledger.rules.decoding import decode
from ledger.rules.encoding import digest, encode
from ledger.rules.log import Log
from ledger.rules.state import State, TimeMark, replace
from privacy.filters import Spend
from tests.federation import Federation
from tests.ledger.facts import HOSPITALS


@pytest.fixture(scope="module")
def states() -> list[State]:
    """Every state of a federation whose experiment was played to its end."""
    federation = Federation.found(HOSPITALS)
    federation.play(federation.start())
    log, found = Log(), []
    for leaf in federation.leaves:
        log.append(log.judge(leaf))
        found.append(log.state)
    return found


def test_every_state_comes_back_equal_with_its_digest(states: list[State]) -> None:
    for state in states:
        again = decode(encode(state))
        assert again == state
        assert digest(again) == digest(state)
        for kept, read in zip(state.experiments.values(), again.experiments.values(), strict=True):
            assert read.sites == kept.sites


def test_a_sum_beyond_what_json_readers_agree_on_comes_back(states: list[State]) -> None:
    state = states[-1]
    name, cell = next(iter(state.cells.items()))
    large = replace(state, cells=state.cells.set(name, replace(cell, spend=Spend(g=2**70))))
    assert decode(encode(large)) == large


def test_an_empty_map_is_not_a_missing_one(states: list[State]) -> None:
    empty: Map[str, object] = Map()
    state = replace(states[-1], experiments=empty, time_marks=(TimeMark(1, 2),))  # type: ignore[arg-type]
    assert decode(encode(state)) == state


def test_changed_bytes_are_refused_or_are_another_state_exactly(states: list[State]) -> None:
    data = encode(states[-1])
    rng = random.Random(5)
    refused = 0
    for _ in range(400):
        changed = bytearray(data)
        at = rng.randrange(len(data))
        changed[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        try:
            assert encode(decode(bytes(changed))) == changed
        except MalformedInput:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"size": "7"}, "is of type str, not int"),
        ({"size": True}, "is of type bool, not int"),
        ({"size": 1.0}, "is of type float, not int"),
        ({"size": None}, "is of type NoneType, not int"),
        ({"members": []}, "is of type list, not dict"),
        ({"time_marks": {}}, "is of type dict, not list"),
        ({"more": 1}, "its fields are"),
        ({"policy": {}}, "field required"),
        ({"name": 5}, "is of type int, not str"),
    ],
)
def test_a_field_of_another_shape_is_refused_by_its_place(
    states: list[State], change: dict[str, object], reason: str
) -> None:
    plain = orjson.loads(encode(states[-1])) | change
    with pytest.raises(MalformedInput) as caught:
        decode(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS))
    assert reason in str(caught.value)
    assert caught.value.where.startswith("state")


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b"{", b"\xff", b'"x"'])
def test_what_is_no_state_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedInput):
        decode(data)


def test_the_same_state_in_another_spelling_is_refused(states: list[State]) -> None:
    data = encode(states[-1])
    with pytest.raises(MalformedInput, match="does not encode to the bytes"):
        decode(data.replace(b'":', b'": ', 1))
