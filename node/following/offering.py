"""Bringing the own copy to a coordinator that has lost its database.

The node calls, as always: it was told that a refill is under way, asks how far that is, sends what is
missing in the order in which it holds it, the blobs that are wanted and here, and says at the end that
it has shown all. The coordinator verifies all of it; this only carries. Safe to repeat from any point.
"""

from __future__ import annotations

from ledger.copies.blobs import BlobStore
from ledger.copies.leaves import read_leaves
from ledger.copies.replica import Replica
from ledger.copies.store import LogStore
from ledger.entries.operations.values import BlobRef
from ledger.errors import BlobError, NotConsistent
from ledger.exchange.client import CoordinatorClient
from ledger.exchange.messages import RefillPosition

MAX_ENTRIES = 2000
MAX_BYTES = 4 * 1024 * 1024


def offer_copy(client: CoordinatorClient, replica: Replica, blobs: BlobStore) -> int:
    """Send what a refill is missing, and say that this is all there is here.

    Returns:
        Entries that the coordinator holds now.

    Raises:
        CallFailed: the coordinator is away, or refused; what it took stays taken.
        NotConsistent: it asks for more of the log than makes sense.
    """
    note = replica.checkpoint
    position = client.refill_position()
    while note is not None and position.size < replica.size:
        before = position.size
        leaves, covered = _next_part(replica.store, before, note, replica.size)
        position = client.offer(before, leaves, covered, ())
        if position.size <= before:
            raise NotConsistent("refill", f"it takes nothing that follows entry {before - 1}")
    position = _offer_finals(client, replica, position)
    after = ""
    while wanted := client.refill_position(after).wanted:
        for sha256 in wanted:
            data = _read(blobs, sha256)
            if data is not None:
                client.put_blob(data)
        if min(wanted) <= after:
            raise NotConsistent("refill", "it asks for the same blobs again and again")
        after = max(wanted)
    client.show_copy(note or b"")
    return position.size


def _offer_finals(
    client: CoordinatorClient, replica: Replica, position: RefillPosition
) -> RefillPosition:
    while finals := replica.store.finals(after=position.final, limit=64):
        before = position.final
        notes = tuple(final.note for final in finals)
        position = client.offer(position.size, (), None, notes)
        if position.final <= before:
            break
    return position


def _next_part(
    store: LogStore, start: int, newest: bytes, size: int
) -> tuple[tuple[bytes, ...], bytes]:
    """Entries from ``start`` on up to a checkpoint that is stored, not too many of them."""
    notes = {note.size: note.note for note in store.checkpoints(after=start, limit=MAX_ENTRIES)}
    notes[size] = newest
    leaves: list[bytes] = []
    covered: tuple[int, bytes] | None = None
    length = 0
    for leaf in read_leaves(store, start, size):
        if covered is not None and (len(leaves) >= MAX_ENTRIES or length > MAX_BYTES):
            break
        leaves.append(leaf)
        length += len(leaf)
        note = notes.get(start + len(leaves))
        if note is not None:
            covered = len(leaves), note
    if covered is None:
        raise NotConsistent("refill", f"this copy has no checkpoint after entry {start}")
    return tuple(leaves[: covered[0]]), covered[1]


def _read(blobs: BlobStore, sha256: str) -> bytes | None:
    size = blobs.size(sha256)
    if size is None:
        return None
    try:
        return blobs.get(BlobRef(sha256=sha256, bytes=size))
    except BlobError:
        return None
