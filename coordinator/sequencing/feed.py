"""What followers read: entries up to a checkpoint that covers exactly them, and final checkpoints.

News comes from memory, since almost every follower asks for what was just sequenced; the rest from
the store. The sequencer's thread publishes; any thread reads. Values are replaced, never changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ledger.copies.leaves import read_leaves
from ledger.copies.store import LogStore

MAX_LEAVES = 2000
MAX_BYTES = 2 * 1024 * 1024
MAX_FINALS = 64
RECENT_BATCHES = 128
RECENT_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class Batch:
    """Entries that were made durable together, and the checkpoint over the log up to them."""

    first: int
    leaves: tuple[bytes, ...]
    note: bytes

    @property
    def size(self) -> int:
        """Entries in the log after this batch."""
        return self.first + len(self.leaves)

    @cached_property
    def length(self) -> int:
        """Bytes of its leaves."""
        return sum(map(len, self.leaves))


@dataclass(frozen=True, slots=True)
class News:
    """An answer to a follower: see ``ledger.exchange.messages.Followed``."""

    first: int
    leaves: tuple[bytes, ...]
    checkpoint: bytes | None
    finals: tuple[bytes, ...]

    @property
    def empty(self) -> bool:
        """Whether there is nothing new."""
        return self.checkpoint is None and not self.finals


class Feed:
    """See the module's first lines."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self._recent: tuple[Batch, ...] = ()
        self._recent_bytes = 0
        self._finals: tuple[tuple[int, bytes], ...] = ()
        self._finals_from = store.latest_final()

    def publish(self, batch: Batch) -> None:
        """Add a batch that is durable."""
        recent = (*self._recent, batch)
        length = self._recent_bytes + batch.length
        while len(recent) > RECENT_BATCHES or (len(recent) > 1 and length > RECENT_BYTES):
            length -= recent[0].length
            recent = recent[1:]
        self._recent, self._recent_bytes = recent, length

    def publish_final(self, size: int, note: bytes) -> None:
        """Add a final checkpoint that is durable."""
        self._finals = (*self._finals, (size, note))[-MAX_FINALS:]

    def recent(self, size: int, final: int, *, end: int, final_size: int) -> News | None:
        """Answer from memory, or None when only the store knows.

        Args:
            size: entries that the follower has.
            final: its newest final checkpoint's size.
            end: entries that there are.
            final_size: size of the newest final checkpoint.
        """
        chosen: list[Batch] = []
        if size < end:
            batches = self._recent
            at = next((i for i, b in enumerate(batches) if b.first == size), None)
            if at is None:
                return None
            chosen = _cut(batches[at:])
        reached = chosen[-1].size if chosen else size
        finals: tuple[bytes, ...] = ()
        if final_size > final:
            known = self._finals
            before = 0 if self._finals_from is None else self._finals_from.size
            if final < before or (len(known) == MAX_FINALS and final < known[0][0]):
                return None
            finals = tuple(note for at_size, note in known if final < at_size <= reached)
        return _news(size, chosen, finals)

    def stored(self, size: int, final: int) -> News:
        """Answer from the store.

        Raises:
            StoreError: it cannot be read.
        """
        leaves: list[bytes] = []
        note: bytes | None = None
        length = 0
        covered = 0
        notes = {n.size: n.note for n in self._store.checkpoints(after=size, limit=MAX_LEAVES)}
        for leaf in read_leaves(self._store, size, size + MAX_LEAVES):
            if length > MAX_BYTES and note is not None:
                break
            leaves.append(leaf)
            length += len(leaf)
            at = size + len(leaves)
            if at in notes:
                note, covered = notes[at], len(leaves)
        finals = tuple(
            found.note
            for found in self._store.finals(after=final, limit=MAX_FINALS)
            if found.size <= size + covered
        )
        return News(size, tuple(leaves[:covered]), note, finals)


def _cut(batches: Sequence[Batch]) -> list[Batch]:
    chosen: list[Batch] = []
    leaves = length = 0
    for batch in batches:
        leaves += len(batch.leaves)
        length += batch.length
        if chosen and (leaves > MAX_LEAVES or length > MAX_BYTES):
            break
        chosen.append(batch)
    return chosen


def _news(size: int, chosen: Sequence[Batch], finals: tuple[bytes, ...]) -> News:
    leaves = tuple(leaf for batch in chosen for leaf in batch.leaves)
    return News(size, leaves, chosen[-1].note if chosen else None, finals)
