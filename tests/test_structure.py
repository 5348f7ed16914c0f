"""No module and no folder of the product grows until nobody finds a thing in it.

The bounds are what holds today. They are lowered as modules are split, and never raised: what would go
over them gets a module, or a folder, named for what it holds.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("privacy", "ledger", "node", "coordinator", "audit", "consilium")
MOST_LINES = 400
MOST_MODULES = 30
WRITES = re.compile(r"""\.write_(?:bytes|text)\(|open\([^)]*["'][wxa]b?["']|O_WRONLY""")
FLUSH = {
    "ledger/copies/whole_file.py": "what all others use",
    "ledger/copies/blob_files.py": "blobs, of which `blobs` flushes the folder",
    "ledger/copies/bundle.py": "written as it is read, for it may not fit into memory",
    "ledger/copies/snapshot.py": "what a replay gives again",
    "ledger/entries/author.py": "the entry that is sent next",
    "ledger/formats/key_file.py": "a private key, which is never overwritten",
    "ledger/formats/tile_folder.py": "tiles, in a folder that is held open",
    "coordinator/http/upload_journal.py": "what only counts, and a power loss may forget",
    "consilium/rehearsal.py": "made-up rows in a folder that is thrown away",
    "consilium/demo/data.py": "made-up rows",
    "consilium/demo/processes.py": "logs of a demo",
    "consilium/demo/run.py": "a demo",
}


def modules() -> list[Path]:
    return [file for room in ROOMS for file in sorted((ROOT / room).rglob("*.py"))]


def test_no_module_is_longer_than_a_reader_follows() -> None:
    lengths = {
        str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in modules()
    }
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_no_test_is_longer_than_a_reader_follows() -> None:
    lengths = {
        str(file.relative_to(ROOT)): len(file.read_text().splitlines())
        for file in sorted((ROOT / "tests").rglob("*.py"))
    }
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_no_folder_holds_more_modules_than_a_reader_surveys() -> None:
    held = Counter(str(file.parent.relative_to(ROOT)) for file in modules())
    assert {folder: count for folder, count in held.items() if count > MOST_MODULES} == {}


def test_the_architecture_names_every_folder_of_every_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    for room in ROOMS:
        folders = [f.name for f in (ROOT / room).iterdir() if f.is_dir() and f.name[0] != "_"]
        assert [f for f in sorted(folders) if f"`{f}`" not in rows[f"{room}/"]] == [], room


def test_every_module_says_first_what_it_is() -> None:
    silent = [
        str(file.relative_to(ROOT))
        for file in modules()
        if not file.read_text().lstrip().startswith(('"""', 'r"""'))
    ]
    assert silent == []


def test_whatever_writes_a_file_flushes_it_or_says_why_not() -> None:
    writers = {str(file.relative_to(ROOT)) for file in modules() if WRITES.search(file.read_text())}
    assert writers == set(FLUSH), "use ledger.copies.whole_file"
