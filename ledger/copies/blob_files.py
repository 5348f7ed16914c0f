"""Plain files below an open directory: read in pieces, compared, written whole and durable, removed.

Names are looked up from the directory's descriptor, and no link is followed. What a file is for,
``blobs`` knows.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator

CHUNK = 1024 * 1024
"""Bytes read at a time."""
FILE_MODE = 0o600


def holds(directory: int, name: str, data: bytes) -> bool:
    """Say whether the file is there with exactly these bytes."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    except OSError:
        return False
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_size != len(data):
            return False
        at = 0
        for chunk in pieces(file, len(data)):
            if data[at : at + len(chunk)] != chunk:
                return False
            at += len(chunk)
        return at == len(data)
    finally:
        os.close(file)


def pieces(file: int, size: int) -> Iterator[bytes]:
    """Yield ``size`` bytes from where the file stands, or fewer if it ends before."""
    while size > 0 and (chunk := os.read(file, min(CHUNK, size))):
        size -= len(chunk)
        yield chunk


def digest_of(file: int, size: int) -> str:
    """Return the SHA-256 of the first ``size`` bytes, in hexadecimal."""
    os.lseek(file, 0, os.SEEK_SET)
    digest = hashlib.sha256()
    for chunk in pieces(file, size):
        digest.update(chunk)
    return digest.hexdigest()


def write_file(directory: int, name: str, data: bytes) -> None:
    """Write a new file, durable before this returns."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    file = os.open(name, flags, FILE_MODE, dir_fd=directory)
    try:
        write_all(file, data)
        os.fsync(file)
    finally:
        os.close(file)


def write_all(file: int, data: bytes) -> None:
    """Write all bytes where the file stands."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def unlink(directory: int, name: str) -> bool:
    """Remove a name; whether it was there."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    return True


def is_named(file: int, name: str, directory: int) -> bool:
    """Say whether this open file is still what the name means."""
    try:
        named = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(file))
