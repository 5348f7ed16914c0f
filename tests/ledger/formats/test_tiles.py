"""A log as files: the specification's names and bytes, read back no further than the signed root."""

from __future__ import annotations

import base64
import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import (
    AlreadyRunning,
    BadSignature,
    MalformedInput,
    NotConsistent,
    OutsideTree,
    Refused,
    StoreConflict,
    StoreUnusable,
    UnknownKey,
)
from ledger.formats.checkpoint import Checkpoint, sign_checkpoint
from ledger.formats.keys import SigningKey
from ledger.formats.merkle import EMPTY_ROOT, leaf_hash, verify_consistency
from ledger.formats.merkle_tree import MerkleTree
from ledger.formats.note import VerifierKey
from ledger.formats.proof import verify_proof
from ledger.formats.tile_folder import Exported, export_tiles, folder
from ledger.formats.tiles import (
    WIDTH,
    Tile,
    TileReader,
    bundle_bytes,
    parse_bundle,
    tile_bytes,
    tiles_at,
)
from tests.checkers import go_program
from tests.ledger.formats import worked

SOURCE = Path(__file__).parent / "go_tiles" / "main.go"

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


# --- names and bytes ----------------------------------------------------------------------------


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


# --- a folder -----------------------------------------------------------------------------------


def test_an_exported_folder_has_every_file_of_its_size_and_reads_back(tmp_path: Path) -> None:
    assert export(tmp_path, 1000) == Exported(1000, written=9, kept=0)
    assert set(files(tmp_path)) == {tile.path for tile in tiles_at(1000)} | {"checkpoint"}
    reader = TileReader(folder(tmp_path), worked.LOG)
    assert reader.note == note(1000)
    assert list(reader.leaves()) == LEAVES[:1000]
    assert list(reader.leaves(250, 515)) == LEAVES[250:515]
    assert list(reader.leaves(7, 7)) == []
    assert reader.leaf(999) == LEAVES[999]
    for size in (0, 1, 255, 256, 257, 767, 768, 1000):
        assert reader.root(size) == TREE.root(size)
        if size:
            assert reader.inclusion(size - 1, size) == TREE.inclusion(size - 1, size)
            proof = reader.consistency(size)
            verify_consistency(
                old_size=size,
                new_size=1000,
                old_root=TREE.root(size),
                new_root=TREE.root(1000),
                proof=proof,
            )
    verify_proof(LEAVES[600], reader.prove(600).encode(), worked.LOG, {})


def test_three_levels_of_tiles_lead_to_the_signed_root(tmp_path: Path) -> None:
    export(tmp_path, 66_000)
    reader = TileReader(folder(tmp_path), worked.LOG)
    for index in (0, 255, 256, 65_535, 65_536, 65_999):
        assert reader.inclusion(index) == TREE.inclusion(index)
        assert reader.leaf(index) == LEAVES[index]


def test_a_folder_grows_and_writes_no_file_twice(tmp_path: Path) -> None:
    export(tmp_path, 300)
    before = files(tmp_path)
    times = {name: (tmp_path / name).stat().st_mtime_ns for name in before}
    assert export(tmp_path, 600) == Exported(600, written=5, kept=2)
    assert export(tmp_path, 600) == Exported(600, written=0, kept=7)
    after = files(tmp_path)
    for name in before:
        if name != "checkpoint":
            assert after[name] == before[name]
            assert (tmp_path / name).stat().st_mtime_ns == times[name]
    assert list(TileReader(folder(tmp_path), worked.LOG).leaves()) == LEAVES[:600]


def test_a_partial_tile_that_was_tidied_away_is_read_from_the_full_one(tmp_path: Path) -> None:
    export(tmp_path, 300)
    old = (tmp_path / "checkpoint").read_bytes()
    export(tmp_path, 600)
    for name in ("tile/0/001.p", "tile/entries/001.p"):
        shutil.rmtree(tmp_path / name)
    (tmp_path / "checkpoint").write_bytes(old)
    reader = TileReader(folder(tmp_path), worked.LOG)
    assert list(reader.leaves()) == LEAVES[:300]
    assert reader.inclusion(299) == TREE.inclusion(299, 300)


def test_an_empty_log_is_a_checkpoint_alone(tmp_path: Path) -> None:
    assert export(tmp_path, 0) == Exported(0, written=0, kept=0)
    reader = TileReader(folder(tmp_path), worked.LOG)
    assert reader.root() == EMPTY_ROOT
    assert list(reader.leaves()) == []
    with pytest.raises(OutsideTree):
        reader.inclusion(0)


def test_entries_that_do_not_hash_to_the_signed_root_are_not_exported(tmp_path: Path) -> None:
    def others(start: int, stop: int) -> list[bytes]:
        return [b"other", *LEAVES[1:stop]][start:stop]

    def fewer(start: int, stop: int) -> list[bytes]:
        return LEAVES[start : stop - 1]

    for given_leaves in (others, fewer):
        with pytest.raises(NotConsistent, match="do not hash to its root"):
            export_tiles(given_leaves, note(10), worked.LOG, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_note_that_the_log_did_not_sign_is_not_exported(tmp_path: Path) -> None:
    stranger = VerifierKey(worked.ORIGIN, SigningKey.from_seed(bytes(32)).public)
    with pytest.raises(UnknownKey):
        export_tiles(read, note(10), stranger, tmp_path)
    false = note(10).replace(b"\n10\n", b"\n11\n")
    with pytest.raises(BadSignature):
        export_tiles(read, false, worked.LOG, tmp_path)
    assert files(tmp_path) == {}


def test_other_bytes_under_a_name_are_refused_and_stay(tmp_path: Path) -> None:
    export(tmp_path, 300)
    path = tmp_path / "tile/0/000"
    other = bytes(32) + path.read_bytes()[32:]
    path.write_bytes(other)
    with pytest.raises(StoreConflict, match="never changes") as caught:
        export(tmp_path, 400)
    assert caught.value.store == str(path)
    assert path.read_bytes() == other
    assert (tmp_path / "checkpoint").read_bytes() == note(300)


def test_a_folder_never_goes_back_nor_to_another_log(tmp_path: Path) -> None:
    export(tmp_path, 300)
    with pytest.raises(StoreConflict, match="older"):
        export(tmp_path, 299)
    forked = [b"other", *LEAVES[1:400]]
    root = MerkleTree.from_leaves(map(leaf_hash, forked)).root()
    signed = sign_checkpoint(worked.LOG_KEY, Checkpoint(worked.ORIGIN, 400, root))
    with pytest.raises(StoreConflict, match="fork"):
        export_tiles(lambda start, stop: forked[start:stop], signed, worked.LOG, tmp_path)
    elsewhere = sign_checkpoint(worked.LOG_KEY, Checkpoint("elsewhere", 300, TREE.root(300)))
    log = VerifierKey("elsewhere", worked.LOG_KEY.public)
    with pytest.raises(StoreConflict, match="choose another folder"):
        export_tiles(read, elsewhere, log, tmp_path)
    assert (tmp_path / "checkpoint").read_bytes() == note(300)


def test_two_exporters_at_once_are_kept_apart(tmp_path: Path) -> None:
    export(tmp_path, 10)
    with (tmp_path / ".exporting").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(AlreadyRunning):
            export(tmp_path, 20)
    assert export(tmp_path, 20).size == 20


def test_a_folder_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnusable, match="cannot be used"):
        export(tmp_path / "file" / "below", 10)


def test_a_crash_before_the_checkpoint_leaves_the_folder_of_the_size_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(tmp_path, 300)
    real = os.replace
    moved: list[str] = []

    def dies(source: Any, target: Any, **directories: Any) -> None:
        if len(moved) == 4:
            raise OSError(28, "No space left on device")
        moved.append(target)
        real(source, target, **directories)

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(StoreUnusable, match="No space left"):
        export(tmp_path, 1000)
    assert "checkpoint" not in moved
    assert list(TileReader(folder(tmp_path), worked.LOG).leaves()) == LEAVES[:300]
    monkeypatch.undo()
    assert export(tmp_path, 1000) == Exported(1000, written=3, kept=6)
    assert list(TileReader(folder(tmp_path), worked.LOG).leaves()) == LEAVES[:1000]


# --- what a server of files could do ------------------------------------------------------------


def test_every_changed_byte_of_every_file_is_noticed(tmp_path: Path) -> None:
    export(tmp_path, 520)
    honest = files(tmp_path)
    for name, data in honest.items():
        for at in sorted({0, len(data) // 2, len(data) - 1}):
            for changed in (
                data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :],
                data[:at],
                data[:at] + b"\x00\x00" + data[at:],
            ):
                served = honest | {name: changed}
                with pytest.raises(Refused) as caught:
                    list(TileReader(served.get, worked.LOG).leaves())
                edge = ".p/" in name and "/entries/" not in name
                if name != "checkpoint" and not edge:
                    assert caught.value.where == name


def test_every_missing_file_is_named(tmp_path: Path) -> None:
    export(tmp_path, 520)
    honest = files(tmp_path)
    for name in honest:
        served = {other: data for other, data in honest.items() if other != name}
        with pytest.raises(NotConsistent, match="is missing") as caught:
            list(TileReader(served.get, worked.LOG).leaves())
        assert caught.value.where == name.partition(".p/")[0]


def test_a_tile_of_another_place_is_refused(tmp_path: Path) -> None:
    export(tmp_path, 520)
    honest = files(tmp_path)
    swapped = honest | {"tile/0/000": honest["tile/0/001"]}
    reader = TileReader(swapped.get, worked.LOG)
    assert reader.leaf(519) == LEAVES[519]
    with pytest.raises(NotConsistent, match="place in the tile above") as caught:
        reader.inclusion(3)
    assert caught.value.where == "tile/0/000"


def test_a_file_beyond_its_size_or_no_file_is_not_read(tmp_path: Path) -> None:
    export(tmp_path, 10)
    (tmp_path / "checkpoint").write_bytes(bytes(2**20))
    with pytest.raises(MalformedInput, match="no plain file of at most"):
        TileReader(folder(tmp_path), worked.LOG)
    (tmp_path / "checkpoint").unlink()
    os.mkfifo(tmp_path / "checkpoint")
    with pytest.raises(MalformedInput, match="no plain file"):
        TileReader(folder(tmp_path), worked.LOG)


def test_questions_outside_the_checkpoint_are_refused(tmp_path: Path) -> None:
    export(tmp_path, 10)
    reader = TileReader(folder(tmp_path), worked.LOG)
    for ask in (
        lambda: reader.leaf(10),
        lambda: list(reader.leaves(0, 11)),
        lambda: reader.root(11),
        lambda: reader.inclusion(3, 3),
        lambda: reader.consistency(9, 8),
    ):
        with pytest.raises(OutsideTree) as caught:
            ask()
        assert caught.value.size == 10


# --- another implementation ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def go_reads() -> Callable[[dict[str, Any]], Any]:
    program = go_program(SOURCE)

    def run(request: dict[str, Any]) -> Any:
        data = orjson.dumps(request, default=lambda raw: base64.b64encode(raw).decode())
        done = subprocess.run([str(program)], input=data, capture_output=True, check=True)
        return orjson.loads(done.stdout)

    return run


@pytest.mark.parametrize("size", [1, 255, 256, 257, 1000, 66_000])
def test_go_reads_our_folder_and_builds_the_same_tiles(
    go_reads: Callable[[dict[str, Any]], Any], tmp_path: Path, size: int
) -> None:
    export(tmp_path, size)
    asked = sorted({0, size // 2, size - 1})
    answer = go_reads(
        {
            "Folder": str(tmp_path),
            "Size": size,
            "Root": TREE.root(size),
            "Prove": asked,
            "Leaves": LEAVES[:size],
        }
    )
    assert answer["error"] == ""
    assert answer["read"] == size
    proofs = [tuple(base64.b64decode(node) for node in proof) for proof in answer["proofs"]]
    assert proofs == [TREE.inclusion(index, size) for index in asked]
    built = {name: base64.b64decode(data) for name, data in answer["built"].items()}
    assert built == {name: tile_bytes(TREE, Tile.parse(name)) for name in built}
    exported = {name for name in files(tmp_path) if name.startswith("tile/")}
    assert {name for name in exported if "/entries/" not in name} <= set(built)


def test_go_refuses_a_changed_tile_and_a_changed_entry(
    go_reads: Callable[[dict[str, Any]], Any], tmp_path: Path
) -> None:
    export(tmp_path, 520)
    honest = files(tmp_path)
    for name in honest:
        if name == "checkpoint":
            continue
        data = honest[name]
        (tmp_path / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        answer = go_reads({"Folder": str(tmp_path), "Size": 520, "Root": TREE.root(520)})
        assert answer["error"] != "", name
        (tmp_path / name).write_bytes(data)
    assert go_reads({"Folder": str(tmp_path), "Size": 520, "Root": TREE.root(520)})["error"] == ""
