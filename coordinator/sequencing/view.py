"""What a coordinator shows of its log: durable, as of one moment."""

from __future__ import annotations

from dataclasses import dataclass

from ledger.rules.state import State


@dataclass(frozen=True, slots=True)
class View:
    """What is durable, as of one moment.

    Attributes:
        state: the fold of the log.
        note: the newest signed checkpoint, over ``state.size`` entries.
        final_size, final_note: the newest final checkpoint; size 1 without a note is genesis.
        stopped: why no entry is taken any more, or None.
        failed: whether it stopped since memory and store may differ: a restart reads what is stored.
    """

    state: State
    note: bytes
    final_size: int
    final_note: bytes | None
    stopped: str | None = None
    failed: bool = False

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.state.size
