"""Reading an SQLite database without touching it.

Opening a database in WAL mode, even to read, may write beside it. An auditor must not: the file and
its write-ahead log are copied, and the copy is opened. The copy is taken again when a writer was at
work meanwhile.

SQLite drops whatever follows a damaged frame of a write-ahead log without a word, so that one
changed byte there would make the log merely shorter. `wal_fault` finds it: a frame of the present
generation after a frame whose checksum does not hold. Format: sqlite.org/fileformat2.html, section 4.
"""

from __future__ import annotations

import shutil
import sqlite3
import stat
import struct
import time
from pathlib import Path

from audit.errors import SourceUnusable

MAGIC = b"SQLite format 3\x00"
COPY = "copy.db"
"""Name of the copy in its directory."""
_TRIES = 40
_PAUSE_S = 0.05
_WAL_HEADER = 32
_FRAME_HEADER = 24
_MASK = 0xFFFFFFFF
_PAGES = frozenset(2**power for power in range(9, 17))


def copy_database(path: Path, directory: Path) -> Path:
    """Copy a database and its write-ahead log as of one moment.

    Args:
        path: the database file.
        directory: where the copy goes; must exist.

    Raises:
        SourceUnusable: it cannot be read, is no SQLite database, or a writer never pauses.
    """
    target = directory / COPY
    wal, target_wal = _wal_of(path), _wal_of(target)
    for _ in range(_TRIES):
        try:
            before = _stamp(path), _stamp(wal)
            shutil.copyfile(path, target)
            target_wal.unlink(missing_ok=True)
            if before[1] is not None:
                shutil.copyfile(wal, target_wal)
            after = _stamp(path), _stamp(wal)
        except FileNotFoundError:
            after, before = (None, None), (None, (0, 0))
        except OSError as error:
            raise SourceUnusable(str(path), f"cannot be read ({error.strerror})") from None
        if before == after:
            break
        time.sleep(_PAUSE_S)
    else:
        raise SourceUnusable(
            str(path), "its writer never pauses long enough to copy it; export a bundle instead"
        )
    with target.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise SourceUnusable(str(path), "is not an SQLite database: its first bytes are others")
    return target


def page_fault(path: Path) -> str | None:
    """What SQLite's own check finds wrong with the pages and indexes of a copy, or None."""
    connection = sqlite3.connect(path)
    try:
        first = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        return str(error)
    finally:
        connection.close()
    return None if first == ("ok",) else str(first[0] if first else "no answer")


def wal_fault(path: Path) -> str | None:
    """Where a database's write-ahead log was damaged, or None.

    A frame that fails at the very end is an interrupted write, which SQLite rightly ignores.
    """
    wal = _wal_of(path)
    try:
        data = wal.read_bytes()
    except FileNotFoundError:
        return None
    if not data:
        return None
    if len(data) < _WAL_HEADER:
        return "its write-ahead log ends within its header"
    magic, _, page, _, salt1, salt2, sum1, sum2 = struct.unpack(">8I", data[:_WAL_HEADER])
    if magic not in (0x377F0682, 0x377F0683):
        return "its write-ahead log does not begin as one"
    order = ">" if magic & 1 else "<"
    page = 65536 if page == 1 else page
    running = _checksum(data[:24], order, (0, 0))
    if running != (sum1, sum2) or page not in _PAGES:
        return "the header of its write-ahead log was changed"
    broken: int | None = None
    frame_bytes = _FRAME_HEADER + page
    for number, at in enumerate(range(_WAL_HEADER, len(data) - frame_bytes + 1, frame_bytes)):
        header = struct.unpack(">6I", data[at : at + _FRAME_HEADER])
        if broken is not None:
            if header[2:4] == (salt1, salt2):
                return f"frame {broken} of its write-ahead log was changed"
            continue
        body = data[at + _FRAME_HEADER : at + frame_bytes]
        running = _checksum(data[at : at + 8] + body, order, running)
        if header[2:4] != (salt1, salt2) or header[4:6] != running:
            broken = number
    return None


def _checksum(data: bytes, order: str, start: tuple[int, int]) -> tuple[int, int]:
    s0, s1 = start
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for x, y in zip(words[0::2], words[1::2], strict=True):
        s0 = (s0 + x + s1) & _MASK
        s1 = (s1 + y + s0) & _MASK
    return s0, s1


def _wal_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):  # a link to a device has no end
        raise SourceUnusable(str(path), "is no plain file")
    return status.st_size, status.st_mtime_ns
