"""Tiles made from a store are those that an export would write, at every level."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ledger.copies.store import LogStore, Row
from ledger.copies.stored_tiles import StoredTiles
from ledger.entries.entry import frame_leaf
from ledger.errors import OutsideTree
from ledger.formats.merkle import leaf_hash
from ledger.formats.merkle_tree import MerkleTree
from ledger.formats.tiles import Tile, bundle_bytes, tile_bytes, tiles_at

SIZE = 65_536 + 700
LEAVES = [frame_leaf(b"%d" % at, bytes(64)) for at in range(SIZE)]
TREE = MerkleTree.from_leaves(map(leaf_hash, LEAVES))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LogStore]:
    opened = LogStore.open(f"sqlite:///{tmp_path_factory.mktemp('log') / 'ledger.db'}")
    for first in range(0, SIZE, 8192):
        rows = [
            Row(b"%d" % at, bytes(64), TREE.leaf(at), "key", at)
            for at in range(first, min(first + 8192, SIZE))
        ]
        opened.append(first, rows)
    yield opened
    opened.close()


def test_every_tile_of_a_log_is_the_one_that_its_tree_gives(store: LogStore) -> None:
    tiles = StoredTiles(store)
    levels = set()
    for tile in reversed(list(tiles_at(SIZE))):  # the highest first: nothing is remembered yet
        levels.add(tile.level)
        if tile.level is None:
            if tile.index % 50:
                continue
            start = tile.index * 256
            assert tiles.read(tile, SIZE) == bundle_bytes(LEAVES[start : start + tile.width])
        else:
            assert tiles.read(tile, SIZE) == tile_bytes(TREE, tile)
    assert levels == {None, 0, 1, 2}


def test_a_tile_beyond_what_may_be_shown_is_not_there(store: LogStore) -> None:
    tiles = StoredTiles(store)
    assert len(tiles.read(Tile(0, 0, 200), 200)) == 200 * 32
    for tile in (Tile(0, 0, 201), Tile(0, 1), Tile(None, 0, 201), Tile(1, 0, 1)):
        with pytest.raises(OutsideTree):
            tiles.read(tile, 200)
