"""The Merkle tree of RFC 6962 section 2.1 (RFC 9162 section 2.1), over SHA-256.

Promise: roots, inclusion paths and consistency proofs are the RFC's, byte for byte, and the two
``verify_`` functions accept exactly what the RFC's algorithms accept (RFC 9162 sections 2.1.3.2
and 2.1.4.2), with every hash 32 bytes long and every size at most 2^53 - 1.

Not promised: anything about size 0. The RFC defines consistency for 0 < old only, so
``verify_consistency`` refuses old size 0; a witness answers that case itself.

``MerkleTree`` keeps every full subtree's hash, level by level, so that a root or a proof at any
size costs O(log n) hashes. It holds 64 bytes a leaf and lives in memory; it is a cache of the
entries, rebuilt from them. It is not safe to append from two threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from itertools import islice
from typing import NoReturn

from ledger.errors import NotConsistent, OutsideTree
from ledger.formats.strict import MAX_INT

HASH_BYTES = 32
MAX_SIZE = MAX_INT
"""Sizes above 2^53 - 1 are refused on parsing: databases and JSON would not hold them."""
EMPTY_ROOT = sha256(b"").digest()
"""The root of no leaves."""

_KEPT_ROOTS = 256

Subtree = Callable[[int, int], bytes]
"""Hash of the full subtree ``(level, position)``: leaves position * 2^level up to the next."""


def leaf_hash(entry: bytes) -> bytes:
    """Hash one leaf: SHA-256(0x00 || entry), so that no node can pass for a leaf."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash one inner node: SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


class MerkleTree:
    """An append-only tree over leaf hashes.

    Every full subtree of 2^k leaves is hashed once, when its last leaf arrives, and never again:
    what a proof at an older size needs is still there.
    """

    def __init__(self) -> None:
        # _levels[k] holds the hashes of the full subtrees of 2^k leaves, 32 bytes each.
        self._levels: list[bytearray] = [bytearray()]
        # Roots asked for of late: the entries of a round have all seen the same few checkpoints.
        self._roots: dict[int, bytes] = {}

    @classmethod
    def from_leaves(cls, leaf_hashes: Iterable[bytes]) -> MerkleTree:
        """Build a tree from leaf hashes in order."""
        tree = cls()
        source = iter(leaf_hashes)
        while some := tuple(islice(source, 4096)):  # a million at once would be 90 MB of objects
            tree.extend(some)
        return tree

    @property
    def size(self) -> int:
        """The number of leaves."""
        return len(self._levels[0]) // HASH_BYTES

    def append(self, leaf: bytes) -> int:
        """Add one leaf hash (``leaf_hash(entry)``, 32 bytes).

        Returns:
            The new leaf's index, counted from 0.

        Raises:
            ValueError: the hash is not 32 bytes; the tree is unchanged.
        """
        if len(leaf) != HASH_BYTES:
            raise ValueError(f"a leaf hash has {HASH_BYTES} bytes, not {len(leaf)}")
        index = self.size
        self._levels[0] += leaf
        level, position = 0, index
        while position & 1:  # the right child just arrived: its parent is complete
            below = self._levels[level]
            level, position = level + 1, position >> 1
            if level == len(self._levels):
                self._levels.append(bytearray())
            self._levels[level] += sha256(b"\x01" + below[-2 * HASH_BYTES :]).digest()
        return index

    def extend(self, leaf_hashes: Iterable[bytes]) -> None:
        """Append leaf hashes in order, level by level: faster than one by one.

        Raises:
            ValueError: a hash is not 32 bytes; the tree is unchanged.
        """
        leaves = list(leaf_hashes)
        for leaf in leaves:
            if len(leaf) != HASH_BYTES:
                raise ValueError(f"a leaf hash has {HASH_BYTES} bytes, not {len(leaf)}")
        self._levels[0] += b"".join(leaves)
        level = 0
        while len(self._levels[level]) >= 2 * HASH_BYTES:
            if level + 1 == len(self._levels):
                self._levels.append(bytearray())
            below, above = self._levels[level], self._levels[level + 1]
            fresh = range(2 * len(above), len(below) - 2 * HASH_BYTES + 1, 2 * HASH_BYTES)
            above += b"".join(
                [sha256(b"\x01" + below[at : at + 2 * HASH_BYTES]).digest() for at in fresh]
            )
            level += 1

    def truncate(self, size: int) -> None:
        """Forget the leaves from ``size`` on: they were tried and not kept.

        Raises:
            OutsideTree: the tree is smaller.
        """
        self._check_size(size)
        self._roots = {}
        for level, hashes in enumerate(self._levels):
            del hashes[(size >> level) * HASH_BYTES :]

    def leaf(self, index: int) -> bytes:
        """Return the leaf hash at an index.

        Raises:
            OutsideTree: there is no such leaf.
        """
        if not 0 <= index < self.size:
            raise OutsideTree(f"leaf {index}", self.size)
        return self._full(0, index)

    def root(self, size: int | None = None) -> bytes:
        """Return the root over the first ``size`` leaves (default: all).

        Raises:
            OutsideTree: the tree never had that size.
        """
        size = self.size if size is None else size
        known = self._roots.get(size)
        if known is not None:
            return known
        self._check_size(size)
        root = root_over(self._full, size)
        if len(self._roots) >= _KEPT_ROOTS:
            self._roots = {}
        self._roots[size] = root
        return root

    def inclusion(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """Return the audit path of a leaf in the tree of the first ``size`` leaves.

        RFC 9162 section 2.1.3.1, the leaf's sibling first.

        Raises:
            OutsideTree: the size is not this tree's, or the index is not below it.
        """
        size = self.size if size is None else size
        self._check_size(size)
        if not 0 <= index < size:
            raise OutsideTree(f"leaf {index} at size {size}", self.size)
        return inclusion_path(self._full, index, size)

    def consistency(self, old: int, new: int | None = None) -> tuple[bytes, ...]:
        """Return the proof that the first ``old`` leaves are a prefix of the first ``new``.

        RFC 9162 section 2.1.4.1. Empty when the sizes are equal, and for old size 0, where there
        is nothing to prove (a witness accepts 0 -> n with no proof).

        Raises:
            OutsideTree: a size is not this tree's, or old is above new.
        """
        new = self.size if new is None else new
        self._check_size(new)
        if not 0 <= old <= new:
            raise OutsideTree(f"old size {old} of new size {new}", self.size)
        return consistency_path(self._full, old, new)

    def subtrees(self, level: int, start: int, stop: int) -> bytes:
        """Return the hashes of the full subtrees ``start..stop`` of 2^level leaves, 32 bytes each.

        Raises:
            OutsideTree: not all of them are full yet.
        """
        if not (0 <= start <= stop and stop << level <= self.size):
            raise OutsideTree(f"subtrees {start} to {stop} of 2^{level} leaves", self.size)
        if start == stop:
            return b""
        return bytes(self._levels[level][start * HASH_BYTES : stop * HASH_BYTES])

    def _check_size(self, size: int) -> None:
        if not 0 <= size <= self.size:
            raise OutsideTree(f"size {size}", self.size)

    def _full(self, level: int, position: int) -> bytes:
        """Hash of the full subtree of leaves position * 2^level .. (position + 1) * 2^level."""
        return bytes(self._levels[level][position * HASH_BYTES : (position + 1) * HASH_BYTES])


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
