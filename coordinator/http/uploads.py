"""How much a member may bring before entries name it.

A blob that no entry names can be read by nobody, so it is of no use and only fills the disk. What an
entry has named costs nothing here: entries have their own quota. Counted in memory, from the start of
the process on. Owned by the event loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable

from coordinator.errors import StorageExceeded


class Uploads:
    """Bytes of each member that nobody has named yet.

    Args:
        limit: bytes of one member.
        named: whether an entry names a blob.
    """

    def __init__(self, limit: int, named: Callable[[str], bool]) -> None:
        self._limit = limit
        self._named = named
        self._held: dict[str, dict[str, int]] = {}

    def claim(self, handle: str, sha256: str, total: int) -> None:
        """Count a blob that a member begins to bring, or goes on with.

        Args:
            handle: the member.
            sha256: the blob.
            total: its bytes, as the member states them; no more than that are taken.

        Raises:
            StorageExceeded: there is no room for it.
        """
        held = self._held.setdefault(handle, {})
        for name in [name for name in held if self._named(name)]:
            del held[name]
        if sum(held.values()) - held.get(sha256, 0) + total > self._limit:
            raise StorageExceeded(handle, limit=self._limit)
        held[sha256] = total

    def release(self, handle: str, sha256: str) -> None:
        """Forget a blob that was not kept."""
        self._held.get(handle, {}).pop(sha256, None)
