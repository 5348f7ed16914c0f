"""Room on the disk for what is being brought: what was begun where there was room can be ended.

An upload's rest is set aside when it begins, and its parts in flight are counted before they are on the disk.
So two that fit one after the other, and not together, do not take each other's room until neither can end: the
second waits. What is set aside lapses when nothing comes for a while; a member that begins and goes keeps
nobody out, and is asked again for room when it goes on. Owned by the event loop's thread.

Not promised: the last chunk. Where the disk ends with the very bytes that are in flight, one of them may be told to
come again, since what is written and not yet answered is counted twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from coordinator.errors import DiskFull

LAPSE_S = 600.0
"""Seconds after its last part for which an upload's room is set aside."""

Upload = tuple[str, str]
"""A member's handle, and a SHA-256."""


@dataclass(frozen=True, slots=True)
class _Aside:
    """Bytes that an upload still needs, those of them in flight, and when its last part came."""

    rest: int
    flying: int
    at_s: float


class DiskRoom:
    """See the module's first lines.

    Args:
        keep_free: bytes of the disk that are left for the log.
        free: bytes that the disk has.
        now_s: a steady clock.
    """

    def __init__(self, keep_free: int, free: Callable[[], int], now_s: Callable[[], float]) -> None:
        self._keep_free = keep_free
        self._free = free
        self._now_s = now_s
        self._aside: dict[Upload, _Aside] = {}

    def claim(self, upload: Upload, rest: int, part: int) -> None:
        """Set room aside for an upload, or find that it is.

        Args:
            upload: whose.
            rest: bytes that are not on the disk yet, those of this part among them.
            part: bytes that come now.

        Raises:
            DiskFull: there is none.
        """
        now_s = self._now_s()
        for lapsed in [
            u for u, a in self._aside.items() if not a.flying and a.at_s < now_s - LAPSE_S
        ]:
            del self._aside[lapsed]
        own = self._aside.get(upload)
        others = [aside for of, aside in self._aside.items() if of != upload]
        if own is None or own.rest < rest:
            needed = rest + sum(aside.rest for aside in others)
        else:
            needed = part + sum(aside.flying for aside in others)
        if self._free() - needed < self._keep_free:
            raise DiskFull(self._keep_free)
        self._aside[upload] = _Aside(rest, part, now_s)

    def landed(self, upload: Upload, rest: int | None) -> None:
        """A part is on the disk, or nowhere.

        Args:
            upload: whose.
            rest: bytes that it needs yet; None where that is what it was.
        """
        own = self._aside.get(upload)
        if own is not None:
            self._aside[upload] = _Aside(own.rest if rest is None else rest, 0, own.at_s)

    def release(self, sha256: str) -> None:
        """A blob is whole, or gone: nobody's room is set aside for it."""
        for upload in [upload for upload in self._aside if upload[1] == sha256]:
            del self._aside[upload]
