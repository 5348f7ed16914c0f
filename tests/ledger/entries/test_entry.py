"""Entries: one spelling, exact bytes, a signature that is for nothing else."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.entries.entry import (
    MAX_LEAF,
    NOTHING_SEEN,
    Body,
    Entry,
    federation_id,
    frame_leaf,
    log_origin,
    parse_entry,
    parse_leaf,
    sign_entry,
    split_leaf,
    verify_signature,
)
from ledger.entries.operations.log import NodeResumed, TimeNoted
from ledger.entries.operations.rounds import RoundAggregated
from ledger.entries.operations.values import BlobRef
from ledger.entries.operations.vocabulary import Operation
from ledger.errors import BadSignature, MalformedInput
from ledger.formats.keys import SigningKey, verify
from ledger.formats.merkle import leaf_hash
from ledger.formats.strict import MAX_ENTRY, canonical
from tests.federation import Federation
from tests.ledger.facts import h

KEY = SigningKey.from_seed(bytes(32))


def body(op: Operation | None = None, **changed: Any) -> Body:
    fields: dict[str, Any] = {
        "v": 1,
        "federation": h("federation"),
        "author": "basel-node",
        "key": KEY.id,
        "seq": 3,
        "prev": h("before"),
        "seen": NOTHING_SEEN,
        "at_ms": 1,
        "op": op or TimeNoted(type="time.noted"),
    }
    return Body(**(fields | changed))


def signed(op: Operation | None = None) -> Entry:
    return sign_entry(body(op), KEY)


def test_a_leaf_is_length_body_length_signature() -> None:
    entry = signed()
    size = len(entry.raw)
    assert entry.leaf == (
        size.to_bytes(4, "big") + entry.raw + (64).to_bytes(4, "big") + entry.signature
    )
    assert split_leaf(entry.leaf) == (entry.raw, entry.signature)
    assert entry.hash == leaf_hash(entry.leaf).hex()
    assert parse_leaf(entry.leaf) == entry


@given(st.binary(max_size=300))
def test_bytes_are_a_leaf_only_if_their_frame_gives_them_back(data: bytes) -> None:
    try:
        raw, signature = split_leaf(data)
    except MalformedInput:
        return
    assert frame_leaf(raw, signature) == data


@pytest.mark.parametrize("cut", [0, 3, 4, 10, -1])
def test_a_leaf_that_was_cut_or_has_more_is_refused(cut: int) -> None:
    leaf = signed().leaf
    with pytest.raises(MalformedInput, match="do not match"):
        split_leaf(leaf[:cut])
    with pytest.raises(MalformedInput, match="do not match"):
        split_leaf(leaf + b"\0")
    with pytest.raises(MalformedInput, match=f"at most {MAX_LEAF}"):
        split_leaf(leaf + bytes(MAX_LEAF))
    with pytest.raises(MalformedInput, match="63 bytes instead of 64"):
        split_leaf(frame_leaf(b"{}", bytes(63)))


def test_a_signature_is_for_this_kind_this_body_and_this_key() -> None:
    entry = signed()
    verify_signature(entry, KEY.public)
    other = SigningKey.from_seed(bytes([1]) * 32)
    with pytest.raises(BadSignature, match=rf"entry basel-node/3.*not one by key {KEY.id}"):
        verify_signature(entry, other.public)
    again = parse_entry(canonical(body(at_ms=2)), entry.signature)
    with pytest.raises(BadSignature):
        verify_signature(again, KEY.public)
    assert not verify(KEY.public, "invitation", entry.raw, entry.signature)


def test_whoever_swaps_a_signature_changes_the_leaf() -> None:
    entry = signed()
    swapped = parse_entry(entry.raw, bytes(64))
    assert swapped.body == entry.body
    assert swapped.hash != entry.hash


def test_an_entry_is_signed_by_the_key_that_it_names() -> None:
    with pytest.raises(ValueError, match=r"names key .* would sign"):
        sign_entry(body(key="0" * 32), KEY)


def test_what_no_log_would_take_is_not_signed() -> None:
    blob = BlobRef(sha256=h(1), bytes=1)
    op = RoundAggregated(
        type="round.aggregated",
        experiment=h(1),
        round=1,
        attempt=1,
        updates=tuple(h(n) for n in range(500)),
        aggregate=blob,
        model=blob,
    )
    with pytest.raises(MalformedInput, match=rf"at most {MAX_ENTRY} are accepted: name fewer"):
        sign_entry(body(op), KEY)


def respelt(**changed: Any) -> bytes:
    plain = json.loads(canonical(body()))
    plain.update(changed)
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("raw", "where", "reason"),
    [
        (respelt(v=2), "Body.v", "expected `int` <= 1"),
        (respelt(op={"type": "time.passed"}), "Body.op", "tag is none of those known"),
        (respelt(op={"type": "time.noted", "x": 1}), "x", "not permitted"),
        (respelt(extra=1), "Body.extra", "not permitted"),
        (respelt(seq=-1), "Body.seq", "expected `int` >= 0"),
        (respelt(seq=2**53), "Body.seq", "expected `int` <= 9007199254740991"),
        (respelt(at_ms=1.5), "Body.at_ms", "expected `int`, got `float`"),
        (respelt(author="Basel"), "Body.author", "small letters"),
        (respelt(prev="0" * 63), "Body.prev", "length >= 64"),
        (respelt(prev="g" * 64), "Body.prev", "match pattern"),
        (respelt(key="A" * 32), "Body.key", "match pattern"),
        (canonical(body()) + b" ", "Body", "canonical form"),
        (canonical(body()).replace(b'"at_ms":1', b'"at_ms":01'), "Body", ""),
        (b"", "Body", ""),
    ],
)
def test_bytes_outside_the_format_are_refused_and_named(
    raw: bytes, where: str, reason: str
) -> None:
    with pytest.raises(MalformedInput) as caught:
        parse_entry(raw, bytes(64))
    assert where in caught.value.where
    assert reason in caught.value.reason


ENUMERATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "experiment.refused": ("reason", {"experiment": h(1), "dataset": "d"}),
    "experiment.stopped": ("reason", {"experiment": h(1)}),
    "budget.refused": ("reason", {"experiment": h(1), "dataset": "d"}),
    "dataset.withdrawn": ("reason", {"dataset": "d"}),
    "update.refused": ("reason", {"update": h(1)}),
    "round.closed": ("reason", {"experiment": h(1), "round": 1, "attempt": 1}),
    "privacy.audited": (
        "finding",
        {
            "kind": "residuals",
            "data": "synthetic",
            "experiment": None,
            "dataset": None,
            "samples": 1,
            "measured_ppm": 1,
            "low_ppm": 1,
            "high_ppm": 1,
            "bound_ppm": 1,
            "confidence_ppm": 1,
            "result": None,
        },
    ),
    "ledger.reviewed": ("finding", {"size": 1, "root": h(1)}),
}


@pytest.mark.parametrize("name", ENUMERATIONS)
def test_an_unknown_word_of_a_closed_enumeration_is_refused(name: str) -> None:
    field, others = ENUMERATIONS[name]
    raw = respelt(op={"type": name, field: "because", **others})
    with pytest.raises(MalformedInput) as caught:
        parse_entry(raw, bytes(64))
    assert caught.value.where.endswith(field)


@pytest.mark.parametrize("field", ["entry", "request", "sealing", "witness"])
def test_a_key_of_another_algorithm_than_its_use_is_refused(field: str) -> None:
    federation = Federation.found(("basel",))
    joined = json.loads(federation.entries()[1].raw)
    keys = joined["op"]["keys"]
    keys[field]["alg"] = "ed25519" if field == "sealing" else "x25519"
    raw = json.dumps(joined, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(MalformedInput, match=r"key that s(igns|eals) is an") as caught:
        parse_entry(raw, bytes(64))
    assert field in caught.value.where


def test_every_entry_of_an_honest_log_parses_to_itself() -> None:
    federation = Federation.found(("basel", "bern"))
    federation.play(federation.start())
    for leaf in federation.leaves:
        entry = parse_leaf(leaf)
        assert canonical(entry.body) == entry.raw
        assert entry.leaf == leaf


def test_the_federation_is_the_hash_of_its_first_body() -> None:
    federation = Federation.found(("basel",))
    genesis = federation.entries()[0]
    assert federation_id(genesis) == hashlib.sha256(genesis.raw).hexdigest() == federation.id
    assert log_origin(federation.id) == f"consilium/{federation.id}"


def test_the_nonce_of_a_restart_is_part_of_what_is_signed() -> None:
    first = signed(NodeResumed(type="node.resumed", nonce=h(1)))
    second = signed(NodeResumed(type="node.resumed", nonce=h(2)))
    assert first.hash != second.hash
