"""A verified copy of a log, durable and complete: what a node follows and an auditor opens.

`Replica` takes leaves and signed notes from anyone and lets in only what it verified itself: every
envelope, chain and signature, the fold, and the root under the log's signature. Durable first: an
entry is in memory only when it is in the store. A note over no more than is held that contradicts it
proves a fork: it raises `ForkDetected`, is kept as evidence that anyone can check, and moves nothing.
A note over more that came with entries which do not lead to it proves nothing by itself: it is refused
and kept as ``unexplained`` (``evidence``). So is an entry at a place of a chain that is taken, as
``equivocation``.

Opening a copy replays it by the same path; nothing in the store is believed because it is there. With
a snapshot that nobody but its owner can have written (``snapshot``), it replays what came after.

Where the log moves to a protocol that this software does not know, entries are stored and the tree over
them is compared with the signed roots, but they are not read: the state stays where it was, and no later
checkpoint is judged to be final. Opened by a newer release, all of it is read and judged.
"""

from __future__ import annotations

from collections.abc import Sequence

from ledger.copies.evidence import FORK, UNEXPLAINED, Equivocations, find_fork, fork_detected, frame
from ledger.copies.finals import Final, FinalTrail
from ledger.copies.leaves import append_rows, leads_to, leaf_at, leaf_of_unread, row_of, unread_row
from ledger.copies.snapshot import EVERY, WORTH, Snapshot, SnapshotFile, resume_log
from ledger.copies.store import LogStore, Row
from ledger.entries.entry import Entry, federation_id, log_origin, parse_leaf
from ledger.entries.operations.members import KeyConflicted
from ledger.errors import NotAdmitted, NotConsistent, ProtocolUnknown, Refused
from ledger.formats.checkpoint import Checkpoint, log_verifier
from ledger.formats.cosigned import keep_known, open_ours
from ledger.formats.merkle_tree import MerkleTree
from ledger.formats.note import VerifierKey
from ledger.rules.finality import judge_final, witness_keys
from ledger.rules.fold import protocol_of
from ledger.rules.log import Log, Sequenced
from ledger.rules.reverify import read_rows, replay
from ledger.rules.signatures import workers_for
from ledger.rules.state import State


class Replica:
    """A store and the log that it holds, verified. One owner at a time."""

    def __init__(self, store: LogStore, federation: str) -> None:
        self._store = store
        self._federation = federation
        self._log = Log(MerkleTree(store.leaf_hashes))
        self._finals = FinalTrail()
        self._note: bytes | None = None
        self._finals_unread = 0
        self._snapshots: SnapshotFile | None = None
        self._snapshot_size = 0
        self._equivocations = Equivocations(store)
        self._unexplained_at: int | None = None

    @classmethod
    def create(
        cls,
        store: LogStore,
        genesis: bytes,
        federation: str,
        snapshots: SnapshotFile | None = None,
    ) -> Replica:
        """Begin a copy in an empty store.

        Args:
            store: without entries.
            genesis: leaf of entry 0, from the invitation.
            federation: the id that the caller trusts.
            snapshots: written as the copy grows.

        Raises:
            NotAdmitted: the genesis entry is not that federation's.
        """
        replica = cls(store, federation)
        replica._snapshots = snapshots
        replica._take([genesis], None)
        return replica

    @classmethod
    def open(
        cls, store: LogStore, federation: str, snapshots: SnapshotFile | None = None
    ) -> Replica:
        """Replay a store from its first byte, or from a snapshot of its owner's.

        Args:
            store: with at least entry 0.
            federation: the id that the caller trusts.
            snapshots: read now, and written as the copy grows; without it neither.

        Raises:
            NotAdmitted, MalformedInput, BadSignature, NotConsistent: the copy was changed; says
                where.
        """
        snapshot = None if snapshots is None else snapshots.read(federation)
        if snapshots is not None and snapshot is not None:
            replica = cls(store, federation)
            try:
                replica._resume(snapshot)
                replica._load()
            except Refused as error:
                snapshots.put_aside(str(error))
            else:
                replica._snapshots = snapshots
                return replica
        replica = cls(store, federation)
        replica._load()
        replica._snapshots = snapshots
        return replica

    def save_snapshot(self) -> None:
        """Write a snapshot if that spares the next opening some work; call it before closing."""
        size = self.size
        if self._snapshots is None or self._note is None or self.newer_protocol is not None:
            return
        if size >= WORTH and size != self._snapshot_size:
            tree, finals = self._log.tree, self._finals.to_snapshot()
            self._snapshots.write(Snapshot(self.state, tree.root(), tree.tiles, finals))
            self._snapshot_size = size

    @property
    def state(self) -> State:
        """The fold of all entries held."""
        return self._log.state

    @property
    def size(self) -> int:
        """Number of entries held."""
        return self._log.size

    @property
    def newer_protocol(self) -> int | None:
        """The protocol that the log has moved to, if this software does not know it."""
        return self._log.newer_protocol

    @property
    def finals_seen(self) -> int:
        """Size of the newest final checkpoint that came, one that cannot be judged here included."""
        return max(self.final.size, self._finals_unread)

    def require_readable(self) -> None:
        """Refuse to act on a state that has fallen behind its log.

        Raises:
            ProtocolUnknown: the log has moved to a protocol that this software does not know.
        """
        protocol_of(self.state)

    @property
    def federation(self) -> str:
        """The federation's id."""
        return self._federation

    @property
    def origin(self) -> str:
        """Origin line of the log's checkpoints."""
        return log_origin(self._federation)

    @property
    def log_key(self) -> VerifierKey:
        """The key that signs the log's checkpoints, from genesis."""
        return log_verifier(self.origin, bytes.fromhex(self.state.log_key.public))

    @property
    def store(self) -> LogStore:
        """Where the copy lies."""
        return self._store

    @property
    def checkpoint(self) -> bytes | None:
        """The newest signed note that covers what is held, or None before the first."""
        return self._note

    @property
    def final(self) -> Final:
        """The newest final checkpoint."""
        return self._finals.newest or Final(1, self.root(1), None, None)

    def cosigned_s(self, index: int) -> int | None:
        """When hospitals first stood behind a log that holds an entry.

        Returns:
            POSIX seconds by which a quorum had cosigned the first final checkpoint that covers entry
            ``index``, by their own clocks; None while none does. Finals from before any hospital
            was ready carry no such time and do not count.
        """
        return self._finals.cosigned_s(index)

    def root(self, size: int | None = None) -> bytes:
        """Root of the tree of the first ``size`` entries."""
        return self._log.tree.root(size)

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """Inclusion proof of an entry in the tree of the first ``size``."""
        return self._log.tree.inclusion(index, size)

    def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """Consistency proof between two sizes of this log."""
        return self._log.tree.consistency(old, new)

    def extend(self, leaves: Sequence[bytes], note: bytes) -> list[Sequenced]:
        """Take further entries up to a signed checkpoint.

        Args:
            leaves: framed leaves from index ``size`` on.
            note: signed checkpoint over exactly ``size + len(leaves)`` entries.

        Returns:
            The new entries with their verdicts; empty when the note says nothing new.

        Raises:
            ForkDetected: the note covers no more than is held, and contradicts it; kept as evidence.
            MalformedInput, NotAdmitted, BadSignature, NotConsistent: nothing was taken. Where the
                entries do not lead to the note, it is kept: the log may have forked.
        """
        checkpoint = open_ours(note, self.log_key)
        if checkpoint.size != self.size + len(leaves):
            if checkpoint.size <= self.size:
                self._check_root(checkpoint, note)
                return []
            raise NotConsistent(
                "checkpoint",
                f"it covers {checkpoint.size} entries, but {self.size + len(leaves)} are here",
            )
        if not leaves:
            self._check_root(checkpoint, note)
            return []
        try:
            return self._take(leaves, (checkpoint, note))
        except Refused:
            self._keep_unexplained(leaves, checkpoint, note)
            raise

    def accept_final(self, note: bytes) -> Final | None:
        """Take a checkpoint as final if enough hospitals cosigned it; lines of others are not kept.

        Finals must come in order: it needs the quorum of the final before, and that of the state
        which it covers (``finality.py``).

        Returns:
            The new final checkpoint; None when one at least as large is known already, or when this
            software cannot read all that it covers.

        Raises:
            NotWitnessed: a quorum is missing; names who.
            ForkDetected: it contradicts the entries held; kept as evidence.
        """
        checkpoint = self._check_note(note)
        newest = self._finals.newest
        if newest is not None and checkpoint.size <= newest.size:
            return None
        if checkpoint.size > self.state.size:
            self._finals_unread = max(self._finals_unread, checkpoint.size)
            return None
        counting = frozenset().union(*witness_keys(self.state, checkpoint.size).values())
        note = keep_known(note, self.log_key, counting)
        final = self._judge_final(checkpoint, note, self.final.size)
        self._store.put_final(final.size, note)
        self._finals.advance(final)
        return final

    def unsettled(self) -> tuple[KeyConflicted, ...]:
        """Conflicts of keys that this copy keeps evidence of, and that the log does not know yet."""
        return tuple(self._equivocations.unsettled(self._federation, self.state.keys))

    def _take(
        self, leaves: Sequence[bytes], signed: tuple[Checkpoint, bytes] | None
    ) -> list[Sequenced]:
        mark = self._log.mark()
        taken: list[Sequenced] = []
        rows: list[Row] = []
        try:
            for leaf in leaves:
                if self._log.newer_protocol is not None:
                    rows.append(unread_row(leaf))
                    self._log.append_unread(leaf)
                    continue
                entry = self._judge(leaf, taken)
                if self._log.size == 0:
                    self._check_genesis(entry)
                taken.append(self._log.append(entry))
                rows.append(row_of(taken[-1]))
            if signed is not None and self.root() != signed[0].root:
                raise NotConsistent(
                    "checkpoint",
                    f"the entries held and sent do not give the root signed for {self.size}",
                )
            note = None if signed is None else keep_known(signed[1], self.log_key)
            stored = None if signed is None or note is None else (signed[0].size, note)
            append_rows(self._store, mark.size, rows, stored)
        except BaseException:
            self._log.rewind(mark)
            raise
        self._log.tree.forget_older()
        self._note = note or self._note
        if self.size >= self._snapshot_size + EVERY:
            self.save_snapshot()
        return taken

    def _judge(self, leaf: bytes, taken: Sequence[Sequenced]) -> Entry:
        """The entry of a leaf, admitted; a second one for a place of a chain is kept as evidence."""
        entry = parse_leaf(leaf)

        def held_at(key: str, seq: int) -> bytes | None:
            for item in taken:
                if (item.entry.body.key, item.entry.body.seq) == (key, seq):
                    return item.entry.leaf
            return leaf_at(self._store, key, seq)

        try:
            return self._log.judge_entry(entry)
        except NotAdmitted:
            if self._log.size:
                self._equivocations.notice(entry, self.state.keys, held_at)
            raise

    def _keep_unexplained(
        self, leaves: Sequence[bytes], checkpoint: Checkpoint, note: bytes
    ) -> None:
        """Keep a note that the entries sent do not lead to; one for a size, or they would pile up."""
        if self._note is None or self._unexplained_at == self.size:
            return
        if not leads_to(self._log.tree, leaves, checkpoint.root):
            self._store.put_conflict(UNEXPLAINED, frame(self._note, note))
            self._unexplained_at = self.size

    def _resume(self, snapshot: Snapshot) -> None:
        """Begin where a snapshot was taken; `_load` then sees whether that leads to what was signed.

        Raises:
            Refused: it is not of what is stored here.
        """
        self._log = resume_log(self._store, snapshot)
        self._snapshot_size = self.size
        finals = snapshot.finals
        if finals.newest:
            kept = self._store.finals(after=finals.newest - 1, limit=1)
            if not kept or kept[0].size != finals.newest:
                raise NotConsistent("snapshot", f"no final checkpoint of {finals.newest} is here")
            checkpoint = self._check_note(kept[0].note)
            final = self._judge_final(checkpoint, kept[0].note, finals.before)
            self._finals = FinalTrail.resume(finals, final)

    def _load(self) -> None:
        """Take in what is stored beyond what is here: entries, the newest note, finals."""
        self._replay()
        newest = self._store.latest_checkpoint()
        if newest is not None:
            self._check_note(newest.note)
            self._note = newest.note
        while page := self._store.finals(after=self._finals.reaches):
            for each in page:
                checkpoint = self._check_note(each.note)
                self._finals.advance(self._judge_final(checkpoint, each.note, self.final.size))

    def _replay(self) -> None:
        """Verify what is stored; behind a change to unknown rules, that the tree holds it."""
        try:
            with workers_for(self._store.size() - self.size) as workers:
                rows = self._store.rows(self.size)
                for item, _ in replay(self._log, rows, read_rows, workers):
                    if item.index == 0:
                        self._check_genesis(item.entry)
        except ProtocolUnknown:
            for row in self._store.rows(self._log.size):
                self._log.append_unread(leaf_of_unread(row, self._log.size))

    def _check_genesis(self, entry: Entry) -> None:
        if federation_id(entry) != self._federation:
            raise NotAdmitted("entry 0", "it is the genesis of another federation")

    def _check_note(self, note: bytes) -> Checkpoint:
        checkpoint = open_ours(note, self.log_key)
        self._check_root(checkpoint, note)
        return checkpoint

    def _check_root(self, checkpoint: Checkpoint, note: bytes) -> None:
        if checkpoint.size > self.size:
            raise NotConsistent(
                "checkpoint", f"it covers {checkpoint.size} entries; only {self.size} are here"
            )
        if self.root(checkpoint.size) == checkpoint.root:
            return
        fork = find_fork(self._store, self._log.tree, self._note, checkpoint, note, self.log_key)
        if fork is None:
            raise NotConsistent("checkpoint", "its root is not that of the entries")
        self._store.put_conflict(FORK, fork.encode())
        reason = f"two roots for {checkpoint.size} entries"
        if fork.size:
            reason = f"the {self.size} entries held do not begin with the {fork.size} signed"
        raise fork_detected(self.origin, fork, reason)

    def _judge_final(self, checkpoint: Checkpoint, note: bytes, before: int) -> Final:
        quorum = judge_final(note, self.log_key, self.state, before=before, origin=self.origin)
        quorum.require()
        return Final(checkpoint.size, checkpoint.root, note, quorum)
