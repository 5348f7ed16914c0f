"""Changes of a federation that attacks propose: an invitation, a policy, an organisation put out."""

from __future__ import annotations

from ledger.entries.operations.federation import (
    ChangeEndorsed,
    ChangeProposed,
    ExpelChange,
    Invitation,
    InviteChange,
    PolicyChange,
    Seat,
    WithdrawChange,
)
from ledger.entries.operations.values import PublicKey
from ledger.formats.keys import key_id
from ledger.formats.value import replace
from tests.adversary.world import World
from tests.federation import POLICY, one_time_key


def invite(organisation: str, *handles: str) -> ChangeProposed:
    """An invitation for an organisation's nodes."""
    invitation = Invitation(
        organisation=organisation,
        key=PublicKey(alg="ed25519", public=one_time_key(organisation).public.hex()),
        seats=tuple(Seat(handle=handle, role="node") for handle in handles),
    )
    return ChangeProposed(type="change.proposed", change=InviteChange(invitation=invitation))


def withdraw(organisation: str) -> ChangeProposed:
    """What `invite` said is taken back."""
    kid = key_id("ed25519", one_time_key(organisation).public)
    return ChangeProposed(type="change.proposed", change=WithdrawChange(invitation=kid))


def expulsion(organisation: str) -> ChangeProposed:
    """An organisation is put out."""
    change = ExpelChange(organisation=organisation)
    return ChangeProposed(type="change.proposed", change=change)


def weak_policy() -> ChangeProposed:
    """From now on one endorsement is enough."""
    policy = replace(POLICY, endorsements=1)
    return ChangeProposed(type="change.proposed", change=PolicyChange(policy=policy))


def endorsement(change: str) -> ChangeEndorsed:
    """A yes to the change of this hash."""
    return ChangeEndorsed(type="change.endorsed", change=change)


def endorsed(world: World, change: ChangeProposed, *stewards: str) -> None:
    """Propose and endorse a change, one steward after another."""
    first, *others = stewards
    said = world.federation.say(first, change).entry
    for steward in others:
        world.federation.say(steward, endorsement(said.hash))
