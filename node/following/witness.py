"""The node as a witness: it cosigns the newest tree that it verified itself, and only forward.

Promise: what it cosigned is stored before a cosignature leaves the process, and nothing that
contradicts it is cosigned afterwards, restarts included (``LogStore.set_witnessed``). A log whose
time is ahead of this node's clock by more than the federation's skew gets no cosignature. A copy of
the log that is behind what was cosigned is not cosigned either: it was restored from a backup.

Not promised: that others see the same log. That is what counting cosignatures is for.
"""

from __future__ import annotations

from dataclasses import dataclass

from ledger.copies.evidence import FORK, Fork, fork_detected
from ledger.copies.finals import Final
from ledger.copies.replica import Replica
from ledger.formats.checkpoint import cosign, parse_checkpoint
from ledger.formats.keys import SigningKey
from ledger.formats.note import parse_note
from ledger.formats.witness import quorum_size, witness_name
from ledger.rules.experiment_state import Experiment
from ledger.rules.state import State


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A cosignature that may leave: the size of its checkpoint and the signature line."""

    size: int
    line: bytes


class Witness:
    """Cosigns a replica's newest checkpoint, once each. One thread."""

    def __init__(self, key: SigningKey, handle: str, replica: Replica) -> None:
        self._key = key
        self._replica = replica
        self._name = witness_name(replica.origin, handle)
        self._said = 0

    @property
    def due(self) -> bool:
        """Whether there is a checkpoint that this process has not cosigned yet."""
        return self._replica.checkpoint is not None and self._replica.size > self._said

    def cosign(self, now_ms: int) -> Cosigned | None:
        """Cosign the newest checkpoint.

        Args:
            now_ms: this node's clock.

        Returns:
            None when there is nothing new, the log's time is ahead, or the copy is behind what was
            cosigned before.

        Raises:
            ForkDetected: the copy contradicts what this node cosigned; the evidence is kept.
        """
        replica = self._replica
        note = replica.checkpoint
        if note is None or not self.due:
            return None
        state = replica.state
        if state.log_time > now_ms + state.policy.skew_ms:
            return None
        newest = parse_checkpoint(parse_note(note).text)
        before = replica.store.witnessed(replica.origin)
        if before is not None:
            if before.size > newest.size:
                return None
            if replica.root(before.size) != before.root:
                fork = Fork(before.note, note)
                if before.size < newest.size:
                    root = replica.root(before.size)
                    proof = replica.consistency(before.size, newest.size)
                    fork = Fork(before.note, note, before.size, root, proof)
                replica.store.put_conflict(FORK, fork.encode())
                reason = f"the log is not the one cosigned at size {before.size}"
                raise fork_detected(replica.origin, fork, reason)
        line = cosign(note, self._key, self._name, now_ms // 1000)
        replica.store.set_witnessed(
            replica.origin,
            newest.size,
            newest.root,
            note + line,
            expected_size=0 if before is None else before.size,
        )
        self._said = newest.size
        return Cosigned(newest.size, line)

    def forget(self) -> None:
        """The newest cosignature did not arrive: make it again."""
        self._said = 0


def vouched(final: Final, index: int, organisation: str) -> bool:
    """Whether others saw the log with this node's statement that it restarted (docs/privacy.md).

    The quorum must stand without this node's own organisation: min(quorum, w - 1) others, w being the
    witnesses in the state that the final covers. With fewer than three witnesses this excludes nothing,
    and the interface says so.

    Args:
        final: the newest final checkpoint.
        index: of the ``node.resumed`` entry.
        organisation: this node's.
    """
    quorum = final.quorum
    if quorum is None or final.size <= index:
        return False
    witnesses = len(quorum.missing | quorum.signed.keys())
    others = len(quorum.signed.keys() - {organisation})
    return others >= min(quorum.needed, witnesses - 1)


def others_suffice(state: State, final_size: int, organisation: str) -> bool:
    """Whether a checkpoint can become final without this organisation's cosignature."""
    for size in (final_size, state.size):
        witnesses = state.witnesses_at(size)
        others = len(witnesses) - (organisation in witnesses)
        if others < quorum_size(len(witnesses)):
            return False
    return True


def awaits_final(state: State, final_size: int) -> bool:
    """Whether somebody's permission waits for a final checkpoint, so that a cosignature is urgent.

    Rounds that are under way run on signed checkpoints; cosignatures for them may be gathered.
    """
    return any(_awaits(e, final_size) for e in state.experiments.values())


def _awaits(experiment: Experiment, final_size: int) -> bool:
    if experiment.status == "completed":
        return True
    if experiment.ended:
        return False
    if any(a.index >= final_size for a in experiment.approvals.values()):
        return True
    return any(
        held.index >= final_size and not held.used for held in experiment.reservations.values()
    )
