"""Hashing, paths and proofs of RFC 6962 section 2.1 (RFC 9162 section 2.1), over SHA-256.

Promise: roots, inclusion paths and consistency proofs are the RFC's, byte for byte, and the two
``verify_`` functions accept exactly what the RFC's algorithms accept (RFC 9162 sections 2.1.3.2
and 2.1.4.2), with every hash 32 bytes long and every size at most 2^53 - 1.

Not promised: anything about size 0. The RFC defines consistency for 0 < old only, so
``verify_consistency`` refuses old size 0; a witness answers that case itself.

The tree that grows with a log is ``merkle_tree``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import NoReturn

from ledger.errors import NotConsistent
from ledger.formats.strict import MAX_INT

HASH_BYTES = 32
MAX_SIZE = MAX_INT
"""Sizes above 2^53 - 1 are refused on parsing: databases and JSON would not hold them."""
EMPTY_ROOT = sha256(b"").digest()
"""The root of no leaves."""

Subtree = Callable[[int, int], bytes]
"""Hash of the full subtree ``(level, position)``: leaves position * 2^level up to the next."""


def leaf_hash(entry: bytes) -> bytes:
    """Hash one leaf: SHA-256(0x00 || entry), so that no node can pass for a leaf."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash one inner node: SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


def root_over(subtree: Subtree, size: int) -> bytes:
    """Return the root over the first ``size`` leaves, from full subtrees' hashes."""
    return _range(subtree, 0, size) if size else EMPTY_ROOT


def inclusion_path(subtree: Subtree, index: int, size: int) -> tuple[bytes, ...]:
    """Return the audit path of a leaf (RFC 9162 section 2.1.3.1), from full subtrees' hashes.

    Args:
        subtree: knows every full subtree below ``size``.
        index: below ``size``.
        size: at least 1.
    """
    path: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(_range(subtree, middle, high))
            high = middle
        else:
            path.append(_range(subtree, low, middle))
            low = middle
    return tuple(reversed(path))


def root_and_paths(leaves: Sequence[bytes]) -> tuple[bytes, list[tuple[bytes, ...]]]:
    """Return the root over some leaves and the audit path of each, all at once.

    Args:
        leaves: their hashes, at least one.
    """
    paths: list[list[bytes]] = [[] for _ in leaves]

    def hash_range(low: int, high: int) -> bytes:
        if high - low == 1:
            return leaves[low]
        middle = low + _split(high - low)
        left, right = hash_range(low, middle), hash_range(middle, high)
        for path in paths[low:middle]:
            path.append(right)
        for path in paths[middle:high]:
            path.append(left)
        return node_hash(left, right)

    return hash_range(0, len(leaves)), list(map(tuple, paths))


def consistency_path(subtree: Subtree, old: int, new: int) -> tuple[bytes, ...]:
    """Return a consistency proof (RFC 9162 section 2.1.4.1), from full subtrees' hashes.

    Args:
        subtree: knows every full subtree below ``new``.
        old: from 0; at 0 and at ``new`` the proof is empty.
        new: at least ``old``.
    """
    if old in (0, new):
        return ()
    proof: list[bytes] = []
    low, high = 0, new
    while old != high:  # the old tree ends inside low..high, at ``old``
        middle = low + _split(high - low)
        if old <= middle:
            proof.append(_range(subtree, middle, high))
            high = middle
        else:
            proof.append(_range(subtree, low, middle))
            low = middle
    if low:  # else the subtree is the old tree itself, whose root the verifier has
        proof.append(_range(subtree, low, high))
    return tuple(reversed(proof))


def verify_inclusion(
    *, index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that a leaf hash stands at ``index`` of the tree with this size and root.

    RFC 9162 section 2.1.3.2, step by step.

    Args:
        index: from 0.
        size: at least 1, at most 2^53 - 1.
        leaf: the leaf hash, 32 bytes.
        proof: sibling hashes, leaf to root, 32 bytes each.
        root: the tree's root, which the caller trusts, 32 bytes.

    Raises:
        NotConsistent: the proof does not show it; ``reason`` says why.
    """
    where = f"inclusion of leaf {index} in size {size}"
    if not 0 <= index < size <= MAX_SIZE:
        _refuse(where, "the index must be below the size, the size at most 2^53 - 1")
    _check_hashes(where, leaf, root, *proof)
    fn, sn = index, size - 1
    result = leaf
    for sibling in proof:
        if sn == 0:
            _refuse(where, "the proof has too many hashes")
        if fn & 1 or fn == sn:
            result = node_hash(sibling, result)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            result = node_hash(result, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        _refuse(where, "the proof has too few hashes")
    if result != root:
        _refuse(where, "the proof leads to another root")


def verify_consistency(
    *, old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the old tree is a prefix of the new one.

    RFC 9162 section 2.1.4.2, step by step. Old size 0 is refused: the RFC does not define it, and
    a caller for whom nothing came before has nothing to verify.

    Args:
        old_size: at least 1.
        new_size: at least ``old_size``, at most 2^53 - 1.
        old_root: 32 bytes.
        new_root: 32 bytes.
        proof: hashes of 32 bytes; none when the sizes are equal.

    Raises:
        NotConsistent: the proof does not show it; ``reason`` says why.
    """
    where = f"consistency of size {old_size} with size {new_size}"
    if not 1 <= old_size <= new_size <= MAX_SIZE:
        _refuse(where, "sizes must be 1 <= old <= new <= 2^53 - 1")
    _check_hashes(where, old_root, new_root, *proof)
    if old_size == new_size:
        if proof:
            _refuse(where, "equal sizes need no proof, and one was given")
        if old_root != new_root:
            _refuse(where, "equal sizes have different roots")
        return
    if not proof:
        _refuse(where, "the proof is empty")
    path = list(proof)
    if old_size & (old_size - 1) == 0:  # a power of two: the old root is a node of the new tree
        path.insert(0, old_root)
    fn, sn = old_size - 1, new_size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    old_result = new_result = path[0]
    for node in path[1:]:
        if sn == 0:
            _refuse(where, "the proof has too many hashes")
        if fn & 1 or fn == sn:
            old_result = node_hash(node, old_result)
            new_result = node_hash(node, new_result)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            new_result = node_hash(new_result, node)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        _refuse(where, "the proof has too few hashes")
    if old_result != old_root:
        _refuse(where, "the proof leads to another old root")
    if new_result != new_root:
        _refuse(where, "the proof leads to another new root")


def _range(subtree: Subtree, low: int, high: int) -> bytes:
    """Hash of the leaves low..high, a subtree of an RFC tree: ``low`` is aligned for it."""
    parts: list[bytes] = []
    while low < high:
        level = (high - low).bit_length() - 1
        parts.append(subtree(level, low >> level))
        low += 1 << level
    result = parts.pop()
    while parts:
        result = node_hash(parts.pop(), result)
    return result


def _split(size: int) -> int:
    """Return the largest power of two strictly below ``size`` (at least 2)."""
    return 1 << ((size - 1).bit_length() - 1)


def _check_hashes(where: str, *hashes: bytes) -> None:
    if any(len(value) != HASH_BYTES for value in hashes):
        _refuse(where, f"every hash must have {HASH_BYTES} bytes")


def _refuse(where: str, reason: str) -> NoReturn:
    raise NotConsistent(where, reason)
