"""Small files that are there whole or not at all, and stay there when the power fails.

A file is written beside its place, flushed, and moved into it; then the folder is flushed, without which
a crash could still bring the old name back. What lies beside is left from a crash, and is written over.

It does not say which process may write: whoever shares a folder takes a lock first.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ledger.errors import StoreUnusable


def replace_file(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write a file in place of what is there; it is whole and on disk when this returns.

    Args:
        path: in a folder that exists.
        data: all of it.
        private: mode 0600, for its owner's eyes alone.

    Raises:
        StoreUnusable: it cannot be written; what was there is there still, or already replaced.
    """
    new = path.with_name(path.name + ".new")
    try:
        with open(new, "wb", opener=_private if private else None) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise StoreUnusable(str(path), f"cannot be written: {error.strerror}") from None


def create_file(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write a file that is not there yet; it and its name are on disk when this returns.

    Where it cannot be written whole it is removed again; a crash meanwhile can leave a part of it.

    Args:
        path: in a folder that exists.
        data: all of it.
        private: mode 0600, for its owner's eyes alone.

    Raises:
        StoreUnusable: it exists already, or cannot be written.
    """
    try:
        with open(path, "xb", opener=_private if private else None) as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                path.unlink(missing_ok=True)
                raise
        flush_folder(path.parent)
    except OSError as error:
        raise StoreUnusable(str(path), f"cannot be written: {error.strerror}") from None


def flush_folder(folder: Path) -> None:
    """Bring a folder's names to disk: what was moved or unlinked in it stays so.

    Raises:
        OSError: it cannot be opened or flushed.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
