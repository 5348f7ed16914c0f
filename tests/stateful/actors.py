"""A coordinator and a node on directories of their own, which crash and come back.

Both are the product's: sequencer, store, replica, witness, pen. A crash drops the objects as they are;
the next ones open what lies on the disk. What members were told is kept in `Told`, outside of
everybody's reach.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

from coordinator.sequencing.sequencer import Sequencer
from ledger.copies.leaves import read_leaves
from ledger.copies.replica import Replica
from ledger.copies.stored import StoredNote
from ledger.entries.author import Author
from ledger.entries.entry import parse_leaf
from ledger.entries.invitation import member_keys
from ledger.entries.operations.log import NodeResumed
from ledger.entries.operations.members import KeyRotated
from ledger.entries.operations.vocabulary import Operation
from ledger.errors import CoordinatorUnreachable
from ledger.exchange.messages import Receipt
from ledger.formats.checkpoint import open_checkpoint
from ledger.formats.keys import KeyRing
from ledger.rules.members import claim_bytes
from node.following.witness import Witness
from tests.federation_log import COORDINATOR, FederationLog, ring_of
from tests.patience import PATIENCE_S
from tests.stateful.disks import BreakableStore, as_crash_left_it

PEN = "last-entry.leaf"
HEAD = "head.note"

T = TypeVar("T")
Loss = Literal["before", "after", "dies before", "dies after"]
LOSSES: tuple[Loss, ...] = ("before", "after", "dies before", "dies after")
"""What goes wrong with a call: the request is lost, its answer is, or the caller dies there."""


class Died(BaseException):
    """The process of a node is gone in the middle of something."""


@dataclass
class Told:
    """What members know of the log from its own words.

    Attributes:
        acknowledged: index by leaf.
        roots: root by size, as signed; of the true coordinator alone.
    """

    acknowledged: dict[bytes, int] = field(default_factory=dict)
    roots: dict[int, bytes] = field(default_factory=dict)


class Hub:
    """A coordinator over a directory."""

    def __init__(
        self, federation: FederationLog, directory: Path, now_ms: Callable[[], int], told: Told
    ) -> None:
        self.federation, self.directory = federation, directory
        self._now_ms, self._told = now_ms, told
        self.open()

    def open(self) -> None:
        """Start on what lies in the directory.

        Raises:
            RolledBack: it is less than what was signed.
        """
        self.store = BreakableStore.within(self.directory)
        try:
            self.sequencer = Sequencer(
                self.store,
                self.federation.rings[COORDINATOR],
                self.federation.id,
                head=self.directory / HEAD,
                final_interval_s=0.0,
                now_ms=self._now_ms,
            )
        except BaseException:
            self.store.close()
            raise
        self.sequencer.start()

    def close(self) -> None:
        """Stop in order."""
        self.sequencer.close()
        self.store.close()

    def crash(self, new: Path, chance: random.Random, *, power: bool = False) -> None:
        """Die and start again, on a copy of the directory as it lies there.

        Args:
            new: where the copy is made.
            chance: decides where a torn write ends.
            power: of a power cut: what was never flushed may be cut off as well.
        """
        as_crash_left_it(self.directory, new, chance, self.store.before)
        if power:
            head = (new / HEAD).read_bytes()
            (new / HEAD).write_bytes(head[: chance.randrange(len(head))])
        self.close()
        self.directory = new
        self.open()

    def submit(self, leaf: bytes) -> Receipt:
        """Take an entry."""
        receipt = self.sequencer.submit(leaf).result(PATIENCE_S)
        self._look()
        return receipt

    def say(self, op: Operation) -> None:
        """The coordinator's own entry; a failed write ends in a refusal, like everybody's."""
        self.sequencer.say(op).result(PATIENCE_S)
        self._look()

    def leaves(self, start: int, stop: int) -> list[bytes]:
        """Framed leaves of a range."""
        return list(read_leaves(self.store, start, stop))

    def _look(self) -> None:
        """Note what it signs, as everybody can see it."""
        note = self.sequencer.view.note
        checkpoint = open_checkpoint(note, self.sequencer._verifier)
        before = self._told.roots.setdefault(checkpoint.size, checkpoint.root)
        assert before == checkpoint.root, f"two roots of size {checkpoint.size} were signed"


class Node:
    """A node over a directory: it follows, cosigns, rotates its keys and says numbered things.

    Attributes:
        hub: whom it follows.
        said: how many of its operations are known to be in the log; the next has this number.
    """

    def __init__(self, handle: str, directory: Path, hub: Hub, told: Told) -> None:
        self.handle, self.directory, self.hub = handle, directory, hub
        self.told = told
        self._rings = [hub.federation.rings[handle]]
        self._loss: Loss | None = None
        self.said = 0
        directory.mkdir(parents=True)
        federation = hub.federation
        with_genesis = BreakableStore.within(directory)
        Replica.create(with_genesis, federation.leaves[0], federation.id)
        with_genesis.close()
        # It joined and said that it is ready from this home.
        said = [e.leaf for e in federation.entries() if e.body.author == handle]
        (directory / PEN).write_bytes(said[-1])
        self.open()
        self.follow()

    # --- its process ----------------------------------------------------------------------------

    def open(self) -> None:
        """Start: replay the copy, take the keys that the log has enrolled, take the pen."""
        self.store = BreakableStore.within(self.directory)
        self.replica = Replica.open(self.store, self.hub.federation.id)
        self._heard, self._own, self._current = 0, set[str](), False
        self._take_pen()

    def close(self) -> None:
        """Stop in order."""
        self.author.close()
        self.store.close()

    def crash(self, new: Path, chance: random.Random) -> None:
        """Die and start again, on a copy of the directory as it lies there."""
        as_crash_left_it(self.directory, new, chance, self.store.before)
        self.close()
        self.directory = new
        self.open()

    # --- its work -------------------------------------------------------------------------------

    def say_next(self, loss: Loss | None = None) -> None:
        """Say the next numbered thing that the log does not have: a node's duties follow from state.

        Args:
            loss: what goes wrong with the call.
        """
        if not self._current:  # a process that starts does nothing before the coordinator answered
            self.follow()
        self._say(NodeResumed(type="node.resumed", nonce=self.nonce(self.said)), loss)
        self.said += 1

    def rotate(self, loss: Loss | None = None) -> None:
        """Replace its keys; they are kept before they are named."""
        if not self._current:
            self.follow()
        number = len(self._rings)
        fresh = replace(ring_of(f"{self.handle} keys {number}", "node"), handle=self.handle)
        if self._ring_in_force() is self._rings[-1]:
            self._rings.append(fresh)
        new = self._rings[-1]
        keys = member_keys(new)
        claim = claim_bytes(self.replica.federation, self.handle, keys)
        proof = new.entry.sign("invitation", claim).hex()
        self._say(KeyRotated(type="key.rotated", keys=keys, proof=proof), loss)
        self.follow()

    def follow(self, upto: int | None = None) -> None:
        """Take what the coordinator holds, up to a checkpoint that it stored or to the newest."""
        view = self.hub.sequencer.view
        notes = [n for n in self._notes() if n.size > self.replica.size]
        chosen = notes[min(upto, len(notes) - 1)] if upto is not None and notes else None
        size, note = (view.size, view.note) if chosen is None else chosen
        self.replica.extend(self.hub.leaves(self.replica.size, size), note)
        for final in self.hub.store.finals(self.replica.final.size):
            if final.size <= self.replica.size:
                self.replica.accept_final(final.note)
        self._hear_own()

    def cosign(self, loss: Loss | None = None) -> None:
        """Cosign what it holds and hand that in."""
        said = self.witness.cosign(self.hub.federation.now_ms)
        if said is None:
            return
        self._loss = loss
        self._called(lambda: self.hub.sequencer.cosign(said.size, said.line).result(PATIENCE_S))

    def compare(self, other: Node) -> None:
        """Look at the checkpoint of a node that holds no more than this one."""
        if other.replica.checkpoint is not None:
            self.replica.extend([], other.replica.checkpoint)

    def nonce(self, number: int) -> str:
        """What makes its operations different from one another."""
        return hashlib.sha256(f"{self.handle} says {number}".encode()).hexdigest()

    # --- inside ---------------------------------------------------------------------------------

    def _say(self, op: Operation, loss: Loss | None) -> None:
        self._loss = loss
        self.author.submit(op)

    def _send(self, leaf: bytes) -> Receipt:
        receipt = self._called(lambda: self.hub.submit(leaf))
        before = self.told.acknowledged.setdefault(leaf, receipt.index)
        assert before == receipt.index, f"an entry is at {before} and at {receipt.index}"
        return receipt

    def _called(self, call: Callable[[], T]) -> T:
        """A call over a network that loses, by a process that dies, as planned."""
        loss, self._loss = self._loss, None
        if loss == "before":
            raise CoordinatorUnreachable("test", "lost on the way there")
        if loss == "dies before":
            raise Died
        answer = call()
        if loss == "after":
            raise CoordinatorUnreachable("test", "lost on the way back")
        if loss == "dies after":
            raise Died
        return answer

    def _hear_own(self) -> None:
        """Count what of its own the log has; take the new keys when it has them."""
        self._current = True
        for leaf in read_leaves(self.store, self._heard, self.replica.size):
            op = parse_leaf(leaf).body.op
            if isinstance(op, NodeResumed):
                self._own.add(op.nonce)
        self._heard = self.replica.size
        while self.nonce(self.said) in self._own:
            self.said += 1
        if self._ring_in_force().entry.id != self.author.key:
            self.author.close()
            self._take_pen()

    def _ring_in_force(self) -> KeyRing:
        """The newest keys of its own that the log has enrolled."""
        keys = self.replica.state.keys
        enrolled = [r for r in self._rings if r.entry.id in keys]
        return (enrolled or self._rings)[-1]

    def _take_pen(self) -> None:
        ring = self._ring_in_force()
        self.witness = Witness(ring.witness, self.handle, self.replica)
        self.author = Author(
            ring,
            self.replica,
            self._send,
            self.directory / PEN,
            lambda: self.hub.federation.now_ms,
        )

    def _notes(self) -> tuple[StoredNote, ...]:
        return self.hub.store.checkpoints(self.replica.size)
