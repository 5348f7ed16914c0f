"""Who brought which blob before an entry named it, in a file: what a member holds outlives a restart.

A line a blob: handle, SHA-256, bytes. Lines are appended as blobs begin, and are not flushed: a process that
dies loses none, a machine that loses its power a few, and then a member has brought a little more than
its quota. At the start, and when it has grown, the file is written anew with what still counts.

Not promised: that a line is true of what lies on the disk. Whoever reads it looks there.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path

from ledger.copies.whole_file import replace_file
from ledger.errors import StoreUnusable

SPARE_LINES = 10_000
"""Lines that the file may have beyond those that count."""

_LINE = re.compile(rb"([a-z0-9-]{1,40}) ([0-9a-f]{64}) ([0-9]{1,15})")
_log = logging.getLogger(__name__)


class UploadJournal:
    """See the module's first lines. One owner.

    Args:
        path: in the coordinator's home.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = 0
        self._torn = False
        """Whether the file ends within a line: the next one begins anew."""

    def read(self) -> dict[str, dict[str, int]]:
        """Handle -> SHA-256 -> bytes; a line that was cut short or is none counts for nothing."""
        held: dict[str, dict[str, int]] = {}
        try:
            lines = self._path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return held
        except OSError as error:
            _log.warning("who brought what cannot be read: %s", error)
            return held
        for line in lines:
            found = _LINE.fullmatch(line)
            if found is not None:
                handle, sha256, total = (part.decode() for part in found.groups())
                blobs = held.setdefault(handle, {})
                blobs[sha256] = max(blobs.get(sha256, 0), int(total))
        return held

    def rewrite(self, held: Mapping[str, Mapping[str, int]]) -> None:
        """Keep these lines alone."""
        lines = [_line(who, name, size) for who, of in held.items() for name, size in of.items()]
        try:
            replace_file(self._path, b"".join(lines), private=True)
            self._torn = False
        except StoreUnusable as error:
            _log.warning("who brought what cannot be kept: %s", error)
        self._lines = len(lines)

    def add(self, handle: str, sha256: str, total: int) -> None:
        """Append a line; a disk that takes none keeps no upload from its quota in memory."""
        line = (b"\n" if self._torn else b"") + _line(handle, sha256, total)
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                while line:  # a disk that is nearly full takes a part, and says how much
                    self._torn = True
                    line = line[os.write(file, line) :]
                self._torn = False
            finally:
                os.close(file)
        except OSError as error:
            _log.warning("who brought what cannot be kept: %s", error)
        self._lines += 1

    def is_long(self, counting: int) -> bool:
        """Whether it is time to write it anew.

        Args:
            counting: blobs that count.
        """
        return self._lines > counting + SPARE_LINES


def _line(handle: str, sha256: str, total: int) -> bytes:
    return f"{handle} {sha256} {total}\n".encode()
