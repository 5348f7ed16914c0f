"""One file proves offline that an entry was logged and enough organisations saw it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import (
    BadSignature,
    MalformedInput,
    NotConsistent,
    NotWitnessed,
    OutsideTree,
    Refused,
    UnknownKey,
)
from ledger.formats.checkpoint import Checkpoint, cosign, sign_checkpoint
from ledger.formats.merkle import leaf_hash
from ledger.formats.merkle_tree import MerkleTree
from ledger.formats.note import parse_vkey
from ledger.formats.proof import Proof, build_proof, parse_proof, verify_proof
from ledger.formats.witness import witness_name
from tests.ledger.formats import worked

TREE = worked.tree()
BARE = sign_checkpoint(worked.LOG_KEY, Checkpoint(worked.ORIGIN, 7, TREE.root(7)))
NOTE = BARE + cosign(BARE, worked.WITNESS_KEY, witness_name(worked.ORIGIN, "basel-1"), 1000)
WITNESSES = {"basel": frozenset({worked.WITNESS_KEY.public})}
PROOF = build_proof(TREE, 5, NOTE)


def test_a_proof_of_every_leaf_verifies_at_every_size() -> None:
    for size in range(1, 9):
        note = sign_checkpoint(worked.LOG_KEY, Checkpoint(worked.ORIGIN, size, TREE.root(size)))
        for index in range(size):
            data = build_proof(TREE, index, note).encode()
            result = verify_proof(worked.LEAVES[index], data, worked.LOG, {})
            assert result.checkpoint.size == size


def test_a_witnessed_proof_says_who_saw_it_when() -> None:
    result = verify_proof(worked.LEAVES[5], PROOF.encode(), worked.LOG, WITNESSES)
    assert result.signed == {"basel": 1000}


def test_the_file_is_as_the_specification_writes_it() -> None:
    with_extra = replace(PROOF, extra=b"vrf")
    head, note = with_extra.encode().split(b"\n\n", 1)
    lines = head.decode().split("\n")
    assert lines[:3] == ["c2sp.org/tlog-proof@v1", "extra dnJm", "index 5"]
    assert len(lines) == 3 + 3
    assert note == NOTE
    assert parse_proof(with_extra.encode()) == with_extra
    assert parse_proof(PROOF.encode()) == PROOF
    assert parse_proof(replace(PROOF, extra=b"").encode()).extra == b""


def test_a_tree_of_one_leaf_needs_no_hash_lines() -> None:
    note = sign_checkpoint(worked.LOG_KEY, Checkpoint(worked.ORIGIN, 1, TREE.root(1)))
    data = build_proof(TREE, 0, note).encode()
    assert data.startswith(b"c2sp.org/tlog-proof@v1\nindex 0\n\nexample.org/consilium\n")
    verify_proof(worked.LEAVES[0], data, worked.LOG, {})


def test_another_leaf_or_index_is_refused() -> None:
    with pytest.raises(NotConsistent, match="leads to another root"):
        verify_proof(worked.LEAVES[4], PROOF.encode(), worked.LOG, {})
    with pytest.raises(NotConsistent):
        verify_proof(worked.LEAVES[5], replace(PROOF, index=4).encode(), worked.LOG, {})
    with pytest.raises(NotConsistent, match="index must be below the size"):
        verify_proof(worked.LEAVES[5], replace(PROOF, index=7).encode(), worked.LOG, {})


def test_a_node_of_the_tree_cannot_pass_for_a_leaf() -> None:
    """The children's hashes as a leaf: only the leaf prefix 0x00 stands in between."""
    children = TREE.leaf(4) + TREE.leaf(5)
    shorter = Proof(index=2, path=PROOF.path[1:], note=NOTE)
    with pytest.raises(NotConsistent):
        verify_proof(children, shorter.encode(), worked.LOG, {})


def test_another_log_or_a_missing_witness_is_refused() -> None:
    with pytest.raises(UnknownKey):
        verify_proof(worked.LEAVES[5], PROOF.encode(), replace(worked.LOG, name="x"), {})
    with pytest.raises(MalformedInput, match="origin"):
        verify_proof(worked.LEAVES[5], PROOF.encode(), worked.LOG, {}, origin="x")
    unseen = replace(PROOF, note=BARE).encode()
    with pytest.raises(NotWitnessed, match="missing: basel"):
        verify_proof(worked.LEAVES[5], unseen, worked.LOG, WITNESSES)


@given(st.data())
def test_any_changed_byte_of_a_proof_is_refused(data: st.DataObject) -> None:
    good = PROOF.encode()
    changed = bytearray(good)
    changed[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Refused):
        verify_proof(worked.LEAVES[5], bytes(changed), worked.LOG, WITNESSES)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_meet_only_typed_refusals(data: bytes) -> None:
    head = b"c2sp.org/tlog-proof@v1\nindex 0\n"
    for candidate in (data, head + data, head + b"\n" + data, head + data + b"\n\n" + NOTE):
        try:
            proof = parse_proof(candidate)
        except MalformedInput:
            continue
        assert proof.encode() == candidate


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "has no empty line"),
        (PROOF.encode().replace(b"@v1", b"@v2"), "begins with"),
        (PROOF.encode().replace(b"index 5\n", b""), "has no index line"),
        (PROOF.encode().replace(b"index 5\n", b"index 05\n"), "is not a decimal number"),
        (PROOF.encode().replace(b"index 5\n", b"index 5\nextra AA==\n"), "is not base64"),
        (PROOF.encode().replace(b"index 5\n", b"index 5\r\n"), "is not a decimal number"),
        (PROOF.encode().replace(b"index 5\n", b"extra AB==\nindex 5\n"), "another spelling"),
        (PROOF.encode().replace(b"index 5\n", b"extra \nextra \nindex 5\n"), "no index line"),
        (b"\xff" + PROOF.encode(), "is not ASCII at byte 0"),
        (replace(PROOF, path=(bytes(32),) * 64).encode(), "has 64 hashes"),
        (replace(PROOF, path=(bytes(31),)).encode(), "holds 31 bytes where 32 are expected"),
        (replace(PROOF, note=b"").encode(), "does not end in LF"),
        (b"x" * 200_000, "at most 131072 are accepted"),
    ],
)
def test_each_malformed_proof_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(MalformedInput) as caught:
        parse_proof(data)
    assert reason in caught.value.reason


def test_a_proof_is_only_built_for_a_checkpoint_of_this_tree() -> None:
    other = MerkleTree.from_leaves(leaf_hash(b"%d" % at) for at in range(8))
    with pytest.raises(MalformedInput, match="is not this tree's at size 7"):
        build_proof(other, 5, NOTE)
    with pytest.raises(OutsideTree, match="leaf 7 at size 7"):
        build_proof(TREE, 7, NOTE)
    with pytest.raises(OutsideTree, match="size 7 is outside this tree of 3 leaves"):
        build_proof(worked.tree(3), 1, NOTE)


def test_a_real_proof_of_the_go_checksum_database_verifies(vectors: Path) -> None:
    data = (vectors / "tlog_proof" / "tessera-v1.0.0.tlog-proof").read_bytes()
    leaf = (vectors / "tlog_proof" / "tessera-v1.0.0.leaf").read_bytes()
    log = parse_vkey((vectors / "sumdb" / "vkey.txt").read_text().strip())
    proof = parse_proof(data)
    assert (proof.index, len(proof.path)) == (43930254, 26)
    assert proof.encode() == data
    assert leaf_hash(leaf).hex().startswith("0fa57c51")
    result = verify_proof(leaf, data, log, {}, origin="go.sum database tree")
    assert result.checkpoint.size == 58253265
    with pytest.raises(NotConsistent, match="another root"):
        verify_proof(leaf + b"\n", data, log, {}, origin="go.sum database tree")
    with pytest.raises(BadSignature):
        verify_proof(
            leaf, data.replace(b"58253265", b"58253266"), log, {}, origin="go.sum database tree"
        )
