"""The newest checkpoint that was signed, in a file outside the database.

A database that is restored from a backup is consistent in itself and silently shorter; signing on it
would fork the log. This file is not in the database's backup, and so tells. It is replaced after each
commit and before the answer, not flushed: after a power loss it may be older than the database,
never newer. A missing file says nothing (the home was moved, or made before).
"""

from __future__ import annotations

from pathlib import Path


def write_head(path: Path, note: bytes) -> None:
    """Replace the file in one step."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(note)
    new.replace(path)


def read_head(path: Path) -> bytes | None:
    """The note, or None when there is no file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
