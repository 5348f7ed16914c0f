"""How much a member may bring, and how full the disk may become by it.

A blob that no entry names can be read by nobody, so it is of no use and only fills the disk. What has
arrived whole and an entry has named no longer counts as such. What has begun to arrive counts until it is
whole or gone, named or not: whether its bytes are what they are called is not known before. A journal keeps it
over a restart, and what lies on the disk decides then.

Named or not, a member brings at most so many bytes a day, and nobody anything that would leave the disk
without the room that the log itself needs (``disk_room``). The day's bytes are counted in memory, from the start of the
process on. Owned by the event loop's thread.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from coordinator.errors import NeverTaken, QuotaExceeded, StorageExceeded
from coordinator.http.disk_room import DiskRoom
from coordinator.http.upload_journal import UploadJournal
from ledger.copies.blobs import BlobStore

MAX_BLOBS = 4096
"""Blobs of one member, however small: each is a file, and is looked at for each that follows."""
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What members may bring.

    Attributes:
        unnamed: bytes of one member that no entry names.
        daily: bytes of one member a day, named or not; as many at once.
        keep_free: bytes of the disk that are left for the log.
        blobs: of one member, that no entry names.
    """

    unnamed: int
    daily: int = 2**62
    keep_free: int = 0
    blobs: int = MAX_BLOBS


class Uploads:
    """Bytes that each member has brought.

    Args:
        limits: of one member, and of the disk.
        named: whether an entry names a blob.
        free: bytes that the disk has.
        journal: keeps what is not named over a restart; None keeps nothing.
        now_s: a steady clock.
    """

    def __init__(
        self,
        limits: UploadLimits,
        named: Callable[[str], bool],
        *,
        free: Callable[[], int] = lambda: 2**62,
        journal: UploadJournal | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._named = named
        self._room = DiskRoom(limits.keep_free, free, now_s)
        self._journal = journal
        self._now_s = now_s
        self._coming: dict[str, dict[str, int]] = {}
        self._whole: dict[str, dict[str, int]] = {}
        self._left: dict[str, tuple[float, float]] = {}

    def resume(self, blobs: BlobStore) -> None:
        """Count again what was brought before this process, as far as it is here and not named."""
        if self._journal is None:
            return
        for handle, brought in self._journal.read().items():
            coming, whole = self._of(handle)
            for sha256, total in brought.items():
                size = blobs.size(sha256)
                if size is not None and not self._named(sha256):
                    whole[sha256] = size
                elif size is None and blobs.open_upload(sha256).offset:
                    coming[sha256] = total
        self._journal.rewrite(self._held())

    def claim(
        self, handle: str, sha256: str, total: int, offset: int = 0, part: int | None = None
    ) -> None:
        """Count a blob that a member begins to bring, or goes on with.

        Args:
            handle: the member.
            sha256: the blob.
            total: its bytes, as the member states them; no more than that are taken. What was stated
                before holds too: those bytes may be here.
            offset: where its next part begins. What is before it is on the disk already, and asks
                for no room again; a part that begins elsewhere is not stored.
            part: bytes that come now, by default all the rest; in flight until `landed`.

        Raises:
            NeverTaken: it is larger than what a member may bring at once.
            StorageExceeded: it holds too much that no entry names.
            QuotaExceeded: it has brought too much today.
            DiskFull: there is no room for anybody's.
        """
        coming, whole = self._of(handle)
        for name in [name for name in whole if self._named(name)]:
            del whole[name]
        known = max(coming.get(sha256, 0), whole.get(sha256, 0))
        held = sum(coming.values()) + sum(whole.values()) - known
        new = sha256 not in coming and sha256 not in whole
        limits = self._limits
        for limit, setting in ((limits.unnamed, "unnamed_limit"), (limits.daily, "daily_limit")):
            if total > limit:
                raise NeverTaken(handle, size=total, limit=limit, setting=setting)
        if held + max(known, total) > limits.unnamed or (
            new and len(coming) + len(whole) >= limits.blobs
        ):
            raise StorageExceeded(handle, limit=limits.unnamed, most=limits.blobs)
        charged = max(0, total - known)
        wait_s = self._wait_s(handle, charged)
        if wait_s > 0:
            raise QuotaExceeded(handle, what="bytes", retry_after_s=wait_s)
        rest = max(0, total - offset)
        self._room.claim((handle, sha256), rest, rest if part is None else part)
        self._left[handle] = self._left[handle][0] - charged, self._left[handle][1]
        self.hold(handle, sha256, total)

    def landed(self, handle: str, sha256: str, rest: int | None = None) -> None:
        """What was in flight of a blob is on the disk, or nowhere.

        Args:
            handle: the member.
            sha256: the blob.
            rest: bytes that it needs yet, if that has changed.
        """
        self._room.landed((handle, sha256), rest)

    def hold(self, handle: str, sha256: str, total: int) -> None:
        """Count a blob of which a part was taken, whether or not there is room."""
        coming, whole = self._of(handle)
        before = coming.get(sha256)
        coming[sha256] = max(before or 0, whole.pop(sha256, 0), total)
        if self._journal is not None and before != coming[sha256]:
            self._journal.add(handle, sha256, coming[sha256])
            held = self._held()
            if self._journal.is_long(sum(map(len, held.values()))):
                self._journal.rewrite(held)

    def arrived(self, sha256: str) -> None:
        """A blob is whole: nothing else is kept of it, whoever had begun to bring it."""
        self._room.release(sha256)
        for handle, coming in self._coming.items():
            if sha256 in coming:
                self._whole[handle][sha256] = coming.pop(sha256)

    def release(self, handle: str, sha256: str) -> None:
        """Forget a blob of which nothing was kept."""
        self._room.release(sha256)
        coming, whole = self._of(handle)
        coming.pop(sha256, None)
        whole.pop(sha256, None)

    def _wait_s(self, handle: str, new: int) -> float:
        """Seconds until a member may bring so many bytes more; what it may now is kept in `_left`."""
        daily, now_s = self._limits.daily, self._now_s()
        left, since_s = self._left.get(handle, (float(daily), now_s))
        left = min(float(daily), left + (now_s - since_s) * daily / _DAY_S)
        self._left[handle] = left, now_s
        return max(0.0, (new - left) * _DAY_S / daily)

    def _held(self) -> dict[str, dict[str, int]]:
        return {who: coming | self._whole[who] for who, coming in self._coming.items()}

    def _of(self, handle: str) -> tuple[dict[str, int], dict[str, int]]:
        return self._coming.setdefault(handle, {}), self._whole.setdefault(handle, {})


def free_bytes(folder: Path) -> int:
    """Bytes that the disk of a folder has for this process."""
    return shutil.disk_usage(folder).free
