"""Forgetting cards: what the log says is erased leaves the blob store of whoever follows it.

Promise: a blob is deleted only where the log's state says that a card with this commitment is erased,
and only if its bytes are a card, or are not what the commitment names: a file that is damaged is of use to
nobody, and may still be read by people. So nobody has a model or a spec deleted by binding its hash as a
card: whatever else an entry may name has another form, and no reader takes a card for it. A part of
an upload goes with it where it is no longer than a card; what it belonged to is sent again. What is gone
already stays gone; a card that cannot be deleted keeps no other, and is tried again at the next look.

Not promised: that somebody who had the card forgets it. A copy of the file, a bundle that was handed
out and a person's memory are not in this program's reach. Deleting a file does not overwrite a disk.
"""

from __future__ import annotations

import hashlib
import logging

from immutables import Map

from ledger.copies.blobs import BlobStore
from ledger.entries.cards import MAX_CARD, DatasetCard, MemberCard, open_card
from ledger.errors import BlobError, MalformedInput
from ledger.rules.state import BoundCard, State

_log = logging.getLogger(__name__)


class CardEraser:
    """Looks after one blob store. One thread."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._seen: Map[str, BoundCard] | None = None

    def look(self, state: State) -> tuple[str, ...]:
        """Delete the erased cards that are still here.

        Returns:
            Their commitments.
        """
        if state.cards is self._seen:
            return ()
        gone: list[str] = []
        left = False
        for card in sorted(erased_cards(state)):
            try:
                if self._delete(card):
                    gone.append(card)
            except (BlobError, OSError) as error:
                left = True
                _log.warning("an erased card cannot be deleted now: %s", error)
        if not left:
            self._seen = state.cards
        return tuple(gone)

    def _delete(self, commitment: str) -> bool:
        upload = self._blobs.open_upload(commitment)
        if 0 < upload.offset <= MAX_CARD:
            upload.abandon()
        size = self._blobs.size(commitment)
        if size is None or size > MAX_CARD:  # a model that is called a card is not even read
            return False
        data = b"".join(self._blobs.chunks(commitment))
        damaged = hashlib.sha256(data).hexdigest() != commitment
        return (damaged or is_card(data, commitment)) and self._blobs.delete(commitment)


def erased_cards(state: State) -> frozenset[str]:
    """Commitments of the cards that nobody is to keep."""
    return frozenset(card for card, bound in state.cards.items() if bound.erased_at is not None)


def is_card(data: bytes, commitment: str) -> bool:
    """Whether bytes open a commitment to a card of either kind."""
    for model in (MemberCard, DatasetCard):
        try:
            open_card(data, commitment, model)
        except MalformedInput:
            continue
        return True
    return False
