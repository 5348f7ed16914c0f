"""A database that somebody made up: what has no end in it, and what cannot be, is refused in words."""

from __future__ import annotations

import sqlite3
import struct
from pathlib import Path

import pytest

from audit.errors import SourceUnusable
from audit.verification.sources import open_copies
from audit.verification.sqlite_copy import copy_database, wal_fault
from tests.federation import Federation


def header(page: int) -> bytes:
    """The header of a write-ahead log with pages of so many bytes, and a checksum that fits."""
    begun = struct.pack(">6I", 0x377F0683, 3007000, page, 0, 1, 2)
    s0 = s1 = 0
    words = struct.unpack(">6I", begun)
    for x, y in zip(words[0::2], words[1::2], strict=True):
        s0 = (s0 + x + s1) & 0xFFFFFFFF
        s1 = (s1 + y + s0) & 0xFFFFFFFF
    return begun + struct.pack(">2I", s0, s1)


@pytest.mark.parametrize("page", [0, 2, 256, 513, 516, 1000, 131072, 2**32 - 1])
def test_pages_of_a_size_that_sqlite_does_not_know_are_a_fault(tmp_path: Path, page: int) -> None:
    (tmp_path / "copy.db-wal").write_bytes(header(page) + bytes(200_000))
    assert wal_fault(tmp_path / "copy.db") == "the header of its write-ahead log was changed"


@pytest.mark.parametrize("page", [512, 4096, 1])
def test_a_log_that_was_cut_off_in_its_last_frame_is_whole(tmp_path: Path, page: int) -> None:
    (tmp_path / "copy.db-wal").write_bytes(header(page) + bytes(100_000))
    assert wal_fault(tmp_path / "copy.db") is None


@pytest.mark.parametrize("linked", ["", "-wal"])
def test_a_database_that_is_a_link_to_a_device_is_not_copied_for_ever(
    tmp_path: Path, linked: str
) -> None:
    home, copies = tmp_path / "home", tmp_path / "copies"
    home.mkdir()
    copies.mkdir()
    (home / "ledger.db").write_bytes(b"SQLite format 3\x00")
    (home / f"ledger.db{linked}").unlink(missing_ok=True)
    (home / f"ledger.db{linked}").symlink_to("/dev/zero")
    with pytest.raises(SourceUnusable, match="no plain file"):
        copy_database(home / "ledger.db", copies)


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE finals RENAME TO kept; CREATE VIEW finals AS WITH RECURSIVE c(n) AS"
        " (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n AS size, x'00' AS note FROM c",
        "ALTER TABLE finals ADD COLUMN more BLOB AS (zeroblob(1000000000))",
        "CREATE VIRTUAL TABLE other USING fts5(text)",
    ],
    ids=["a view", "a generated column", "a virtual table"],
)
def test_a_database_that_computes_what_it_holds_is_refused(tmp_path: Path, change: str) -> None:
    Federation.found().persist(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "ledger.db")
    connection.executescript(change)
    connection.close()
    with pytest.raises(SourceUnusable, match="computes what it holds"):
        open_copies(str(tmp_path / "ledger.db"))
