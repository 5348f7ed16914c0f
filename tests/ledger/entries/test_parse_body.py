"""The fast parser of bodies is the careful one, and both are what the declared types say."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ledger.entries.entry import Body, parse_body
from ledger.entries.operations.vocabulary import OPERATIONS
from ledger.errors import MalformedInput
from ledger.formats.strict import canonical, parse_canonical
from tests.ledger.entries import plainly
from tests.ledger.entries.plainly import body_of, changed, changed_at, places, sample, written

BAD_TEXTS = ("", "A", "g" * 64, "A" * 64, "ab" * 31 + "a ", "a_b", "-a", "a-", "é", "a" * 41, 'a"b')


def careful(raw: bytes) -> Body:
    return parse_canonical(raw, Body)


def outcome(parse: Any, raw: bytes) -> tuple[object, ...]:
    try:
        body = parse(raw)
    except MalformedInput as refusal:
        return ("refused", refusal.where, refusal.reason)
    assert canonical(body) == raw
    return ("taken", body)


@pytest.fixture(scope="module")
def bodies() -> list[bytes]:
    return plainly.bodies()


def test_every_entry_of_a_federation_and_every_operation_parses_to_the_same_value(
    bodies: list[bytes],
) -> None:
    for raw in bodies:
        assert parse_body(raw) == careful(raw)
        assert plainly.compare(raw)


@pytest.mark.parametrize("seed", range(3))
def test_changed_bytes_get_the_same_verdict_value_and_message(
    bodies: list[bytes], seed: int
) -> None:
    rng = random.Random(seed)
    seen = {"taken": 0, "refused": 0}
    for _ in range(800):
        raw = changed(rng, rng.choice(bodies), bodies)
        found = outcome(parse_body, raw)
        assert found == outcome(careful, raw), raw
        assert plainly.compare(raw) == (found[0] == "taken")
        assert len(str(found[1:])) < 300 or found[0] == "taken"
        seen[str(found[0])] += 1
    assert min(seen.values()) > 50


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_text_of_every_operation_is_refused_out_of_its_pattern_by_its_path(name: str) -> None:
    plain = sample(body_of(name))
    parse_body(written(plain))
    found = [(path, value) for path, value in places(plain) if isinstance(value, str)]
    assert len(found) >= 5
    for path, value in found:
        for text in (*BAD_TEXTS, value + "\n", value.upper() + "Z", value[:-1], value + "0" * 200):
            raw = changed_at(plain, path, text)
            if plainly.compare(raw):
                continue  # a shorter slug is a slug
            with pytest.raises(MalformedInput) as caught:
                parse_body(raw)
            said = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
            if text.isascii() and text.isprintable() and path[-1] not in ("type", "kind", "alg"):
                assert '"' in text or caught.value.where == "Body" + said


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_number_is_refused_out_of_its_range_and_every_place_of_another_type(
    name: str,
) -> None:
    plain = sample(body_of(name))
    for path, value in places(plain):
        for new in (-1, 2**53, 2**64, 1.5, 1.0, True, None, "1", [], {}, [value], {"a": value}):
            plainly.compare(changed_at(plain, path, new))
        if type(value) is int:
            for new in (-1, 2**53, True, "1"):
                with pytest.raises(MalformedInput):
                    parse_body(changed_at(plain, path, new))


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_field_is_required_and_no_other_is_taken_at_any_level(name: str) -> None:
    plain = sample(body_of(name))
    for path in {path[:-1] for path, _ in places(plain)}:
        at = plain
        for part in path:
            at = at[part]
        if not isinstance(at, dict):
            continue
        for field in at:
            less = {other: value for other, value in at.items() if other != field}
            raw = changed_at({"all": plain}, ("all", *path), less)[len(b'{"all":') : -1]
            assert not plainly.compare(raw)
        for field in ("a", "zz", "type ", "Op"):
            assert not plainly.compare(changed_at(plain, (*path, field), None))


@pytest.mark.parametrize("version", [b"true", b"1.0", b"1e0", b'"1"', b"0", b"2", b"null"])
def test_another_version_is_refused_alike(bodies: list[bytes], version: bytes) -> None:
    raw = bodies[3].replace(b'"v":1', b'"v":' + version)
    found = outcome(parse_body, raw)
    assert found[0] == "refused"
    assert found == outcome(careful, raw)


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_fast_parser_takes_every_operation_by_itself(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = written(sample(body_of(name)))
    parse_body(raw)
    if name != "change.proposed":  # its tag is written first, which only the careful parser sorts
        monkeypatch.setattr("ledger.entries.entry.parse_canonical", None)
    assert parse_body(raw).op.type == name
