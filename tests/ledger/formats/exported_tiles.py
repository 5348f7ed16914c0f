"""A log of 66,000 entries, its notes, and folders of its tiles."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ledger.formats.checkpoint import Checkpoint, sign_checkpoint
from ledger.formats.merkle import leaf_hash
from ledger.formats.merkle_tree import MerkleTree
from ledger.formats.tile_folder import Exported, export_tiles
from tests.ledger.formats import worked

LEAVES = [b"entry %d" % at + b"." * (at % 7) for at in range(66_000)]
TREE = MerkleTree.from_leaves(map(leaf_hash, LEAVES))


def read(start: int, stop: int) -> Iterable[bytes]:
    return LEAVES[start:stop]


def note(size: int) -> bytes:
    return sign_checkpoint(worked.LOG_KEY, Checkpoint(worked.ORIGIN, size, TREE.root(size)))


def export(directory: Path, size: int) -> Exported:
    return export_tiles(read, note(size), worked.LOG, directory)


def files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name != ".exporting"
    }
