"""How much a member may bring before entries name it.

A blob that no entry names can be read by nobody, so it is of no use and only fills the disk. What has
arrived whole and an entry has named costs nothing here: entries have their own quota. What has begun to
arrive counts until it is whole or gone, named or not: whether its bytes are what they are called is not
known before. Counted in memory, from the start of the process on. Owned by the event loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable

from coordinator.errors import StorageExceeded

MAX_BLOBS = 4096
"""Blobs of one member, however small: each is a file, and is looked at for each that follows."""


class Uploads:
    """Bytes of each member that nobody has named yet.

    Args:
        limit: bytes of one member.
        named: whether an entry names a blob.
        most: blobs of one member.
    """

    def __init__(self, limit: int, named: Callable[[str], bool], most: int = MAX_BLOBS) -> None:
        self._limit = limit
        self._named = named
        self._most = most
        self._coming: dict[str, dict[str, int]] = {}
        self._whole: dict[str, dict[str, int]] = {}

    def claim(self, handle: str, sha256: str, total: int) -> None:
        """Count a blob that a member begins to bring, or goes on with.

        Args:
            handle: the member.
            sha256: the blob.
            total: its bytes, as the member states them; no more than that are taken. What was stated
                before holds too: those bytes may be here.

        Raises:
            StorageExceeded: there is no room for it.
        """
        coming, whole = self._of(handle)
        for name in [name for name in whole if self._named(name)]:
            del whole[name]
        known = max(coming.get(sha256, 0), whole.get(sha256, 0))
        held = sum(coming.values()) + sum(whole.values()) - known
        new = sha256 not in coming and sha256 not in whole
        if held + max(known, total) > self._limit or (
            new and len(coming) + len(whole) >= self._most
        ):
            raise StorageExceeded(handle, limit=self._limit, most=self._most)
        self.hold(handle, sha256, total)

    def hold(self, handle: str, sha256: str, total: int) -> None:
        """Count a blob of which a part was taken, whether or not there is room."""
        coming, whole = self._of(handle)
        coming[sha256] = max(coming.get(sha256, 0), whole.pop(sha256, 0), total)

    def arrived(self, sha256: str) -> None:
        """A blob is whole: nothing else is kept of it, whoever had begun to bring it."""
        for handle, coming in self._coming.items():
            if sha256 in coming:
                self._whole[handle][sha256] = coming.pop(sha256)

    def release(self, handle: str, sha256: str) -> None:
        """Forget a blob of which nothing was kept."""
        coming, whole = self._of(handle)
        coming.pop(sha256, None)
        whole.pop(sha256, None)

    def _of(self, handle: str) -> tuple[dict[str, int], dict[str, int]]:
        return self._coming.setdefault(handle, {}), self._whole.setdefault(handle, {})
