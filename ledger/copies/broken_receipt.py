"""A receipt that its log did not keep: the evidence, and its judge (docs/formats.md, section 14).

Three ways in which a promise of entry L at index i by time T (``ledger.formats.receipt``) is broken:

``denied``
    A checkpoint by the log over more than i entries, and the proof that another entry is at i. No
    clock is involved: the log's key signed both.
``late``
    A checkpoint by the log over no more than i entries, and the proof that one of them is the
    coordinator's own, which it signed later than T by its own clock. The log's key and the
    coordinator's contradict the promise.
``unseen``
    A checkpoint over no more than i entries that a quorum of hospitals cosigned after T as the
    largest they had seen. It rests on the clocks of more than two thirds of the hospitals.

A coordinator that falls silent before T shows no checkpoint of later than T: then its author alone
knows, and everybody sees that the log stands still. That proves nothing against it.

Promise: what is confirmed here is true for everybody who knows the log's key and state.

Not promised: that the entry was withheld on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ledger.entries.entry import parse_leaf, verify_signature
from ledger.errors import MalformedInput, NotConsistent, UnknownKey
from ledger.formats.checkpoint import open_checkpoint
from ledger.formats.merkle import leaf_hash, verify_inclusion
from ledger.formats.note import VerifierKey
from ledger.formats.proof import MAGIC, parse_proof
from ledger.formats.receipt import open_receipt
from ledger.formats.witness import judge_quorum
from ledger.rules.finality import witness_keys
from ledger.rules.state import KeyState, State

BROKEN_RECEIPT = "receipt"
"""The kind under which a store keeps such evidence."""

Way = Literal["denied", "late", "unseen"]


@dataclass(frozen=True, slots=True)
class BrokenReceipt:
    """What an author holds in hands.

    Attributes:
        leaf: the entry that was promised, framed.
        receipt: its receipt.
        statement: a tlog-proof of `other`; for ``unseen`` a bare checkpoint note.
        other: the entry, framed, that the log has instead, or that the coordinator signed too late;
            empty for ``unseen``.
    """

    leaf: bytes
    receipt: bytes
    statement: bytes
    other: bytes = b""

    def encode(self) -> bytes:
        """Each part after its length, u32 big-endian."""
        parts = (self.leaf, self.receipt, self.statement, self.other)
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was confirmed.

    Attributes:
        way: how the promise was broken.
        author, entry: of the entry that was promised; its hash.
        index, merge_by_ms: what was promised.
        said: in words.
    """

    way: Way
    author: str
    entry: str
    index: int
    merge_by_ms: int
    said: str


def read_broken(evidence: bytes) -> BrokenReceipt:
    """Undo `BrokenReceipt.encode`; nothing is judged.

    Raises:
        MalformedInput: the lengths do not add up exactly.
    """
    parts, at = [], 0
    for _ in range(4):
        end = at + 4 + int.from_bytes(evidence[at : at + 4], "big")
        parts.append(evidence[at + 4 : end])
        at = end
    found = BrokenReceipt(*parts)
    if found.encode() != evidence:
        raise MalformedInput("evidence", "its lengths do not match its bytes")
    return found


def judge_broken(broken: BrokenReceipt, log: VerifierKey, state: State) -> Verdict:
    """Confirm that a log broke a promise.

    Args:
        broken: from anyone.
        log: the log's key, named by its origin.
        state: of a log that holds at least what the statement's checkpoint covers, for the
            coordinator's keys and the hospitals'; it may be the accused log's own.

    Raises:
        MalformedInput, BadSignature, UnknownKey: something in it is not what it should be.
        NotConsistent: a proof does not hold, or what is carried does not contradict the promise.
    """
    entry = parse_leaf(broken.leaf)
    index, promise = open_receipt(broken.receipt, bytes.fromhex(entry.hash), log)
    due = promise.merge_by_ms
    proof = parse_proof(broken.statement) if _is_proof(broken.statement) else None
    checkpoint = open_checkpoint(broken.statement if proof is None else proof.note, log)
    if proof is not None:
        verify_inclusion(
            index=proof.index,
            size=checkpoint.size,
            leaf=leaf_hash(broken.other),
            proof=proof.path,
            root=checkpoint.root,
        )
    elif broken.other:
        raise MalformedInput("evidence", "it names another entry, and does not prove it")
    where = f"entry {entry.body.author}/{entry.body.seq} was promised at index {index}"
    if checkpoint.size > index:
        if proof is None or proof.index != index or leaf_hash(broken.other).hex() == entry.hash:
            raise NotConsistent(
                "evidence", f"that the log has another entry at {index} is not shown"
            )
        said = f"{where}; the log signed a tree of {checkpoint.size} with another entry there"
        return Verdict("denied", entry.body.author, entry.hash, index, due, said)
    if proof is not None:
        at_ms = _said_by_the_coordinator(broken.other, state.keys, state.coordinator)
        if at_ms <= due:
            raise NotConsistent("evidence", "the coordinator spoke before the deadline, not after")
        said = f"{where} by {due} ms; at {at_ms} ms the log still ended at {checkpoint.size}"
        return Verdict("late", entry.body.author, entry.hash, index, due, said)
    quorum = judge_quorum(broken.statement, log, witness_keys(state, checkpoint.size))
    if not quorum.needed or not quorum.fresh(due // 1000 + 1):
        raise NotConsistent("evidence", "no quorum of hospitals cosigned it after the deadline")
    said = f"{where} by {due} ms; a quorum saw the log end at {checkpoint.size} after that"
    return Verdict("unseen", entry.body.author, entry.hash, index, due, said)


def _is_proof(statement: bytes) -> bool:
    return statement.startswith(MAGIC.encode() + b"\n")


def _said_by_the_coordinator(leaf: bytes, keys: Mapping[str, KeyState], coordinator: str) -> int:
    """When the coordinator signed an entry, by its own clock."""
    entry = parse_leaf(leaf)
    key = keys.get(entry.body.key)
    if key is None or key.member != coordinator or entry.body.author != coordinator:
        raise UnknownKey("evidence", "its second entry is not the coordinator's")
    verify_signature(entry, bytes.fromhex(key.public))
    return entry.body.at_ms
