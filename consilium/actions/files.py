"""Small files that a person names, read and written whole."""

from __future__ import annotations

from pathlib import Path

from consilium.errors import InputError


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


def write_file(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all; one that is there is replaced.

    Raises:
        InputError: it cannot be written.
    """
    new = path.with_name(path.name + ".new")
    try:
        new.write_bytes(data)
        new.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
