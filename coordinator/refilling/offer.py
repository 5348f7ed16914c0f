"""A copy of a log that somebody hands over, as a refill sees it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from ledger.copies.stored import Conflict, StoredNote


class Offer(Protocol):
    """A copy that somebody hands over; nothing in it is believed."""

    @property
    def name(self) -> str:
        """What it is, for people."""
        ...

    def leaves(self, start: int) -> Iterator[bytes]:
        """Framed leaves from an index on."""
        ...

    def checkpoints(self) -> Iterable[StoredNote]:
        """Signed checkpoints, smallest first."""
        ...

    def finals(self) -> Iterable[StoredNote]:
        """Final checkpoints, smallest first."""
        ...

    def evidence(self) -> Iterable[Conflict]:
        """What it keeps against the log or a member."""
        ...

    def blob(self, sha256: str, length: int | None) -> bytes:
        """A blob's content; None takes whatever length has the hash.

        Raises:
            BlobMissing, BlobCorrupt, MalformedInput: it is not here, or not what it should be.
        """
        ...
