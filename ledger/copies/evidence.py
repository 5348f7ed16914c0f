"""Evidence against a log or a member, in bytes that anyone can check, and the judges of it.

A store keeps evidence under the name of its kind (``LogStore.put_conflict``):

``fork``
    Two notes by the log's key that no single history explains. Of one size they have two roots. Of
    two sizes, the root that the larger tree has at the smaller size is carried too, with the proof
    from it to the larger note (RFC 9162 2.1.4): it is not the smaller note's root.
``unexplained``
    The newest note that was held, and a note over more entries that came with entries which do not
    lead to it. The answer was wrong, or the log forked: only a copy that reaches its size can tell.
``equivocation``
    Two entries by one key at one place of its chain, both signed.
``rollback``
    A note over more than the coordinator's own database holds.

Promise: what a judge here confirms is true for everybody who knows the public key, whoever kept it.

Not promised: who used a key. An equivocation is its owner's, or that of somebody who has its key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ledger.copies.store import LogStore
from ledger.entries.entry import Entry, parse_leaf, verify_signature
from ledger.entries.operations.members import KeyConflicted
from ledger.errors import BadSignature, ForkDetected, MalformedInput, NotConsistent, Refused
from ledger.formats.checkpoint import Checkpoint, open_checkpoint
from ledger.formats.merkle import verify_consistency
from ledger.formats.merkle_tree import MerkleTree
from ledger.formats.note import VerifierKey
from ledger.formats.witness import AddCheckpoint, parse_add_checkpoint
from ledger.rules.equivocation import Equivocation, collide, conflict_operation, judge_entries
from ledger.rules.state import KeyState

FORK = "fork"
UNEXPLAINED = "unexplained"
EQUIVOCATION = "equivocation"
ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True)
class Fork:
    """Two signed notes that contradict each other.

    Attributes:
        ours: the note that was held.
        theirs: the note that contradicts it.
        size, root, proof: the smaller size, the larger tree's root there and the proof from it to
            the larger note; 0 and empty where both have one size.
    """

    ours: bytes
    theirs: bytes
    size: int = 0
    root: bytes = b""
    proof: tuple[bytes, ...] = ()

    def statements(self) -> tuple[bytes, bytes]:
        """The two documents that ``fork.reported`` names: ours, with root and proof, and theirs."""
        if not self.size:
            return self.ours, self.theirs
        return AddCheckpoint(self.size, (self.root, *self.proof), self.ours).encode(), self.theirs

    def encode(self) -> bytes:
        """The bytes that a store keeps."""
        return frame(*self.statements())


def frame(first: bytes, second: bytes) -> bytes:
    """Two documents as one: each after its length, u32 big-endian."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in (first, second))


def split(evidence: bytes) -> tuple[bytes, bytes]:
    """Undo `frame`.

    Raises:
        MalformedInput: the lengths do not add up exactly.
    """
    at = 4 + int.from_bytes(evidence[:4], "big")
    first, second = evidence[4:at], evidence[at + 4 :]
    if frame(first, second) != evidence:
        raise MalformedInput("evidence", "its lengths do not match its bytes")
    return first, second


def read_fork(ours: bytes, theirs: bytes) -> Fork:
    """Read the two documents that `Fork.statements` makes; nothing is judged.

    Raises:
        MalformedInput: they are no such documents.
    """
    if not ours.startswith(b"old "):
        return Fork(ours, theirs)
    opened = parse_add_checkpoint(ours)
    if not opened.old or not opened.proof:
        raise MalformedInput("evidence", "a root at the smaller size is missing")
    return Fork(opened.note, theirs, opened.old, opened.proof[0], opened.proof[1:])


def judge_fork(fork: Fork, log: VerifierKey) -> str:
    """Confirm that one log signed both notes and that they contradict each other.

    Args:
        fork: from anyone.
        log: the log's key, whose name is the origin.

    Returns:
        What it shows, in words.

    Raises:
        MalformedInput, BadSignature, UnknownKey: not two notes by the log.
        NotConsistent: they do not contradict each other, or what is carried does not show it.
    """
    first = open_checkpoint(fork.ours, log, origin=log.name)
    second = open_checkpoint(fork.theirs, log, origin=log.name)
    small, large = sorted((first, second), key=lambda checkpoint: checkpoint.size)
    if small.size == large.size:
        if small.root == large.root:
            raise NotConsistent("evidence", "its two notes are of one tree")
        return f"the log signed two different trees of {small.size} entries"
    if fork.size != small.size:
        raise NotConsistent(
            "evidence",
            f"its two notes, of {small.size} and {large.size} entries, do not contradict each "
            "other without a proof between them",
        )
    verify_consistency(
        old_size=small.size,
        new_size=large.size,
        old_root=fork.root,
        new_root=large.root,
        proof=fork.proof,
    )
    if fork.root == small.root:
        raise NotConsistent("evidence", "its two notes are of one history")
    return (
        f"the log signed a tree of {small.size} entries and one of {large.size} that does not "
        "begin with them"
    )


def find_fork(
    store: LogStore,
    tree: MerkleTree,
    held: bytes | None,
    checkpoint: Checkpoint,
    note: bytes,
    log: VerifierKey,
) -> Fork | None:
    """Proof that a note is of another history than a note that is held, if there is one for it.

    Args:
        store: of the copy.
        tree: over what the copy holds, no less than the note covers.
        held: the newest note of the copy, or None.
        checkpoint: what the note says, another root than the tree has at its size.
        note: by the log's key.
        log: the log's key, whose name is the origin.
    """
    size = checkpoint.size
    same = store.checkpoint_at(size)
    if same is not None and open_checkpoint(same, log, origin=log.name).root == tree.root(size):
        return Fork(same, note)
    if held is None or size == 0:
        return None
    newest = open_checkpoint(held, log).size
    if size >= newest:
        return None
    return Fork(held, note, size, tree.root(size), tree.consistency(size, newest))


def known_fork(store: LogStore, origin: str) -> ForkDetected | None:
    """The first fork that a store keeps evidence of, or None; a restart does not heal a log."""
    for conflict in store.conflicts():
        if conflict.kind == FORK:
            fork = read_fork(*split(conflict.evidence))
            return fork_detected(origin, fork, "it contradicts itself; found before this start")
    return None


def fork_detected(origin: str, fork: Fork, reason: str) -> ForkDetected:
    """The error that reports a fork."""
    ours, theirs = fork.statements()
    return ForkDetected(
        origin, ours=fork.ours, theirs=fork.theirs, reason=reason, statements=(ours, theirs)
    )


def judge_equivocation(
    evidence: bytes, federation: str, keys: Mapping[str, KeyState]
) -> Equivocation:
    """Confirm that one key signed two entries for one place of its chain.

    Args:
        evidence: as kept.
        federation: whose log the chain is in.
        keys: every entry key that was ever enrolled, by id.

    Raises:
        MalformedInput, BadSignature, UnknownKey: not two entries by one enrolled key.
        NotConsistent: they do not contradict each other.
    """
    first, second = (parse_leaf(leaf) for leaf in split(evidence))
    return judge_entries(first, second, federation, keys)


class Equivocations:
    """Keeps the first equivocation of each key, so that nobody fills the store with more.

    Args:
        store: where it is kept; what it holds already is known.
    """

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self._known: dict[str, bytes] = {}
        for conflict in store.conflicts():
            if conflict.kind == EQUIVOCATION:
                key = parse_leaf(split(conflict.evidence)[0]).body.key
                self._known.setdefault(key, conflict.evidence)

    def notice(
        self,
        refused: Entry,
        keys: Mapping[str, KeyState],
        held_at: Callable[[str, int], bytes | None],
    ) -> bool:
        """Look at an entry that was not admitted; keep it beside the one that has its place.

        Args:
            refused: signature not verified yet.
            keys: the state's.
            held_at: leaf of the entry at a place of a key's chain, or None.

        Returns:
            Whether it was kept now.

        Raises:
            StoreError: it could not be kept.
        """
        body = refused.body
        key = keys.get(body.key)
        if key is None or body.key in self._known or body.seq >= key.next_seq:
            return False
        leaf = held_at(body.key, body.seq)
        if leaf is None or not collide(parse_leaf(leaf), refused):
            return False
        try:
            verify_signature(refused, bytes.fromhex(key.public))
        except BadSignature:
            return False
        evidence = frame(leaf, refused.leaf)
        self._store.put_conflict(EQUIVOCATION, evidence)
        self._known[body.key] = evidence
        return True

    def unsettled(self, federation: str, keys: Mapping[str, KeyState]) -> Iterator[KeyConflicted]:
        """What is to be said of the evidence kept: keys that conflicted and have not ended.

        Evidence that does not hold, and evidence too long for an entry, is passed over: it stays kept.

        Args:
            federation: the log's.
            keys: the state's.
        """
        for kid, evidence in self._known.items():
            key = keys.get(kid)
            if key is None or key.retired_at is not None:
                continue
            try:
                judge_equivocation(evidence, federation, keys)
            except Refused:
                continue
            op = conflict_operation(*split(evidence))
            if op is not None:
                yield op
