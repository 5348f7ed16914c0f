"""What a server of files could do: nothing is read back beyond the signed root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ledger.errors import (
    MalformedInput,
    NotConsistent,
    OutsideTree,
    Refused,
)
from ledger.formats.tile_folder import folder
from ledger.formats.tiles import (
    TileReader,
)
from tests.ledger.formats import worked
from tests.ledger.formats.exported_tiles import LEAVES, export, files


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
