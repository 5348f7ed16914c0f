"""Rules for the protocol itself: a newer version takes effect when enough hospitals can read it.

Nodes say with ``node.ready`` which version their software knows. ``protocol.activated`` takes effect
at its index when a finality quorum of the witnessing organisations has said so for all its nodes; from
the next entry on, the newer version's rules hold (``fold.PROTOCOLS``). A copy whose software does not
know them goes on storing and witnessing, and reads and does nothing more until it is upgraded.
"""

from __future__ import annotations

from collections.abc import Iterable

from ledger.entries.operations.log import ProtocolActivated
from ledger.formats.witness import quorum_size
from ledger.rules.state import State, replace
from ledger.rules.verdict import Step, Void


def activated(state: State, step: Step, op: ProtocolActivated) -> State | Void:
    """Newer than what holds, and a finality quorum is ready for it."""
    if op.version <= state.protocol:
        return Void("repeated")
    if not _has_quorum(state, op.version):
        return Void("not_ready")
    return replace(state, protocol=op.version)


def ready_for(state: State, version: int) -> frozenset[str]:
    """The witnessing organisations whose nodes all said that they know a version."""
    lagging = {
        member.organisation
        for member in state.members.values()
        if member.ready and member.revoked_at is None and member.protocol < version
    }
    return frozenset(state.witnesses[-1].organisations) - lagging


def activation_due(state: State, known: Iterable[int]) -> int | None:
    """The newest version among those known that would take effect if it were activated now."""
    newer = (version for version in known if version > state.protocol)
    return max((version for version in newer if _has_quorum(state, version)), default=None)


def _has_quorum(state: State, version: int) -> bool:
    needed = max(1, quorum_size(len(state.witnesses[-1].organisations)))
    return len(ready_for(state, version)) >= needed
