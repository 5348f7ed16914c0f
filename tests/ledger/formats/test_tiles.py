"""Tiles and bundles: the specification's names and bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import (
    MalformedInput,
    OutsideTree,
)
from ledger.formats.merkle import leaf_hash
from ledger.formats.merkle_tree import MerkleTree
from ledger.formats.tiles import (
    WIDTH,
    Tile,
    bundle_bytes,
    parse_bundle,
    tile_bytes,
    tiles_at,
)
from tests.ledger.formats.exported_tiles import LEAVES, TREE


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 5), "tile/0/005"),
        (Tile(0, 1000), "tile/0/x001/000"),
        (Tile(3, 1234067), "tile/3/x001/x234/067"),
        (Tile(0, 273, 112), "tile/0/273.p/112"),
        (Tile(None, 1234067, 1), "tile/entries/x001/x234/067.p/1"),
        (Tile(63, 0, 255), "tile/63/000.p/255"),
    ],
)
def test_names_are_those_of_the_specification(tile: Tile, path: str) -> None:
    assert tile.path == path
    assert Tile.parse(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/5",
        "tile/00/005",
        "tile/64/005",
        "tile/-1/005",
        "tile/data/005",
        "tile/0/0005",
        "tile/0/x000/005",
        "tile/0/001/000",
        "tile/0/x001",
        "tile/0/005.p/0",
        "tile/0/005.p/256",
        "tile/0/005.p/07",
        "tile/0/005.p/7\n",
        "/tile/0/005",
        "tile/0/../../005",
        "tile/0/٠٠٥",
        "tile/0/" + "x001/" * 40 + "000",
        "tile/0/x999/x999/x999/x999/x999/999",
        "checkpoint",
        "",
    ],
)
def test_another_spelling_of_a_name_is_refused(path: str) -> None:
    with pytest.raises(MalformedInput, match=r"^tile"):
        Tile.parse(path)


@given(
    st.builds(
        Tile,
        st.none() | st.integers(0, 63),
        st.integers(0, 2**53 - 1),
        st.integers(1, WIDTH),
    )
)
def test_every_name_reads_back(tile: Tile) -> None:
    assert Tile.parse(tile.path) == tile


def test_seventy_thousand_entries_have_the_tiles_of_the_worked_example() -> None:
    names = [tile.path for tile in tiles_at(70_000)]
    for level in ("entries", "0"):
        assert [name for name in names if f"/{level}/" in name] == [
            *(f"tile/{level}/{index:03}" for index in range(273)),
            f"tile/{level}/273.p/112",
        ]
    assert [name for name in names if "/1/" in name] == ["tile/1/000", "tile/1/001.p/17"]
    assert [name for name in names if "/2/" in name] == ["tile/2/000.p/1"]
    assert len(names) == 2 * 274 + 3


def test_two_hundred_and_fifty_six_entries_have_no_partial_tile_of_their_level() -> None:
    names = [tile.path for tile in tiles_at(256)]
    assert names == ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]
    assert list(tiles_at(0)) == []


def test_a_tile_holds_the_hashes_of_its_subtrees() -> None:
    for tile in tiles_at(66_000):
        if tile.level:
            span = 256**tile.level
            hashes = [
                MerkleTree.from_leaves(map(leaf_hash, LEAVES[at * span : (at + 1) * span])).root()
                for at in range(tile.index * 256, tile.index * 256 + tile.width)
            ]
            assert tile_bytes(TREE, tile) == b"".join(hashes)
    assert tile_bytes(TREE, Tile(0, 1, 2)) == leaf_hash(LEAVES[256]) + leaf_hash(LEAVES[257])


def test_a_tile_that_is_not_full_yet_is_not_made() -> None:
    assert not Tile(1, 0, 2).within(511)
    assert Tile(1, 0, 2).within(512)
    for tile in (Tile(0, 257, 209), Tile(2, 0, 2), Tile(None, 0)):
        with pytest.raises(OutsideTree) as caught:
            tile_bytes(TREE, tile)
        assert caught.value.size == 66_000


def test_the_worked_bundle_has_the_published_bytes() -> None:
    assert bundle_bytes([bytes.fromhex("2021"), b""]).hex() == "000220210000"
    assert parse_bundle(bytes.fromhex("000220210000"), 2) == (bytes.fromhex("2021"), b"")


def test_a_bundle_has_1_to_256_entries_that_two_bytes_can_measure() -> None:
    for leaves in ([], [b""] * 257, [bytes(65_536)]):
        with pytest.raises(MalformedInput, match="bundle"):
            bundle_bytes(leaves)
    assert len(bundle_bytes([bytes(65_535)])) == 65_537


@given(st.binary(max_size=40), st.integers(1, 6))
def test_a_bundle_is_read_exactly_or_refused(data: bytes, width: int) -> None:
    try:
        leaves = parse_bundle(data, width)
    except MalformedInput:
        return
    assert bundle_bytes(leaves) == data
