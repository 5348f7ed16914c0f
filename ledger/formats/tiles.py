"""Tiles: a log as static, immutable files (c2sp.org/tlog-tiles v0.1.0).

A tile holds up to 256 hashes of one level, 8 levels of the tree apart; a bundle holds up to 256
entries, each behind its length. What a file holds follows from its name alone, for every size of
the log that has it, so any web server, bucket or cache may hand it out.

Promise: names and bytes are the specification's; `Tile.parse` accepts exactly what `Tile.path`
writes. `TileReader` uses a hash only after it led to the root that the log signed, and an entry
only after its hash did: whoever serves the files can withhold, and nothing else.

Not promised: that the checkpoint is the newest, or that anyone cosigned it (``witness.py``).
Reading and writing files is ``tile_folder``'s.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from ledger.errors import MalformedInput, NotConsistent, OutsideTree
from ledger.formats.checkpoint import Checkpoint, open_checkpoint
from ledger.formats.merkle import (
    HASH_BYTES,
    MAX_SIZE,
    consistency_path,
    inclusion_path,
    leaf_hash,
    root_over,
)
from ledger.formats.merkle_tree import MerkleTree
from ledger.formats.note import VerifierKey
from ledger.formats.proof import Proof
from ledger.formats.strict import excerpt

HEIGHT = 8
"""Levels of the tree in one tile."""
WIDTH = 1 << HEIGHT
"""Hashes in a full tile, entries in a full bundle."""
MAX_LEVEL = 63
MAX_FRAMED = 2**16 - 1
"""Bytes of the largest entry that a bundle can frame."""
MAX_BUNDLE = WIDTH * (2 + MAX_FRAMED)
CHECKPOINT = "checkpoint"
"""Name of the signed checkpoint beside the tiles."""

_CACHED_TILES = 1024
_PATH = re.compile(
    r"tile/(?P<level>0|[1-9][0-9]?|entries)/(?P<index>(?:x[0-9]{3}/)*[0-9]{3})"
    r"(?:\.p/(?P<width>[1-9][0-9]{0,2}))?",
    re.ASCII,
)

Fetch = Callable[[str], bytes | None]
"""Hands out the file of a name, or None where there is none. It may hand out anything."""


@dataclass(frozen=True, slots=True)
class Tile:
    """The coordinates of a tile or a bundle.

    Attributes:
        level: 0..63, or None for a bundle of entries.
        index: from 0 in its level.
        width: 1..256 hashes or entries; fewer than 256 make it partial.
    """

    level: int | None
    index: int
    width: int = WIDTH

    def __post_init__(self) -> None:
        if self.level is not None and not 0 <= self.level <= MAX_LEVEL:
            raise MalformedInput("tile.level", f"is outside 0..{MAX_LEVEL}")
        if not (0 <= self.index <= MAX_SIZE and 1 <= self.width <= WIDTH):
            raise MalformedInput("tile", f"index or width is outside 0..2^53 - 1 or 1..{WIDTH}")

    @property
    def path(self) -> str:
        """The tile's name below the log's prefix."""
        groups = [f"{self.index % 1000:03}"]
        rest = self.index // 1000
        while rest:
            groups.append(f"x{rest % 1000:03}")
            rest //= 1000
        level = "entries" if self.level is None else str(self.level)
        partial = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{level}/{'/'.join(reversed(groups))}{partial}"

    @classmethod
    def parse(cls, path: str) -> Tile:
        """Read a name.

        Raises:
            MalformedInput: `path` would not have written it.
        """
        found = _PATH.fullmatch(path)
        if found is None or len(path) > 64:
            raise MalformedInput("tile", f"{excerpt(path)} is no tile's name")
        level, index, width = found["level"], found["index"], found["width"]
        tile = cls(
            None if level == "entries" else int(level),
            int(index.replace("x", "").replace("/", "")),
            WIDTH if width is None else int(width),
        )
        if tile.path != path:
            raise MalformedInput("tile", f"{excerpt(path)} is another spelling of {tile.path}")
        return tile

    def within(self, size: int) -> bool:
        """Whether a log of ``size`` entries has all that this tile holds."""
        return (self.index * WIDTH + self.width) << (HEIGHT * (self.level or 0)) <= size


def tiles_at(size: int) -> Iterator[Tile]:
    """Yield what a log of ``size`` entries consists of: bundles, then hash tiles level by level.

    Each level has its full tiles and at most one partial; a partial tile is not in the level above.
    """
    yield from _level_at(None, size)
    level = 0
    while size >> (HEIGHT * level):
        yield from _level_at(level, size)
        level += 1


def tile_bytes(tree: MerkleTree, tile: Tile) -> bytes:
    """Return the hashes of a tile, 32 bytes each.

    Raises:
        OutsideTree: the tree has not all of them yet, or the tile is a bundle.
    """
    if tile.level is None or not tile.within(tree.size):
        raise OutsideTree(f"the hash tile {tile.path}", tree.size)
    start = tile.index * WIDTH
    return tree.subtrees(HEIGHT * tile.level, start, start + tile.width)


def bundle_bytes(leaves: Sequence[bytes]) -> bytes:
    """Frame entries as a bundle: each behind its length in two bytes, big-endian.

    Args:
        leaves: 1 to 256 entries as the tree commits to them, at most 65,535 bytes each.

    Raises:
        MalformedInput: another number of entries, or too long a one.
    """
    if not 1 <= len(leaves) <= WIDTH:
        raise MalformedInput("bundle", f"{len(leaves)} entries; it holds 1 to {WIDTH}")
    parts: list[bytes] = []
    for leaf in leaves:
        if len(leaf) > MAX_FRAMED:
            raise MalformedInput("bundle", f"an entry of {len(leaf)} bytes; at most {MAX_FRAMED}")
        parts += (len(leaf).to_bytes(2, "big"), leaf)
    return b"".join(parts)


def parse_bundle(data: bytes, width: int, where: str = "bundle") -> tuple[bytes, ...]:
    """Undo `bundle_bytes`.

    Raises:
        MalformedInput: not exactly ``width`` framed entries.
    """
    leaves: list[bytes] = []
    at = 0
    while at < len(data) and len(leaves) < width:
        length = int.from_bytes(data[at : at + 2], "big")
        leaf = data[at + 2 : at + 2 + length]
        at += 2 + length
        if at > len(data):
            raise MalformedInput(where, f"ends inside entry {len(leaves)}")
        leaves.append(leaf)
    if len(leaves) != width or at != len(data):
        raise MalformedInput(where, f"does not hold exactly {width} entries")
    return tuple(leaves)


def fold_hashes(hashes: bytes) -> bytes:
    """Return the root over 2^k hashes, 32 bytes each: what a full tile stands for in the level above."""
    while len(hashes) > HASH_BYTES:
        hashes = b"".join(
            sha256(b"\x01" + hashes[at : at + 2 * HASH_BYTES]).digest()
            for at in range(0, len(hashes), 2 * HASH_BYTES)
        )
    return hashes


class TileReader:
    """A log read from its files, trusted no further than its signed root.

    1. The checkpoint's signature is the log's.
    2. The tiles at the right edge, which every size has once a level, hash to the signed root.
    3. Each further tile hashes to its place in the tile above, which was checked before.
    4. Each entry hashes to its place in a tile of level 0.

    Steps 1 and 2 are done on opening, 3 and 4 when something is read.
    """

    def __init__(self, fetch: Fetch, log: VerifierKey, *, origin: str | None = None) -> None:
        """Open a log's files.

        Args:
            fetch: hands out files by name (``tile_folder.folder``).
            log: the log's key.
            origin: expected in the checkpoint; by default the key's name.

        Raises:
            MalformedInput, BadSignature, UnknownKey: step 1 fails.
            NotConsistent: step 2 fails, or a file is missing.
        """
        self._fetch = fetch
        self._cached: OrderedDict[Tile, bytes] = OrderedDict()
        note = fetch(CHECKPOINT)
        if note is None:
            raise NotConsistent(CHECKPOINT, "is missing: these are not the files of a log")
        self.note = note
        self.checkpoint: Checkpoint = open_checkpoint(note, log, origin=origin)
        self._edges = self._read_edges()
        if root_over(self._subtree, self.size) != self.checkpoint.root:
            raise NotConsistent("tiles", "those at the right edge do not hash to the signed root")

    @property
    def size(self) -> int:
        """Entries that the checkpoint covers."""
        return self.checkpoint.size

    def root(self, size: int | None = None) -> bytes:
        """Return the root over the first ``size`` entries (default: all).

        Raises:
            OutsideTree: the checkpoint covers fewer.
            NotConsistent: a file is missing, or does not lead to the signed root.
        """
        return root_over(self._subtree, self._within(size))

    def inclusion(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """Return an entry's audit path, the leaf's sibling first.

        Raises:
            OutsideTree: the checkpoint covers fewer.
            NotConsistent: a file is missing, or does not lead to the signed root.
        """
        size = self._within(size)
        if not 0 <= index < size:
            raise OutsideTree(f"leaf {index} at size {size}", self.size)
        return inclusion_path(self._subtree, index, size)

    def consistency(self, old: int, new: int | None = None) -> tuple[bytes, ...]:
        """Return the proof that the first ``old`` entries are a prefix of the first ``new``.

        Raises:
            OutsideTree: the checkpoint covers fewer, or old is above new.
            NotConsistent: a file is missing, or does not lead to the signed root.
        """
        new = self._within(new)
        if not 0 <= old <= new:
            raise OutsideTree(f"old size {old} of new size {new}", self.size)
        return consistency_path(self._subtree, old, new)

    def prove(self, index: int) -> Proof:
        """Return the offline proof of an entry under this checkpoint; raises as `inclusion`."""
        return Proof(index, self.inclusion(index), self.note)

    def leaf(self, index: int) -> bytes:
        """Return one entry's bytes; raises as `leaves`."""
        if not 0 <= index < self.size:
            raise OutsideTree(f"leaf {index}", self.size)
        return next(self.leaves(index, index + 1))

    def leaves(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Yield entries from ``start`` up to before ``stop`` (default: the checkpoint's size).

        Raises:
            OutsideTree: the checkpoint covers fewer.
            MalformedInput, NotConsistent: a bundle is missing or is not what the log holds; the
                entries of the bundles before it were yielded.
        """
        stop = self._within(stop)
        for index in range(start // WIDTH, -(-stop // WIDTH)):
            bundle = self._bundle(index)
            first = index * WIDTH
            yield from bundle[max(start - first, 0) : stop - first]

    def _within(self, size: int | None) -> int:
        if size is None:
            return self.size
        if not 0 <= size <= self.size:
            raise OutsideTree(f"size {size}", self.size)
        return size

    def _read_edges(self) -> dict[int, bytes]:
        """The partial tile of every level that has one."""
        edges: dict[int, bytes] = {}
        for level in range(-(-self.size.bit_length() // HEIGHT)):
            width = self._width(level, self.size >> (HEIGHT * (level + 1)))
            if width:
                tile = Tile(level, self.size >> (HEIGHT * (level + 1)), width)
                edges[level] = self._hashes(tile)
        return edges

    def _width(self, level: int, index: int) -> int:
        return max(0, min(WIDTH, (self.size >> (HEIGHT * level)) - index * WIDTH))

    def _subtree(self, level: int, position: int) -> bytes:
        """Hash of a full subtree, from the tile that holds its lowest row."""
        tile_level, height = divmod(level, HEIGHT)
        index, start = divmod(position << height, WIDTH)
        data = self._tile(tile_level, index)
        return fold_hashes(data[start * HASH_BYTES : (start + (1 << height)) * HASH_BYTES])

    def _tile(self, level: int, index: int) -> bytes:
        """Hashes of a tile that led to the signed root (steps 2 and 3)."""
        if self._width(level, index) < WIDTH:
            return self._edges[level]
        tile = Tile(level, index)
        known = self._cached.get(tile)
        if known is not None:
            self._cached.move_to_end(tile)
            return known
        above, position = divmod(index, WIDTH)
        expected = self._tile(level + 1, above)[position * HASH_BYTES :][:HASH_BYTES]
        data = self._hashes(tile)
        if fold_hashes(data) != expected:
            raise NotConsistent(tile.path, "does not hash to its place in the tile above")
        self._cached[tile] = data
        if len(self._cached) > _CACHED_TILES:
            self._cached.popitem(last=False)
        return data

    def _hashes(self, tile: Tile) -> bytes:
        data, whole = self._read(tile)
        if len(data) != whole.width * HASH_BYTES:
            raise NotConsistent(whole.path, f"has {len(data)} bytes for {whole.width} hashes")
        return data[: tile.width * HASH_BYTES]

    def _bundle(self, index: int) -> tuple[bytes, ...]:
        """Entries of a bundle that led to the signed root (step 4)."""
        tile = Tile(None, index, self._width(0, index))
        data, whole = self._read(tile)
        leaves = parse_bundle(data, whole.width, whole.path)[: tile.width]
        hashes = self._tile(0, index)
        if b"".join(map(leaf_hash, leaves)) != hashes:
            raise NotConsistent(whole.path, "its entries do not hash to the tile above them")
        return leaves

    def _read(self, tile: Tile) -> tuple[bytes, Tile]:
        """The file of a tile; a partial one may be gone where the full one is there."""
        data = self._fetch(tile.path)
        if data is None and tile.width < WIDTH:
            tile = Tile(tile.level, tile.index)
            data = self._fetch(tile.path)
        if data is None:
            raise NotConsistent(tile.path, "is missing; export the log again into this folder")
        return data, tile


def _level_at(level: int | None, size: int) -> Iterator[Tile]:
    full, width = divmod(size >> (HEIGHT * (level or 0)), WIDTH)
    for index in range(full):
        yield Tile(level, index)
    if width:
        yield Tile(level, full, width)
