"""Opening a log for writing: replay it from its first byte, and see that nothing was taken away.

Nothing in the database is believed because it is there. The entries go through the same function as
live ones; what this log signed, in the database, in the head file, in the hands of a member, must be
about these very entries.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from coordinator.errors import RolledBack
from coordinator.sequencing.head import read_head
from ledger.copies.store import LogStore
from ledger.entries.entry import federation_id
from ledger.errors import NotAdmitted, NotConsistent
from ledger.formats.checkpoint import Checkpoint, open_checkpoint
from ledger.formats.merkle import MerkleTree
from ledger.formats.note import VerifierKey
from ledger.rules.log import Log, Sequenced
from ledger.rules.reverify import entries_of, replay
from ledger.rules.signatures import workers_for


def replay_store(store: LogStore, federation: str, observe: Callable[[Sequenced], None]) -> Log:
    """Judge and fold every stored entry.

    Args:
        store: the log's.
        federation: the id that entry 0 must have.
        observe: called with each entry, in order.

    Raises:
        NotAdmitted, NotConsistent, MalformedInput, BadSignature: an entry was changed; says where.
        StoreError: it cannot be read.
    """
    log = Log(MerkleTree(store.leaf_hashes))
    with workers_for(store.size()) as workers:
        for item, _ in replay(log, entries_of(store.rows(), log), workers):
            if item.index == 0 and federation_id(item.entry) != federation:
                raise NotAdmitted("entry 0", "the database is another federation's")
            observe(item)
    if log.size == 0:
        raise NotAdmitted(
            "database",
            "it is empty. Fill it again from the hospitals' copies: consilium coordinator refill",
        )
    return log


def newest_note(log: Log, store: LogStore, key: VerifierKey, head: Path) -> bytes:
    """The stored checkpoint over the whole log, after a look at all that this log last signed.

    Raises:
        RolledBack: something was signed over more entries than there are.
        NotConsistent: over other entries, or there are entries that nothing was signed over.
    """
    newest = store.latest_checkpoint()
    if newest is None:
        raise NotConsistent("database", "it holds entries without any checkpoint over them")
    final, held = store.latest_final(), read_head(head)
    notes = [newest.note, None if final is None else final.note, held]
    for note in notes:
        if note is not None:
            check_signed(log, open_checkpoint(note, key))
    if newest.size != log.size:
        raise NotConsistent(
            "database",
            f"its newest checkpoint covers {newest.size} of {log.size} entries: entries were "
            "added from outside",
        )
    return newest.note


def check_signed(log: Log, checkpoint: Checkpoint) -> None:
    """Compare something that this log signed with what it holds.

    Raises:
        RolledBack: it is about more entries than there are.
        NotConsistent: it is about other entries.
    """
    if checkpoint.size > log.size:
        raise RolledBack(held=log.size, signed=checkpoint.size)
    if log.tree.root(checkpoint.size) != checkpoint.root:
        raise NotConsistent(
            f"checkpoint {checkpoint.size}", "this log signed another root for that size"
        )
