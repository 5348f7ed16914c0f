"""The newest checkpoint that was signed, in a file outside the database.

A database that is restored from a backup is consistent in itself and silently shorter; signing on it
would fork the log. This file is not in the database's backup, and so tells. It is written after each
commit and before the answer, not flushed: after a power loss it may be older than the database,
never newer; `write_head` flushes. A missing file says nothing (the home was moved, or made before).

The file has two places of `SLOT` bytes, written in turn, so that one that was cut short leaves the
other: u64 number of the writing, u32 length of the note, the note, and SHA-256 over all of these.
Writing in place costs a fiftieth of replacing the file, which was a third of a small commit.
"""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

from ledger.copies.whole_file import flush_folder

SLOT = 4096
_FRAME = 8 + 4 + 32


class HeadFile:
    """The file, open for writing. One owner.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._number = max((number for number, _ in _slots(path)), default=0)

    def write(self, note: bytes) -> None:
        """Remember a note instead of the one before.

        Raises:
            OSError: it is not written.
            ValueError: it is longer than a slot takes; a note with one signature never is.
        """
        if len(note) > SLOT - _FRAME:
            raise ValueError(f"a note of {len(note)} bytes is none that a log alone has signed")
        number = self._number + 1
        data = number.to_bytes(8, "big") + len(note).to_bytes(4, "big") + note
        os.pwrite(self._file, data + sha256(data).digest(), number % 2 * SLOT)
        self._number = number

    def flush(self) -> None:
        """Bring what was written to disk.

        Raises:
            OSError: it is not there for certain.
        """
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def write_head(path: Path, note: bytes) -> None:
    """Write once, durably: what somebody showed of this log is nowhere else here.

    Raises:
        OSError: it is not written.
    """
    file = HeadFile(path)
    try:
        file.write(note)
        file.flush()
    finally:
        file.close()
    flush_folder(path.parent)


def read_head(path: Path) -> bytes | None:
    """The newest note that is whole, or None when there is none."""
    return max(_slots(path), default=(0, None))[1]


def _slots(path: Path) -> list[tuple[int, bytes]]:
    """Every slot that is whole: the number of its writing, and its note."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    found = []
    for slot in (data[:SLOT], data[SLOT : 2 * SLOT]):
        end = 12 + int.from_bytes(slot[8:12], "big")
        if end <= 12 or slot[end : end + 32] != sha256(slot[:end]).digest():
            continue
        found.append((int.from_bytes(slot[:8], "big"), slot[12:end]))
    return found
