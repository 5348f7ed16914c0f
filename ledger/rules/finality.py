"""When a checkpoint is final: whose quorum it needs (docs/formats.md, section 6).

Two sets of witnesses must each have a quorum (``ledger.formats.witness``): those in the state of the final
checkpoint before, and those in the state that the checkpoint itself covers. The first keeps a log from
voting in its own witnesses. The second keeps it from passing over the hospitals that became ready since:
without it a copy whose last final is genesis, where nobody witnesses, would take any signed checkpoint.

Both count keys in one way: those that an organisation's nodes witness with in the state which the checkpoint
covers. A key that was rotated away, revoked or ended by evidence before makes nothing final, whoever holds
it now. So the sets differ in the organisations alone, and the answer rests on the log up to the checkpoint
and on the size of the final before: what comes later changes no reader's mind.

Not promised: that the first final of a federation is witnessed by more than the hospitals it names.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ledger.formats.checkpoint import open_checkpoint
from ledger.formats.note import VerifierKey
from ledger.formats.witness import QuorumResult, judge_quorum, quorum_size
from ledger.rules.state import State


@dataclass(frozen=True, slots=True)
class QuorumStanding:
    """Whether checkpoints can become final at all, as far as the log itself says.

    Attributes:
        witnesses: organisations whose quorum the next final checkpoint needs, at the final before.
        needed: how many of them.
        able: those of which a node still holds a witness key that counted there.
    """

    witnesses: frozenset[str]
    needed: int
    able: frozenset[str]

    @property
    def lost(self) -> bool:
        """Nothing becomes final, whoever cosigns."""
        return len(self.able) < self.needed

    @property
    def in_words(self) -> str | None:
        """What to say of it, and what to do; None while one more witness may be lost."""
        gone = ", ".join(sorted(self.witnesses - self.able))
        if self.lost:
            return (
                f"the witness quorum is lost: {self.needed} of {len(self.witnesses)} hospitals must "
                f"cosign, and {gone} no longer can; nothing becomes final until stewards of k "
                "organisations give their nodes new keys (consilium member rekey) or expel them "
                "(consilium federation expel). Where fewer than k are left, or the old keys are in "
                "doubt, the log is succeeded: consilium federation succeed propose"
            )
        if gone and len(self.able) == self.needed:
            return (
                f"the witness quorum has nobody to spare: {gone} no longer cosigns, and all of the "
                f"other {self.needed} must"
            )
        return None


def standing_quorum(state: State, final_size: int) -> QuorumStanding:
    """Who can still make a checkpoint final, given who counted at the last one.

    A hospital of the final checkpoint before whose nodes are all revoked keeps its place, and cannot fill
    it until it has new keys. A hospital that is merely silent is not told apart here: the log does not
    know it.

    Args:
        state: of the whole log.
        final_size: size of the last final checkpoint.
    """
    counted = earlier_witness_keys(state, final_size, state.size)
    live = {
        bytes.fromhex(member.keys.witness.public)
        for member in state.members.values()
        if member.keys.witness is not None and member.revoked_at is None
    }
    able = frozenset(name for name, keys in counted.items() if not keys.isdisjoint(live))
    return QuorumStanding(frozenset(counted), quorum_size(len(counted)), able)


def witness_keys(state: State, size: int) -> dict[str, frozenset[bytes]]:
    """The public witness keys, 32 bytes each, of who counts at ``size``; organisation -> keys."""
    return {
        organisation: frozenset(bytes.fromhex(key) for key in keys)
        for organisation, keys in state.witnesses_at(size).items()
    }


def earlier_witness_keys(state: State, before: int, size: int) -> dict[str, frozenset[bytes]]:
    """The keys of those who counted at the final checkpoint before, for one that covers ``size``.

    A hospital keeps its place when its node gets other keys, by its own rotation or by k organisations,
    and fills it with the new ones alone; without any it keeps a place that it cannot fill. One that k
    organisations expelled since the final before has none, also when it was invited again. Without
    either, three hospitals of which one changed its keys could never make a checkpoint final again.
    """
    now = witness_keys(state, size)
    expelled = {
        member.organisation
        for member in state.members.values()
        if member.expelled_at is not None and before <= member.expelled_at < size
    }
    return {
        organisation: now.get(organisation, frozenset())
        for organisation in state.witnesses_at(before)
        if organisation not in expelled
    }


def judge_final(
    note: bytes, log: VerifierKey, state: State, *, before: int, origin: str | None = None
) -> QuorumResult:
    """Count the cosignatures of a checkpoint under both sets of witnesses.

    Args:
        note: the checkpoint note as received.
        log: the log's key.
        state: of a log that holds at least what the checkpoint covers.
        before: size of the final checkpoint before; 1 for genesis.
        origin: the origin expected; by default the log key's name.

    Returns:
        Who of the covered state's witnesses signed; ``before`` in it is of those at the final before,
        where they are others.

    Raises:
        MalformedInput, BadSignature, UnknownKey: as in ``judge_quorum``.
    """
    size = open_checkpoint(note, log, origin=origin).size
    old = earlier_witness_keys(state, before, size)
    earlier = judge_quorum(note, log, old, origin=origin)
    new = witness_keys(state, size)
    if new == old:
        return earlier
    return replace(judge_quorum(note, log, new, origin=origin), before=earlier)
