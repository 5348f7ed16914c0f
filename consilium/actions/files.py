"""Small files that a person names, read and written whole."""

from __future__ import annotations

from pathlib import Path

from consilium.errors import InputError
from ledger.copies.whole_file import replace_file
from ledger.errors import StoreUnusable


def read_file(path: Path, limit: int) -> bytes:
    """Read a file of at most ``limit`` bytes.

    Raises:
        InputError: it cannot be read, or has more.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > limit:
        raise InputError(f"{path} has more than the {limit} bytes that such a file may have")
    return data


def make_folder(path: Path) -> None:
    """Make a folder, and those above it; one that is there is taken as it is.

    Raises:
        InputError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be made: {error.strerror}") from None


def write_file(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write a file, whole or not at all; one that is there is replaced.

    Args:
        path: in a folder that exists.
        data: all of it.
        private: for its owner's eyes alone.

    Raises:
        InputError: it cannot be written.
    """
    try:
        replace_file(path, data, private=private)
    except StoreUnusable as error:
        raise InputError(f"{path} {error.reason}") from None
