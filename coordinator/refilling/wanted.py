"""Which blobs a refill takes: those that entries name, that are missing, and that have a length named.

Promise: whatever members send while a database is refilled, what is kept of it is bounded by the lengths
that the entries of this log state, and by the length of a card for each commitment to one; nobody fills
the disk with anything else, and nobody keeps a blob out by naming it with a wrong length, since each
length that an entry states will do. What one member brings of it, and how full the disk becomes, is for
`refill.uploads` to bound: lengths that entries state cost nothing to state.
"""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.errors import AccessDenied
from ledger.copies.blobs import BlobStore
from ledger.copies.erasing import erased_cards
from ledger.copies.leaves import read_leaves
from ledger.copies.store import LogStore
from ledger.entries.cards import MAX_CARD
from ledger.entries.entry import parse_leaf
from ledger.entries.named_blobs import bound_cards, named_blobs
from ledger.errors import MalformedInput
from ledger.rules.state import State


class WantedBlobs:
    """Grows with the log that is filled. One thread at a time."""

    def __init__(self, store: LogStore, blobs: BlobStore) -> None:
        self._store = store
        self._blobs = blobs
        self._lengths: dict[str, frozenset[int]] = {}
        self._cards: set[str] = set()
        self._read_to = 0

    def missing(self, state: State) -> Mapping[str, frozenset[int]]:
        """What is not here: SHA-256 -> the lengths that entries state; none for a card alone.

        Args:
            state: of the log in the store.
        """
        self._read()
        here = {name for name in self._lengths | dict.fromkeys(self._cards) if self._is_here(name)}
        for name in here:  # what is here is looked up once
            self._lengths.pop(name, None)
            self._cards.discard(name)
        cards = self._cards - erased_cards(state)
        return {name: frozenset[int]() for name in cards} | self._lengths

    def is_needed(self, state: State, sha256: str, offset: int, total: int, part: int) -> bool:
        """Judge a part of a blob that somebody brings.

        Args:
            state: of the log in the store.
            sha256: the blob.
            offset: where the part begins.
            total: bytes of the whole, as announced.
            part: bytes of the part.

        Returns:
            Whether to keep it; False where the whole blob is here.

        Raises:
            AccessDenied: no entry that is here names it, or it is an erased card.
            MalformedInput: it is not as long as entries say.
        """
        self._read()
        where = f"blob {sha256[:12]}"
        lengths = self._lengths.get(sha256, frozenset())
        card = sha256 in self._cards and sha256 not in erased_cards(state)
        if not (lengths or card):
            if self._blobs.size(sha256) == total:
                return False
            raise AccessDenied(
                where,
                "a refill takes blobs that are missing and that entries name, and no entry that is back "
                "names this one",
            )
        if total not in lengths and not (card and total <= MAX_CARD):
            named = ", ".join(map(str, sorted(lengths))) or f"a card, of at most {MAX_CARD}"
            raise MalformedInput(where, f"{total} bytes are announced where entries name {named}")
        if offset + part > total:
            raise MalformedInput(where, "the part ends beyond the total that is announced")
        return not self._is_here(sha256)

    def _is_here(self, sha256: str) -> bool:
        return self._blobs.size(sha256) is not None

    def _read(self) -> None:
        end = self._store.size()
        for leaf in read_leaves(self._store, self._read_to, end):
            op = parse_leaf(leaf).body.op
            for blob in named_blobs(op):
                known = self._lengths.get(blob.ref.sha256, frozenset())
                self._lengths[blob.ref.sha256] = known | {blob.ref.bytes}
            self._cards.update(bound_cards(op))
        self._read_to = end
