"""A log as a folder of files: it grows, never goes back, and says what it cannot do."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from ledger.errors import (
    AlreadyRunning,
    BadSignature,
    NotConsistent,
    OutsideTree,
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
    TileReader,
    tiles_at,
)
from tests.ledger.formats import worked
from tests.ledger.formats.exported_tiles import LEAVES, TREE, export, files, note, read


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
