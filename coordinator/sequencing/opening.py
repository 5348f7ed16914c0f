"""Opening a log for writing: take it in, and see that nothing was taken away.

Nothing in the database is believed because it is there. The entries go through the same function as
live ones, all of them, or those after a snapshot that only this coordinator can have written
(``ledger.copies.snapshot``); what this log signed, in the database, in the head file, in the hands of a
member, must be about these very entries.

A snapshot that is damaged, foreign or of another release is left aside with a warning, and everything
is replayed. One of this log that covers more than the database holds is no reason to replay: it shows
that the database was rolled back.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coordinator.errors import RolledBack
from coordinator.sequencing.head import read_head
from coordinator.sequencing.history import History
from coordinator.sequencing.history_bytes import decode_history, encode_history
from ledger.copies.evidence import ROLLBACK
from ledger.copies.snapshot import EVERY, WORTH, Snapshot, SnapshotFile, resume_log
from ledger.copies.store import LogStore
from ledger.entries.entry import federation_id
from ledger.errors import NotAdmitted, NotConsistent, Refused
from ledger.formats.checkpoint import Checkpoint, open_checkpoint
from ledger.formats.merkle_tree import MerkleTree
from ledger.formats.note import VerifierKey
from ledger.rules.log import Log
from ledger.rules.reverify import read_rows, replay
from ledger.rules.signatures import workers_for


@dataclass(frozen=True, slots=True)
class Opened:
    """A log that was taken in; ``resumed`` entries came from a snapshot, 0 for none."""

    log: Log
    history: History
    resumed: int


class Snapshots:
    """When a coordinator writes its snapshots. One thread.

    Args:
        file: where, or None for nowhere.
        size: entries that the one there covers; 0 for none.
    """

    def __init__(self, file: SnapshotFile | None, size: int) -> None:
        self._file = file
        self._size = size

    def grown(self, log: Log, history: History) -> None:
        """Write one if the log has grown enough since the last."""
        if log.size >= self._size + EVERY:
            self.save(log, history)

    def save(self, log: Log, history: History) -> None:
        """Write one if that spares the next opening some work.

        Args:
            log: what is durable, and nothing more.
            history: of the same entries.
        """
        if self._file is None or log.size < WORTH or log.size == self._size:
            return
        self._file.write(
            Snapshot(
                log.state,
                log.tree.root(),
                log.tree.tiles,
                beside=encode_history(history.facts),
            )
        )
        self._size = log.size


def open_log(store: LogStore, federation: str, snapshots: SnapshotFile | None) -> Opened:
    """Judge and fold every stored entry, or those after a snapshot.

    Args:
        store: the log's.
        federation: the id that entry 0 must have.
        snapshots: read if there is one; without it everything is replayed.

    Raises:
        RolledBack: the snapshot covers more than is stored.
        NotAdmitted, NotConsistent, MalformedInput, BadSignature: an entry was changed; says where.
        StoreError: it cannot be read.
    """
    snapshot = None if snapshots is None else snapshots.read(federation)
    if snapshots is not None and snapshot is not None:
        if 0 < store.size() < snapshot.state.size:
            raise RolledBack(held=store.size(), signed=snapshot.state.size)
        try:
            history = History(decode_history(snapshot.beside))
            log = resume_log(store, snapshot)
            _replay(store, log, history, federation)
        except Refused as error:
            snapshots.put_aside(str(error))
        else:
            return Opened(log, history, snapshot.state.size)
    log, history = Log(MerkleTree(store.leaf_hashes)), History()
    _replay(store, log, history, federation)
    if log.size == 0:
        raise NotAdmitted(
            "database",
            "it is empty. Fill it again from the hospitals' copies: consilium coordinator refill",
        )
    return Opened(log, history, 0)


def newest_note(log: Log, store: LogStore, key: VerifierKey, head: Path) -> bytes:
    """The stored checkpoint over the whole log, after a look at all that this log last signed.

    That is what it holds itself, and what members showed that stopped it before: a restart mends no database.

    Raises:
        RolledBack: something was signed over more entries than there are.
        NotConsistent: over other entries, or there are entries that nothing was signed over.
    """
    newest = store.latest_checkpoint()
    if newest is None:
        raise NotConsistent("database", "it holds entries without any checkpoint over them")
    final, held = store.latest_final(), read_head(head)
    notes = [newest.note, None if final is None else final.note, held]
    notes += [conflict.evidence for conflict in store.conflicts() if conflict.kind == ROLLBACK]
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


def _replay(store: LogStore, log: Log, history: History, federation: str) -> None:
    with workers_for(store.size() - log.size) as workers:
        for item, _ in replay(log, store.rows(log.size), read_rows, workers):
            if item.index == 0 and federation_id(item.entry) != federation:
                raise NotAdmitted("entry 0", "the database is another federation's")
            history.observe(item)
