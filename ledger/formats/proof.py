"""A proof that an entry is in the log, in one file (c2sp.org/tlog-proof@v1, untagged).

The file carries the entry's index, its Merkle path and a checkpoint with its cosignatures; its
suffix is ``.tlog-proof``. Whoever has the entry's bytes, the log's key and the witnesses' keys
verifies it offline, with any implementation of the specification.

Promise: ``parse_proof`` accepts exactly what ``Proof.encode`` writes.

Not promised: the entry is not inside, and the ``extra`` line is authenticated by nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ledger.errors import MalformedInput
from ledger.formats.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint, parse_size
from ledger.formats.merkle import HASH_BYTES, leaf_hash, verify_inclusion
from ledger.formats.merkle_tree import MerkleTree
from ledger.formats.note import MAX_NOTE, VerifierKey, parse_note, verify_note
from ledger.formats.strict import decode_b64, encode_b64, excerpt
from ledger.formats.tlog_policy import Policy, verify_by_policy
from ledger.formats.witness import QuorumResult, judge_quorum

MAGIC = "c2sp.org/tlog-proof@v1"
MAX_PATH = 63
"""Hashes of a path in a tree of fewer than 2^63 leaves."""
MAX_PROOF = MAX_NOTE + 64 * 1024
"""Bytes of a whole proof file."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Where an entry stands in a signed tree.

    Attributes:
        index: the entry's index, from 0.
        path: hashes of 32 bytes, the leaf's sibling first; none in a tree of one leaf.
        note: the checkpoint note, verbatim.
        extra: opaque bytes that nothing authenticates, or None.
    """

    index: int
    path: tuple[bytes, ...]
    note: bytes
    extra: bytes | None = None

    def encode(self) -> bytes:
        """Write the proof file."""
        lines = [MAGIC]
        if self.extra is not None:
            lines.append(f"extra {encode_b64(self.extra)}")
        lines.append(f"index {self.index}")
        lines += [encode_b64(node) for node in self.path]
        return "".join(f"{line}\n" for line in lines).encode() + b"\n" + self.note


def build_proof(tree: MerkleTree, index: int, note: bytes) -> Proof:
    """Prove that the entry at ``index`` is in the tree that a checkpoint note describes.

    Args:
        tree: the log's tree; may have grown beyond the checkpoint.
        index: from 0, below the checkpoint's size.
        note: a checkpoint note of this log.

    Raises:
        MalformedInput: not a checkpoint, or of another tree than this one.
        OutsideTree: the index or the checkpoint's size is not in this tree.
    """
    checkpoint = parse_checkpoint(parse_note(note).text)
    path = tree.inclusion(index, checkpoint.size)
    if tree.root(checkpoint.size) != checkpoint.root:
        raise MalformedInput("checkpoint.root", f"is not this tree's at size {checkpoint.size}")
    return Proof(index, path, note)


def parse_proof(data: bytes) -> Proof:
    """Read a proof file; verifies nothing.

    Raises:
        MalformedInput: ``Proof.encode`` would not have written these bytes.
    """
    if len(data) > MAX_PROOF:
        raise MalformedInput("proof", f"has {len(data)} bytes; at most {MAX_PROOF} are accepted")
    head, empty, note = data.partition(b"\n\n")
    if not empty:
        raise MalformedInput("proof", "has no empty line before the checkpoint")
    try:
        magic, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise MalformedInput("proof", f"is not ASCII at byte {error.start}") from None
    if magic != MAGIC:
        raise MalformedInput("proof", f"begins with {excerpt(magic)}, not {MAGIC}")
    extra = None
    if lines and lines[0].startswith("extra "):
        extra = decode_b64(lines.pop(0).removeprefix("extra "), "proof extra")
    if not lines or not lines[0].startswith("index "):
        raise MalformedInput("proof", "has no index line")
    index = parse_size(lines.pop(0).removeprefix("index "), "proof index")
    if len(lines) > MAX_PATH:
        raise MalformedInput("proof", f"has {len(lines)} hashes; at most {MAX_PATH} are possible")
    path = tuple(
        decode_b64(line, f"proof hash {at}", size=HASH_BYTES)
        for at, line in enumerate(lines, start=1)
    )
    parse_checkpoint(parse_note(note).text)
    return Proof(index, path, note, extra)


def verify_proof(
    leaf: bytes,
    data: bytes,
    log: VerifierKey,
    witnesses: Mapping[str, frozenset[bytes]],
    *,
    origin: str | None = None,
) -> QuorumResult:
    """Verify offline that an entry is in the log, at a checkpoint enough organisations saw.

    1. The proof parses, and its checkpoint is the log's: origin and signature.
    2. The path leads from the entry's leaf hash to the checkpoint's root.
    3. Enough organisations cosigned the checkpoint.

    Args:
        leaf: the leaf's bytes as logged, which the proof does not carry.
        data: the proof file.
        log: the log's key, named by its origin.
        witnesses: each organisation's public witness keys; empty where none is asked for.
        origin: the origin expected; by default the log key's name.

    Returns:
        The checkpoint, and who cosigned it when.

    Raises:
        MalformedInput, BadSignature, UnknownKey: step 1, or a cosignature is false.
        NotConsistent: step 2.
        NotWitnessed: step 3.
    """
    proof = parse_proof(data)
    checkpoint = open_checkpoint(proof.note, log, origin=origin)
    verify_inclusion(
        index=proof.index,
        size=checkpoint.size,
        leaf=leaf_hash(leaf),
        proof=proof.path,
        root=checkpoint.root,
    )
    result = judge_quorum(proof.note, log, witnesses, origin=origin)
    result.require()
    return result


def verify_proof_by_policy(
    leaf: bytes, data: bytes, policy: Policy
) -> tuple[Checkpoint, dict[str, int]]:
    """Verify offline that an entry is in a log, at a checkpoint that meets a policy.

    Args:
        leaf: the leaf's bytes as logged, which the proof does not carry.
        data: the proof file.
        policy: which logs, which witnesses, how many of them.

    Returns:
        The checkpoint, and by key name when each witness of the policy cosigned it (POSIX seconds).

    Raises:
        MalformedInput, BadSignature, UnknownKey: the proof does not parse, no log of the policy signed
            it, or a line is false.
        NotConsistent: the path does not lead from the leaf to the checkpoint's root.
        NotWitnessed: the quorum did not cosign it.
    """
    proof = parse_proof(data)
    checkpoint = verify_by_policy(proof.note, policy)
    verify_inclusion(
        index=proof.index,
        size=checkpoint.size,
        leaf=leaf_hash(leaf),
        proof=proof.path,
        root=checkpoint.root,
    )
    keys = [log.key for log in policy.logs] + [witness.key for witness in policy.witnesses]
    _, verified = verify_note(proof.note, keys)
    times = {v.key.name: v.time_s for v in verified if v.time_s is not None}
    return checkpoint, times
