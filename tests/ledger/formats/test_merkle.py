"""Roots and proofs are the RFC's, by definition, by vectors, by a second implementation."""

from __future__ import annotations

import base64
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pymerkle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from ledger.errors import NotConsistent
from ledger.formats.merkle import (
    EMPTY_ROOT,
    MAX_SIZE,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)
from ledger.formats.merkle_tree import MerkleTree
from tests.ledger.formats import worked

SIZES = 70
ENTRIES = [b"entry %d" % at for at in range(SIZES)]
TREE = MerkleTree.from_leaves(leaf_hash(entry) for entry in ENTRIES)


def rfc_root(hashes: list[bytes]) -> bytes:
    """MTH of RFC 9162 section 2.1.1, word for word."""
    if not hashes:
        return sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return node_hash(rfc_root(hashes[:split]), rfc_root(hashes[split:]))


def test_the_root_at_every_size_is_the_recursive_definitions() -> None:
    hashes = [leaf_hash(entry) for entry in ENTRIES]
    for size in range(SIZES + 1):
        assert TREE.root(size) == rfc_root(hashes[:size])
    assert TREE.root() == TREE.root(SIZES)
    assert TREE.leaf(5) == hashes[5]


def test_roots_of_the_classic_leaves_are_the_published_ones() -> None:
    tree = worked.tree()
    assert tree.root(0) == EMPTY_ROOT
    assert tree.root(3).hex() == "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"
    assert tree.root(7).hex().startswith("ddb89be4")
    assert tree.root(8).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    assert [node.hex()[:8] for node in tree.inclusion(5, 7)] == ["bc1a0643", "b08693ec", "d37ee418"]
    assert [node.hex()[:8] for node in tree.consistency(3, 7)] == [
        "0298d122",
        "07506a85",
        "fac54203",
        "837dbb15",
    ]
    assert [node.hex()[:8] for node in tree.consistency(4, 7)] == ["837dbb15"]
    assert len(tree.consistency(6, 8)) == 3


def test_every_inclusion_proof_up_to_seventy_leaves_verifies() -> None:
    for size in range(1, SIZES + 1):
        root = TREE.root(size)
        for index in range(size):
            proof = TREE.inclusion(index, size)
            verify_inclusion(index=index, size=size, leaf=TREE.leaf(index), proof=proof, root=root)


def test_every_consistency_proof_up_to_seventy_leaves_verifies() -> None:
    for new in range(1, SIZES + 1):
        for old in range(1, new + 1):
            verify_consistency(
                old_size=old,
                new_size=new,
                old_root=TREE.root(old),
                new_root=TREE.root(new),
                proof=TREE.consistency(old, new),
            )


def test_pymerkle_has_the_same_roots_and_paths() -> None:
    other = InmemoryTree(algorithm="sha256")
    for entry in ENTRIES:
        other.append_entry(entry)
    for size in range(1, SIZES + 1):
        assert other.get_root(size) == TREE.root(size)
        for index in {0, size // 2, size - 1}:
            path = other.prove_inclusion(index + 1, size).serialize()["path"]
            assert [bytes.fromhex(node) for node in path[1:]] == list(TREE.inclusion(index, size))
    for old, new in [(1, 2), (3, 7), (4, 7), (6, 8), (33, 70), (64, 70), (70, 70)]:
        proof = other.prove_consistency(old, new)
        pymerkle.verify_consistency(TREE.root(old), TREE.root(new), proof, old, new)


@given(st.integers(1, SIZES), st.data())
def test_any_change_to_an_inclusion_proof_is_refused(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    good: dict[str, Any] = {
        "index": index,
        "size": size,
        "leaf": TREE.leaf(index),
        "proof": TREE.inclusion(index, size),
        "root": TREE.root(size),
    }
    changed = dict(good)
    proof = list(good["proof"])
    match data.draw(st.sampled_from(["index", "leaf", "root", "drop", "add", "flip"])):
        case "index":
            changed["index"] = data.draw(st.integers(-1, size + 1).filter(lambda at: at != index))
        case "leaf":
            changed["leaf"] = leaf_hash(b"another")
        case "root":
            changed["root"] = TREE.root(size - 1)
        case "drop" if proof:
            del proof[data.draw(st.integers(0, len(proof) - 1))]
        case "flip" if proof:
            at = data.draw(st.integers(0, len(proof) - 1))
            proof[at] = bytes([proof[at][0] ^ 1]) + proof[at][1:]
        case _:
            proof.insert(data.draw(st.integers(0, len(proof))), bytes(32))
    changed["proof"] = proof
    with pytest.raises(NotConsistent, match=f"inclusion of leaf {changed['index']} in size {size}"):
        verify_inclusion(**changed)


@given(st.integers(2, SIZES), st.data())
def test_any_change_to_a_consistency_proof_is_refused(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, new - 1))
    changed: dict[str, Any] = {
        "old_size": old,
        "new_size": new,
        "old_root": TREE.root(old),
        "new_root": TREE.root(new),
    }
    proof = list(TREE.consistency(old, new))
    match data.draw(st.sampled_from(["old_root", "new_root", "drop", "add", "flip"])):
        case ("old_root" | "new_root") as name:
            changed[name] = leaf_hash(b"another")
        case "drop":
            del proof[data.draw(st.integers(0, len(proof) - 1))]
        case "flip":
            at = data.draw(st.integers(0, len(proof) - 1))
            proof[at] = bytes([proof[at][0] ^ 1]) + proof[at][1:]
        case _:
            proof.insert(data.draw(st.integers(0, len(proof))), bytes(32))
    with pytest.raises(NotConsistent, match=f"consistency of size {old} with size {new}"):
        verify_consistency(**changed, proof=proof)


def test_a_rewritten_entry_leaves_no_consistency_proof() -> None:
    rewritten = MerkleTree.from_leaves(
        leaf_hash(b"lie" if at == 7 else entry) for at, entry in enumerate(ENTRIES)
    )
    for old in range(8, SIZES):
        with pytest.raises(NotConsistent, match=r"another (old|new) root"):
            verify_consistency(
                old_size=old,
                new_size=SIZES,
                old_root=TREE.root(old),
                new_root=rewritten.root(),
                proof=rewritten.consistency(old),
            )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"index": -1}, "index must be below the size"),
        ({"index": 7}, "index must be below the size"),
        ({"size": 0, "index": 0}, "index must be below the size"),
        ({"size": MAX_SIZE + 1}, "at most 2^53 - 1"),
        ({"leaf": b""}, "every hash must have 32 bytes"),
        ({"root": bytes(31)}, "every hash must have 32 bytes"),
        ({"proof": (bytes(33),)}, "every hash must have 32 bytes"),
        ({"proof": ()}, "too few hashes"),
        ({"proof": (bytes(32),) * 60}, "too many hashes"),
    ],
)
def test_an_inclusion_proof_out_of_bounds_says_why(change: dict[str, Any], reason: str) -> None:
    good: dict[str, Any] = {
        "index": 5,
        "size": 7,
        "leaf": TREE.leaf(5),
        "proof": TREE.inclusion(5, 7),
        "root": TREE.root(7),
    }
    with pytest.raises(NotConsistent) as caught:
        verify_inclusion(**good | change)
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    ("old", "new", "proof", "reason"),
    [
        (0, 7, (), "1 <= old <= new"),
        (0, 0, (), "1 <= old <= new"),
        (7, 3, (), "1 <= old <= new"),
        (3, MAX_SIZE + 1, (bytes(32),), "1 <= old <= new"),
        (3, 7, (), "the proof is empty"),
        (7, 7, (bytes(32),), "equal sizes need no proof"),
        (3, 7, (bytes(31),), "every hash must have 32 bytes"),
    ],
)
def test_a_consistency_proof_out_of_bounds_says_why(
    old: int, new: int, proof: tuple[bytes, ...], reason: str
) -> None:
    with pytest.raises(NotConsistent) as caught:
        verify_consistency(
            old_size=old,
            new_size=new,
            old_root=TREE.root(old),
            new_root=TREE.root(min(new, SIZES)),
            proof=proof,
        )
    assert reason in caught.value.reason


def test_equal_sizes_with_different_roots_are_refused() -> None:
    with pytest.raises(NotConsistent, match="equal sizes have different roots"):
        verify_consistency(
            old_size=3, new_size=3, old_root=TREE.root(3), new_root=TREE.root(4), proof=()
        )


def test_the_published_hashes_agree(vectors: Path) -> None:
    published = orjson.loads((vectors / "rfc6962" / "hashes.json").read_bytes())
    assert published == {
        "empty_root": EMPTY_ROOT.hex(),
        "leaf_empty": leaf_hash(b"").hex(),
        "leaf_L123456": leaf_hash(b"L123456").hex(),
        "node_N123_N456": node_hash(b"N123", b"N456").hex(),
    }


def test_every_published_inclusion_case_is_judged_as_published(vectors: Path) -> None:
    cases = orjson.loads((vectors / "rfc6962" / "inclusion.json").read_bytes())
    assert len(cases) == 98
    for case in cases:
        refused = False
        try:
            verify_inclusion(
                index=case["leafIdx"],
                size=case["treeSize"],
                leaf=base64.b64decode(case["leafHash"] or ""),
                proof=[base64.b64decode(node) for node in case["proof"] or ()],
                root=base64.b64decode(case["root"] or ""),
            )
        except NotConsistent:
            refused = True
        assert refused == case["wantErr"], case["file"]


def test_every_published_consistency_case_but_one_is_judged_as_published(vectors: Path) -> None:
    """The one: roots of 12 bytes ("don't care 2"), which no SHA-256 tree has; we refuse them."""
    cases = orjson.loads((vectors / "rfc6962" / "consistency.json").read_bytes())
    assert len(cases) == 98
    differing = []
    for case in cases:
        refused = False
        try:
            verify_consistency(
                old_size=case["size1"],
                new_size=case["size2"],
                old_root=base64.b64decode(case["root1"] or ""),
                new_root=base64.b64decode(case["root2"] or ""),
                proof=[base64.b64decode(node) for node in case["proof"] or ()],
            )
        except NotConsistent:
            refused = True
        if refused != case["wantErr"]:
            differing.append(case["file"])
    assert differing == [
        "testdata/consistency/additional/sizes-are-equal-one-and-proof-is-empty.json"
    ]
