"""What a coordinator and its callers agree on beside the formats: sizes of a request, shapes of an answer.

The answers are unverified; a member's copy judges them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

CHUNK = 8 * 1024 * 1024
"""Bytes of a blob in one request."""
MAX_ANSWER = 16 * 1024 * 1024
"""Bytes of any answer but a blob; a batch of the log is cut far below."""
MAX_REFUSAL = 64 * 1024
LEAF_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where an entry is in the log, and what the coordinator's fold said of it.

    ``receipt`` is the log's signed promise (``ledger.formats.receipt``), unverified; the same entry
    handed in again is promised anew, so it does not count in a comparison.
    """

    index: int
    applied: bool
    reason: str | None
    receipt: bytes = field(default=b"", compare=False)


@dataclass(frozen=True, slots=True)
class Followed:
    """News of the log, unverified.

    Attributes:
        leaves: framed leaves from the asked size on.
        checkpoint: signed note over exactly the asked size and these leaves, or None without any.
        finals: notes with their cosignatures, smallest first, none beyond the leaves.
    """

    leaves: tuple[bytes, ...]
    checkpoint: bytes | None
    finals: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class RefillPosition:
    """How far a coordinator that lost its database is.

    Attributes:
        size, final: entries, and size of the newest final checkpoint, that it holds again.
        wanted: SHA-256 of blobs that it lacks; not all at once.
    """

    size: int
    final: int
    wanted: tuple[str, ...]
