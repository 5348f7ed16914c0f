"""A write-ahead log that somebody made up is told from one that was damaged, and from a whole one."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from audit.verification.sqlite_copy import wal_fault


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
