"""The fast parser of entries is the careful one: same verdict, same value, same message."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core import CoreSchema

from ledger.entries.entry import Body, split_leaf
from ledger.errors import MalformedInput
from ledger.formats.strict import canonical, parse_canonical, parse_plain
from tests.federation import Federation
from tests.ledger.facts import HOSPITALS

TOKENS = (
    b"true",
    b"null",
    b"1.0",
    b"1e2",
    b"-0",
    b"01",
    b"NaN",
    b"9007199254740991",
    b"9007199254740992",
    b"18446744073709551616",
    b'"\\u0061"',
    b'"a\\\\"',
    b'"\\""',
    b"\\n",
    b" ",
    b",",
    b"[]",
    b"{}",
    b"\x00",
    b"\x7f",
    b"\xc3\xa9",
    b'"v":1,',
    b'"x":0,',
    b"[" * 70,
    b"0",
    b"1",
    b"2",
)
NUMBER = re.compile(rb"(?<=[:\[,])-?\d+(?=[,}\]])")


def outcome(parse: Any, raw: bytes) -> tuple[object, ...]:
    try:
        body = parse(raw, Body)
    except MalformedInput as refusal:
        return ("refused", refusal.where, refusal.reason)
    assert canonical(body) == raw
    return ("taken", body)


@pytest.fixture(scope="module")
def bodies() -> list[bytes]:
    federation = Federation.found(HOSPITALS)
    federation.play(federation.start())
    return [split_leaf(leaf)[0] for leaf in federation.leaves]


def test_every_entry_of_a_federation_parses_to_the_same_value(bodies: list[bytes]) -> None:
    for raw in bodies:
        assert parse_plain(raw, Body) == parse_canonical(raw, Body)


@pytest.mark.parametrize("seed", range(4))
def test_changed_bytes_get_the_same_verdict_value_and_message(
    bodies: list[bytes], seed: int
) -> None:
    rng = random.Random(seed)
    seen = {"taken": 0, "refused": 0}
    for _ in range(1500):
        raw = changed(rng, rng.choice(bodies))
        found = outcome(parse_plain, raw)
        assert found == outcome(parse_canonical, raw), raw
        seen[str(found[0])] += 1
    assert min(seen.values()) > 50


def changed(rng: random.Random, raw: bytes) -> bytes:
    made = bytearray(raw)
    how = rng.randrange(6)
    at = rng.randrange(len(made))
    if how == 0:
        made[at] = rng.randrange(256)
    elif how == 1:
        number = rng.choice(list(NUMBER.finditer(raw)))
        made[number.start() : number.end()] = rng.choice(TOKENS)
    elif how == 2:
        made[at:at] = rng.choice(TOKENS)
    elif how == 3:
        del made[at : at + rng.randrange(30)]
    elif how == 4:  # what stands between commas changes places
        made = bytearray(b",".join(rng.sample(parts := raw.split(b","), len(parts))))
    return bytes(made)


@pytest.mark.parametrize("version", [b"true", b"1.0", b"1e0", b'"1"', b"0", b"2", b"null"])
def test_another_version_is_refused_alike(bodies: list[bytes], version: bytes) -> None:
    raw = bodies[3].replace(b'"v":1', b'"v":' + version)
    found = outcome(parse_plain, raw)
    assert found[0] == "refused"
    assert found == outcome(parse_canonical, raw)


def test_the_models_of_an_entry_are_plain_enough_for_the_fast_parser() -> None:
    """No default, float, number literal or free value, and nothing that changes what it takes."""
    kinds = set()
    for part in parts(Body.__pydantic_core_schema__):
        kind = part["type"]
        kinds.add(kind)
        if kind == "literal":
            assert all(type(choice) is str for choice in part["expected"]), part
        elif kind == "str":
            assert not part.keys() & {"strip_whitespace", "to_lower", "to_upper"}, part
        elif kind == "model-fields":
            assert all(f["schema"]["type"] != "default" for f in part["fields"].values()), part
            assert part.get("computed_fields", []) == []
        elif kind == "model":
            assert part["config"]["extra_fields_behavior"] == "forbid"
            assert part["config"]["strict"] is True
    assert {"model", "model-fields", "literal", "str", "int", "tuple"} <= kinds
    assert not kinds & {"float", "decimal", "any", "default", "bytes", "dict", "json", "enum"}


def parts(schema: CoreSchema | Any) -> Iterator[dict[str, Any]]:
    """Every part of a model's schema that has a type."""
    if isinstance(schema, dict):
        if isinstance(schema.get("type"), str):
            yield schema
        for value in schema.values():
            yield from parts(value)
    elif isinstance(schema, list | tuple):
        for value in schema:
            yield from parts(value)


def test_a_model_that_is_too_long_is_refused_by_the_careful_parser(bodies: list[bytes]) -> None:
    class Small(BaseModel):
        pass

    with pytest.raises(MalformedInput, match="at most 1 are accepted"):
        parse_plain(b"{}", Small, limit=1)
