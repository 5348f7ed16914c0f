"""Another implementation, in Go, reads our folder and refuses a changed one."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from ledger.formats.tiles import (
    Tile,
    tile_bytes,
)
from tests.checkers import go_program
from tests.ledger.formats.exported_tiles import LEAVES, TREE, export, files

SOURCE = Path(__file__).parent / "go_tiles" / "main.go"


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
