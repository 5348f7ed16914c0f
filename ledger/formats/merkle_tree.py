"""The Merkle tree of a log, as it grows: roots and proofs at any size that it had.

``MerkleTree`` keeps every full subtree's hash, level by level, so that a root or a proof at any
size costs O(log n) hashes; they are those of ``merkle``. It holds 64 bytes a leaf and lives in memory;
it is a cache of the entries, rebuilt from them. It is not safe to append from two threads.

Given a source that reads leaf hashes back, it holds a quarter of a byte a leaf, and all of the
newest leaves only: `forget_older` drops the lower levels of what lies behind. What a proof needs of
them later is read 256 leaves at a time and must lead to the hash that was kept of those 256.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from itertools import islice
from typing import NamedTuple

from ledger.errors import NotConsistent, OutsideTree
from ledger.formats.merkle import (
    EMPTY_ROOT,
    HASH_BYTES,
    consistency_path,
    inclusion_path,
    root_over,
)

TILE_LEVEL = 8
TILE_LEAVES = 1 << TILE_LEVEL
"""Leaves whose common hash is kept for ever; a tile of tlog-tiles holds as many."""
RECENT_LEAVES = 4096
"""`forget_older` leaves at least so many of the newest leaves, and at most twice as many."""

_KEPT_ROOTS = 256
_KEPT_TILES = 8

LeafSource = Callable[[int, int], bytes]
"""Leaf hashes from a first index up to before a second one, 32 bytes each."""


class _Levels(NamedTuple):
    """Hashes of full subtrees by level; replaced as a whole, since other threads may be reading.

    Attributes:
        first: per level, the position of the first hash that is here.
        hashes: per level, 32 bytes each.
    """

    first: list[int]
    hashes: list[bytearray]


class MerkleTree:
    """An append-only tree over leaf hashes.

    Every full subtree of 2^k leaves is hashed once, when its last leaf arrives, and never again:
    what a proof at an older size needs is still there, or is read back.

    Args:
        older: reads back leaf hashes that `forget_older` dropped; without it nothing is dropped.
    """

    def __init__(self, older: LeafSource | None = None) -> None:
        self._older = older
        self._levels = _Levels([0], [bytearray()])
        # Roots asked for of late: the entries of a round have all seen the same few checkpoints.
        self._roots: dict[int, bytes] = {}
        # Subtrees below the tiles that were read back of late, each the tile's levels from 0.
        self._read: dict[int, list[bytes]] = {}

    @classmethod
    def resume(cls, size: int, tiles: bytes, older: LeafSource) -> MerkleTree:
        """Build a tree from the hashes of its full tiles, reading back only the leaves after them.

        The caller compares the root: nothing here shows that the hashes are true.

        Args:
            size: number of leaves.
            tiles: what `tiles` of a tree of this size gave.
            older: reads back leaf hashes.

        Raises:
            NotConsistent: other lengths than the size asks for.
        """
        full = size >> TILE_LEVEL
        if len(tiles) != full * HASH_BYTES:
            raise NotConsistent("tiles", f"{len(tiles)} bytes are no {full} hashes")
        tree = cls(older)
        tree._restart(tiles)
        tree.extend(_cut(tree._read_back(full << TILE_LEVEL, size)))
        return tree

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
        levels = self._levels
        return levels.first[0] + len(levels.hashes[0]) // HASH_BYTES

    @property
    def tiles(self) -> bytes:
        """Hashes of the full subtrees of 256 leaves, 32 bytes each: what `resume` needs."""
        hashes = self._levels.hashes
        return bytes(hashes[TILE_LEVEL]) if len(hashes) > TILE_LEVEL else b""

    def append(self, leaf: bytes) -> int:
        """Add one leaf hash (``leaf_hash(entry)``, 32 bytes).

        Returns:
            The new leaf's index, counted from 0.

        Raises:
            ValueError: the hash is not 32 bytes; the tree is unchanged.
        """
        if len(leaf) != HASH_BYTES:
            raise ValueError(f"a leaf hash has {HASH_BYTES} bytes, not {len(leaf)}")
        first, hashes = self._levels
        below = hashes[0]
        index = first[0] + len(below) // HASH_BYTES
        below += leaf
        level, position = 0, index
        while position & 1:  # the right child just arrived: its parent is complete
            level, position = level + 1, position >> 1
            if level == len(hashes):
                self._add_level()
            above = hashes[level]
            above += sha256(b"\x01" + below[-2 * HASH_BYTES :]).digest()
            below = above
        return index

    def extend(self, leaf_hashes: Iterable[bytes]) -> None:
        """Append leaf hashes in order, level by level: faster than one by one.

        Raises:
            ValueError: a hash is not 32 bytes; the tree is unchanged.
        """
        leaves = list(leaf_hashes)
        wrong = set(map(len, leaves)) - {HASH_BYTES}
        if wrong:
            raise ValueError(f"a leaf hash has {HASH_BYTES} bytes, not {min(wrong)}")
        start = self.size
        self._levels.hashes[0].extend(b"".join(leaves))
        self._complete(0, start, start + len(leaves))

    def truncate(self, size: int) -> None:
        """Forget the leaves from ``size`` on: they were tried and not kept.

        Raises:
            OutsideTree: the tree is smaller.
        """
        self._check_size(size)
        self._roots = {}
        self._read = {}
        first, hashes = self._levels
        if size < first[0]:
            full = size >> TILE_LEVEL
            self._restart(self.tiles[: full * HASH_BYTES])
            self.extend(_cut(self._read_back(full << TILE_LEVEL, size)))
            return
        for level, kept in enumerate(hashes):
            del kept[((size >> level) - first[level]) * HASH_BYTES :]

    def forget_older(self) -> None:
        """Drop what `older` can read back, once there are twice `RECENT_LEAVES`; else do nothing.

        Call it when every leaf but those can be read back.
        """
        first, hashes = self._levels
        if self._older is None or len(hashes[0]) < 2 * RECENT_LEAVES * HASH_BYTES:
            return
        start = (self.size - RECENT_LEAVES) >> TILE_LEVEL << TILE_LEVEL
        firsts = [start >> level for level in range(TILE_LEVEL)]
        recent = [
            hashes[level][(firsts[level] - first[level]) * HASH_BYTES :]
            for level in range(TILE_LEVEL)
        ]
        # Level 8 and above stay; a reader in another thread goes on with what it has.
        self._levels = _Levels(firsts + first[TILE_LEVEL:], recent + hashes[TILE_LEVEL:])

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
        root = self._recent_root(size)
        if len(self._roots) >= _KEPT_ROOTS:
            self._roots = {}
        self._roots[size] = root
        return root

    def _recent_root(self, size: int) -> bytes:
        """The root at a size: every entry of a replay asks, and nearly always for a recent one."""
        first, hashes = self._levels
        root, rest = b"", size
        while rest:  # the full subtrees of the RFC's tree, last first
            last = rest & -rest
            level = last.bit_length() - 1
            at = ((rest >> level) - 1 - first[level]) * HASH_BYTES
            if at < 0:
                return root_over(self._full, size)
            full = hashes[level][at : at + HASH_BYTES]
            root = sha256(b"\x01" + full + root).digest() if root else bytes(full)
            rest ^= last
        return root or EMPTY_ROOT

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
        levels = self._levels
        if start == stop:
            return b""
        if start >= levels.first[level]:
            at = levels.first[level]
            return bytes(levels.hashes[level][(start - at) * HASH_BYTES : (stop - at) * HASH_BYTES])
        return b"".join([self._full(level, position) for position in range(start, stop)])

    def _check_size(self, size: int) -> None:
        if not 0 <= size <= self.size:
            raise OutsideTree(f"size {size}", self.size)

    def _full(self, level: int, position: int) -> bytes:
        """Hash of the full subtree of leaves position * 2^level .. (position + 1) * 2^level."""
        first, hashes = self._levels
        at = (position - first[level]) * HASH_BYTES
        if at >= 0:
            return bytes(hashes[level][at : at + HASH_BYTES])
        tile = position >> (TILE_LEVEL - level)
        at = (position - (tile << (TILE_LEVEL - level))) * HASH_BYTES
        return self._tile(tile)[level][at : at + HASH_BYTES]

    def _tile(self, tile: int) -> list[bytes]:
        """The levels below a full tile, read back and compared with the tile's hash."""
        known = self._read.get(tile)
        if known is not None:
            return known
        start = tile << TILE_LEVEL
        levels = [self._read_back(start, start + TILE_LEAVES)]
        while len(levels[-1]) > HASH_BYTES:
            levels.append(_hash_pairs(levels[-1]))
        if levels[-1] != self._full(TILE_LEVEL, tile):
            raise NotConsistent(
                f"leaves {start} to {start + TILE_LEAVES - 1}",
                "the leaf hashes that were read back are not those that were verified",
            )
        if len(self._read) >= _KEPT_TILES:
            self._read = {}
        self._read[tile] = levels
        return levels

    def _read_back(self, start: int, stop: int) -> bytes:
        if start == stop:
            return b""
        if self._older is None:  # pragma: no cover - nothing is dropped without a source
            raise OutsideTree(f"leaves {start} to {stop - 1}", self.size)
        leaves = self._older(start, stop)
        if len(leaves) != (stop - start) * HASH_BYTES:
            raise NotConsistent(
                f"leaves {start} to {stop - 1}", f"{len(leaves)} bytes were read back"
            )
        return leaves

    def _restart(self, tiles: bytes) -> None:
        """Hold full tiles and nothing below them."""
        full = len(tiles) // HASH_BYTES
        firsts = [full << (TILE_LEVEL - level) for level in range(TILE_LEVEL)]
        hashes = [bytearray() for _ in range(TILE_LEVEL)]
        self._levels = _Levels([*firsts, 0], [*hashes, bytearray(tiles)])
        self._complete(TILE_LEVEL, 0, full)

    def _complete(self, level: int, start: int, stop: int) -> None:
        """Hash what became full above a level, at which the hashes from ``start`` on are new."""
        first, hashes = self._levels
        while start >> 1 != stop >> 1:
            start, stop = start >> 1, stop >> 1
            if level + 1 == len(hashes):
                self._add_level()
            below, above = hashes[level], hashes[level + 1]
            at = (2 * start - first[level]) * HASH_BYTES
            above += _hash_pairs(below[at : at + 2 * (stop - start) * HASH_BYTES])
            level += 1

    def _add_level(self) -> None:
        self._levels.first.append(0)
        self._levels.hashes.append(bytearray())


def _hash_pairs(hashes: bytes | bytearray) -> bytes:
    """Hashes of the nodes over a level's hashes, of which there is an even number."""
    starts = range(0, len(hashes), 2 * HASH_BYTES)
    return b"".join([sha256(b"\x01" + hashes[at : at + 2 * HASH_BYTES]).digest() for at in starts])


def _cut(hashes: bytes, length: int = HASH_BYTES) -> Iterator[bytes]:
    return (hashes[at : at + length] for at in range(0, len(hashes), length))
