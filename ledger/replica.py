"""A verified copy of a log, durable and complete: what a node follows and an auditor opens.

`Replica` takes leaves and signed notes from anyone and lets in only what it verified itself: every
envelope, chain and signature, the fold, and the root under the log's signature. Durable first: an
entry is in memory only when it is in the store. A note that contradicts what is held raises
`ForkDetected` with both notes, keeps them as evidence, and moves nothing.

Opening a copy replays it by the same path; nothing in the store is believed because it is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ledger.checkpoint import Checkpoint, log_verifier, open_checkpoint
from ledger.entry import federation_id, frame_leaf, log_origin
from ledger.errors import ForkDetected, NotAdmitted, NotConsistent
from ledger.log import Log, Sequenced
from ledger.note import VerifierKey
from ledger.state import State
from ledger.store import LogStore, Row
from ledger.witness import QuorumResult, judge_quorum


@dataclass(frozen=True, slots=True)
class Final:
    """The newest checkpoint that enough hospitals cosigned.

    Attributes:
        size: entries it covers; 1 before any other, since genesis is final by definition.
        root: its root.
        note: the note with cosignatures, or None for genesis.
        quorum: who signed and who is missing, or None for genesis.
    """

    size: int
    root: bytes
    note: bytes | None
    quorum: QuorumResult | None

    def fresh(self, since_s: int) -> bool:
        """Whether a quorum cosigned at or after a time; genesis alone never gives permission."""
        return self.quorum is not None and self.quorum.fresh(since_s)


class Replica:
    """A store and the log that it holds, verified. One owner at a time."""

    def __init__(self, store: LogStore, federation: str) -> None:
        self._store = store
        self._federation = federation
        self._log = Log()
        self._final: Final | None = None
        self._note: bytes | None = None

    @classmethod
    def create(cls, store: LogStore, genesis: bytes, federation: str) -> Replica:
        """Begin a copy in an empty store.

        Args:
            store: without entries.
            genesis: leaf of entry 0, from the invitation.
            federation: the id that the caller trusts.

        Raises:
            NotAdmitted: the genesis entry is not that federation's.
        """
        replica = cls(store, federation)
        replica._take([genesis], None)
        return replica

    @classmethod
    def open(cls, store: LogStore, federation: str) -> Replica:
        """Replay a store from its first byte.

        Raises:
            NotAdmitted, MalformedInput, BadSignature, NotConsistent: the copy was changed; says
                where.
        """
        replica = cls(store, federation)
        for row in store.rows():
            replica._replay(row)
        newest = store.latest_checkpoint()
        if newest is not None:
            replica._check_note(newest.note)
            replica._note = newest.note
        for final in store.finals():
            replica._final = replica._judge_final(final.note)
        return replica

    @property
    def state(self) -> State:
        """The fold of all entries held."""
        return self._log.state

    @property
    def size(self) -> int:
        """Number of entries held."""
        return self._log.size

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
        if self._final is None:
            return Final(1, self.root(1), None, None)
        return self._final

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
            ForkDetected: the note contradicts the entries held; kept as evidence.
            MalformedInput, NotAdmitted, BadSignature, NotConsistent: nothing was taken.
        """
        checkpoint = open_checkpoint(note, self.log_key, origin=self.origin)
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
        return self._take(leaves, (checkpoint, note))

    def accept_final(self, note: bytes) -> Final | None:
        """Take a checkpoint as final if enough hospitals cosigned it.

        Finals must come in order: the quorum is that of the state of the final before.

        Returns:
            The new final checkpoint, or None when one at least as large is known already.

        Raises:
            NotWitnessed: a quorum is missing; names who.
            ForkDetected: it contradicts the entries held; kept as evidence.
        """
        final = self._judge_final(note)
        if final.size <= self.final.size and self._final is not None:
            return None
        self._store.put_final(final.size, note)
        self._final = final
        return final

    def _take(
        self, leaves: Sequence[bytes], signed: tuple[Checkpoint, bytes] | None
    ) -> list[Sequenced]:
        mark = self._log.mark()
        taken: list[Sequenced] = []
        try:
            for leaf in leaves:
                entry = self._log.judge(leaf)
                if self._log.size == 0 and federation_id(entry) != self._federation:
                    raise NotAdmitted("entry 0", "it is the genesis of another federation")
                taken.append(self._log.append(entry))
            if signed is not None:
                self._check_root(*signed)
            note = None if signed is None else (signed[0].size, signed[1])
            self._store.append(mark.size, [_row(item) for item in taken], note)
        except BaseException:
            self._log.rewind(mark)
            raise
        if signed is not None:
            self._note = signed[1]
        return taken

    def _replay(self, row: Row) -> None:
        entry = self._log.judge(_leaf(row))
        where = f"entry {self._log.size}"
        if self._log.size == 0 and federation_id(entry) != self._federation:
            raise NotAdmitted(where, "it is the genesis of another federation")
        if (row.key, row.seq, row.leaf.hex()) != (entry.body.key, entry.body.seq, entry.hash):
            raise NotConsistent(where, "its stored index columns do not match its bytes")
        self._log.append(entry)

    def _check_note(self, note: bytes) -> Checkpoint:
        checkpoint = open_checkpoint(note, self.log_key, origin=self.origin)
        self._check_root(checkpoint, note)
        return checkpoint

    def _check_root(self, checkpoint: Checkpoint, note: bytes) -> None:
        if checkpoint.size > self.size:
            raise NotConsistent(
                "checkpoint", f"it covers {checkpoint.size} entries; only {self.size} are here"
            )
        if self.root(checkpoint.size) == checkpoint.root:
            return
        ours = self._store.checkpoint_at(checkpoint.size) or self._note
        if ours is None or note == ours:
            raise NotConsistent("checkpoint", "its root is not that of the entries")
        self._store.put_conflict("fork", ours + b"\n" + note)
        raise ForkDetected(
            self.origin,
            ours=ours,
            theirs=note,
            reason=f"two roots for {checkpoint.size} entries",
        )

    def _judge_final(self, note: bytes) -> Final:
        checkpoint = self._check_note(note)
        before = self.state.witnesses_at(self.final.size)
        witnesses = {
            organisation: frozenset(bytes.fromhex(key) for key in keys)
            for organisation, keys in before.items()
        }
        quorum = judge_quorum(note, self.log_key, witnesses, origin=self.origin)
        quorum.require()
        return Final(checkpoint.size, checkpoint.root, note, quorum)


def read_leaves(store: LogStore, start: int, stop: int) -> Iterator[bytes]:
    """Framed leaves of a store, as they are sent to followers."""
    return (_leaf(row) for row in store.rows(start, stop))


def _row(item: Sequenced) -> Row:
    entry = item.entry
    return Row(
        entry.raw, entry.signature, bytes.fromhex(entry.hash), entry.body.key, entry.body.seq
    )


def _leaf(row: Row) -> bytes:
    return frame_leaf(row.body, row.signature)
