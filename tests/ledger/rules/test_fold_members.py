"""Members, keys and changes in the fold: who counts, since when, and by whose word."""

from __future__ import annotations

import hashlib

import pytest

from ledger.entries.invitation import member_keys
from ledger.entries.operations.federation import (
    Change,
    ChangeEndorsed,
    ChangeProposed,
    Invitation,
    InviteChange,
    Policy,
    PolicyChange,
    RekeyChange,
    Seat,
)
from ledger.entries.operations.log import NodeReady, NodeResumed
from ledger.entries.operations.members import KeyRevoked, KeyRotated
from ledger.errors import NotAdmitted
from ledger.formats.keys import KeyRing, SigningKey, key_id
from ledger.formats.value import replace
from ledger.rules.members import claim_bytes, open_seat
from tests.federation import (
    COORDINATOR,
    HOSPITALS,
    POLICY,
    RESEARCHER,
    Federation,
    node_of,
    one_time_key,
    ring_of,
    steward_of,
)
from tests.federation_log import ed25519

BASEL, BERN, CHUR = (steward_of(name) for name in HOSPITALS[:3])
RESUMED = NodeResumed(type="node.resumed", nonce="0" * 64)


def secret_of(*handles: str) -> SigningKey:
    return SigningKey.from_seed(hashlib.sha256(repr(handles).encode()).digest())


def invitation(organisation: str, *handles: str, role: str = "steward") -> Invitation:
    return Invitation(
        organisation=organisation,
        key=ed25519(secret_of(*handles)),
        seats=tuple(Seat(handle=handle, role=role) for handle in handles),  # type: ignore[arg-type]
    )


def propose(federation: Federation, steward: str, change: Change, void: str | None = None) -> str:
    op = ChangeProposed(type="change.proposed", change=change)
    return federation.say(steward, op, void=void).entry.hash


def endorse(federation: Federation, steward: str, change: str, void: str | None = None) -> None:
    federation.say(steward, ChangeEndorsed(type="change.endorsed", change=change), void=void)


def invite(*handles: str, organisation: str = "zug", role: str = "steward") -> InviteChange:
    return InviteChange(invitation=invitation(organisation, *handles, role=role))


def policy(**changed: int) -> PolicyChange:
    return PolicyChange(policy=replace(POLICY, **changed))


def anew(handle: str, role: str) -> KeyRing:
    """Other keys for a member."""
    other = ring_of(f"{handle} again", role)
    return KeyRing(
        handle=handle,
        role=role,
        entry=other.entry,
        witness=other.witness,
        request=other.request,
        sealing=other.sealing,
        log=None,
    )


def rotation(federation: Federation, ring: KeyRing, by: SigningKey | None = None) -> KeyRotated:
    keys = member_keys(ring)
    claim = claim_bytes(federation.id, ring.handle, keys)
    proof = (by or ring.entry).sign("invitation", claim).hex()
    return KeyRotated(type="key.rotated", keys=keys, proof=proof)


# --- joining --------------------------------------------------------------------------------------


def test_members_take_the_seats_of_genesis_in_their_organisations() -> None:
    federation = Federation.found()
    members = federation.state.members
    assert {m.organisation for m in members.values()} == {*HOSPITALS, "institute", "operator"}
    assert members[COORDINATOR].role == "coordinator"
    assert members[BASEL].organisation == "basel"
    basel = key_id("ed25519", one_time_key("basel").public)
    assert federation.state.invitations[basel].taken == {BASEL, node_of("basel")}
    assert open_seat(federation.state, BASEL, basel) is None


# --- endorsements ---------------------------------------------------------------------------------


def test_a_change_takes_effect_at_the_kth_organisation_and_not_by_one_alone() -> None:
    federation = Federation.found()
    change = propose(federation, BASEL, policy(max_lag=7))
    assert federation.state.policy.max_lag != 7
    endorse(federation, BASEL, change, void="change_spent")
    endorse(federation, BERN, change)
    assert federation.state.policy.max_lag == 7
    assert federation.state.changes[change].effective_at == federation.log.size - 1
    endorse(federation, CHUR, change, void="change_spent")
    endorse(federation, CHUR, "0" * 64, void="unknown_change")


def test_only_stewards_change_a_federation() -> None:
    federation = Federation.found()
    for handle in (COORDINATOR, RESEARCHER, node_of("basel")):
        propose(federation, handle, policy(), void="not_permitted")


def test_two_stewards_of_one_hospital_are_one_organisation() -> None:
    federation = Federation.found()
    second = invite("second", organisation="basel")
    change = propose(federation, BASEL, second)
    endorse(federation, BERN, change)
    join(federation, secret_of("second"), "second", "steward")
    wanted = propose(federation, BASEL, policy(max_lag=9))
    endorse(federation, "second", wanted, void="change_spent")
    endorse(federation, BERN, wanted)
    assert federation.state.policy.max_lag == 9


def join(federation: Federation, one_time: SigningKey, handle: str, role: str) -> None:
    """Take a seat of an invitation that is not of genesis."""
    federation.take(federation.joining_by(one_time, handle, role))
    federation.rings[handle] = ring_of(handle, role)


def test_people_of_a_hospital_that_is_in_need_its_own_endorsement() -> None:
    federation = Federation.found()
    change = propose(federation, BERN, invite("sham", organisation="basel"))
    endorse(federation, CHUR, change)
    endorse(federation, steward_of("davos"), change)
    assert federation.state.changes[change].effective_at is None
    endorse(federation, BASEL, change)
    assert federation.state.changes[change].effective_at is not None


def test_an_invitation_needs_no_more_than_all_who_can_endorse() -> None:
    strict = replace(POLICY, endorsements=5)
    federation = Federation.found(("basel",), policy=strict)
    change = propose(federation, BASEL, invite("zug-steward"))
    assert federation.state.changes[change].effective_at is not None
    other = propose(federation, BASEL, policy(max_lag=3))
    assert federation.state.changes[other].effective_at is None  # a policy needs k, whatever k


@pytest.mark.parametrize(
    "change",
    [
        invite("ada"),
        invite("twice", "twice"),
        invite("sham", organisation="operator"),
        InviteChange(
            invitation=Invitation(
                organisation="zug",
                key=ed25519(one_time_key("basel")),
                seats=(Seat(handle="new", role="node"),),
            ),
        ),
    ],
    ids=["a member's handle", "twice the same", "the coordinator's people", "a key in use"],
)
def test_an_invitation_that_collides_is_void(change: InviteChange) -> None:
    propose(Federation.found(), BASEL, change, void="invitation_conflict")


def test_nobody_invites_others_to_a_seat_that_waits_for_its_owner() -> None:
    federation = Federation.found(HOSPITALS[:2])
    first = propose(federation, BASEL, invite("zug-steward"))
    second = propose(federation, BERN, invite("zug-steward", "x", organisation="bern"))
    endorse(federation, BERN, first)
    endorse(federation, BASEL, second, void="invitation_conflict")
    assert federation.state.changes[second].effective_at is None
    assert federation.state.changes[second].organisations == {"bern"}
    again = propose(federation, BASEL, invite("zug-steward", "y"))  # the file was lost
    endorse(federation, BERN, again)
    assert len(federation.state.invitations) == 5


# --- keys -----------------------------------------------------------------------------------------


def test_a_rotation_ends_the_old_chain_and_begins_a_new_one() -> None:
    federation = Federation.found()
    old, new = federation.rings[BASEL], anew(BASEL, "steward")
    federation.say(BASEL, rotation(federation, new))
    state = federation.state
    assert state.keys[old.entry.id].retired_at == federation.log.size
    assert (state.keys[new.entry.id].next_seq, state.keys[new.entry.id].head) == (0, "0" * 64)
    with pytest.raises(NotAdmitted, match=f"was retired at entry {federation.log.size - 1}"):
        federation.say(BASEL, policy_proposal())
    federation.rings[BASEL] = new
    federation.say(BASEL, policy_proposal())
    assert federation.state.keys[new.entry.id].next_seq == 1
    back = rotation(federation, old)
    federation.say(BASEL, back, void="key_conflict")  # a retired key never comes back


def policy_proposal() -> ChangeProposed:
    return ChangeProposed(type="change.proposed", change=policy(max_lag=11))


def test_a_rotation_needs_the_new_keys_own_signature_and_fitting_keys() -> None:
    federation = Federation.found()
    new = anew(BASEL, "steward")
    federation.say(
        BASEL, rotation(federation, new, by=federation.rings[BASEL].entry), void="bad_proof"
    )
    as_node = rotation(federation, anew(BASEL, "node"))
    federation.say(BASEL, as_node, void="key_conflict")  # a steward with a witness key
    node = node_of("basel")
    federation.say(node, rotation(federation, anew(node, "steward")), void="key_conflict")
    others = anew(BASEL, "steward")
    stolen = KeyRing(
        handle=BASEL,
        role="steward",
        entry=others.entry,
        witness=others.witness,
        request=federation.rings[BERN].request,
        sealing=others.sealing,
        log=None,
    )
    federation.say(BASEL, rotation(federation, stolen), void="key_conflict")


def test_a_rekey_by_k_organisations_gives_a_member_new_keys_without_its_old_ones() -> None:
    federation = Federation.found()
    node = node_of("basel")
    new = anew(node, "node")
    change = RekeyChange(member=node, keys=member_keys(new))
    propose(federation, BERN, RekeyChange(member="no", keys=member_keys(new)),
            void="unknown_member")  # fmt: skip
    wanted = propose(federation, BERN, change)
    late = propose(federation, BERN, change)
    endorse(federation, CHUR, wanted)
    endorse(federation, CHUR, late, void="key_conflict")
    with pytest.raises(NotAdmitted, match="was retired"):
        federation.say(node, RESUMED)
    federation.rings[node] = new
    federation.say(node, RESUMED)
    witnesses = federation.state.witnesses_at(federation.log.size)
    assert witnesses["basel"] == {new.witness.public.hex()}


def test_a_revoked_member_says_nothing_more_until_k_organisations_give_it_keys() -> None:
    federation = Federation.found()
    node = node_of("basel")
    revoke = KeyRevoked(type="key.revoked", member=node, compromised_since_ms=5)
    federation.say(BERN, revoke, void="not_permitted")
    federation.say(RESEARCHER, revoke, void="not_permitted")
    federation.say(BASEL, KeyRevoked(type="key.revoked", member="no", compromised_since_ms=None),
                   void="unknown_member")  # fmt: skip
    federation.say(BASEL, revoke)
    federation.say(BASEL, revoke, void="repeated")
    assert federation.state.members[node].disputed_since_ms == 5
    with pytest.raises(NotAdmitted, match="was retired"):
        federation.say(node, RESUMED)
    assert "basel" not in federation.state.witnesses_at(federation.log.size)
    new = anew(node, "node")
    change = RekeyChange(member=node, keys=member_keys(new))
    endorse(federation, BERN, propose(federation, BASEL, change))
    federation.rings[node] = new
    assert federation.state.members[node].revoked_at is None
    assert federation.state.members[node].disputed_since_ms == 5
    assert "basel" not in federation.state.witnesses_at(federation.log.size)  # not ready yet
    federation.say(node, NodeReady(type="node.ready", protocol=1))
    assert "basel" in federation.state.witnesses_at(federation.log.size)


def test_a_member_revokes_itself_and_a_revoked_steward_no_longer_counts() -> None:
    federation = Federation.found()
    federation.say(BASEL, KeyRevoked(type="key.revoked", member=BASEL, compromised_since_ms=None))
    assert federation.state.organisations_with_steward() == {"bern", "chur", "davos"}


# --- witnesses ------------------------------------------------------------------------------------


def test_who_counts_as_a_witness_is_known_for_every_size_of_the_log() -> None:
    federation = Federation.found(ready=False)
    assert not federation.state.witnesses_at(federation.log.size)
    sizes = []
    for name in HOSPITALS[:2]:
        federation.say(node_of(name), NodeReady(type="node.ready", protocol=1))
        sizes.append(federation.log.size)
    federation.say(node_of("basel"), NodeReady(type="node.ready", protocol=1), void="repeated")
    state = federation.state
    assert set(state.witnesses_at(sizes[0] - 1)) == set()
    assert set(state.witnesses_at(sizes[0])) == {"basel"}
    assert set(state.witnesses_at(sizes[1])) == {"basel", "bern"}
    assert set(state.witnesses_at(10**9)) == {"basel", "bern"}
    federation.say(BASEL, KeyRevoked(
        type="key.revoked", member=node_of("basel"), compromised_since_ms=None))  # fmt: skip
    assert set(federation.state.witnesses_at(federation.log.size)) == {"bern"}
    assert set(federation.state.witnesses_at(sizes[1])) == {"basel", "bern"}


def test_a_policy_is_in_force_from_its_kth_endorsement_on() -> None:
    federation = Federation.found()
    lower = propose(federation, BASEL, policy(endorsements=1))
    endorse(federation, BERN, lower)
    propose(federation, CHUR, PolicyChange(policy=Policy(
        endorsements=3, max_lag=1000, max_delay_ms=1, max_age_ms=1, skew_ms=1)))  # fmt: skip
    assert federation.state.policy.endorsements == 3  # one was enough under the old policy
