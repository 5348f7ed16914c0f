"""The final checkpoints that a copy has judged: the newest, and when hospitals stood behind each entry.

They come in order, each judged before it comes here (``ledger.rules.finality``). Kept of those before the
newest: what they covered, and when a quorum had cosigned them.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import dataclass

from ledger.copies.snapshot import Finals
from ledger.formats.witness import QuorumResult


@dataclass(frozen=True, slots=True)
class Final:
    """The newest checkpoint that enough hospitals cosigned.

    Attributes:
        size: entries it covers; 1 before any other, since genesis is final by definition.
        root: its root.
        note: the note with cosignatures, or None for genesis.
        quorum: who of the witnesses in the state that it covers signed and who is missing, and the
            same for the final before where others witnessed then; None for genesis.
    """

    size: int
    root: bytes
    note: bytes | None
    quorum: QuorumResult | None

    def fresh(self, since_s: int) -> bool:
        """Whether its quorums cosigned at or after a time; genesis alone never gives permission."""
        return self.quorum is not None and self.quorum.fresh(since_s)


class FinalTrail:
    """Grows by one judged checkpoint at a time; genesis, final by definition, is not among them.

    Attributes:
        newest: or None before the first.
    """

    def __init__(self) -> None:
        self.newest: Final | None = None
        self._before = 0
        self._sizes: array[int] = array("q")
        self._reached_s: array[int] = array("q")

    @classmethod
    def resume(cls, kept: Finals, newest: Final) -> FinalTrail:
        """Go on where a snapshot was taken; ``newest`` is judged anew."""
        trail = cls()
        trail.newest, trail._before = newest, kept.before
        trail._sizes = array("q", kept.cosigned_sizes)
        trail._reached_s = array("q", kept.cosigned_s)
        return trail

    def to_snapshot(self) -> Finals:
        """What a snapshot keeps."""
        size = 0 if self.newest is None else self.newest.size
        return Finals(size, self._before, tuple(self._sizes), tuple(self._reached_s))

    @property
    def reaches(self) -> int:
        """Entries that the newest covers; -1 before the first."""
        return -1 if self.newest is None else self.newest.size

    def advance(self, final: Final) -> None:
        """Take a judged checkpoint over more than the newest."""
        self._before = 1 if self.newest is None else self.newest.size
        self.newest = final
        reached_s = None if final.quorum is None else final.quorum.reached_s
        if reached_s is not None:
            self._sizes.append(final.size)
            self._reached_s.append(reached_s)

    def cosigned_s(self, index: int) -> int | None:
        """When a quorum had cosigned the first of them that covers entry ``index``, POSIX seconds."""
        at = bisect_right(self._sizes, index)
        return self._reached_s[at] if at < len(self._reached_s) else None
