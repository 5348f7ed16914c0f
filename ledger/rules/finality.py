"""When a checkpoint is final: whose quorum it needs (docs/formats.md, section 6).

Two sets of witnesses must each have a quorum (``ledger.formats.witness``): those in the state of the final
checkpoint before, and those in the state that the checkpoint itself covers. The first keeps a log from
voting in its own witnesses. The second keeps it from passing over the hospitals that became ready since:
without it a copy whose last final is genesis, where nobody witnesses, would take any signed checkpoint.

Not promised: that the first final of a federation is witnessed by more than the hospitals it names.
"""

from __future__ import annotations

from dataclasses import replace

from ledger.formats.note import VerifierKey
from ledger.formats.witness import QuorumResult, judge_quorum
from ledger.rules.state import State


def witness_keys(state: State, size: int) -> dict[str, frozenset[bytes]]:
    """The public witness keys, 32 bytes each, of who counts at ``size``; organisation -> keys."""
    return {
        organisation: frozenset(bytes.fromhex(key) for key in keys)
        for organisation, keys in state.witnesses_at(size).items()
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
    old = witness_keys(state, before)
    earlier = judge_quorum(note, log, old, origin=origin)
    new = witness_keys(state, earlier.checkpoint.size)
    if new == old:
        return earlier
    return replace(judge_quorum(note, log, new, origin=origin), before=earlier)
