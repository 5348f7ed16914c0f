"""Rules for members, keys and the federation's own changes.

A change takes effect at the k-th endorsement by distinct organisations under the policy in force at
that index. Organisations count once each; the coordinator's counts for none, since only stewards
endorse and a coordinator is none. People of an organisation that is in already need that
organisation among the endorsers. An organisation that is to be expelled is not asked.
"""

from __future__ import annotations

from immutables import Map

from ledger.entries.operations.federation import (
    Change,
    ChangeEndorsed,
    ChangeProposed,
    ChangeWithdrawn,
    ExpelChange,
    Invitation,
    InviteChange,
    PolicyChange,
    RekeyChange,
    WithdrawChange,
)
from ledger.entries.operations.log import NodeReady
from ledger.entries.operations.members import KeyRevoked, KeyRotated, MemberJoined, MemberKeys
from ledger.entries.operations.values import Hash, Slug, Value
from ledger.formats.keys import key_id, verify
from ledger.formats.strict import canonical
from ledger.rules.cards import bind_card
from ledger.rules.state import (
    KeyState,
    Member,
    OpenInvitation,
    PendingChange,
    State,
    WitnessEpoch,
    replace,
)
from ledger.rules.verdict import Step, Void


class SeatClaim(Value):
    """What a one-time invitation key signs (kind ``invitation``), and a new key when rotating."""

    federation: Hash
    handle: Slug
    keys: MemberKeys


def claim_bytes(federation: str, handle: str, keys: MemberKeys) -> bytes:
    """Canonical bytes of a `SeatClaim`."""
    return canonical(SeatClaim(federation=federation, handle=handle, keys=keys))


def open_seat(state: State, handle: str, invitation: str) -> OpenInvitation | None:
    """The open invitation with a free seat for that handle, if there is one."""
    found = state.invitations.get(invitation)
    if found is None or handle not in found.free or handle in state.members:
        return None
    return found


def joined(state: State, step: Step, op: MemberJoined) -> State | Void:
    """Admission has checked the seat and the proof; a key already in use is refused here too."""
    body = step.entry.body
    found = open_seat(state, body.author, op.invitation)
    if found is None:
        return Void("invitation_conflict")
    seat = next(s for s in found.invitation.seats if s.handle == body.author)
    if not keys_fit(state, seat.role, op.keys):
        return Void("key_conflict")
    member = Member(
        handle=body.author,
        organisation=found.invitation.organisation,
        role=seat.role,
        keys=op.keys,
        joined_at=step.index,
        card=op.card,
    )
    state = bind_card(state, op.card, member.organisation, member=body.author)
    return replace(
        state,
        members=state.members.set(body.author, member),
        keys=state.keys.set(
            body.key, KeyState(body.author, op.keys.entry.public, 1, step.entry.hash)
        ),
        invitations=state.invitations.set(
            op.invitation, replace(found, taken=found.taken | {body.author})
        ),
    )


def change_proposed(state: State, step: Step, op: ChangeProposed) -> State | Void:
    """A proposal counts as the proposer's organisation's endorsement."""
    refused = _refusal(state, op.change)
    if refused is not None:
        return refused
    pending = PendingChange(op.change, step.author, frozenset())
    return _endorse(state, step, step.entry.hash, pending)


def change_endorsed(state: State, step: Step, op: ChangeEndorsed) -> State | Void:
    """One more organisation stands behind a change."""
    pending = state.changes.get(op.change)
    if pending is None:
        return Void("unknown_change")
    return _endorse(state, step, op.change, pending)


def change_withdrawn(state: State, step: Step, op: ChangeWithdrawn) -> State | Void:
    """It is as if it had never been proposed; nobody can endorse it any more."""
    pending = state.changes.get(op.change)
    if pending is None:
        return Void("unknown_change")
    proposer = state.members[pending.proposed_by]
    if state.members[step.author].organisation != proposer.organisation:
        return Void("not_owner")
    if pending.effective_at is not None:
        return Void("change_spent")
    return replace(state, changes=state.changes.delete(op.change))


def key_rotated(state: State, step: Step, op: KeyRotated) -> State | Void:
    """The old chain ends here; the new key's begins at 0."""
    body = step.entry.body
    public = bytes.fromhex(op.keys.entry.public)
    claim = claim_bytes(state.federation, body.author, op.keys)
    if not verify(public, "invitation", claim, bytes.fromhex(op.proof)):
        return Void("bad_proof")
    if not keys_fit(state, state.members[body.author].role, op.keys):
        return Void("key_conflict")
    return _rekey(state, step.index, body.author, op.keys)


def key_revoked(state: State, step: Step, op: KeyRevoked) -> State | Void:
    """A member's own hospital, or the member itself, ends its keys at once."""
    author = state.members[step.author]
    member = state.members.get(op.member)
    if member is None:
        return Void("unknown_member")
    own = author.handle == op.member
    by_steward = author.role == "steward" and author.organisation == member.organisation
    if not (own or by_steward):
        return Void("not_permitted")
    if member.revoked_at is not None:
        return Void("repeated")
    gone = replace(
        member, revoked_at=step.index, ready=False, disputed_since_ms=op.compromised_since_ms
    )
    state = replace(
        state,
        members=state.members.set(op.member, gone),
        keys=_retire(state, op.member, step.index),
    )
    return recount_witnesses(state)


def node_ready(state: State, step: Step, op: NodeReady) -> State | Void:
    """From the next entry on, the node's organisation counts in the witness quorum.

    Said again after an upgrade, with a newer version: what ``protocol.activated`` counts.
    """
    member = state.members[step.author]
    if member.ready and op.protocol <= member.protocol:
        return Void("repeated")
    ready = replace(member, ready=True, protocol=max(op.protocol, member.protocol))
    return recount_witnesses(replace(state, members=state.members.set(step.author, ready)))


def noted(state: State, step: Step, op: Value) -> State | Void:
    """A statement that changes nothing but the record."""
    return state


def keys_fit(state: State, role: str, keys: MemberKeys) -> bool:
    """Whether a member of that role may enrol these keys: a node, and only a node, can witness."""
    return (keys.witness is not None) == (role == "node") and not keys_in_use(state, keys)


def keys_in_use(state: State, keys: MemberKeys) -> bool:
    """Whether any of these keys repeats another, is some member's, or was an entry key or a witness.

    A former witness's key counted for its hospital. Enrolled for another one, it would be two hospitals'
    at once in what a quorum is counted from, and nothing could become final.
    """
    new = [k.public for k in (keys.entry, keys.request, keys.sealing, keys.witness) if k]
    if len(set(new)) != len(new):
        return True
    if key_id(keys.entry.alg, bytes.fromhex(keys.entry.public)) in state.keys:
        return True
    taken = {state.log_key.public}
    for member in state.members.values():
        held = member.keys
        taken.update(k.public for k in (held.entry, held.request, held.sealing, held.witness) if k)
    for epoch in state.witnesses:
        taken.update(*epoch.organisations.values())
    return not taken.isdisjoint(new)


def _endorse(state: State, step: Step, change_id: str, pending: PendingChange) -> State | Void:
    organisation = state.members[step.author].organisation
    change = pending.change
    if isinstance(change, ExpelChange) and change.organisation == organisation:
        return Void("not_permitted")
    if pending.effective_at is not None or organisation in pending.organisations:
        return Void("change_spent")
    pending = replace(pending, organisations=pending.organisations | {organisation})
    if _has_enough(state, pending):
        pending = replace(pending, effective_at=step.index)
        changed = _take_effect(state, step.index, change)
        if isinstance(changed, Void):
            return changed
        state = changed
    return replace(state, changes=state.changes.set(change_id, pending))


def _has_enough(state: State, pending: PendingChange) -> bool:
    needed = state.policy.endorsements
    change = pending.change
    if isinstance(change, InviteChange):
        admitted = state.organisations_with_steward()
        needed = min(needed, len(admitted))
        home = change.invitation.organisation
        if home in admitted and home not in pending.organisations:
            return False
    return len(pending.organisations) >= needed


def _take_effect(state: State, index: int, change: Change) -> State | Void:
    """What was possible when it was proposed may not be by now: then the endorsement is void."""
    refused = _refusal(state, change)
    if refused is not None:
        return refused
    if isinstance(change, PolicyChange):
        return replace(state, policy=change.policy)
    if isinstance(change, InviteChange):
        invitation = change.invitation
        kid = key_id(invitation.key.alg, bytes.fromhex(invitation.key.public))
        return replace(state, invitations=state.invitations.set(kid, OpenInvitation(invitation)))
    if isinstance(change, WithdrawChange):
        gone = replace(state.invitations[change.invitation], withdrawn_at=index)
        return replace(state, invitations=state.invitations.set(change.invitation, gone))
    if isinstance(change, ExpelChange):
        return _expel(state, index, change.organisation)
    return _rekey(state, index, change.member, change.keys)


def _refusal(state: State, change: Change) -> Void | None:
    """Why a change cannot take effect in this state, or None."""
    if isinstance(change, InviteChange) and not _invitation_is_free(state, change.invitation):
        return Void("invitation_conflict")
    if isinstance(change, RekeyChange):
        member = state.members.get(change.member)
        if member is None:
            return Void("unknown_member")
        if member.expelled_at is not None:
            return Void("organisation_expelled")
        if not keys_fit(state, member.role, change.keys):
            return Void("key_conflict")
    if isinstance(change, WithdrawChange):
        found = state.invitations.get(change.invitation)
        if found is None or not found.free:
            return Void("unknown_invitation")
    if isinstance(change, ExpelChange):
        people = [m for m in state.members.values() if m.organisation == change.organisation]
        if not people or any(m.handle == state.coordinator for m in people):
            return Void("unknown_organisation")
        if all(m.expelled_at is not None for m in people):
            return Void("organisation_expelled")
    return None


def _expel(state: State, index: int, organisation: str) -> State:
    """Its keys, invitations and datasets end here; it stands behind nothing that is not in force."""
    members, keys = state.members, state.keys
    for handle, member in state.members.items():
        if member.organisation == organisation and member.expelled_at is None:
            gone = index if member.revoked_at is None else member.revoked_at
            member = replace(member, revoked_at=gone, expelled_at=index, ready=False)
            members = members.set(handle, member)
            keys = _retire(replace(state, keys=keys), handle, index)
    invitations = state.invitations
    for kid, held in state.invitations.items():
        if held.invitation.organisation == organisation and held.free:
            invitations = invitations.set(kid, replace(held, withdrawn_at=index))
    datasets = state.datasets
    for name, dataset in state.datasets.items():
        if dataset.organisation == organisation and dataset.withdrawn_at is None:
            datasets = datasets.set(name, replace(dataset, withdrawn_at=index))
    changes = state.changes
    for change, pending in state.changes.items():
        if pending.effective_at is None and organisation in pending.organisations:
            left = pending.organisations - {organisation}
            changes = changes.set(change, replace(pending, organisations=left))
    state = replace(
        state,
        members=members,
        keys=keys,
        invitations=invitations,
        datasets=datasets,
        changes=changes,
    )
    return recount_witnesses(state)


def _invitation_is_free(state: State, invitation: Invitation) -> bool:
    handles = [seat.handle for seat in invitation.seats]
    if len(set(handles)) != len(handles):
        return False
    kid = key_id(invitation.key.alg, bytes.fromhex(invitation.key.public))
    if kid in state.invitations or any(h in state.members for h in handles):
        return False
    # An organisation may replace its own lost invitation; nobody else's handles are for it.
    for other in state.invitations.values():
        if other.invitation.organisation != invitation.organisation and not (
            other.free.isdisjoint(handles)
        ):
            return False
    coordinator = state.members[state.coordinator]
    return invitation.organisation != coordinator.organisation


def _rekey(state: State, index: int, handle: str, keys: MemberKeys) -> State:
    member = state.members[handle]
    kid = key_id(keys.entry.alg, bytes.fromhex(keys.entry.public))
    retired = _retire(state, handle, index)
    state = replace(
        state,
        members=state.members.set(handle, replace(member, keys=keys, revoked_at=None)),
        keys=retired.set(kid, KeyState(handle, keys.entry.public, 0, "0" * 64)),
    )
    return recount_witnesses(state)


def _retire(state: State, handle: str, index: int) -> Map[str, KeyState]:
    keys = state.keys
    for kid, held in state.keys.items():
        if held.member == handle and held.retired_at is None:
            keys = keys.set(kid, replace(held, retired_at=index + 1))
    return keys


def recount_witnesses(state: State) -> State:
    """Begin a new epoch where other organisations or keys count in the quorum than before."""
    organisations: dict[str, frozenset[str]] = {}
    for member in state.members.values():
        if member.ready and member.revoked_at is None and member.keys.witness is not None:
            held = organisations.get(member.organisation, frozenset())
            organisations[member.organisation] = held | {member.keys.witness.public}
    current = Map(organisations)
    if current == state.witnesses[-1].organisations:
        return state
    epoch = WitnessEpoch(state.size, current)
    kept = tuple(e for e in state.witnesses if e.size != state.size)
    return replace(state, witnesses=(*kept, epoch))
